"""The connections of a pool in one event loop, and who waits for one.

Calls to a server that numbers its answers share a few connections, each of them the one with the
fewest others. To another server, each call that is under way has one of its own. Whether a server
numbers its answers shows with the first one, so until then it is treated as one that doesn't;
where that takes more than a moment while others wait, it is asked for its identity, which every
server tells at once.

Who waits is served in the order of coming, and by being handed a connection: nobody who comes
later can take it in between.
"""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from tornado.iostream import IOStream

from fastcore.addressing import Address, format_address
from fastcore.client.calls import RemoteCall, value_of_call
from fastcore.client.connection import ClientConnection
from fastcore.client.waiting import Attempt, KnownServer, Waiting, WaitingCall, WaitingStream
from fastcore.errors import BadValue, RPCClosed
from fastcore.transport.connecting import open_stream
from fastcore.transport.event_loop import TEARDOWN_GRACE, Timer, patience
from fastcore.transport.tornado import channel_of

__all__ = ["Connections", "Rules"]

#: Seconds in which a server may show by its first answer that it numbers them.
_FIRST_ANSWER_TIMEOUT: Final = 0.02
#: Seconds in which it may do so when it is asked for nothing else.
_PROBE_TIMEOUT: Final = 1.0
#: Seconds in which a connection must have been needed once, if there are more than a few free ones.
_SPARE_TTL: Final = 5.0
_MAX_SPARES: Final = 4
#: The machine has no descriptor left for one more connection.
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Rules(Protocol):
    """What holds for all connections of a pool."""

    limit: int | None
    share: int
    timeout: float
    closed: bool
    reuses: bool
    options: dict[str, Any]
    current: dict[Address, ClientConnection]

    def forget(self, connections: Connections) -> None:
        """Know no more of those of a loop, where all has ended."""


class Connections:
    """The connections of a pool in one event loop.

    Parameters
    ----------
    rules : Rules
        The pool's.
    loop : asyncio.AbstractEventLoop
        Where they are used.
    """

    def __init__(self, rules: Rules, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._rules = rules
        # What is gone through is copied first: a collector or a signal handler that comes in between may
        # call, and close.
        self._servers: dict[Address, KnownServer] = {}
        self._of: dict[ClientConnection, KnownServer] = {}
        #: When somebody was given a connection last, while others wait.
        self._progress = 0.0
        self._watch: Timer | None = None
        self._scarce = False
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- what there is

    def __iter__(self) -> Iterator[tuple[Address, ClientConnection]]:
        """Give the open connections, with the address of each."""
        return ((server.address, connection) for connection, server in [*self._of.items()])

    @property
    def open(self) -> int:
        """Connections that are open or being made."""
        return len(self._of) + sum(server.connecting for server in [*self._servers.values()])

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return sum(len(server.waiting) for server in [*self._servers.values()])

    # ---- calls

    def shared(self, address: Address) -> ClientConnection | None:
        """Give a connection that further calls may share at once, if there is one."""
        server = self._servers.get(address)
        if server is None or server.waiting:
            return None
        return self._least_used(server)

    def _least_used(self, server: KnownServer) -> ClientConnection | None:
        """Give the connection with the fewest calls, if there are as many as there should be.

        Nobody knows how large an answer will be before it comes, so a call goes behind another
        one only where it can't have a connection without any.
        """
        best: ClientConnection | None = None
        for connection in [*server.shared]:
            if connection.is_last or connection.is_taken or not connection.channel.is_clear():
                continue
            if not connection.calls:
                if connection.channel.catch_up():
                    return connection
                continue
            if best is None or len(connection.calls) < len(best.calls):
                best = connection
        if not server.is_grown:
            if not self._may_grow(server):
                server.is_grown = True
            elif not self._is_full(server):
                return None
        return best

    def _may_grow(self, server: KnownServer) -> bool:
        return self._to_share(server) < self._rules.share

    @staticmethod
    def _to_share(server: KnownServer) -> int:
        """How many connections calls share, or will when they have given their first answer."""
        return sum(not (each.is_taken or each.is_last) for each in [*server.connections])

    def call(self, call: RemoteCall, address: Address, message: dict[str, Any]) -> None:
        """Start a call over a connection that is free, or have it wait for one."""
        waiting = WaitingCall(call, message, self.loop.time(), self._rules.timeout)
        call.where = self
        self._enter(address, waiting)
        if call.where is self:
            # It waits, and whoever made it goes on.
            try:
                waiting.freeze()
            except BadValue as error:
                call.fail(value_of_call(error, call.op, format_address(address)))
                self._serve_all()

    async def stream(self, address: Address, timeout: float) -> ClientConnection:
        """Give a connection that nobody else uses."""
        waiting = WaitingStream(self.loop.create_future(), self.loop.time(), timeout)
        future = waiting.future
        try:
            async with patience(timeout):
                self._enter(address, waiting)
                await future
        except TimeoutError:
            # What has led here knows the task: no error is raised here. And it may have come meanwhile.
            pass
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())
            raise
        finally:
            future.cancel()
        try:
            if future.cancelled():
                raise self._no_turn(address, timeout)
            return future.result()
        finally:
            # The error that it holds knows this frame.
            del future, waiting

    def give_up(self, call: RemoteCall) -> None:
        """Forget a call that waits: it leaves its place when that is looked at."""
        self._serve_all()

    def grant(self, call: RemoteCall, parts: int) -> None:
        """Do nothing: no part can come yet."""

    @property
    def bytes_in(self) -> int:
        """Give 0: nothing has come for those that wait."""
        return 0

    # ---- the rules

    def _enter(
        self,
        address: Address,
        waiting: Waiting,
        push: Callable[[KnownServer, Waiting], None] = KnownServer.push,
    ) -> None:
        if self._watch is None:
            self._progress = waiting.since
        server = self._line_up(address, waiting, push)
        # Not before: whoever closes the pool turns away those who wait by then.
        if self._rules.closed:
            if server.pop(waiting):
                waiting.fail(_closed(address))
            self._forget(server)
            return
        self._serve(server)
        if server.waiting:
            self._look_after_a_while()
            self._grow_for_a_moment(server)
            self._ask_after_a_moment(server)

    def _line_up(
        self, address: Address, waiting: Waiting, push: Callable[[KnownServer, Waiting], None]
    ) -> KnownServer:
        """Have one wait for a connection to a server."""
        while True:
            server = self._servers.get(address) or self._known(address)
            push(server, waiting)
            # Not where the server has been forgotten meanwhile, by somebody who came in between.
            if self._servers.get(address) is server or not server.pop(waiting):
                return server

    def _known(self, address: Address) -> KnownServer:
        """Give what is known of a server: the same to all who come, whoever comes in between."""
        return self._servers.setdefault(address, KnownServer(address, self._rules.share))

    def _grow_for_a_moment(self, server: KnownServer) -> None:
        """Have those who may share wait no longer than that for further connections."""
        if server.numbers and not (server.is_grown or server.is_growing):
            server.is_growing = True
            self._after(_FIRST_ANSWER_TIMEOUT, self._grown, server)

    def _grown(self, server: KnownServer) -> None:
        """Make do with the connections that are there."""
        server.is_growing = False
        server.is_grown = True
        self._serve(server)

    def _serve(self, server: KnownServer) -> None:
        """Hand out what is there to those who wait, and have made what is lacking."""
        server.serves_again = True
        while server.serves_again and not server.is_serving:
            server.is_serving = True
            server.serves_again = False
            try:
                self._hand_out(server)
            finally:
                server.is_serving = False
        if not self.waiting:
            # A loop that has a timer needs longer for each of its turns.
            self._watch_no_more()
            return
        while (lacking := self._first_that_lacks_one()) is not None and self._make_room(lacking):
            attempt = Attempt(lacking)
            if self._rules.limit is not None and self.open > self._rules.limit:
                # Somebody who came in between makes the one that there was room for.
                attempt.end()
                return
            task = self.loop.create_task(self._connect(lacking, attempt))
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._attempted, attempt))

    def _hand_out(self, server: KnownServer) -> None:
        while (first := server.first()) is not None:
            if first.is_over:
                server.pop(first)
                continue
            connection = self._place_for(server, first)
            if connection is None:
                return
            if server.pop(first):
                self._progress = self.loop.time()
                if first.get(connection):
                    continue
                self._enter(server.address, first, KnownServer.push_first)
            # Somebody who came in between has done with the one, or uses the other.
            if not (connection.calls or connection.is_taken):
                self.release(connection)

    def _serve_all(self) -> None:
        for server in [*self._servers.values()]:
            if server.waiting:
                self._serve(server)

    def _place_for(
        self, server: KnownServer, waiting: WaitingCall | WaitingStream
    ) -> ClientConnection | None:
        shares = bool(self._rules.share) and not waiting.wants_all
        best = self._least_used(server) if shares else None
        if best is not None and not best.calls:
            return best
        if waiting.wants_all:
            for connection in [*server.shared]:
                if connection.is_free:
                    server.shared.pop(connection, None)
                    return connection
        while server.free and (free := server.pop_free()) is not None:
            if free.is_free:
                return free
            if not free.calls and not free.is_taken:
                # The server said something that nobody asked for, or it isn't this process's.
                free.close()
        if shares and best is None and (self._is_full(server) or not self._may_grow(server)):
            # Large messages are in the way of all of them: it waits behind the least.
            usable = [each for each in [*server.shared] if each.channel.is_open and not each.is_last]
            best = min(usable, key=lambda each: len(each.calls), default=None)
        return best

    def _listen_to_all(self) -> None:
        """Hear of each connection that comes free, as somebody waits who can't share one."""
        for connection in [*self._of]:
            connection.tells = True

    def _is_full(self, server: KnownServer) -> bool:
        limit = self._rules.limit
        return limit is not None and self.open >= limit

    def _first_that_lacks_one(self) -> KnownServer | None:
        servers = [*self._servers.values()]
        lacking = [server for server in servers if server.waiting and self._lacks_one(server)]
        return min(lacking, key=lambda server: server.since, default=None)

    def _lacks_one(self, server: KnownServer) -> bool:
        """Whether one more connection should be made for those who wait."""
        if self._scarce and server.connections:
            return False
        wanted = len(server.waiting) - server.connecting
        if server.numbers and self._rules.share:
            shared = max(self._rules.share - self._to_share(server), 0)
            wanted = min(wanted, server.exclusive + shared - server.connecting)
        elif server.numbers is None and self._rules.share:
            wanted = min(wanted, server.allowed - len(server.connections) - server.connecting)
        return wanted > 0

    def _make_room(self, server: KnownServer) -> bool:
        """Whether a connection may be made, if need be after closing a free one to another server."""
        if not self._is_full(server):
            return True
        for connection, other in [*self._of.items()]:
            if other is not server and connection.leave_if_free():
                # Not when all has left: the next one is made now.
                connection.channel.close()
                return True
        self._listen_to_all()
        return False

    def _patience(self, server: KnownServer) -> float:
        """Give the seconds for a connection: those who have waited a while have less patience left.

        Not where it is made: a frame that knows who waits is kept by the error that he is given.
        """
        first = server.first()
        if first is None:
            return self._rules.timeout
        waited = self.loop.time() - first.since
        if waited <= first.timeout / 10:
            return first.timeout
        return max(first.timeout - waited, first.timeout / 10)

    def _attempted(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if attempt.end() and not self._rules.closed:
            # It was cancelled, as where the loop ends: a connection for the next who waits would outlive
            # that. If it still runs in a while, a program has cancelled all its tasks, and goes on.
            self._after(TEARDOWN_GRACE, self._serve, attempt.server)

    async def _connect(self, server: KnownServer, attempt: Attempt) -> None:
        started = self.loop.time()
        try:
            stream = await open_stream(*server.address, self._patience(server), **self._rules.options)
            channel = channel_of(stream)
            if channel.is_lost:
                # Since it was made: TLS tells of a certificate that is refused only then.
                raise channel.lost_error()
        except Exception as error:
            attempt.end()
            self._not_connected(server, error, started)
            return
        self._scarce = False
        if self._rules.closed:
            attempt.end()
            stream.close()
            return
        self.add(server.address, stream, attempt)

    def _not_connected(self, server: KnownServer, error: Exception, started: float) -> None:
        reason = getattr(error, "real_error", None)
        if isinstance(reason, OSError) and reason.errno in _OUT_OF_DESCRIPTORS and self._of:
            # Those that are open will have to do.
            self._scarce = True
            return
        if server.shared and not server.exclusive:
            self._grown(server)
            return
        # Those who have come since then are tried for themselves.
        while (first := server.first()) is not None and first.since <= started:
            if server.pop(first):
                first.fail(error)
        self._serve(server)
        self._forget(server)

    def _forget(self, server: KnownServer) -> None:
        """Know nothing more of a server to which there is no connection: it may be another one next."""
        if server.connections or server.connecting or server.waiting:
            return
        if self._servers.get(server.address) is server:
            self._servers.pop(server.address, None)
        if server.trims is not None:
            server.trims.cancel()
        while (first := server.first()) is not None:
            # Somebody came in between.
            if server.pop(first):
                self._enter(server.address, first)
        self._let_go()

    def _let_go(self) -> None:
        """Have the pool know no more of these, where all has ended: each has the other."""
        if not (self._servers or self._rules.reuses):
            self._rules.forget(self)

    def add(self, address: Address, stream: IOStream, attempt: Attempt | None = None) -> None:
        """Take in an open stream, and give it to who waits first."""
        connection = ClientConnection(channel_of(stream), self)
        while True:
            server = self._servers.get(address) or self._known(address)
            server.connections[connection] = None
            # As when one lines up.
            if self._servers.get(address) is server:
                break
            server.connections.pop(connection, None)
        self._of[connection] = server
        if attempt is not None:
            # Not before: whoever comes in between counts it once too often rather than not at all.
            attempt.end()
        if connection.channel.is_lost:
            # Since it was looked at: then it wasn't known yet whose it is.
            self.lost(connection)
        if connection.numbers:
            server.numbers = True
            self._share(server, connection)
        if connection not in server.shared:
            self._put(connection, server.free)
        self._serve(server)
        if server.waiting:
            self._ask_after_a_moment(server)

    def _ask_after_a_moment(self, server: KnownServer) -> None:
        """Have the server asked, where those that wait don't know whether they may share a connection."""
        if self._rules.share and server.numbers is None and server.connections and not server.is_asked:
            server.is_asked = True
            self._after(_FIRST_ANSWER_TIMEOUT, self._ask, server)

    def _ask(self, server: KnownServer) -> None:
        """Ask a server what every server answers at once, as its first answer keeps others waiting."""
        if server.numbers is not None or not server.waiting:
            server.is_asked = False
            return
        server.allowed += 1
        question = RemoteCall(loop=self.loop)
        question.begin("identity", self)
        server.push_first(WaitingCall(question, {"op": "identity"}, self.loop.time(), self._rules.timeout))
        self._serve(server)
        self._after(_PROBE_TIMEOUT, self._allow_more, server)

    def _allow_more(self, server: KnownServer) -> None:
        """Do without sharing, as there is no answer even to that."""
        if server.numbers is None and server.waiting:
            server.allowed *= 2
            self._serve(server)
            self._after(_PROBE_TIMEOUT, self._allow_more, server)
        else:
            server.is_asked = False

    # ---- what connections tell

    def learned(self, connection: ClientConnection) -> None:
        """Share a connection whose peer numbers its answers."""
        server = self._of.get(connection)
        if server is None:
            return
        server.numbers = connection.numbers
        if connection.numbers:
            self._share(server, connection)
        if server.waiting:
            self.loop.call_soon(self._serve, server)
            self._grow_for_a_moment(server)

    def _share(self, server: KnownServer, connection: ClientConnection) -> None:
        if connection.is_last or connection in server.shared:
            return
        if len(server.shared) < self._rules.share:
            self._put(connection, server.shared)
            # Also where calls wait to have it closed for the sake of their own: see `idle`.
            connection.tells = not self._rules.reuses or self._watch is not None

    def _put(self, connection: ClientConnection, group: dict[ClientConnection, None]) -> None:
        """Have a connection found among others, unless it has ended."""
        group[connection] = None
        if connection not in self._of:
            group.pop(connection, None)

    def idle(self, connection: ClientConnection) -> None:
        """Keep a connection for the next call, or close it."""
        server = self._of.get(connection)
        if server is None or not connection.channel.is_open or connection.is_taken:
            return
        if not self._rules.reuses:
            connection.leave_if_free()
            return
        if connection in server.shared:
            connection.tells = self._watch is not None
        elif connection not in server.free:
            self._put(connection, server.free)
            if len(server.free) > _MAX_SPARES and server.trims is None:
                self._trim_later(server)
        if self._watch is not None:
            self._serve_all()

    def _trim_later(self, server: KnownServer) -> None:
        server.least_free = len(server.free)
        server.trims = self._after(_SPARE_TTL, self._trim, server)

    def _trim(self, server: KnownServer) -> None:
        """Close those that nobody needed for a while, as after a burst, but for a few."""
        server.trims = None
        # The one used last is taken first, so these are the first ones.
        free = [*server.free]
        for connection in free[: min(server.least_free, len(free) - _MAX_SPARES)]:
            connection.leave_if_free()
        if len(server.free) > _MAX_SPARES:
            self._trim_later(server)

    def release(self, connection: ClientConnection) -> None:
        """Take back what `stream` gave."""
        connection.is_taken = False
        server = self._of.get(connection)
        channel = connection.channel
        if not connection.numbers and channel.messages_in != channel.messages_out:
            # What is still to come would be taken for the answer of whoever calls next.
            channel.close()
        elif server is not None:
            if connection.numbers:
                self._share(server, connection)
                connection.channel.listen_soon()
            self.idle(connection)

    def lost(self, connection: ClientConnection) -> None:
        """Forget a connection that has ended, whoever ended it."""
        server = self._of.pop(connection, None)
        if server is None:
            return
        self._scarce = False
        if self._rules.current.get(server.address) is connection:
            self._rules.current.pop(server.address, None)
        server.connections.pop(connection, None)
        server.is_grown = False
        for group in (server.free, server.shared):
            group.pop(connection, None)
        self._forget(server)
        if not self.loop.is_closed() and self._watch is not None:
            self.loop.call_soon(self._serve_all)

    # ---- time

    def _look_after_a_while(self) -> None:
        if self._watch is None:
            self._look_by(self.loop.time() + self._rules.timeout)

    def _look_by(self, when: float) -> None:
        watch = Timer(self.loop, when, self._look, when)
        if self._watch is None:
            self._watch = watch
        else:
            # Somebody who came in between looks by himself.
            watch.cancel()

    def _after(self, seconds: float, callback: Callable[..., object], *args: object) -> Timer:
        return Timer(self.loop, self.loop.time() + seconds, callback, *args)

    def _watch_no_more(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()

    def _look(self, due: float) -> None:
        """End the waiting of those for whom nothing has moved for too long."""
        self._watch = None
        now = self.loop.time()
        timeout = self._rules.timeout
        if now - due > timeout / 4:
            # The loop stood still. What they wait for may be here already.
            self._look_by(now + timeout / 4)
            return
        next_look = None
        for server in [*self._servers.values()]:
            for waiting in [*server.waiting]:
                if waiting.timeout != timeout:
                    # It looks at the time itself.
                    continue
                until = max(waiting.since, self._progress) + timeout
                if not waiting.is_over and (until > now + 1e-3 or server.connecting):
                    until = max(until, now + timeout / 4)
                    next_look = until if next_look is None else min(next_look, until)
                    break
                if server.pop(waiting):
                    waiting.fail(self._no_turn(server.address, timeout))
        if next_look is not None:
            self._look_by(next_look)

    def _no_turn(self, address: Address, timeout: float) -> TimeoutError:
        return TimeoutError(
            f"no connection to {format_address(address)} was free within {timeout:g} s: "
            f"{len(self._of)} are open, limit={self._rules.limit}"
        )

    # ---- the end

    def close_free(self) -> None:
        """Close the connections that nobody uses."""
        self._listen_to_all()
        for connection in [*self._of]:
            connection.leave_if_free()

    def close_all(self) -> None:
        """Close all connections."""
        for connection in [*self._of]:
            if connection.channel.is_borrowed:
                connection.leave()
            else:
                connection.close()

    def end(self) -> None:
        """Close all connections, and turn away who waits."""
        self.close_all()
        for server in [*self._servers.values()]:
            while (first := server.first()) is not None:
                if server.pop(first):
                    first.fail(_closed(server.address))
        for task in [*self._tasks]:
            task.cancel()
        self._watch_no_more()
        self._let_go()


def _closed(address: Address) -> RPCClosed:
    return RPCClosed(
        f"no call to {format_address(address)}: close_rpc() or close() was called here, or the block of "
        "`with` was left; make another rpc, or a pool"
    )
