"""Servers inside of a cluster's workers: a plugin that starts them, and where they are."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import distributed.worker
from distributed import Client, Status, Worker, WorkerPlugin
from distributed.comm.addressing import get_address_host
from distributed.protocol.pickle import dumps, loads
from tornado.iostream import IOStream

from fastcore._futures import unobserved
from fastcore.addressing import format_address
from fastcore.dask.registry import TELL_END, Entry, have_the_gone_forgotten, lookup, publish
from fastcore.logs import get_logger, in_one_line, shown
from fastcore.server.server import Server
from fastcore.server.service import Handler
from fastcore.transport.streams import write
from fastcore.transport.tornado import channel_of

__all__ = ["ServerPlugin", "addresses"]

logger = get_logger("fastcore.dask")

#: Where ``distributed.get_worker()`` looks. No promised name: without it, handlers can't ask so.
_worker_cvar: Any = getattr(distributed.worker, "_worker_cvar", None)
_WILDCARDS = ("", "0.0.0.0", "::")
#: Seconds that callers have to take notice that a server is about to end.
_NOTICE_PERIOD = 0.5


class _Running:
    """The server of one worker, and who wants to know of its end."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self._told: set[IOStream] = set()
        server.handlers[TELL_END] = self._tell_end

    def _tell_end(self, stream: IOStream) -> None:
        # Nothing waits for it meanwhile, which would count as a request that runs.
        self._told.add(stream)
        channel_of(stream).add_end_callback(functools.partial(self._told.discard, stream))

    async def end(self, deadline: float) -> None:
        """End the server when those who call it have taken notice, and their calls are over."""
        if self._told:
            until = time.monotonic() + min(_NOTICE_PERIOD, deadline)
            for stream in [*self._told]:
                write(stream, "the server is about to end").add_done_callback(unobserved)
            # They close it.
            while self._told and time.monotonic() < until:
                await asyncio.sleep(0.01)
            # For what they sent before.
            await asyncio.sleep(0.01)
        await self.server.shutdown(deadline)


class ServerPlugin(WorkerPlugin):
    """Starts a server of the program's own in each worker of a Dask cluster.

    Workers that come later, or come back, get theirs as they start; it ends with its worker, or
    when the plugin is unregistered. To register another one under the same name replaces it. One
    that can't start fails ``register_plugin``, with an error that names the worker.

    The handlers run in the worker's event loop, beside what Dask does there: one that computes
    for long belongs into a thread (``asyncio.to_thread``), or into a task. They may call
    ``distributed.get_worker()``.

    Parameters
    ----------
    served : dict of str to callable, or callable
        Handlers, as :class:`fastcore.Server` takes them; or what gives a server when it is
        called in a worker, such as a subclass of Server.
    name : str
        The name it is registered under, where ``register_plugin`` isn't given one.
    host : str, optional
        Where to listen; if left out, at the address by which others reach the worker, and no
        other. ``'0.0.0.0'`` is every interface.
    port : int or iterable of int
        The first of these that is free; 0 is any.
    deadline : float
        Seconds for handlers that run when the server is to end. A nanny waits for its worker
        some four seconds.
    **options
        For the Server, or for what is called in its place. Without ``ssl_options``, the server
        of a worker that listens with TLS has the cluster's certificates: it is reached by who
        has one of them. ``ssl_options`` is a dict, as Tornado takes it, since a context can't
        be sent.

    Examples
    --------
    >>> from distributed import Client, LocalCluster
    >>> import fastcore.dask
    >>> with (
    ...     LocalCluster(n_workers=2, processes=False, dashboard_address=':0') as cluster,
    ...     Client(cluster) as client,
    ... ):
    ...     handlers = {'add': lambda stream, x, y: x + y}
    ...     registered = client.register_plugin(fastcore.dask.ServerPlugin(handlers))
    ...     with fastcore.dask.rpc(client) as remote:
    ...         print(remote.add(x=1, y=2))
    3
    """

    def __init__(
        self,
        served: Mapping[str, Handler] | Callable[..., Server],
        *,
        name: str = "fastcore",
        host: str | None = None,
        port: int | Iterable[int] = 0,
        deadline: float = 2.0,
        **options: Any,
    ) -> None:
        if not callable(served) and not isinstance(served, Mapping):
            raise TypeError(
                f"a ServerPlugin takes a dict of handlers, or what makes a Server, not {shown(served)}"
            )
        self.name = name
        self._host = host
        self._ports = (port,) if isinstance(port, int) else tuple(port)
        if not self._ports:
            raise ValueError("a ServerPlugin needs a port to listen on; 0 is any that is free")
        self._deadline = deadline
        #: What is sent to the workers as it is; made into objects only there, where an error can be told.
        self._pickled: bytes | None = None
        self._made_of = served, options
        self._running: dict[Worker, _Running] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pickled": self._pickled or self._pickle(), "_made_of": None, "_running": {}}

    def _pickle(self) -> bytes:
        try:
            pickled: bytes = dumps(self._made_of)
        except Exception as error:
            raise TypeError(
                f"what the plugin {self.name!r} serves can't be sent to the workers: {error}; a subclass "
                f"of Server can make what it needs in its __init__, which runs there"
            ) from error
        return pickled

    # ---- called by each worker, in its loop

    async def setup(self, worker: Worker) -> None:
        """Start the server of a worker. Called by Dask.

        Raises
        ------
        ImportError
            If the worker lacks a module that the handlers need.
        OSError
            If no port is free.
        """
        # By which it was registered; nobody tells the plugin.
        name = next(name for name, plugin in worker.plugins.items() if plugin is self)
        try:
            server = self._make(worker, name)
            self._running[worker] = _Running(name, server)
            entry = Entry(self._listen(server, worker), server.ssl_options is not None)
            await asyncio.gather(publish(worker, name, entry), have_the_gone_forgotten(worker))
        except Exception as error:
            error.add_note(f"starting the server of plugin {name!r} in worker {worker.address}")
            # Who registers it hears of it; of a worker that comes later only the log does, and who calls.
            logger.error("worker %s has no server of plugin %r: %r", worker.address, name, error)
            await self.teardown(worker)
            with suppress(OSError):
                why = in_one_line(f"{type(error).__name__}: {error}")
                await publish(worker, name, Entry(error=why))
            raise

    async def teardown(self, worker: Worker) -> None:
        """End the server of a worker. Called by Dask."""
        running = self._running.pop(worker, None)
        if running is None:
            return
        running.server.stop()
        # A worker that ends is known to be gone by that, and its scheduler may be gone before it.
        if worker.status in (Status.running, Status.paused):
            with suppress(OSError):
                await publish(worker, running.name, Entry())
        await running.end(self._deadline)

    def _make(self, worker: Worker, name: str) -> Server:
        served, options = self._made_of or self._unpickle(worker, name)
        server = Server(served, **options) if isinstance(served, Mapping) else served(**options)
        if not isinstance(server, Server):
            raise TypeError(f"{shown(served)} was to make a fastcore.Server, and made {shown(server)}")
        if "ssl_options" not in options and server.ssl_options is None and _has_tls(worker):
            server.ssl_options = worker.security.get_listen_args("worker")["ssl_context"]
            if server.ssl_options is None:
                raise ValueError("the cluster requires encryption, and this worker has no certificate")
        return server

    def _unpickle(self, worker: Worker, name: str) -> tuple[Any, dict[str, Any]]:
        assert self._pickled is not None
        try:
            made_of: tuple[Any, dict[str, Any]] = loads(self._pickled)
        except (ImportError, AttributeError, pickle.UnpicklingError) as error:
            raise ImportError(
                f"worker {worker.address} lacks what the handlers of plugin {name!r} need: {error}; install "
                f"it there, or send the module by client.upload_file(...) first"
            ) from error
        return made_of

    def _listen(self, server: Server, worker: Worker) -> str:
        """Have it listen, and give the address by which others reach it."""
        # Workers of one process talk to each other without a socket.
        is_local = worker.address.startswith("inproc:")
        reached_by = "127.0.0.1" if is_local else get_address_host(worker.address)
        host = reached_by if self._host is None else self._host
        # Handlers are called in the context in which it begins to listen.
        context = contextvars.copy_context()
        if _worker_cvar is not None:
            context.run(_worker_cvar.set, worker)
        for left, port in zip(range(len(self._ports))[::-1], self._ports, strict=True):
            try:
                context.run(server.listen, port, host)
                break
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    error.add_note(f"{host} isn't an address of the worker's machine: ServerPlugin(host=...)")
                if error.errno != errno.EADDRINUSE or not left:
                    raise
        return format_address((reached_by if host in _WILDCARDS else host, server.port))


def _has_tls(worker: Worker) -> bool:
    return bool(worker.security.require_encryption) or worker.address.startswith(("tls:", "fastcores:"))


def addresses(client: Client, name: str = "fastcore") -> Any:
    """Tell where the servers of a plugin are.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    name : str
        The plugin's.

    Returns
    -------
    dict of str to str
        The address of each server, as :class:`fastcore.rpc` takes it, by that of its worker. To be
        awaited where the client is asynchronous.

    Raises
    ------
    RuntimeError
        If the client is closed.

    Examples
    --------
    Of two workers: ``{'tcp://10.0.0.5:40331': '10.0.0.5:38211', 'tcp://10.0.0.6:41007': '10.0.0.6:35645'}``.
    """
    return client.sync(_addresses, client, name)


async def _addresses(client: Client, name: str) -> dict[str, str]:
    entries = await lookup(client, name)
    return {worker: entry.address for worker, entry in entries.items() if entry.address is not None}
