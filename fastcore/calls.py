"""Remote calls: one at a time, and the names that make them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from fastcore.addressing import Address, format_address
from fastcore.channel import NOTHING, Channel, channel_of, unobserved
from fastcore.errors import ConnectionLost
from fastcore.remote_errors import is_error_reply, remote_exception

if TYPE_CHECKING:
    from fastcore.pool import ConnectionPool

__all__ = ["Caller", "RemoteCall", "RemoteServer"]


class Caller(Protocol):
    """Who makes calls, and owns the streams that they use."""

    def _release(self, stream: IOStream, in_step: bool) -> None:
        """Take a stream back.

        ``in_step`` is False where a reply may still come on it that nobody waits for.
        """


class RemoteCall(asyncio.Future[Any]):
    """The Future of one remote call, and the call itself while it is under way.

    Parameters
    ----------
    op : str
        What is called.
    message : dict
        The request.
    caller : Caller
        Takes the stream back when the call has ended.
    loop : asyncio.AbstractEventLoop
        The loop of the stream.
    """

    def __init__(
        self,
        op: object,
        message: dict[str, Any],
        caller: Caller,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(loop=loop)
        self._op = op
        self._message = message
        self._caller = caller
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
        self._caller._release(channel.stream, in_step)
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
            self._caller._release(channel.stream, False)

    def _while_calling(self, error: ConnectionLost) -> ConnectionLost:
        return ConnectionLost(f"{error.args[0]} during the call of {self._op!r}", error.real_error)


class RemoteServer:
    """A server at an address, whose operations are called like methods.

    Parameters
    ----------
    address : tuple of (str, int or None)
        Where it is.
    pool : ConnectionPool
        Where its connections come from.
    timeout : float
        Seconds to wait for a connection.
    """

    def __init__(self, address: Address, pool: ConnectionPool, timeout: float) -> None:
        self.ip, self.port = self._address = address
        self.timeout = timeout
        self._pool = pool

    @property
    def address(self) -> str:
        """``'ip:port'``."""
        return format_address(self._address)

    def __getattr__(self, op: str) -> Callable[..., RemoteCall]:
        if op.startswith("_"):
            raise AttributeError(f"{op!r}: a name with a leading underscore is no remote call")
        return functools.partial(self._call, op)

    def _call(self, op: str, /, *, timeout: float | None = None, **message: Any) -> RemoteCall:
        message["op"] = op
        stream = self._pool.take(self._address)
        if stream is not None:
            call = RemoteCall(op, message, self, channel_of(stream).loop)
            call.start(stream)
        else:
            loop = IOLoop.current().asyncio_loop  # type: ignore[attr-defined]
            call = RemoteCall(op, message, self, loop)
            loop.create_task(self._connect_for(call))
        if timeout is not None:
            timer = call.get_loop().call_later(timeout, call.time_out, timeout, self.address)
            call.add_done_callback(lambda _: timer.cancel())
        return call

    async def _connect_for(self, call: RemoteCall) -> None:
        try:
            stream = await self._pool.connect(self.ip, self.port, self.timeout)
        except Exception as error:
            call.fail(error)
            return
        if call.done():
            self._release(stream, True)
        else:
            call.start(stream)

    def _release(self, stream: IOStream, in_step: bool) -> None:
        self._pool.release(self._address, stream, in_step)
