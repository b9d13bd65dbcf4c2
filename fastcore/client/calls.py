"""One remote call: a request on its way, and the Future of its reply."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from fastcore._futures import is_busy, set_result_now, unobserved
from fastcore.errors import ConnectionLost
from fastcore.remote_errors import is_error_reply, remote_exception
from fastcore.transport.tornado import Channel

__all__ = ["Releaser", "RemoteCall"]


class Releaser(Protocol):
    """Who takes a connection back when a call has ended."""

    def release(self, channel: Channel, in_step: bool, /) -> None:
        """Take it back.

        ``in_step`` is False where a reply may still come on it that nobody waits for.
        """


class RemoteCall(asyncio.Future[Any]):
    """The Future of one remote call, and the call itself while it is under way.

    It has no constructor of its own: that would cost as much as all else that it does.
    """

    # Not there before the call is started.
    __slots__ = ("_channel", "_message", "_releaser")
    _channel: Channel | None
    _message: dict[str, Any]
    _releaser: Releaser

    def start(self, channel: Channel, releaser: Releaser, message: dict[str, Any]) -> None:
        """Send the request and wait for the reply.

        Parameters
        ----------
        channel : Channel
            A connection that nobody else uses.
        releaser : Releaser
            Takes the connection back when the call has ended.
        message : dict
            The request.
        """
        self._channel = channel
        self._releaser = releaser
        self._message = message
        try:
            channel.send(message)
            if message.get("reply", True):
                channel.reader = self
            else:
                self._end(channel, True)
                self.set_result(None)
        except Exception as error:
            self.on_error(error)

    def on_message(self, reply: Any) -> bool:
        """End the call with its reply."""
        channel = self._channel
        assert channel is not None
        # An answer to a request that isn't sent whole: the server has read no further.
        self._end(channel, not channel.full)
        if type(reply) is dict and is_error_reply(reply):
            self.fail(remote_exception(reply, channel.peer, self._message.get("op")))
        elif is_busy(self.get_loop()):
            self.set_result(reply)
        else:
            set_result_now(self, reply)
        return False

    def _end(self, channel: Channel, in_step: bool) -> None:
        """Leave the connection to the next call."""
        self._channel = None
        message = self._message
        # The cheap half first. The op of this name has the server close the connection.
        if ("close" in message and message["close"]) or message.get("op") == "close":  # noqa: RUF019
            channel.close_when_sent()
        self._releaser.release(channel, in_step)

    def on_error(self, error: Exception) -> bool:
        """End the call because there will be no reply, or none that can be read."""
        channel = self._channel
        assert channel is not None
        if isinstance(error, ConnectionLost):
            op = self._message.get("op")
            error = ConnectionLost(f"{error.args[0]} during the call of {op!r}", error.real_error)
        self._end(channel, channel.failure is None and channel.lost is None)
        self.fail(error)
        return False

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

    def time_out(self, error: TimeoutError) -> None:
        """Give the call up because it took too long."""
        if not self.done():
            self.fail(error)
            self._leave()

    def _leave(self) -> None:
        channel: Channel | None = getattr(self, "_channel", None)
        if channel is not None:
            self._channel = None
            channel.reader = None
            self._releaser.release(channel, False)
