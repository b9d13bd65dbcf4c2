"""What only old programs need: the older helpers of ``distributed.core``, and standing in for it.

Nothing else in fastcore is built on this room.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import logging
import pickle
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from tornado.iostream import IOStream

from fastcore._framing import SENTINEL
from fastcore.addressing import Address, AddressLike, format_address, parse_address
from fastcore.client.rpc import rpc, send_recv
from fastcore.client.synchronous import SyncClient
from fastcore.remote_errors import error_reply, remote_exception
from fastcore.transport.event_loop import current_io_loop, waiting_loop

__all__ = [
    "clean_exception",
    "coerce_to_address",
    "coerce_to_rpc",
    "dumps",
    "error_message",
    "handle_signal",
    "install_as_distributed_core",
    "ip_port_from_args",
    "loads",
    "logger",
    "pingpong",
    "send_recv_sync",
    "sentinel",
]

logger = logging.getLogger("fastcore")

#: What separates messages, by its old name.
sentinel = SENTINEL


def dumps(x: object) -> bytes:
    """Turn any object, functions included, into bytes: a helper for callers.

    fastcore itself never puts such bytes on the wire, and never loads any.

    Parameters
    ----------
    x : object
        What cloudpickle can express.

    Returns
    -------
    bytes

    Raises
    ------
    ImportError
        If cloudpickle isn't installed.

    Examples
    --------
    >>> loads(dumps(lambda x: x + 1))(1)
    2
    """
    try:
        import cloudpickle
    except ImportError as error:
        raise ImportError("dumps needs cloudpickle: pip install 'fastcore-rpc[cloudpickle]'") from error
    try:
        pickled: bytes = cloudpickle.dumps(x, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:
        logger.info("failed to serialize a %s", type(x).__name__, exc_info=True)
        raise
    return pickled


def loads(x: bytes) -> Any:
    """Load what :func:`dumps` made. Whoever made the bytes can run any code here.

    Parameters
    ----------
    x : bytes
        Of a source that you trust.

    Returns
    -------
    object

    Examples
    --------
    See :func:`dumps`.
    """
    try:
        return pickle.loads(x)
    except Exception:
        logger.info("failed to deserialize %d bytes", len(x), exc_info=True)
        raise


def ip_port_from_args(
    arg: AddressLike | None = None,
    addr: AddressLike | None = None,
    ip: str | bytes | None = None,
    port: int | None = None,
) -> Address:
    """Read an address, whichever way it was given.

    Parameters
    ----------
    arg, addr, ip, port : optional
        As :class:`fastcore.rpc` takes them.

    Returns
    -------
    tuple of (str, int)

    Raises
    ------
    ValueError
        If there is no address in what was given, or more than one.

    Examples
    --------
    >>> ip_port_from_args(addr=b'127.0.0.1:8786')
    ('127.0.0.1', 8786)
    """
    return parse_address(arg, addr=addr, ip=ip, port=port)


def coerce_to_address(o: AddressLike, out: type = str) -> str | Address:
    """Write an address in one form.

    Parameters
    ----------
    o : str, bytes, tuple or list
        ``'ip:port'`` or ``(ip, port)``.
    out : type
        ``str`` for ``'ip:port'``, ``tuple`` for ``(ip, port)``.

    Returns
    -------
    str or tuple

    Examples
    --------
    >>> coerce_to_address([b'127.0.0.1', 8786])
    '127.0.0.1:8786'
    >>> coerce_to_address('127.0.0.1:8786', out=tuple)
    ('127.0.0.1', 8786)
    """
    address = parse_address(o)
    return format_address(address) if out is str else address


def coerce_to_rpc(o: AddressLike | IOStream | rpc, **kwargs: Any) -> rpc:
    """Give an :class:`fastcore.rpc` to whatever names a server.

    Parameters
    ----------
    o : str, bytes, tuple, list, IOStream or fastcore.rpc
        An address, an open stream, or an rpc, which is given back as it is.
    **kwargs
        As :class:`fastcore.rpc` takes them.

    Returns
    -------
    fastcore.rpc

    Raises
    ------
    TypeError
        If it is none of these.

    Examples
    --------
    >>> coerce_to_rpc(('127.0.0.1', 8786)).address
    '127.0.0.1:8786'
    """
    if isinstance(o, rpc):
        return o
    if isinstance(o, IOStream):
        return rpc(stream=o, **kwargs)
    return rpc(o, **kwargs)


def error_message(e: BaseException, status: str = "error") -> dict[str, Any]:
    """Describe an exception in a message of plain values.

    Parameters
    ----------
    e : BaseException
        The exception.
    status : str
        The message's ``'status'``.

    Returns
    -------
    dict
        With the keys ``status``, ``exception`` and ``traceback``.

    Examples
    --------
    >>> error_message(ValueError('no'))['status']
    'error'
    """
    return {**error_reply(e), "status": status}


def clean_exception(
    exception: object, traceback: object = None, **kwargs: Any
) -> tuple[type[BaseException], BaseException, None]:
    """Make the exception that an error message tells of, ready to be raised.

    Parameters
    ----------
    exception : dict or BaseException
        Of the message. A pickle, as distributed 1.10 to 1.13 sent it, isn't read: it
        becomes a :class:`fastcore.RemoteError` that says so.
    traceback : str, optional
        Of the message; it becomes a note of the exception.
    **kwargs
        The message's other keys, which don't matter.

    Returns
    -------
    tuple
        Type, exception, and None: a traceback doesn't cross the wire.

    Examples
    --------
    >>> clean_exception(**error_message(ValueError('no')))[:2]
    (<class 'ValueError'>, ValueError('no'))
    """
    if not isinstance(exception, BaseException):
        reply = {"exception": exception, "traceback": traceback}
        exception = remote_exception(reply, peer="its sender", op=kwargs.get("op"))
    return type(exception), exception, None


def pingpong(stream: IOStream) -> bytes:
    """Answer ``b'pong'``: a handler to see whether a server is there.

    Examples
    --------
    >>> from fastcore import Server
    >>> server = Server({'ping': pingpong})
    """
    return b"pong"


def send_recv_sync(
    stream: IOStream | None = None,
    ip: str | bytes | None = None,
    port: int | None = None,
    reply: bool = True,
    **kwargs: Any,
) -> Any:
    """Send one request and wait for its reply.

    By a :class:`fastcore.SyncClient`. Where this thread has a loop that isn't running, or the
    stream belongs to one, that runs meanwhile: a server in it goes on.

    Parameters
    ----------
    stream, ip, port, reply, **kwargs
        As :func:`fastcore.send_recv` takes them.

    Returns
    -------
    object
        The reply.

    Raises
    ------
    RuntimeError
        If the loop of the stream is running.

    Examples
    --------
    >>> send_recv_sync(ip='127.0.0.1', port=8786, op='ping')  # doctest: +SKIP
    b'pong'
    """
    loop = waiting_loop() if stream is None else stream.io_loop
    if loop is None:
        where = {key: kwargs.pop(key) for key in ("arg", "addr") if key in kwargs}
        with SyncClient(ip=ip, port=port, **where) as remote:
            return remote._calls.call(kwargs.pop("op", None), {**kwargs, "reply": reply}, None)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError(
            "send_recv_sync would stop the event loop that runs here: use `await send_recv(...)`"
        )
    return loop.run_sync(lambda: send_recv(stream=stream, ip=ip, port=port, reply=reply, **kwargs))


def handle_signal(sig: int, frame: FrameType | None) -> None:
    """Stop the current loop: a handler for ``signal.signal``.

    Examples
    --------
    >>> import signal
    >>> previous = signal.signal(signal.SIGTERM, handle_signal)
    >>> previous = signal.signal(signal.SIGTERM, previous)
    """
    loop = current_io_loop()
    # A signal doesn't wake a loop that waits for its sockets; this does.
    loop.asyncio_loop.call_soon_threadsafe(loop.stop)  # type: ignore[attr-defined]


def install_as_distributed_core() -> None:
    """Stand in for ``distributed.core``: importing that gives fastcore from now on.

    Where a classic ``distributed`` is installed, its other modules run on fastcore. Where
    there is none, or a later one, whose modules need the core of their own release, a
    package ``distributed`` appears that has nothing but ``core``. It holds for this process
    and for those that it forks. One that ``multiprocessing`` spawns runs the main module
    anew: it holds there if the call is at the top of that.

    Raises
    ------
    RuntimeError
        If another ``distributed.core`` was imported already.

    Examples
    --------
    >>> import fastcore
    >>> fastcore.install_as_distributed_core()  # doctest: +SKIP
    >>> from distributed.core import read, write  # doctest: +SKIP
    """
    present = sys.modules.get(_CORE)
    if present is not None and present is not _fastcore():
        raise RuntimeError(
            f"distributed.core was already imported, from {getattr(present, '__file__', 'somewhere')}; "
            "call install_as_distributed_core() before anything imports distributed"
        )
    if not any(isinstance(finder, _StandIn) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StandIn())


_PACKAGE = "distributed"
_CORE = "distributed.core"


def _fastcore() -> ModuleType:
    return sys.modules["fastcore"]


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds fastcore where ``distributed.core`` is looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _CORE:
            return ModuleSpec(fullname, self)
        if fullname == _PACKAGE and not self._finds_a_classic_package():
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def _finds_a_classic_package(self) -> bool:
        # Not asked before it is imported: a program may extend sys.path itself.
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(_PACKAGE, None) for finder in others)), None)
        folders = spec.submodule_search_locations if spec is not None else None
        # Later releases keep their transports in a package `comm`, and their core needs it.
        return bool(folders) and not any(Path(folder, "comm").is_dir() for folder in folders or ())

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == _CORE:
            # The import system gives whatever stands here once a module has run.
            sys.modules[_CORE] = _fastcore()
