"""One connection of a server: requests, handlers, answers.

A handler that returns a plain value costs no coroutine and no Future. Of those that return
something to wait for, the ones whose request has a number run side by side, and each
answer says whose it is. Requests without a number are handled one after the other: while
such a handler runs the stream is its own, to read from and to write to.

All that happens between a request and its answer is inside of one frame, so whatever the
handler is, returns or raises, the request gets one answer.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Coroutine
from contextvars import Context
from time import perf_counter_ns
from typing import Any, Final

from tornado.gen import convert_yielded
from tornado.iostream import IOStream

from fastcore._channel import Channel
from fastcore._futures import set_value
from fastcore._header import ERROR_FLAG, CallHeader, answer_fields
from fastcore._wire import SPEAKS_PLAINLY, SPEAKS_VALUES
from fastcore.contracts import Owner
from fastcore.errors import BadValue, ConnectionLost, LimitReached
from fastcore.logs import get_logger, shown
from fastcore.remote_errors import Detail, error_reply
from fastcore.server.failures import is_of_the_call, tell_of_failure, tell_of_unsendable
from fastcore.server.half_closed import Questions
from fastcore.server.held import PATIENCE, HeldRequest, HeldRequests
from fastcore.server.parts import Blocked, send_parts
from fastcore.server.request import Request, being_handled, being_served
from fastcore.server.results import gives_parts, is_to_wait_for
from fastcore.server.service import Handler, Service
from fastcore.server.slow_steps import Timed
from fastcore.server.strangers import tell_of_bad_message, tell_of_refused
from fastcore.server.turns import Turn
from fastcore.tokens import AUTHENTICATE, WELCOME
from fastcore.transport.event_loop import TEARDOWN_GRACE

__all__ = ["Connection"]

logger = get_logger("fastcore.server")

#: A request counts once more for each so many bytes among those that run.
_BYTES_OF_ONE: Final = 256 * 1024
#: Seconds that a handler which is given up takes later in that turn: to begin, it may be, and to end.
_A_CANCEL: Final = 0.000_025


class _Refused(Exception):
    """A request for which no handler is called."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection(Owner):
    """One connection of a server, served until it ends.

    Parameters
    ----------
    service : Service
        The server's.
    stream : tornado.iostream.IOStream
        What handlers are given.
    channel : Channel
        Its messages.
    ended : asyncio.Future
        Done when there will be no further replies.
    """

    __slots__ = (
        "_begins",
        "_closes",
        "_context",
        "_has_numbers",
        "_held",
        "_in_order",
        "_numbered",
        "_questions",
        "_weight",
        "channel",
        "ended",
        "service",
        "stream",
    )

    lends = True

    def __init__(
        self, service: Service, stream: IOStream, channel: Channel, ended: asyncio.Future[None]
    ) -> None:
        self.service = service
        self.stream = stream
        self.channel = channel
        self.ended = ended
        #: What each request's handler begins with, whoever's turn it is called in.
        self._context = service.context.copy()
        self._context.run(being_served.set, object())
        #: The numbered requests that are being handled.
        self._numbered: dict[int, Request] = {}
        #: The one without a number.
        self._in_order: Request | None = None
        #: Requests that have come, and are too many for now; None where there never were.
        self._held: HeldRequests | None = None
        #: The one of them that is being begun.
        self._begins: HeldRequest | None = None
        self._weight = 0
        #: Whether the client numbers its requests.
        self._has_numbers = False
        #: Whether it ends when nothing runs any more.
        self._closes = False
        #: Whether a client that says no more is there still.
        self._questions: Questions | None = None
        # A program of 2016, for all that anybody knows yet.
        channel.dialect.speaks = SPEAKS_PLAINLY
        channel.own(self)
        channel.is_rationed = True

    def __repr__(self) -> str:
        return f"<connection of a server with {self.channel.peer}>"

    def serve(self) -> None:
        """Answer what is here already, and what comes."""
        channel = self.channel
        if self.service.is_ending and not self._is_busy:
            self._end()
        elif channel.owner is self and self._may_read():
            channel.listen()

    @property
    def _is_busy(self) -> bool:
        return bool(self._numbered) or self._in_order is not None or self._holds_some

    @property
    def _holds_some(self) -> bool:
        return bool(self._held)

    def _may_read(self) -> bool:
        """Whether to be given the next message now.

        Of a client that numbers its requests also where no further one can be begun: what it
        says of those that run, that they are given up or may send more, must be heard, so that
        they end.
        """
        if not self._may_begin() or self._begins is not None:
            return False
        held = self._held
        if held:
            _, header, _ = held.last
            return header is not None and held.may_grow(bool(self._numbered))
        return self._has_numbers or not (self.service.is_ending or self._is_held_back())

    # ---- requests

    def on_message(self, message: Any, header: CallHeader | None) -> bool:
        """Handle a request; False if no further one is to be begun now."""
        call = None
        if header is not None:
            call = header.call
            if call is None or header.grant is not None:
                if header.cancel is not None or call is not None:
                    self._hear(header)
                    return self._may_read()
            elif not self._has_numbers:
                self._knows_numbers()
        service = self.service
        held = self._held
        if (held and self._begins is None) or (service.running and self._is_held_back()):
            return self._hold(message, header)
        # From here on this is the way of a plain function's answer, in as few steps as there can be.
        op = None
        reply = True
        closes = False
        figures = None
        begun = 0
        channel = self.channel
        try:
            try:
                # First what says how to refuse it.
                reply = message.pop("reply", True)
                closes = message.pop("close", False)
                op = message.pop("op")
            except (AttributeError, TypeError, KeyError):
                raise _Refused(TypeError(f"a message is a dict with an 'op', not {shown(message)}")) from None
            if call is not None and call in self._numbered:
                raise _Refused(ValueError(f"call {call} is under way already"))
            try:
                handler: Handler = service.host.handlers[op] if op != "close" else _close
            except (KeyError, TypeError):
                op, handler = self._find(op)
            figures = service.figures.ops.get(op) or service.figures.new_op(op)
            # What a handler sets in it is gone with the request.
            context = self._context.copy()
            begun = perf_counter_ns()
            result = context.run(handler, self.stream, **message)
            if not isinstance(result, _PLAIN) and is_to_wait_for(result):
                took = perf_counter_ns() - begun
                if took > service.slow_ns:
                    self._blocked(op, took)
                request = Request(op, call, reply, closes)
                request.figures, request.begun = figures, begun
                request.left = None if header is None else header.window
                return self._begin(request, result, context)
            took = figures.record_since(begun)
            begun = 0
            if took > service.slow_ns:
                self._blocked(op, took)
            if reply:
                goes_on = channel.send(result, None if call is None else answer_fields(call))
                if not closes and op != "close":
                    return goes_on
        except (KeyboardInterrupt, SystemExit) as error:
            self._failed(Request(op, call, reply, closes), error)
            # It ends the loop, unless somebody has that go on.
            channel.loop.call_soon(self.serve)
            raise
        except BaseException as error:
            request = Request(op, call, reply, closes)
            # By its type: an error may have a `__class__` of its own.
            if type(error) is _Refused:
                return self._refuse(error.reason, request)
            if type(error) is BadValue and error.what is None:
                return self._not_packed(request, error)
            if figures is not None and begun:
                figures.record_since(begun)
            if begun and type(error) is TypeError and is_of_the_call(error):
                detail = service.error_detail if service.error_detail == "type" else "message"
                return self._refuse(error, request, detail)
            return self._failed(request, error)
        return self._replied(closes or op == "close", True)

    def _knows_numbers(self) -> None:
        """Say of all that is sent from now on whose it is."""
        self._has_numbers = True
        self.channel.dialect.speaks = SPEAKS_VALUES
        self.channel.mark_as_nobodys()

    def _find(self, op: Any) -> tuple[Any, Handler]:
        """Give the handler of an op that isn't found as it came, or refuse it."""
        if type(op) is bytes:  # as Python 2 sends it
            op = op.decode(errors="replace")
        try:
            return op, self.service.host.handlers[op] if op != "close" else _close
        except (KeyError, TypeError):
            if op == AUTHENTICATE:
                # A server that asks for no token takes any.
                return op, _welcome
            raise _Refused(ValueError(self._no_handler(op))) from None

    def _begin(self, request: Request, result: Any, context: Context) -> bool:
        """Have a task wait for the handler; False if no further request is to be begun until then."""
        channel = self.channel
        # The first step of a Tornado coroutine is over, and may have borrowed it already.
        is_ours = channel.owner is self
        if request.call is not None:
            self._numbered[request.call] = request
        else:
            self._in_order = request
            channel.keeps = is_ours
        channel.is_lent = is_ours
        size = channel.last_size if self._begins is None else self._begins[-1]
        request.weight = 1 + size // _BYTES_OF_ONE
        self._weight += request.weight
        self.service.running += request.weight
        request.is_future = isinstance(result, asyncio.Future)
        context.run(being_handled.set, request)
        # Not by its keyword, which task factories needn't know.
        task = context.run(channel.loop.create_task, self._run(request, result))
        if not request.is_over:
            request.task = task
            self.service.tasks.add(task)
            task.add_done_callback(functools.partial(self._task_done, request, result))
            # It may have arrived just before the end.
            if channel.is_lost:
                self._left_by_client(request)
            elif channel.is_at_end:
                self.half_closed()
        return channel.owner is self and self._may_read()

    def _task_done(self, request: Request, result: Any, task: asyncio.Task[None]) -> None:
        self.service.tasks.discard(task)
        # One that was cancelled knows its frames by its error, and those know the request.
        request.task = None
        if not request.is_over:
            # It was cancelled before its first step, in which nothing of it runs.
            if hasattr(result, "close"):
                result.close()
            self._over(request)
            self._cancelled(request, task, asyncio.CancelledError())
            self._make_room(request)

    async def _run(self, request: Request, result: Any) -> None:
        """Wait for the handler, reply, and let others begin."""
        try:
            await self._answer(request, result)
        except (KeyboardInterrupt, SystemExit):
            # As above.
            self.channel.loop.call_soon(self._make_room, request)
            raise
        except GeneratorExit:
            if self._is_collected():
                self._uncount(request)
                raise
            # What the handler waited for raised it, and that has closed the frames in between.
        except BaseException:
            # The loop or the server is being ended: nobody begins anything now. Later, if it wasn't so.
            self._uncount(request)
            self.channel.loop.call_later(TEARDOWN_GRACE, self.service.let_go_on)
            raise
        # Not before its answer: those without a number are answered in order.
        self._make_room(request)

    async def _answer(self, request: Request, result: Any) -> None:
        try:
            try:
                blocked = functools.partial(self._blocked, request.op)
                if gives_parts(result):
                    result = await self._send_parts(result, request, blocked)
                else:
                    if isinstance(result, Coroutine):
                        if self.service.turns.left <= 0:
                            await self._time_for(result)
                        result = Timed(result, self.service.slow_ns, blocked)
                    elif not inspect.isawaitable(result):
                        result = convert_yielded(result)
                    result = await result
                    if gives_parts(result):
                        result = await self._send_parts(result, request, blocked)
            except Exception:
                # Hundreds may fail in one turn of the loop.
                await self._wait_for_time()
                raise
            finally:
                assert request.figures is not None
                request.figures.record_since(request.begun)
                self._over(request)
        except (KeyboardInterrupt, SystemExit) as error:
            self._failed(request, error)
            raise
        except GeneratorExit as error:
            if self._is_collected():
                raise
            self._failed(request, error)
        except asyncio.CancelledError as error:
            if not self._cancelled(request, asyncio.current_task(), error):
                raise
        except BaseException as error:
            if type(error) is BadValue and error.what is None:
                # One of its parts; what its handler wrote by itself has a name.
                self._not_packed(request, error)
            else:
                self._failed(request, error)
        else:
            self._done(request, result)

    def _cancelled(
        self, request: Request, task: asyncio.Task[Any] | None, error: asyncio.CancelledError
    ) -> bool:
        """Say the last of a request whose handler was cancelled; False where all are, to end with them."""
        if request.given_up:
            # Nobody waits; this is the last that is heard of it.
            request.closes = False
            self._done(request, None)
        elif (
            task is not None
            and task.cancelling()
            and (self.service.is_ending or self.service.ends_with_its_loop(self.channel.loop))
        ):
            self._end()
            return False
        else:
            # By itself, or by somebody who meant it alone.
            self._failed(request, error)
        return True

    def _is_collected(self) -> bool:
        """Whether the loop has ended, and what waited in it is being collected."""
        return asyncio.current_task(self.channel.loop) is None

    async def _wait_for_time(self) -> None:
        """Wait until those that fail, or give parts, have left some."""
        while self.service.turns.left <= 0:
            await self.service.turns.wait(self.channel)

    async def _time_for(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Wait until there is time for a handler to begin."""
        try:
            await self._wait_for_time()
        except BaseException:
            coroutine.close()
            raise

    def _send_parts(self, result: Any, request: Request, blocked: Blocked) -> Coroutine[Any, Any, Any]:
        return send_parts(result, request, self.channel, Turn(self.service.turns, self.channel), blocked)

    def _over(self, request: Request) -> None:
        """Count a request as handled; what is left of it is its answer."""
        request.is_over = True
        if request.call is not None:
            self._numbered.pop(request.call, None)
        else:
            self._in_order = None
            self.channel.keeps = False
        if not self._numbered and self._in_order is None:
            self.channel.take_back()

    def _make_room(self, request: Request) -> None:
        """Let further requests begin, after one that is answered."""
        self._uncount(request)
        if self._held is not None:
            self._held.something_ended()
        self.service.let_go_on()
        self._go_on()

    def _uncount(self, request: Request) -> None:
        self._weight -= request.weight
        self.service.running -= request.weight

    # ---- too many of them

    def _is_held_back(self) -> bool:
        """Whether so much runs, or so little shall, that no further request may be begun."""
        if self.service.is_ending:
            return True
        most = self.service.max_running_per_connection
        if most is not None and self._weight >= most:
            return True
        if self.service.is_full:
            if self._go_on not in self.service.held_back:
                self.service.held_back.append(self._go_on)
            return True
        return False

    def _hold(self, message: Any, header: CallHeader | None) -> bool:
        """Keep a request for later, so that what is said of others can still be read."""
        if self._held is None:
            self._held = HeldRequests(self.channel, self.serve)
        if header is not None and self._held.is_full:
            request = Request(None, header.call, _wants_answer(message), False)
            self._refuse(self._too_many(self._held), request, "message")
        elif not self.service.is_ending:
            self._held.keep(message, header)
        return self._may_read()

    def _too_many(self, held: HeldRequests) -> LimitReached:
        return LimitReached(
            "max_running_per_connection" if self._weight else "max_running",
            f"no request has ended for {PATIENCE[-1]:g} s, and {held.size:,} bytes of further ones wait; "
            "send fewer at a time",
        )

    def _may_begin(self) -> bool:
        """Whether a request that has a number may be begun; those without wait for the one in order."""
        may = self._in_order is None or self._has_numbers
        return may and not self._closes and not self.channel.is_full

    def _begin_held(self, held: HeldRequests) -> None:
        if self._begins is not None:
            # One was over at once; who began it goes on.
            return
        while held and self._may_begin() and not self._is_held_back():
            self._begins = message, header, _ = held.first()
            try:
                self.on_message(message, header)
            finally:
                self._begins = None

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held.clear()

    def _go_on(self) -> None:
        if self._held is not None:
            self._begin_held(self._held)
        self.serve()

    # ---- answers

    def _done(self, request: Request, result: Any, flags: int = 0) -> bool:
        """Reply to a request; False if no further one is to be begun now."""
        goes_on = True
        if request.reply:
            try:
                goes_on = self.channel.send(result, request.fields(flags))
            except ConnectionLost:
                self._closes = True
            except BadValue as error:
                return self._not_packed(request, error)
            except Exception as error:
                return self._failed(request, error)
        return self._replied(request.closes, goes_on)

    def _replied(self, closes: Any, goes_on: bool) -> bool:
        """End the connection if that was its last request; else say whether to go on."""
        if closes:
            self._closes = True
            self._drop_held()
        if self._closes:
            if not self._is_busy:
                self._end()
            return False
        return goes_on and (self._in_order is None or self._has_numbers)

    def _not_packed(self, request: Request, error: BadValue) -> bool:
        """Reply that an answer can't be sent; False if no further request is to be begun now."""
        begun = perf_counter_ns()
        self.service.figures.failed(request.op)
        answer = tell_of_unsendable(error, request, self.channel.peer, self.service.error_detail)
        self.service.turns.spend(begun, self.channel.loop)
        return self._done(request, answer, ERROR_FLAG)

    def _failed(self, request: Request, error: BaseException) -> bool:
        """Reply that a handler raised; False if no further request is to be begun now."""
        channel = self.channel
        if (channel.is_lost or channel.is_at_end) and issubclass(type(error), ConnectionLost):
            # How every stream of answers ends: the client has left, or says no more.
            logger.debug("%r: %s", request.op, error)
            if channel.is_lost:
                return self._replied(True, False)
            return self._done(request, error_reply(error, self.service.error_detail), ERROR_FLAG)
        begun = perf_counter_ns()
        self.service.figures.failed(request.op)
        answer = tell_of_failure(error, request, self.channel.peer, self.service.error_detail)
        # Handlers of hundreds of requests may begin in one turn of the loop, and all of them fail.
        self.service.turns.spend(begun, self.channel.loop)
        return self._done(request, answer, ERROR_FLAG)

    def _refuse(self, error: Exception, request: Request, detail: Detail = "message") -> bool:
        """Reply that no handler is called; False if there can be no further message."""
        tell_of_bad_message(self.service.figures, self.channel, error)
        answer = error_reply(error, detail)
        if self.channel.is_hopeless:
            self.channel.farewell(answer)
            self._ended()
            return False
        return self._done(request, answer, ERROR_FLAG)

    # ---- what callers say of their calls

    def _hear(self, header: CallHeader) -> None:
        """Let more parts of a call go, or end its handler."""
        if header.cancel is not None:
            request = self._numbered.get(header.cancel)
            if request is None:
                self._cancel_held(header.cancel)
            else:
                self._give_up(request)
            return
        assert header.call is not None
        assert header.grant is not None
        request = self._numbered.get(header.call)
        if request is not None and request.left is not None:
            request.left += header.grant
            request.go_on()

    def _give_up(self, request: Request) -> None:
        """Cancel a handler, once: a second time would disturb it while it cleans up."""
        if not request.given_up:
            request.given_up = True
            if request.task is not None:
                request.task.cancel()
                # Who calls and gives up, over and over, has had his share of the turn sooner.
                self.channel.expect(_A_CANCEL)

    def _left_by_client(self, request: Request) -> None:
        """End a handler whose answer nobody will hear, where one was wanted."""
        if self.service.cancels and request.call is not None and request.reply:
            self._give_up(request)

    def _cancel_held(self, call: int) -> None:
        held = None if self._held is None else self._held.of_call(call)
        if held is not None:
            self._done(Request(None, call, _wants_answer(held[0]), False), None)

    # ---- what the channel tells

    def on_error(self, error: Exception, header: CallHeader | None) -> bool:
        """Answer a message that is none, or end with the connection."""
        if isinstance(error, ConnectionLost):
            self._end()
            return False
        call = None if header is None else header.call
        if call is not None and not self._has_numbers:
            self._knows_numbers()
        return self._refuse(error, Request(None, call, True, False))

    def writable(self) -> None:
        """Go on, after the peer has read its answers."""
        for request in [*self._numbered.values()]:
            request.go_on()
        self.serve()

    def connection_lost(self) -> None:
        """End the handlers of numbered requests: nobody will hear their answers."""
        if self._held is not None:
            self._held.wait_no_more()
        if self._questions is not None:
            self._questions.stop()
        if self.ended.done():
            self._ended()
        for request in [*self._numbered.values()]:
            request.go_on()
            self._left_by_client(request)

    def over_limit(self, error: Exception) -> None:
        """Say goodbye to a peer that takes longer than it may, or can't be let in."""
        channel = self.channel
        tell_of_refused(self.service.figures, error, channel.peer, channel.first_bytes)
        if isinstance(error, LimitReached) and error.keyword in ("message_timeout", "idle_timeout"):
            channel.farewell(error_reply(error, "message"))
        else:
            # It doesn't read what it is told, or by TLS's own means.
            channel.close(error)
        self._ended()

    @property
    def is_over(self) -> bool:
        """Whether the server knows by itself how this ended."""
        return self.ended.done()

    def owes(self) -> bool:
        """Tell whether requests are still to be answered: also those that are here but for their turn."""
        channel = self.channel
        return self._is_busy or channel.is_full or (channel.unread > 0 and not channel.is_at_end)

    def half_closed(self) -> None:
        """Go on for a client that says no more, unless it turns out to have gone."""
        for request in [*self._numbered.values()]:
            # Nobody will let more of it go.
            request.left = None
            request.go_on()
        if self._has_numbers and self._questions is None:
            self._questions = Questions(self.channel)

    def is_idle(self) -> bool:
        """Tell whether no handler runs, or one that waits for the peer."""
        return not self._is_busy or self.channel.is_read_by_hand

    def requests_of(self, task: asyncio.Task[Any] | None) -> list[Request]:
        """Give those of its requests whose handler a task is, or may have led to where this is asked."""
        here = being_handled.get()
        requests = self._requests()
        sure = [each for each in requests if each is here or (task and each.task is task)]
        if sure or self._context.get(being_served) is not being_served.get():
            return sure
        # A coroutine of Tornado's begins before anybody knows that it is one.
        return [each for each in requests if each.is_future]

    def running(self) -> list[tuple[Any, int]]:
        """Tell which ops run, and by ``perf_counter_ns`` since when."""
        return [(request.op, request.begun) for request in self._requests()]

    def _requests(self) -> list[Request]:
        in_order = [] if self._in_order is None else [self._in_order]
        return [*self._numbered.values(), *in_order]

    def finish(self) -> None:
        """End the connection as soon as no handler works for it."""
        self._drop_held()
        if not self._is_busy:
            self._end()

    # ---- words

    def _blocked(self, op: object, nanoseconds: int) -> None:
        """Tell of a handler that let nobody else have a turn, if that was for too long."""
        if nanoseconds <= self.service.slow_ns:
            return
        self.service.figures.errors["slow_handler"] += 1
        logger.warning(
            "%r, called from %s, blocked the loop for %.3f s: nobody was served in the meantime",
            op,
            self.channel.peer,
            nanoseconds / 1e9,
        )

    def _no_handler(self, op: object) -> str:
        text = f"no handler found for {shown(op)}"
        if self.service.error_detail == "type":
            return text
        known = ", ".join(sorted(map(str, self.service.host.handlers)))
        return f"{text}; this {self.service.kind} has {known}"

    def _end(self) -> None:
        self.channel.close_when_arrived()
        self._ended()

    def _ended(self) -> None:
        set_value(self.ended, None)
        if self.channel.is_lost:
            # What holds each other would be freed by the collector alone.
            self.channel.disown(self)


def _wants_answer(message: Any) -> object:
    """Tell whether a request wants one, that nobody has looked at yet."""
    return message.get("reply", True) if isinstance(message, dict) else True


def _close(stream: IOStream, **message: Any) -> str:
    """Answer the op that every server has; the connection is closed afterwards."""
    return "OK"


def _welcome(stream: IOStream, **message: Any) -> str:
    """Answer who has said who it is; that was looked at before."""
    return WELCOME


#: What handlers mostly return: needn't be asked whether it can be awaited.
_PLAIN = (str, bytes, int, float, dict, list, tuple, type(None))
