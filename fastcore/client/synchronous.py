"""``SyncClient``: calling a server where nobody awaits anything, and no event loop is needed."""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from fastcore.addressing import Address, AddressLike, format_address, parse_address
from fastcore.client.blocking import BlockingCall, BlockingConnection, StillAnswers, is_of_a_signal
from fastcore.client.calls import StaysHere, check_arguments, too_late
from fastcore.client.connection import closes
from fastcore.client.dialing import dial
from fastcore.errors import ConnectionLost, RPCClosed
from fastcore.limits import Limits, check_limit
from fastcore.transport.connecting import limits_of

__all__ = ["SyncClient"]


class SyncClient(StaysHere):
    """A remote server, whose operations are called like functions, and wait for the answer.

    ``remote.add(x=1, y=2)`` gives the reply, or raises what :class:`fastcore.rpc` would.
    ``for value in remote.op.each()`` gives the answers of a handler that yields them, as they
    come; ``remote.op()`` gives them as a list. ``timeout=`` is for the call itself, in seconds:
    after it the call raises TimeoutError, and the handler is cancelled. Any name without a
    leading underscore is a remote operation, but for the few that are documented here.

    It needs no event loop, and disturbs none: scripts, threads and notebooks may use it. Many
    threads may share one; each call that is under way has a connection of its own, and leaves
    it to the next. Whatever ends a call, a Ctrl-C too, no later call gets its answer. After a
    fork the child makes connections of its own.

    Parameters
    ----------
    arg, addr : str, bytes or tuple, optional
        Where the server is: ``'ip:port'``, ``('ip', port)``, ``'unix:/path'``.
    ip, port : optional
        Where the server is, in two parts.
    timeout : float
        Seconds to wait for a connection.
    call_timeout : float, optional
        Seconds for each call that isn't given a ``timeout`` of its own.
    ssl_options : ssl.SSLContext or dict, optional
        Connect with TLS.
    compression : str, optional
        Compress the requests: ``'zlib'``, ``'lz4'`` or ``'snappy'``.
    writable_values : bool
        Receive large binary values as ``bytearray``, as :func:`fastcore.connect` has it.
    token : str, optional
        Shown to the server before anything else, as :func:`fastcore.connect` has it.
    **limits
        The fields of :class:`fastcore.limits.Limits`. Of those in seconds, ``peer_timeout``
        alone plays a part: a call takes at most its ``timeout``.

    Attributes
    ----------
    ip : str
        As given, or taken out of an address; likewise ``port`` and ``address``.
    timeout : float
        As given; likewise ``call_timeout``.
    status : str
        ``'running'`` or ``'closed'``.

    Examples
    --------
    >>> from fastcore import SyncClient
    >>> with SyncClient('127.0.0.1:8786') as remote:  # doctest: +SKIP
    ...     remote.add(x=1, y=2)
    ...     for row in remote.rows.each(count=3):
    ...         print(row)
    3
    """

    def __init__(
        self,
        arg: AddressLike | None = None,
        ip: str | bytes | None = None,
        port: int | None = None,
        addr: AddressLike | None = None,
        timeout: float = 3,
        *,
        call_timeout: float | None = None,
        ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
        compression: str | None = None,
        writable_values: bool = False,
        token: str | None = None,
        **limits: Any,
    ) -> None:
        check_limit("timeout", timeout, optional=False)
        check_limit("call_timeout", call_timeout)
        given = {"ssl_options": ssl_options, "compression": compression, "writable_values": writable_values}
        settings = limits_of(SyncClient, {**limits, **given, "token": token})
        address = parse_address(arg, addr=addr, ip=ip, port=port)
        self.ip, self.port = address
        options = (ssl_options, compression, writable_values, token)
        self._calls = _Calls(address, timeout, settings, options)
        self._calls.call_timeout = call_timeout

    @property
    def address(self) -> str:
        """``'ip:port'``."""
        return self._calls.peer

    @property
    def status(self) -> str:
        """``'running'`` or ``'closed'``."""
        return "closed" if self._calls.closed else "running"

    @property
    def timeout(self) -> float:
        """Seconds to wait for a connection."""
        return self._calls.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._calls.timeout = seconds

    @property
    def call_timeout(self) -> float | None:
        """Seconds for each call that isn't given a ``timeout`` of its own."""
        return self._calls.call_timeout

    @call_timeout.setter
    def call_timeout(self, seconds: float | None) -> None:
        self._calls.call_timeout = seconds

    def __getattr__(self, op: str) -> RemoteOperation:
        if op.startswith("_"):
            raise AttributeError(f"{op!r}: a name with a leading underscore is no remote call")
        operation = RemoteOperation(self._calls, op)
        # Found there the next time.
        self.__dict__[op] = operation
        return operation

    def close_streams(self) -> None:
        """Close all connections, also those of calls in other threads; a later call makes a new one."""
        self._calls.close_all()

    def close_rpc(self) -> None:
        """Close all connections for good; a later call raises RPCClosed. May be called from any thread."""
        self._calls.closed = True
        self._calls.close_all()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_rpc()

    def __del__(self) -> None:
        # `SyncClient(address).op.each()` drops the client while its call is under way.
        calls = self.__dict__.get("_calls")
        if calls is not None:
            calls.is_kept = False
            calls.close_free()

    def __repr__(self) -> str:
        return f"<SyncClient to {self.address}: {self.status}, {len(self._calls.free)} free connections>"


class _Calls:
    """The calls of a client, and its connections; it may outlive the client.

    Parameters
    ----------
    address : tuple of (str, int or None)
        Where the server is.
    timeout : float
        Seconds to wait for a connection.
    limits : Limits
        What the server may cost.
    options : tuple
        What else a connection is made with.
    """

    call_timeout: float | None = None
    closed = False
    #: Whether there will be further calls.
    is_kept = True

    def __init__(self, address: Address, timeout: float, limits: Limits, options: tuple[Any, ...]) -> None:
        self.address = address
        self.peer = format_address(address)
        self.timeout = timeout
        self._limits = limits
        self._options = options
        #: Those that no call has; the one used last is the last.
        self.free: deque[BlockingConnection] = deque()
        #: All of them, as long as somebody has them.
        self.open: WeakValueDictionary[int, BlockingConnection] = WeakValueDictionary()
        _all.add(self)

    def call(self, op: object, message: dict[str, Any], timeout: float | None) -> Any:
        """Make a call, and give its reply."""
        if timeout is None:
            timeout = self.call_timeout
        deadline = None if timeout is None else monotonic() + timeout
        call = BlockingCall(op)
        connection = self.begin(call, message, timeout, deadline)
        try:
            if "reply" not in message or message["reply"]:
                while not call.is_over:
                    connection.read_for(call, deadline)
        except BaseException as error:
            connection.give_up(call)
            if timeout is not None and _is_late(error, deadline):
                raise too_late(op, self.peer, timeout) from None
            raise
        finally:
            self.release(connection, call)
        return call.result()

    def begin(
        self, call: BlockingCall, message: dict[str, Any], timeout: float | None, deadline: float | None
    ) -> BlockingConnection:
        """Send a request; give the connection, which no other call has."""
        message["op"] = call.op
        connection: BlockingConnection | None = None
        try:
            while True:
                connection = self._take(deadline)
                connection.is_last = closes(message)
                try:
                    connection.begin(call, message, deadline)
                except StillAnswers:
                    connection.close()
                else:
                    return connection
        except BaseException as error:
            if connection is not None:
                self.release(connection, call)
            if timeout is not None and _is_late(error, deadline):
                raise too_late(call.op, self.peer, timeout) from error.__cause__
            raise

    def _take(self, deadline: float | None) -> BlockingConnection:
        """Give a connection that nobody else uses, and that is in step."""
        while True:
            if self.closed:
                raise RPCClosed(f"the SyncClient to {self.peer} is closed")
            try:
                connection = self.free.pop()
            except IndexError:
                break
            if connection.is_ready():
                return connection
            connection.close()
        left = self.timeout if deadline is None else max(0.001, deadline - monotonic())
        try:
            connection = dial(self.address, min(left, self.timeout), self._limits, *self._options)
        except ConnectionLost as error:
            if deadline is not None and monotonic() >= deadline:
                # It is the call that took too long.
                raise TimeoutError from error
            raise
        self.open[id(connection)] = connection
        return connection

    def release(self, connection: BlockingConnection, call: BlockingCall) -> None:
        """Leave a connection to the calls to come, if it is of use to them, and the last one is over."""
        is_of_use = call.where is None and connection.in_step and not connection.is_last
        if is_of_use and self.is_kept and not self.closed:
            self.free.append(connection)
            if self.closed:
                # By somebody who came in between.
                self.close_free()
        else:
            connection.close()

    def close_free(self) -> None:
        """Close the connections that no call has."""
        while self.free:
            with suppress(IndexError):
                self.free.pop().close()

    def close_all(self) -> None:
        """Close all connections; whoever waits for one of them hears so."""
        self.close_free()
        for connection in self.all_open():
            connection.abort()

    def all_open(self) -> list[BlockingConnection]:
        """Give all connections."""
        return [each for reference in self.open.valuerefs() if (each := reference()) is not None]


class RemoteOperation(StaysHere):
    """An operation of a server: called, it gives the reply; ``each`` gives many as they come."""

    __slots__ = ("_call", "_calls", "_op")

    def __init__(self, calls: _Calls, op: str) -> None:
        self._calls = calls
        self._call = calls.call
        self._op = op

    def __call__(self, /, *positional: Any, timeout: float | None = None, **message: Any) -> Any:
        """Call it, and wait for the reply.

        Parameters
        ----------
        *positional
            None: handlers are called by keyword.
        timeout : float, optional
            Seconds for the whole call.
        **message
            The handler's keywords. ``reply=False`` asks for no reply, and doesn't wait.

        Returns
        -------
        object
            The reply; where the handler gives many, a list of them.

        Raises
        ------
        TimeoutError
            If there is none in time. The handler is cancelled.
        ConnectionLost
            If there is no connection, or it ends.
        RPCClosed
            If the client is closed.
        Exception
            What the handler raised.
        """
        if positional or timeout is not None or "op" in message:
            check_arguments(self._op, positional, message, timeout)
        return self._call(self._op, message, timeout)

    def each(self, /, *positional: Any, timeout: float | None = None, **message: Any) -> Answers:
        """Call it, and iterate over its answers as they come.

        Parameters
        ----------
        *positional, timeout, **message
            As for the call itself; the time is that of all answers together.

        Returns
        -------
        Answers
            An iterator. A loop that is left early ends the handler, and so do its ``close()`` and
            leaving its ``with`` block.
        """
        check_arguments(self._op, positional, message, timeout)
        if not message.get("reply", True):
            raise TypeError(f"{self._op}.each() reads the answers: leave reply= out")
        return Answers(self._calls, self._op, message, timeout)

    def __repr__(self) -> str:
        return f"<{self._op!r} of {self._calls.peer}>"


class Answers(Iterator[Any]):
    """The answers of one call, as they come; dropped or closed before their end, they end the handler."""

    _connection: BlockingConnection | None = None

    def __init__(self, calls: _Calls, op: str, message: dict[str, Any], timeout: float | None) -> None:
        self._calls = calls
        self._timeout = timeout if timeout is not None else calls.call_timeout
        self._deadline = None if self._timeout is None else monotonic() + self._timeout
        self._call = BlockingCall(op)
        self._call.begin_parts().is_iterated = True
        self._connection = calls.begin(self._call, message, self._timeout, self._deadline)

    def __next__(self) -> Any:
        call, connection = self._call, self._connection
        assert call.parts is not None
        try:
            while not call.parts.values:
                if connection is None or call.is_over:
                    return self._after_the_last()
                connection.read_for(call, self._deadline)
            return call.parts.take()
        except BaseException as error:
            self.close()
            if self._timeout is not None and _is_late(error, self._deadline):
                raise too_late(call.op, self._calls.peer, self._timeout) from None
            raise

    def _after_the_last(self) -> Any:
        call = self._call
        last, call.last = call.last, None
        self.close()
        if call.error is not None:
            call.raise_error()
        if last is None:
            raise StopIteration
        if not isinstance(last, list):
            raise TypeError(f"{call.op!r} gave one answer and no stream of them: call it without each")
        # A server that knows no parts gives a list of them.
        assert call.parts is not None
        call.parts.values.extend(last)
        return next(self)

    def close(self) -> None:
        """Take no further answer: the handler is ended, if it isn't over."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.give_up(self._call)
            finally:
                self._calls.release(connection, self._call)

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
        # They have the call, and it has them; there was none if it couldn't begin.
        if call := self.__dict__.get("_call"):
            call.parts = None


def _is_late(error: BaseException, deadline: float | None) -> bool:
    """Tell whether a call has ended because its time is over."""
    return isinstance(error, TimeoutError) and not is_of_a_signal(error, deadline)


#: Those whose connections are no longer theirs after a fork.
_all: WeakSet[_Calls] = WeakSet()


def _after_fork() -> None:
    for calls in [*_all]:
        calls.free.clear()
        for connection in calls.all_open():
            connection.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
