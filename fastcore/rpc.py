"""Calling a server: ``rpc``, ``send_recv``, and ``ConnectionPool`` for many servers at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from fastcore.addressing import AddressLike, format_address, parse_address
from fastcore.channel import NOTHING, Channel, channel_of, unobserved
from fastcore.errors import ConnectionLost, RPCClosed
from fastcore.remote_errors import is_error_reply, remote_exception
from fastcore.streams import connect

__all__ = ["RemoteCall", "rpc", "send_recv"]


class RemoteCall(asyncio.Future[Any]):
    """The Future of one remote call, and the call itself while it is under way.

    Parameters
    ----------
    op : str
        What is called.
    message : dict
        The request.
    release : callable
        Takes the stream back, and whether it is in step: False where a reply may still
        come on it that nobody waits for.
    loop : asyncio.AbstractEventLoop
        The loop of the stream.
    """

    def __init__(
        self,
        op: object,
        message: dict[str, Any],
        release: Callable[[IOStream, bool], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self._op = op
        self._message = message
        self._release = release
        self._channel: Channel | None = None

    def start(self, stream: IOStream) -> None:
        """Send the request on a free stream and wait for the reply."""
        channel = channel_of(stream)
        self._channel = channel
        wants_reply = self._message.get("reply", True)
        try:
            if wants_reply:
                channel.claim(self._receive)
            channel.send(self._message)
        except ConnectionLost as error:
            self._end(False, error=self._while_calling(error))
        except Exception as error:
            self._end(True, error=error)
        else:
            if not wants_reply:
                self._end(True)

    def _receive(self) -> None:
        channel = self._channel
        assert channel is not None
        try:
            reply = channel.next_message()
        except ConnectionLost as error:
            self._end(False, error=self._while_calling(error))
        except Exception as error:
            self._end(channel.failure is None, error=error)
        else:
            if reply is NOTHING:
                channel.on_ready = self._receive
            elif is_error_reply(reply):
                self._end(True, error=remote_exception(reply, channel.peer, self._op))
            else:
                self._end(True, reply)

    def _end(self, in_step: bool, result: Any = None, error: Exception | None = None) -> None:
        channel, self._channel = self._channel, None
        assert channel is not None
        channel.on_ready = None
        if self._message.get("close"):
            in_step = False
            channel.close_when_sent()
        self._release(channel.stream, in_step)
        if error is not None:
            self.fail(error)
        elif not self.done():
            self.set_result(result)

    def fail(self, error: Exception) -> None:
        """End the call with an error."""
        if not self.done():
            self.set_exception(error)
            unobserved(self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up. Its connection is out of step then, and is closed."""
        if not super().cancel(msg):
            return False
        self._leave()
        return True

    def time_out(self, seconds: float, peer: str) -> None:
        """Give the call up because it took too long."""
        if not self.done():
            self.fail(TimeoutError(f"no answer to {self._op!r} from {peer} within {seconds:g} s"))
            self._leave()

    def _leave(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.on_ready = None
            channel.close()
            self._release(channel.stream, False)

    def _while_calling(self, error: ConnectionLost) -> ConnectionLost:
        return ConnectionLost(f"{error.args[0]} during the call of {self._op!r}", error.real_error)


class rpc:  # noqa: N801 - the name that programs have always used
    """A remote server, whose operations are called like methods.

    ``await remote.add(x=1, y=2)`` sends ``{'op': 'add', 'x': 1, 'y': 2}`` and gives the
    reply. Calls may overlap: each takes a connection of its own, and leaves it for reuse.
    ``timeout=`` is for the call itself, in seconds: after it the call raises TimeoutError,
    and its connection, which is out of step then, is closed. Any name without a leading underscore is a remote operation, but for the few that are
    documented here.

    Parameters
    ----------
    arg, addr : str, bytes or tuple, optional
        Where the server is: ``'ip:port'``, ``('ip', port)``, ``'unix:/path'``.
    stream : tornado.iostream.IOStream, optional
        An open stream to it, to be used first.
    ip, port : optional
        Where the server is, in two parts.
    timeout : float
        Seconds to wait for a connection.
    **options
        As :func:`fastcore.connect` takes them: ``ssl_options``, ``compression``, limits.

    Attributes
    ----------
    ip, port, address, timeout : str, int, str, float
        As given.
    status : str
        ``'running'`` or ``'closed'``.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, rpc
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     async with rpc(ip='127.0.0.1', port=server.port) as remote:
    ...         print(await remote.add(x=1, y=2))
    ...     server.stop()
    >>> asyncio.run(main())
    3
    """

    active = 0
    # __del__ runs even where __init__ refused its arguments.
    status = "closed"

    def __init__(
        self,
        arg: AddressLike | None = None,
        stream: IOStream | None = None,
        ip: str | bytes | None = None,
        port: int | None = None,
        addr: AddressLike | None = None,
        timeout: float = 3,
        **options: Any,
    ) -> None:
        self._free: list[IOStream] = []
        self._taken: set[IOStream] = set()
        self._options = options
        self.timeout = timeout
        if stream is not None:
            self._free.append(stream)
            if arg is None and addr is None and ip is None:
                addr = stream.socket.getpeername()
        self.ip, self.port = self._address = parse_address(arg, addr=addr, ip=ip, port=port)
        self.status = "running"
        rpc.active += 1

    @property
    def address(self) -> str:
        """``'ip:port'``."""
        return format_address(self._address)

    @property
    def streams(self) -> dict[IOStream, bool]:
        """The open streams, and whether each is free."""
        streams = dict.fromkeys(self._taken, False) | dict.fromkeys(self._free, True)
        return {stream: free for stream, free in streams.items() if not stream.closed()}

    def __getattr__(self, op: str) -> Callable[..., RemoteCall]:
        if op.startswith("_"):
            raise AttributeError(f"{op!r}: a name with a leading underscore is no remote call")
        return functools.partial(self._call, op)

    def _call(self, op: str, /, *, timeout: float | None = None, **message: Any) -> RemoteCall:
        message["op"] = op
        call = self._start(op, message)
        if timeout is not None:
            timer = call.get_loop().call_later(timeout, call.time_out, timeout, self.address)
            call.add_done_callback(lambda _: timer.cancel())
        return call

    def _start(self, op: str, message: dict[str, Any]) -> RemoteCall:
        while self._free:
            stream = self._free.pop()
            channel = channel_of(stream)
            if channel.lost is None and not channel.unread:
                self._taken.add(stream)
                call = RemoteCall(op, message, self._release, channel.loop)
                call.start(stream)
                return call
            # The server has closed it, or said something that nobody asked for.
            stream.close()
        loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]
        call = RemoteCall(op, message, self._release, loop)
        if self.status == "closed":
            call.fail(RPCClosed(f"the rpc to {self.address} is closed; {op!r} was not called"))
        else:
            loop.create_task(self._connect_for(call))
        return call

    async def _connect_for(self, call: RemoteCall) -> None:
        try:
            stream = await connect(self.ip, self.port, self.timeout, **self._options)
        except Exception as error:
            call.fail(error)
            return
        if self.status == "closed":
            stream.close()
            call.fail(RPCClosed(f"the rpc to {self.address} was closed during the call"))
        elif call.done():
            self._free.append(stream)
        else:
            self._taken.add(stream)
            call.start(stream)

    def _release(self, stream: IOStream, in_step: bool) -> None:
        self._taken.discard(stream)
        if in_step and self.status == "running":
            self._free.append(stream)
        elif not channel_of(stream).closing:
            stream.close()

    def close_streams(self) -> None:
        """Close all connections; a later call makes a new one. May be called from any thread."""
        streams = [*self._free, *self._taken]
        self._free.clear()
        for stream in streams:
            _close_from_any_thread(stream)

    def close_rpc(self) -> None:
        """Close all connections for good; a later call raises RPCClosed."""
        if self.status != "closed":
            rpc.active -= 1
            self.status = "closed"
        self.close_streams()

    def __enter__(self) -> rpc:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_rpc()

    async def __aenter__(self) -> rpc:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close_rpc()

    def __del__(self) -> None:
        if self.status != "closed":
            self.close_rpc()

    def __repr__(self) -> str:
        streams = self.streams
        return (
            f"<rpc to {self.address}: {self.status}, "
            f"{len(streams)} connections, {sum(streams.values())} free>"
        )


def _close_from_any_thread(stream: IOStream) -> None:
    """Close a stream in its own loop's thread, if that runs; at once otherwise."""
    loop = stream.io_loop.asyncio_loop  # type: ignore[attr-defined]
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    close = channel_of(stream).close
    if here is loop or not loop.is_running():
        close()
    else:
        loop.call_soon_threadsafe(close)


def send_recv(
    stream: IOStream | None = None,
    arg: AddressLike | None = None,
    ip: str | bytes | None = None,
    port: int | None = None,
    addr: AddressLike | None = None,
    reply: bool = True,
    **msg: Any,
) -> RemoteCall:
    """Send one request and give the Future of its reply.

    Parameters
    ----------
    stream : tornado.iostream.IOStream, optional
        An open stream; it stays open. Without one, a connection is made for this call.
    arg, ip, port, addr : optional
        Where the server is, as :class:`rpc` takes it.
    reply : bool
        False asks for no reply; the Future is done when the request was sent.
    **msg
        The request: ``op`` and the handler's keywords. ``close=True`` closes the
        connection after the reply, at both ends.

    Returns
    -------
    asyncio.Future
        The reply. Holds the handler's exception where it raised one.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, send_recv
    >>> async def main():
    ...     server = Server({'add': lambda stream, x, y: x + y})
    ...     server.listen(0, '127.0.0.1')
    ...     print(await send_recv(ip='127.0.0.1', port=server.port, op='add', x=1, y=2))
    ...     server.stop()
    >>> asyncio.run(main())
    3
    """
    message = {**msg, "reply": reply}
    op = msg.get("op")
    if stream is not None:
        call = RemoteCall(op, message, _leave_open, channel_of(stream).loop)
        call.start(stream)
        return call
    address = parse_address(arg, addr=addr, ip=ip, port=port)
    loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]
    call = RemoteCall(op, message, _close_after_use, loop)
    loop.create_task(_connect_and_start(call, *address))
    return call


async def _connect_and_start(call: RemoteCall, ip: str, port: int | None) -> None:
    try:
        stream = await connect(ip, port)
    except Exception as error:
        call.fail(error)
        return
    if call.done():
        stream.close()
    else:
        call.start(stream)


def _leave_open(stream: IOStream, in_step: bool) -> None:
    """Do nothing: the stream is the caller's."""


def _close_after_use(stream: IOStream, in_step: bool) -> None:
    channel_of(stream).close_when_sent()
