"""Which worker gets which call: behind ``fastcore.dask.rpc``, all in the loop of its client.

What is known of the cluster is looked at as long as there are calls, and not longer. Each worker
has a pool of connections, and one connection more on which only one thing is asked: to be told before
its server ends. So a worker that is lost is known to be, before a call has to find out.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from typing import Any, Final

from distributed import Client
from tornado.iostream import IOStream

from fastcore.addressing import Address, format_address, parse_address
from fastcore.client.calls import RemoteCall
from fastcore.client.connection import ClientConnection
from fastcore.client.pool import ConnectionPool
from fastcore.dask.registry import TELL_END, Entry, lookup
from fastcore.errors import ConnectionLost, RPCClosed
from fastcore.remote_errors import is_error_reply, remote_exception
from fastcore.transport.connecting import connect
from fastcore.transport.event_loop import Timer, run_in_thread_of
from fastcore.transport.streams import read, write

__all__ = ["Dispatcher", "WorkerLost"]

#: Seconds between two looks at the cluster while there are calls, and while none of them can begin.
_POLL_INTERVAL: Final = 1.0
_RETRY_INTERVAL: Final = 0.1
#: Seconds that one worker is given to take a connection.
_CONNECT_TIMEOUT: Final = 3.0
#: Seconds that calls have in a worker that the scheduler knows no more: it may be ending in order.
_GRACE_PERIOD: Final = 10.0


class WorkerLost(ConnectionLost):
    """A worker was lost while a call was under way in it, or before one that was only for it.

    Attributes
    ----------
    worker : str
        The worker's address in the cluster.
    may_have_run : bool
        Whether the call had been sent: then nobody knows.
    """

    def __init__(self, worker: str, message: str, may_have_run: bool) -> None:
        super().__init__(message)
        self.worker = worker
        self.may_have_run = may_have_run


class _Endpoint:
    """One worker that calls may be given to."""

    def __init__(self, worker: str, address: Address, pool: ConnectionPool) -> None:
        self.worker = worker
        self.address = address
        self.pool = pool
        self.calls = 0
        #: The connection that tells of its end; until there is one, it is given no calls.
        self.watch: IOStream | None = None
        self.watched_since = float("inf")
        self.is_lost = False
        #: When its worker was missed at first.
        self.gone_since: float | None = None

    def close(self) -> None:
        """Close all connections; the calls under way hear of it."""
        self.leave()
        self.pool.close()

    def leave(self) -> None:
        """Keep no connection but those with calls under way."""
        self.is_lost = True
        self.pool.retire()
        if self.watch is not None:
            self.watch.close()


class WorkerCall(RemoteCall):
    """A call of the cluster, and where it is under way."""

    __slots__ = ("dispatcher", "endpoint", "is_bound", "message", "since")
    dispatcher: Dispatcher
    message: dict[str, Any]
    since: float
    endpoint: _Endpoint | None
    #: Whether only this one worker will do.
    is_bound: bool

    def fail(self, error: BaseException) -> None:
        """End the call; have it begin elsewhere instead, if the worker never got it."""
        endpoint = self.endpoint
        if endpoint is None or self.done() or not isinstance(error, ConnectionLost | RPCClosed):
            super().fail(error)
        elif (sent := isinstance(self.where, ClientConnection)) or self.is_bound:
            super().fail(self.dispatcher.lost(error, self.op, endpoint, sent))
        else:
            self.dispatcher.begin_elsewhere(self, endpoint, str(error))


class Dispatcher:
    """Gives calls to the workers of a cluster. It is where those are that wait for one.

    Parameters
    ----------
    client : distributed.Client
        In whose loop all of this happens.
    name, timeout, per_worker, call_timeout, share, options
        As ``fastcore.dask.rpc`` takes them.
    """

    #: Nothing has come for calls that wait here.
    bytes_in = 0

    def __init__(
        self,
        client: Client,
        name: str,
        timeout: float,
        per_worker: int | None,
        call_timeout: float | None,
        share: int,
        options: dict[str, Any],
    ) -> None:
        self._client = client
        self._name = name
        self._timeout = timeout
        self._per_worker = per_worker
        self._call_timeout = call_timeout
        self._new_pool = functools.partial(ConnectionPool, None, min(timeout, _CONNECT_TIMEOUT), share=share)
        self._options = options
        io_loop: Any = client.loop
        self._loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
        self._entries: dict[str, Entry] = {}
        self._endpoints: dict[str, _Endpoint] = {}
        #: Those that are lost, and have calls under way all the same.
        self._lost: set[_Endpoint] = set()
        #: Those that may be given a call, by how many they have; and how many the least has, or more.
        self._by_calls: list[OrderedDict[_Endpoint, None]] = [OrderedDict()]
        self._least = 0
        self._waiting: OrderedDict[WorkerCall, None] = OrderedDict()
        self._under_way = 0
        self._begun = self._begun_before = 0
        self._none_since = float("-inf")
        self._connecting: set[asyncio.Task[None]] = set()
        #: The look at the cluster that is under way, or when the next one will be.
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Why nothing could be learned of the cluster, or of a worker's server.
        self._trouble: dict[str, str] = {}
        self._retired = self._closed = False

    # ---- calls

    def call(self, message: dict[str, Any], timeout: float | None) -> WorkerCall:
        """Begin a call at the worker that has the fewest, or have it wait for one."""
        call = self._new_call(message, timeout)
        if not call.done():
            self._begin_at_the_least(call)
        return call

    async def call_all(self, message: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        """Call each worker that has a server, and wait for all of the answers."""
        until = self._loop.time() + self._timeout
        await self._look()
        while not self._endpoints and not self._closed:
            if self._loop.time() > until:
                raise self._nobody()
            await asyncio.sleep(_RETRY_INTERVAL)
            await self._look()
        if self._closed:
            raise self._is_closed()
        calls: dict[str, WorkerCall] = {}
        try:
            for endpoint in [*self._endpoints.values()]:
                call = calls[endpoint.worker] = self._new_call({**message}, timeout)
                call.is_bound = True
                self._begin(call, endpoint)
            await asyncio.wait(calls.values())
        finally:
            for call in calls.values():
                call.cancel()
        errors = {worker: error for worker, call in calls.items() if (error := call.exception())}
        answers = {worker: call.result() for worker, call in calls.items() if worker not in errors}
        unasked = {
            worker
            for worker, error in errors.items()
            if isinstance(error, WorkerLost) and not error.may_have_run
        }
        if unasked:
            # They may have been about to leave: those that are gone aren't asked.
            await self._look()
        for worker, error in errors.items():
            if worker not in unasked or worker in self._entries:
                error.add_note(f"from worker {worker}; {len(answers)} of {len(calls)} workers have answered")
                raise error
        return answers

    def _new_call(self, message: dict[str, Any], timeout: float | None) -> WorkerCall:
        op = message["op"]
        call = WorkerCall(loop=self._loop)
        call.begin(op, self)
        call.dispatcher, call.message, call.since = self, message, self._loop.time()
        call.endpoint, call.is_bound = None, False
        if self._closed:
            call.fail(self._is_closed())
            return call
        self._under_way += 1
        self._begun += 1
        call.add_done_callback(self._over)
        timeout = self._call_timeout if timeout is None else timeout
        if timeout is not None:
            error = TimeoutError(f"no answer to {op!r} from the servers {self._name!r} within {timeout:g} s")
            timer = Timer(self._loop, self._loop.time() + timeout, call.time_out, error)
            call.add_done_callback(lambda _: timer.cancel())
        if self._looking is None and self._timer is None:
            self._follow()
        return call

    def _begin_at_the_least(self, call: WorkerCall) -> None:
        endpoint = None if self._waiting else self._least_used()
        if endpoint is not None:
            self._begin(call, endpoint)
            return
        self._waiting[call] = None

    def _begin(self, call: WorkerCall, endpoint: _Endpoint) -> None:
        self._count(endpoint, 1)
        call.endpoint = endpoint
        endpoint.pool.begin(call, endpoint.address, call.message)

    def begin_elsewhere(self, call: WorkerCall, endpoint: _Endpoint, why: str) -> None:
        """Have a call begin that was given to a worker, and not sent."""
        self._leave(call)
        if self._closed:
            call.fail(self._is_closed())
            return
        call.where = self
        self._lose(endpoint, why)
        self._begin_at_the_least(call)

    def lost(
        self, error: ConnectionLost | RPCClosed, op: object, endpoint: _Endpoint, under_way: bool
    ) -> Exception:
        """Name the worker in the error of a call that it will not answer; give it no further ones."""
        if self._closed:
            return error
        self._lose(endpoint, str(error))
        when = f"while {op!r} was under way there, which may have run or not"
        if not under_way:
            when = f"before it was asked for {op!r}"
        return WorkerLost(endpoint.worker, f"worker {endpoint.worker} was lost {when}: {error}", under_way)

    def _over(self, call: asyncio.Future[Any]) -> None:
        assert isinstance(call, WorkerCall)
        self._under_way -= 1
        self._leave(call)
        self._serve()
        self._close_if_idle()

    def _leave(self, call: WorkerCall) -> None:
        endpoint, call.endpoint = call.endpoint, None
        if endpoint is not None:
            self._count(endpoint, -1)
            if endpoint in self._lost and not endpoint.calls:
                self._lost.discard(endpoint)

    def give_up(self, call: RemoteCall) -> None:
        """Forget a call that waits."""
        assert isinstance(call, WorkerCall)
        self._waiting.pop(call, None)

    def grant(self, call: RemoteCall, parts: int) -> None:
        """Do nothing: no part can come yet."""

    # ---- who has how many

    def _least_used(self) -> _Endpoint | None:
        """Give a worker that has the fewest calls, unless all have as many as they may."""
        while self._least < len(self._by_calls) and not self._by_calls[self._least]:
            self._least += 1
        if self._least == len(self._by_calls) or self._is_enough(self._least):
            return None
        return next(iter(self._by_calls[self._least]))

    def _is_enough(self, calls: int) -> bool:
        return self._per_worker is not None and calls >= self._per_worker

    def _count(self, endpoint: _Endpoint, change: int) -> None:
        """Count a call more or less; of those with as many it is the last to get the next."""
        self._by_calls[endpoint.calls].pop(endpoint, None)
        endpoint.calls += change
        if not endpoint.is_lost:
            self._offer(endpoint)

    def _offer(self, endpoint: _Endpoint) -> None:
        while endpoint.calls >= len(self._by_calls):
            self._by_calls.append(OrderedDict())
        self._by_calls[endpoint.calls][endpoint] = None
        self._least = min(self._least, endpoint.calls)

    def _serve(self) -> None:
        """Begin the calls that wait, as far as there are workers for them."""
        while self._waiting and (endpoint := self._least_used()) is not None:
            call, _ = self._waiting.popitem(last=False)
            if not call.done():
                self._begin(call, endpoint)

    # ---- the cluster

    def _follow(self) -> None:
        """Look at the cluster now, and again for as long as there are calls."""
        self._timer = None
        self._looking = self._loop.create_task(self._look())
        self._looking.add_done_callback(self._look_again)

    def _look_again(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if self._closed:
            return
        self._turn_away()
        if self._under_way or self._begun != self._begun_before:
            self._begun_before = self._begun
            self._timer = self._loop.call_later(
                _POLL_INTERVAL if self._has_any() else _RETRY_INTERVAL, self._follow
            )

    def _hurry(self) -> None:
        """Look again soon, if that is to be done at all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(_RETRY_INTERVAL, self._follow)

    def _has_any(self) -> bool:
        """Whether there is a worker that can be called, be it busy or not."""
        return any(endpoint.watch is not None for endpoint in self._endpoints.values())

    async def _look(self) -> None:
        """Learn which workers have a server, and connect to those that are new."""
        try:
            async with asyncio.timeout(self._timeout):
                self._entries = await lookup(self._client, self._name)
        except Exception as error:
            # Those that are known can be called all the same.
            self._trouble[""] = f"the scheduler can't be asked: {error!r}"
            return
        known = {worker: why for worker, why in self._trouble.items() if worker in self._entries}
        self._trouble = known | {
            worker: entry.error for worker, entry in self._entries.items() if entry.error
        }
        for endpoint in [*self._endpoints.values(), *self._lost]:
            self._compare(endpoint)
        for worker in self._entries:
            address = self._address(worker)
            if worker not in self._endpoints and address is not None and not self._closed:
                self._add(worker, address)

    def _compare(self, endpoint: _Endpoint) -> None:
        """Give no calls to a worker that isn't what it was; fail those of one that is gone for a while."""
        if self._address(endpoint.worker) != endpoint.address:
            self._lose(endpoint, "it is gone")
        if endpoint.worker not in self._entries:
            endpoint.gone_since = endpoint.gone_since or self._loop.time()
            if self._loop.time() - endpoint.gone_since >= _GRACE_PERIOD:
                endpoint.close()

    def _add(self, worker: str, address: Address) -> None:
        options = {**self._options}
        if self._entries[worker].tls and "ssl_options" not in options:
            options["ssl_options"] = self._client.security.get_connection_args("client")["ssl_context"]
        endpoint = self._endpoints[worker] = _Endpoint(worker, address, self._new_pool(**options))
        task = self._loop.create_task(self._connect(endpoint, options))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _address(self, worker: str) -> Address | None:
        entry = self._entries.get(worker)
        return None if entry is None or entry.address is None else parse_address(entry.address)

    async def _connect(self, endpoint: _Endpoint, options: dict[str, Any]) -> None:
        try:
            stream = await connect(*endpoint.address, endpoint.pool.timeout, **options)
        except ConnectionLost as error:
            self._lose(endpoint, str(error))
            return
        # Before anything is written: why it turns us away may be here, and it may have closed.
        ending = read(stream)
        ending.add_done_callback(functools.partial(self._ends, endpoint))
        try:
            # By hand: it is no call, and counts as none.
            await write(stream, {"op": TELL_END, "reply": False})
        except ConnectionLost:
            return
        if endpoint.is_lost:
            stream.close()
            return
        self._trouble.pop(endpoint.worker, None)
        endpoint.watch = stream
        endpoint.watched_since = self._loop.time()
        self._offer(endpoint)
        self._serve()

    def _ends(self, endpoint: _Endpoint, ending: asyncio.Future[Any]) -> None:
        why = str(ending.exception() or "it is about to end")
        if ending.exception() is None and is_error_reply(ending.result()):
            # It takes no more connections, or only some with TLS.
            why = str(remote_exception(ending.result(), format_address(endpoint.address), TELL_END))
        self._lose(endpoint, why)

    def _lose(self, endpoint: _Endpoint, why: str) -> None:
        """Give no further calls to a worker; those under way end with their connections."""
        if endpoint.is_lost:
            return
        self._trouble[endpoint.worker] = f"{format_address(endpoint.address)}: {why}"
        self._by_calls[endpoint.calls].pop(endpoint, None)
        if self._endpoints.get(endpoint.worker) is endpoint:
            del self._endpoints[endpoint.worker]
        if endpoint.calls:
            self._lost.add(endpoint)
        now = self._loop.time()
        if not self._endpoints and now - endpoint.watched_since >= _POLL_INTERVAL:
            # One that is lost as soon as it is found, again and again, keeps nobody waiting for the next.
            self._none_since = now
        self._hurry()
        endpoint.is_lost = True
        # Not within what its connections do just now.
        self._loop.call_soon(endpoint.leave)

    def _turn_away(self) -> None:
        """End the waiting of those for whom there was no worker for too long."""
        if self._has_any():
            return
        before = self._loop.time() - self._timeout
        for call in [*self._waiting]:
            if max(call.since, self._none_since) <= before:
                del self._waiting[call]
                call.fail(self._nobody())

    def _nobody(self) -> ConnectionLost:
        text = f"no worker has a server {self._name!r} that can be called, for {self._timeout:g} s"
        if self._trouble:
            # Where many have it, it is the same in all of them.
            troubles = [f"{worker}: {why}" if worker else why for worker, why in self._trouble.items()]
            return ConnectionLost(f"{text}; {'; '.join(troubles[:3])}")
        return ConnectionLost(f"{text}; client.register_plugin(fastcore.dask.ServerPlugin(...)) starts them")

    # ---- the end

    def end(self) -> None:
        """Close all connections, from whichever thread; the calls hear of it."""
        run_in_thread_of(self._loop, self._close)

    def retire(self) -> None:
        """Close when the calls under way are over; said by who is collected, in whatever moment."""
        self._retired = True
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._close_if_idle)
        else:
            self._close_if_idle()

    def _is_closed(self) -> RPCClosed:
        return RPCClosed(f"no call to {self._name!r}: this rpc is closed")

    def _close_if_idle(self) -> None:
        if self._retired and not self._under_way:
            self._close()

    def _close(self) -> None:
        self._closed = True
        while self._waiting:
            call, _ = self._waiting.popitem(last=False)
            call.fail(self._is_closed())
        for endpoint in [*self._endpoints.values(), *self._lost]:
            endpoint.close()
        if not self._loop.is_closed():
            for task in [*self._connecting, self._looking, self._timer]:
                if task is not None:
                    task.cancel()
