"""One connection of a caller: a table of the calls that are open on it.

A peer that puts the number of the call into its answers may have many at a time. One that
doesn't is a classic server, or hasn't answered yet: it has one call at a time, and what it
says is the answer to that.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Protocol

from fastcore._channel import Channel
from fastcore._header import CallHeader, call_fields, request_fields
from fastcore._wire import (
    HAS_TO_BE_ASKED,
    SPEAKS_PLAINLY,
    SPEAKS_VALUES,
    DialectUnknown,
    frozen_call,
    with_extra,
)
from fastcore.addressing import Address
from fastcore.client.calls import RemoteCall, value_of_call
from fastcore.contracts import Owner
from fastcore.errors import BadValue, ConnectionLost
from fastcore.logs import get_logger, shown
from fastcore.protocols import spoken_by
from fastcore.remote_errors import is_error_reply

__all__ = ["ClientConnection", "Keeper", "connection_of"]

logger = get_logger("fastcore.client")


class Keeper(Protocol):
    """Who keeps a connection while no call is open on it."""

    def shared(self, address: Address, /) -> ClientConnection | None:
        """Give a connection that a further call to a server may have at once."""

    def learned(self, connection: ClientConnection, /) -> None:
        """Hear whether the peer numbers its answers."""

    def idle(self, connection: ClientConnection, /) -> None:
        """Hear that no call is open any more."""

    def lost(self, connection: ClientConnection, /) -> None:
        """Hear that the connection has ended."""


class ClientConnection(Owner):
    """The calls of one connection.

    Parameters
    ----------
    channel : Channel
        Nobody else's, unless it is lent.
    keeper : Keeper, optional
        Without one, the stream is somebody's own, who may read from it between calls.

    Attributes
    ----------
    calls : dict of int to RemoteCall
        Those that are open.
    numbers : bool
        Whether the peer numbers its answers.
    is_taken : bool
        Whether somebody has the stream for himself.
    tells : bool
        Whether the keeper wants to hear when no call is open any more.
    is_last : bool
        Whether no further call is begun, as the connection is being closed, or will be by the server after
        the one that is open.
    """

    __slots__ = (
        "_held",
        "_last",
        "_spoke",
        "calls",
        "channel",
        "is_last",
        "is_taken",
        "keeper",
        "loop",
        "numbers",
        "tells",
    )

    def __init__(self, channel: Channel, keeper: Keeper | None = None) -> None:
        self.channel = channel
        # Asked for with each call: from here it costs less than by way of compiled code.
        self.loop = channel.loop
        self.keeper = keeper
        self.calls: dict[int, RemoteCall] = {}
        #: The number of the newest call. They go on above those of tables before this one: of calls that
        #: were given up, answers may still come.
        self._last = channel.messages_out - 1
        self.numbers = channel.has_numbers
        self.is_taken = self.is_last = False
        self.tells = True
        channel.own(self)
        #: A call whose request may hold what only some servers read, until the server has shown what it is.
        self._held: tuple[RemoteCall, dict[str, Any]] | None = None
        self._spoke = channel.dialect.speaks
        channel.dialect.speaks = SPEAKS_VALUES if self.numbers else HAS_TO_BE_ASKED

    def __repr__(self) -> str:
        return f"<calls to {self.channel.peer}: {len(self.calls)} open>"

    @property
    def bytes_in(self) -> int:
        """Bytes that have come, ever."""
        return self.channel.bytes_in

    @property
    def is_free(self) -> bool:
        """Whether it has no call and nothing stands in the way of the next, such as its end."""
        channel = self.channel
        return (
            not self.calls
            and not self.is_taken
            and not self.is_last
            and channel.is_here()
            # Of a new one, a call is to hear what the server said first: that it takes no more, say.
            and (channel.catch_up() if self._last >= 0 else channel.is_open)
            and (self.numbers or channel.in_step)
        )

    def start(self, call: RemoteCall, op: object, message: dict[str, Any], is_last: bool = False) -> bool:
        """Send a request, and have the call wait for its answer; False if it can't be begun here any more.

        Who chooses a connection and who calls over it are not one step: a collector or a signal handler that
        comes in between may have it closed, or use it for itself. Nothing was sent then.

        Parameters
        ----------
        call : RemoteCall
            A new one; it may be iterated over already.
        op : object
            What is called.
        message : dict
            The request.
        is_last : bool
            Whether the server closes the connection after its answer, so that nobody else may use it.
        """
        # In one step: nobody who comes in between is to take the same.
        call.number = number = self._last = self._last + 1
        call.op = op
        call.where = self
        if "reply" in message and not message["reply"]:
            self.is_last |= is_last
            self._send_only(call, message)
            return True
        # First, as sending may run anything: a connection that ends meanwhile is to end its calls. And who
        # wants it for himself, or to close it, says so first and looks for calls then.
        self.calls[number] = call
        if self.is_taken or self.is_last or (is_last and len(self.calls) > 1 and self.keeper is not None):
            del self.calls[number]
            return False
        if is_last:
            self.is_last = self.tells = True
        try:
            fields = request_fields(number)
            if call.header is not None:
                fields = with_extra(fields, call.header)
            self.channel.send(message, fields)
        except BaseException as error:
            has_ended = self.calls.pop(number, None) is None
            if not isinstance(error, Exception):
                raise
            if isinstance(error, ConnectionLost) and not (has_ended or self.channel.is_open):
                return False
            self._not_sent(call, message, error)
            return True
        self.channel.listen_soon()
        return True

    def start_here(self, call: RemoteCall, op: object, message: dict[str, Any]) -> None:
        """As `start`, for a call that has no other connection."""
        if not self.start(call, op, message, closes(message)):
            closed = ConnectionLost(f"the connection to {self.channel.peer} is being closed")
            call.fail(self._told(self.channel.lost_error() if self.channel.is_lost else closed, call))
            self._settle()

    def _send_only(self, call: RemoteCall, message: dict[str, Any]) -> None:
        """Send a request that wants no answer: done when it is safe to go on."""
        fields = call_fields(call.number)
        if call.header is not None:
            fields = with_extra(fields, call.header)
        sent = self.channel.write(message, fields)
        if not sent.done():
            call.add_done_callback(functools.partial(self._given_up_unsent, sent))
            sent.add_done_callback(functools.partial(self._sent, call, message))
        else:
            self._sent(call, message, sent)

    def _given_up_unsent(self, sent: asyncio.Future[None], call: RemoteCall) -> None:
        """Have what still waits copied: nobody is told any more when its memory may be changed."""
        if sent.cancel():
            self.channel.own_if_given_up(sent)

    def _sent(self, call: RemoteCall, message: dict[str, Any], sent: asyncio.Future[None]) -> None:
        if sent.cancelled():
            self._settle()
            return
        error = sent.exception()
        if error is not None:
            self._not_sent(call, message, error)
        else:
            call.sent()
            self._settle()

    def _not_sent(self, call: RemoteCall, message: dict[str, Any], error: BaseException) -> None:
        if isinstance(error, DialectUnknown):
            # The answer to what every server knows shows which values this one reads.
            try:
                self._held = call, frozen_call(message)
            except BadValue as bad:
                call.fail(self._told(bad, call))
                self._settle()
                return
            # Again when that call is begun.
            self.is_last = False
            question = RemoteCall(loop=self.channel.loop)
            question.begin("identity", None)
            self.start_here(question, "identity", {"op": "identity"})
            return
        call.fail(self._told(error, call))
        self._settle()

    # ---- what comes

    def on_message(self, message: Any, header: CallHeader | None) -> bool:
        """Give an answer to its call."""
        if header is None:
            return self._unnumbered(message)
        number = header.call
        if number is None:
            log_nobodys(self.channel.peer, message)
            return True
        if not self.numbers:
            self._learn(True)
        if header.part:
            call = self.calls.get(number)
            if call is not None:
                (call.parts or call.begin_parts()).add(message, not self.channel.in_step)
            return True
        call = self.calls.pop(number, None)
        if self.tells and not self.calls:
            self._settle()
        # None: given up; this is the last that is heard of it.
        if call is not None:
            if header.error:
                call.answer_error(message, self.channel.peer)
            else:
                call.answer(message)
        return bool(self.calls) if self.keeper is None else not self.is_taken

    def _goes_on(self) -> bool:
        """Whether to be given the next message: all of them, or those of open calls."""
        return bool(self.calls) or (self.keeper is not None and not self.is_taken)

    def _unnumbered(self, message: Any) -> bool:
        """Take what a classic server says: the answer to the one call that is open."""
        call = None if self.numbers else self._only_call()
        if call is None:
            self._fail_all(ConnectionLost(f"{self.channel.peer} sent a message that answers no call"))
            return False
        self._learn(False)
        # An answer to a request that isn't sent whole: the server has read no further.
        if self.channel.is_full:
            self.channel.close()
        self._settle()
        if is_error_reply(message):
            call.answer_error(message, self.channel.peer)
        else:
            call.answer(message)
        return bool(self.calls)

    def _only_call(self) -> RemoteCall | None:
        """Take the call that is open, where there is one and no more; who comes in between may give it up."""
        if len(self.calls) != 1:
            return None
        try:
            _, call = self.calls.popitem()
        except KeyError:
            return None
        return call

    def _learn(self, numbers: bool) -> None:
        self.numbers = numbers
        self.channel.dialect.speaks = SPEAKS_VALUES if numbers else SPEAKS_PLAINLY
        held, self._held = self._held, None
        if held is not None:
            call, message = held
            self.start_here(call, call.op, message)
        if self.keeper is not None:
            self.keeper.learned(self)

    def on_error(self, error: Exception, header: CallHeader | None) -> bool:
        """End the call whose answer can't be read; all of them, where there will be none."""
        call = None
        if isinstance(error, ConnectionLost):
            self._fail_all(error)
            return False
        channel = self.channel
        if channel.is_hopeless:
            if channel.messages_in:
                error.add_note(f"in what {channel.peer} said")
            else:
                error = spoken_by(channel.peer, channel.first_bytes, error)
            self._fail_all(error)
            return False
        if header is not None and header.call is not None:
            call = self.calls.pop(header.call, None)
            if header.part:
                # Otherwise its handler would wait for ever until it may send more.
                self._tell_given_up(header.call)
        elif header is None and self.numbers:
            # One of them will get no answer, and nobody knows which.
            self._fail_all(error)
            return False
        elif not self.numbers:
            call = self._only_call()
        if call is not None:
            error.add_note(f"in the answer of op {shown(call.op, 200)} at {self.channel.peer}")
            call.fail(error)
        if not self.calls:
            self._settle()
        return self._goes_on()

    def _fail_all(self, error: Exception) -> None:
        calls, self.calls = self.calls, {}
        self.channel.close()
        held, self._held = self._held, None
        if held is not None:
            call, _ = held
            call.fail(self._told(error, call))
        for call in calls.values():
            call.fail(self._told(error, call))
        self._let_go()

    def _let_go(self) -> None:
        """Leave a channel that is lost: what holds each other would be freed by the collector alone."""
        if self.channel.is_lost and not self.calls:
            self.channel.disown(self)

    def _told(self, error: BaseException, call: RemoteCall) -> BaseException:
        """Name the op in the error of a request that can't be sent, or of a connection that was lost."""
        if isinstance(error, ConnectionLost):
            return ConnectionLost(f"{error.args[0]} during the call of {call.op!r}", error.real_error)
        if isinstance(error, BadValue):
            return value_of_call(error, call.op, self.channel.peer)
        return error

    def writable(self) -> None:
        """Do nothing: calls don't wait for that."""

    def connection_lost(self) -> None:
        """Leave the keeper; the calls hear of it when what had arrived has been read."""
        if self.keeper is not None:
            self.keeper.lost(self)
        if self.calls and not self.channel.is_lost:
            # It was borrowed from a server's connection, and that wants it back. It would take the
            # answers that are still to come for requests, so it ends with them.
            self._fail_all(ConnectionLost(f"the handler that lent the stream to {self.channel.peer} is over"))
        self._let_go()

    def over_limit(self, error: Exception) -> None:
        """Close: nothing is owed to a server that takes too long."""
        self.channel.close(error)

    def owes(self) -> bool:
        """Tell that nothing is owed to a server that says no more."""
        return False

    def half_closed(self) -> None:
        """Do nothing: it is closed then."""

    def is_idle(self) -> bool:
        """Tell whether no call is open."""
        return not self.calls and not self.is_taken

    # ---- given up

    def give_up(self, call: RemoteCall) -> None:
        """Forget a call. A peer that numbers its answers is told; from another nothing can follow."""
        held = self._held
        if held is not None and held[0] is call:
            self._held = None
            self.channel.close()
            return
        if self.calls.pop(call.number, None) is None:
            return
        if not self.numbers:
            self.channel.close()
            return
        self._tell_given_up(call.number)
        if self.tells and not self.calls:
            self._settle()

    def _tell_given_up(self, number: int) -> None:
        self._tell(call_fields(None, 0, -1, -1, number))

    def grant(self, call: RemoteCall, parts: int) -> None:
        """Let so many more parts come."""
        self._tell(call_fields(call.number, 0, -1, parts))

    def _tell(self, fields: bytes) -> None:
        """Say something about a call; where that can't be sent, the call ends with the connection."""
        try:
            self.channel.send(None, fields)
        except Exception:
            self.channel.close()

    def take(self) -> bool:
        """Give the stream to somebody for himself; False if it is in use, or being closed."""
        self.is_taken = True
        if self.calls or self.is_last or not self.channel.is_open:
            self.is_taken = False
            return False
        self.channel.stop_listening()
        return True

    def leave_if_free(self) -> bool:
        """Close the connection, unless it is in use."""
        if self.is_last or self.is_taken:
            return False
        self.is_last = True
        if self.calls or self.is_taken:
            self.is_last = False
            return False
        self.leave()
        return True

    def leave(self) -> None:
        """Close the connection; give it back if it is only lent."""
        if self.channel.is_borrowed:
            self._disown()
            if self.keeper is not None:
                self.keeper.lost(self)
        else:
            self.channel.close_when_sent()

    def close(self) -> None:
        """Close the connection now, and give up its calls.

        The server is told: an end alone says no more than that nothing follows.
        """
        # Whoever comes in between calls over another one.
        self.is_last = True
        if self.numbers:
            for number in [*self.calls]:
                self._tell_given_up(number)
        self.channel.close()

    def _settle(self) -> None:
        """Leave the connection to its keeper, or its stream to whom it belongs."""
        if self.calls:
            return
        if self._held is not None:
            # What was to show it couldn't be sent, or read.
            unknown = ConnectionLost(f"{self.channel.peer} doesn't tell what it is")
            self._fail_all(self.channel.lost_error() if self.channel.is_lost else unknown)
        elif self.is_last:
            self.leave()
        elif self.keeper is not None:
            self.keeper.idle(self)
        else:
            self._disown()

    def _disown(self) -> None:
        """Give the stream back, as it was if nothing was learned of the server."""
        if self.channel.dialect.speaks == HAS_TO_BE_ASKED:
            self.channel.dialect.speaks = self._spoke
        self.channel.disown(self)


def log_nobodys(peer: str, message: object) -> None:
    """Say that a message was dropped which answers no call."""
    logger.warning(
        "dropped what %s said beside its answers: %.200r; to get such messages use connect, write "
        "and read, or let the handler yield them",
        peer,
        message,
        extra={"about": peer},
    )


def closes(message: dict[str, Any]) -> bool:
    """Whether the server closes the connection after its answer to a request."""
    # The cheap half first. The op of this name has the server close it.
    return bool("close" in message and message["close"]) or message.get("op") == "close"  # noqa: RUF019


def connection_of(channel: Channel) -> ClientConnection:
    """Give the calls of somebody's own stream: those that are open, or a new table.

    Raises
    ------
    RuntimeError
        If the stream belongs to a server, or somebody reads from it.
    """
    owner = channel.owner
    if isinstance(owner, ClientConnection):
        return owner
    return ClientConnection(channel)
