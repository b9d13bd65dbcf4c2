"""One connection of a server: the natural loop of request, handler, reply.

A handler that returns a plain value costs no coroutine and no Future; one that returns
something to await holds the loop until that is done, because it may read from the
stream and write to it in the meantime.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from tornado.gen import convert_yielded

from fastcore.errors import ConnectionLost, FrameTooLarge, LimitReached, TooDeep
from fastcore.logs import get_logger
from fastcore.remote_errors import error_reply
from fastcore.server.figures import OpStats
from fastcore.server.slow_steps import Timed
from fastcore.transport.refusal import refuse
from fastcore.transport.tls import starts_like_tls
from fastcore.transport.tornado import Channel

if TYPE_CHECKING:
    from fastcore.server.server import Server

__all__ = ["Connection"]

logger = get_logger("fastcore.server")


class Connection:
    """One connection of a server, served until it ends.

    Parameters
    ----------
    server : Server
        Its handlers are called.
    channel : Channel
        Where the requests come from.

    Attributes
    ----------
    ended : asyncio.Future
        Done when there will be no further replies.
    """

    def __init__(self, server: Server, channel: Channel) -> None:
        self.server = server
        self.channel = channel
        self.ended: asyncio.Future[None] = channel.loop.create_future()
        self._stats = server._figures
        self._slow = server._slow_handler_ns
        channel.on_limit = self._over_limit
        channel.is_idle = self._is_idle

    def serve(self) -> None:
        """Become the reader of the connection, and answer what is here already."""
        channel = self.channel
        if self.server._ending:
            self._end()
        elif channel.full:
            channel.on_drained = self.serve
        else:
            channel.claim(self)
            channel.look()

    def on_message(self, message: Any) -> bool:
        """Call the handler and reply; False if no further message is to be answered now."""
        try:
            op = message.pop("op")
        except (AttributeError, TypeError, KeyError):
            return self._refuse(TypeError(f"a message is a dict with an 'op', not {_short(message)}"))
        if type(op) is bytes:  # as Python 2 sends it
            op = op.decode(errors="replace")
        close = message.pop("close", False)
        reply = message.pop("reply", True)
        if op == "close":
            return self._done("OK", reply, close=True)
        try:
            handler = self.server.handlers[op]
        except (KeyError, TypeError):
            return self._refuse(ValueError(self._no_handler(op)), reply, close)
        figures = self._stats.ops.get(op) or self._stats.new_op(op)
        channel = self.channel
        begun = perf_counter_ns()
        try:
            result = handler(channel.stream, **message)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            result = self._failed(op, error)
        took = perf_counter_ns() - begun
        if took > self._slow:
            self._blocked(op, took)
        if not isinstance(result, _PLAIN) and _is_awaitable(result):
            waiting = self._wait(op, result, reply, close, figures, begun)
            task = channel.loop.create_task(waiting)
            self.server._running.add(task)
            task.add_done_callback(self.server._running.discard)
            return False
        figures.record(took)
        return self._done(result, reply, close)

    def on_error(self, error: Exception) -> bool:
        """Answer a message that is none, or end with the connection."""
        if isinstance(error, ConnectionLost):
            self._end()
            return False
        return self._refuse(error)

    async def _wait(
        self, op: str, result: Any, reply: bool, close: bool, figures: OpStats, begun: int
    ) -> None:
        if inspect.iscoroutine(result):
            result = Timed(result, self._slow, functools.partial(self._blocked, op))
        elif not inspect.isawaitable(result):
            result = convert_yielded(result)
        try:
            result = await result
        except (KeyboardInterrupt, SystemExit):
            raise
        except GeneratorExit as error:
            if asyncio.current_task(self.channel.loop) is None:
                # The loop has ended, and what waited in it is being collected.
                raise
            result = self._failed(op, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The loop is being ended, with everything that runs in it.
                self._end()
                raise
            result = self._failed(op, error)
        except BaseException as error:
            result = self._failed(op, error)
        figures.record(perf_counter_ns() - begun)
        if self._done(result, reply, close):
            self.serve()

    def _done(self, result: Any, reply: bool, close: bool) -> bool:
        """Reply to one request; False if no further one is to be answered now."""
        channel = self.channel
        goes_on = True
        if reply:
            try:
                goes_on = channel.send(result)
            except ConnectionLost:
                close = True
            except Exception as error:
                goes_on = channel.send(self._failed("reply", error))
        if close:
            self._end()
            return False
        if not goes_on:
            # The peer doesn't read its replies: it gets no further ones made.
            channel.on_drained = self.serve
        return goes_on

    def _refuse(self, error: Exception, reply: bool = True, close: bool = False) -> bool:
        """Reply that no handler is called; False if there can be no further message."""
        peer = self.channel.peer
        self._stats.errors[type(error).__name__] += 1
        if isinstance(error, FrameTooLarge) and error.what == "header" and starts_like_tls(error.size):
            logger.warning("%s speaks TLS, this port doesn't", peer)
        elif isinstance(error, FrameTooLarge | TooDeep):
            logger.warning("refused a message from %s: %s", peer, error)
        else:
            logger.info("refused a message from %s: %s", peer, error)
        answer = error_reply(error, "message")
        if self.channel.failure is not None:
            refuse(self.channel, answer)
            self._ended()
            return False
        return self._done(answer, reply, close)

    def _over_limit(self, error: Exception) -> None:
        """Say goodbye to a peer that takes longer than it may."""
        channel = self.channel
        assert isinstance(error, LimitReached)
        self._stats.errors[error.keyword] += 1
        logger.warning("closed the connection to %s: %s", channel.peer, error)
        if error.keyword in ("write_timeout", "handshake_timeout"):
            channel.close(error)
        else:
            refuse(channel, error_reply(error, "message"))
        self._ended()

    def _is_idle(self) -> bool:
        """Whether no handler runs, or one that waits for the peer."""
        return self.channel.is_read

    def finish(self) -> None:
        """End the connection as soon as no handler works for it."""
        if self.channel.reader is self:
            self._end()

    def _failed(self, op: object, error: BaseException) -> dict[str, Any]:
        if isinstance(error, ConnectionLost) and self.channel.lost is not None:
            # How every stream of answers ends: the client has left.
            logger.debug("%r: %s", op, error)
            return error_reply(error)
        self._stats.failed(op)
        logger.warning("%r, called from %s, raised", op, self.channel.peer, exc_info=error)
        return error_reply(error, self.server._error_detail)

    def _blocked(self, op: object, nanoseconds: int) -> None:
        logger.warning(
            "%r, called from %s, blocked the loop for %.3f s: nobody was served in the meantime",
            op,
            self.channel.peer,
            nanoseconds / 1e9,
        )

    def _no_handler(self, op: object) -> str:
        text = f"no handler found for {_short(op)}"
        if self.server._error_detail == "type":
            return text
        known = ", ".join(sorted(map(str, self.server.handlers)))
        return f"{text}; this {type(self.server).__name__} has {known}"

    def _end(self) -> None:
        self.channel.close_when_sent()
        self._ended()

    def _ended(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


#: What handlers mostly return: needn't be asked whether it can be awaited.
_PLAIN = (str, bytes, int, float, dict, list, tuple, type(None))


def _is_awaitable(result: object) -> bool:
    return inspect.isawaitable(result) or inspect.isgenerator(result)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 100 else text[:100] + "..."
