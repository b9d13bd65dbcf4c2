"""What a pool knows of each server: its connections, and who waits for one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from fastcore._futures import set_value
from fastcore._wire import frozen_call
from fastcore.addressing import Address
from fastcore.client.calls import RemoteCall
from fastcore.client.connection import ClientConnection, closes
from fastcore.transport.event_loop import Timer

__all__ = ["Attempt", "KnownServer", "Waiting", "WaitingCall", "WaitingStream"]


class WaitingCall:
    """A call that waits for a connection, for so many seconds."""

    __slots__ = ("call", "message", "since", "timeout", "wants_all")

    #: Nothing has come for a call that isn't under way.
    bytes_in = 0

    def __init__(self, call: RemoteCall, message: dict[str, Any], since: float, timeout: float) -> None:
        self.call = call
        self.message = message
        self.since = since
        self.timeout = timeout
        #: Whether it can't share a connection: the server closes it afterwards.
        self.wants_all = closes(message)

    @property
    def is_over(self) -> bool:
        """Whether it waits no more, for whatever reason."""
        return self.call.done()

    def get(self, connection: ClientConnection) -> bool:
        """Use a connection that nobody else uses, or that may be shared; False if it can't any more."""
        return connection.start(self.call, self.message.get("op"), self.message, self.wants_all)

    def freeze(self) -> None:
        """Have its request say what it says now, whenever it is sent.

        Raises
        ------
        BadValue
            If it can't be sent.
        """
        self.message = frozen_call(self.message)

    def fail(self, error: Exception) -> None:
        """Say that there will be none."""
        self.call.fail(error)


class WaitingStream:
    """Somebody who waits for a connection of his own, for so many seconds."""

    __slots__ = ("future", "since", "timeout")

    wants_all = True

    def __init__(self, future: asyncio.Future[ClientConnection], since: float, timeout: float) -> None:
        self.future = future
        self.since = since
        self.timeout = timeout

    @property
    def is_over(self) -> bool:
        """Whether it waits no more, for whatever reason."""
        return self.future.done()

    def get(self, connection: ClientConnection) -> bool:
        """Take a connection out of all others' hands; False if it can't any more, or needs none."""
        if not connection.take():
            return False
        set_value(self.future, connection)
        if self.future.cancelled():
            connection.is_taken = False
            return False
        return True

    def fail(self, error: Exception) -> None:
        """Say that there will be none."""
        if not self.future.done():
            self.future.set_exception(error)


#: Who waits for a connection.
Waiting = WaitingCall | WaitingStream


class KnownServer:
    """One server: its connections, and who waits for one."""

    def __init__(self, address: Address, share: int) -> None:
        self.address = address
        #: All that are open.
        self.connections: dict[ClientConnection, None] = {}
        #: Those that nobody uses; the one used last is the last.
        self.free: dict[ClientConnection, None] = {}
        #: The fewest that there were since that was looked at.
        self.least_free = 0
        self.trims: Timer | None = None
        #: Those that calls may share.
        self.shared: dict[ClientConnection, None] = {}
        self.waiting: deque[Waiting] = deque()
        #: How many of those can't share one; counted here, as all of them are asked for with each that comes.
        self.exclusive = 0
        self.connecting = 0
        #: Whether it numbers its answers; None until the first one.
        self.numbers: bool | None = None
        #: How many connections it may have before that; one of a few is for asking.
        self.allowed = max(share - 1, 1)
        self.is_asked = False
        #: Whether no more connections are made as long as one of those to share can be used, or will be soon.
        self.is_grown = self.is_growing = False
        #: Whether those who wait are being served, and are to be looked at once more after that: whatever
        #: comes in between, such as the collector or a signal handler, may call, and end calls.
        self.is_serving = self.serves_again = False

    @property
    def since(self) -> float:
        """Since when the first one waits."""
        first = self.first()
        return float("inf") if first is None else first.since

    def first(self) -> Waiting | None:
        """Give the one who has waited longest."""
        try:
            return self.waiting[0]
        except IndexError:
            return None

    def push(self, waiting: Waiting) -> None:
        """Let one wait behind the others."""
        self.waiting.append(waiting)
        self.exclusive += waiting.wants_all

    def push_first(self, waiting: Waiting) -> None:
        """Let one wait before the others."""
        self.waiting.appendleft(waiting)
        self.exclusive += waiting.wants_all

    def pop(self, waiting: Waiting) -> bool:
        """Let one wait no longer; False if somebody who came in between has seen to that."""
        try:
            # It is among the first, so little is searched.
            self.waiting.remove(waiting)
        except ValueError:
            return False
        self.exclusive -= waiting.wants_all
        return True

    def pop_free(self) -> ClientConnection | None:
        """Take the connection that was used last of those that nobody uses."""
        try:
            connection, _ = self.free.popitem()
        except KeyError:
            return None
        self.least_free = min(self.least_free, len(self.free))
        return connection


class Attempt:
    """One connection that is being made, counted by its server until that is over."""

    __slots__ = ("_counts", "server")

    def __init__(self, server: KnownServer) -> None:
        self.server = server
        self._counts = True
        server.connecting += 1

    def end(self) -> bool:
        """Count it no more; False if that was done before."""
        counted, self._counts = self._counts, False
        self.server.connecting -= counted
        return counted
