"""``SyncClient``: calling a server where nobody awaits anything, and no event loop is needed."""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from fastcore.addressing import AddressLike, format_address, parse_address
from fastcore.client.blocking import BlockingCall, BlockingConnection, StillAnswers, dial
from fastcore.client.calls import no_stream, not_by_place, too_late
from fastcore.client.connection import closes
from fastcore.compressions import check_compression
from fastcore.errors import RPCClosed
from fastcore.limits import Limits, check_limit

__all__ = ["SyncClient"]


class SyncClient:
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
    **limits
        The fields of :class:`fastcore.limits.Limits`. Of those in seconds, ``peer_timeout``
        alone plays a part: a call takes at most its ``timeout``.

    Attributes
    ----------
    ip, port, address : str, int, str
        As given.
    timeout, call_timeout : float
        As given.
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
        **limits: Any,
    ) -> None:
        check_limit("timeout", timeout)
        check_limit("call_timeout", call_timeout)
        check_compression(compression)
        self.ip, self.port = self._address = parse_address(arg, addr=addr, ip=ip, port=port)
        self.timeout = timeout
        self.call_timeout = call_timeout
        self.status = "running"
        self._limits = Limits(**limits)
        self._options = (ssl_options, compression, writable_values)
        #: Those that no call has; the one used last is the last.
        self._free: deque[BlockingConnection] = deque()
        #: All of them, as long as somebody has them.
        self._open: WeakValueDictionary[int, BlockingConnection] = WeakValueDictionary()
        _clients.add(self)

    @property
    def address(self) -> str:
        """``'ip:port'``."""
        return format_address(self._address)

    def __getattr__(self, op: str) -> RemoteOperation:
        if op.startswith("_"):
            raise AttributeError(f"{op!r}: a name with a leading underscore is no remote call")
        operation = RemoteOperation(self, op)
        # Found there the next time.
        self.__dict__[op] = operation
        return operation

    def _call(self, op: object, message: dict[str, Any], timeout: float | None) -> Any:
        if timeout is None:
            timeout = self.call_timeout
        deadline = None if timeout is None else monotonic() + timeout
        call = BlockingCall(op)
        connection = self._begin(call, message, timeout, deadline)
        try:
            if "reply" not in message or message["reply"]:
                while not call.is_over:
                    connection.read_for(call, deadline)
        except BaseException as error:
            connection.give_up(call)
            if isinstance(error, TimeoutError) and timeout is not None:
                raise too_late(op, connection.peer, timeout) from None
            raise
        finally:
            self._release(connection)
        return call.result()

    def _begin(
        self, call: BlockingCall, message: dict[str, Any], timeout: float | None, deadline: float | None
    ) -> BlockingConnection:
        """Send a request; give the connection, which no other call has."""
        message["op"] = call.op
        while True:
            connection = self._take(deadline)
            connection.is_last = closes(message)
            try:
                connection.begin(call, message, deadline)
            except StillAnswers:
                connection.close()
            except BaseException as error:
                self._release(connection)
                if isinstance(error, TimeoutError) and timeout is not None:
                    raise too_late(call.op, connection.peer, timeout) from None
                raise
            else:
                return connection

    def _take(self, deadline: float | None) -> BlockingConnection:
        """Give a connection that nobody else uses, and that is in step."""
        while True:
            if self.status == "closed":
                raise RPCClosed(f"the SyncClient to {self.address} is closed")
            try:
                connection = self._free.pop()
            except IndexError:
                break
            if connection.is_ready():
                return connection
            connection.close()
        timeout = self.timeout if deadline is None else min(self.timeout, max(0.001, deadline - monotonic()))
        connection = dial(self._address, timeout, self._limits, *self._options)
        self._open[id(connection)] = connection
        return connection

    def _release(self, connection: BlockingConnection) -> None:
        """Leave a connection to the calls to come, if it is of use to them."""
        if connection.in_step and not connection.is_last and self.status != "closed":
            self._free.append(connection)
        else:
            connection.close()

    def close_streams(self) -> None:
        """Close all connections, also those of calls in other threads; a later call makes a new one."""
        self._free.clear()
        for reference in self._open.valuerefs():
            connection = reference()
            if connection is not None:
                connection.abort()

    def close_rpc(self) -> None:
        """Close all connections for good; a later call raises RPCClosed. May be called from any thread."""
        self.status = "closed"
        self.close_streams()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_rpc()

    def __repr__(self) -> str:
        return f"<SyncClient to {self.address}: {self.status}, {len(self._free)} free connections>"


class RemoteOperation:
    """An operation of a server: called, it gives the reply; ``each`` gives many as they come."""

    __slots__ = ("_call", "_client", "_op")

    def __init__(self, client: SyncClient, op: str) -> None:
        self._client = client
        self._call = client._call
        self._op = op

    def __call__(self, /, *positional: Any, timeout: float | None = None, **message: Any) -> Any:
        """Call it with the handler's keywords, and wait for the reply."""
        if positional:
            raise not_by_place(self._op, positional[0])
        return self._call(self._op, message, timeout)

    def each(self, /, *positional: Any, timeout: float | None = None, **message: Any) -> Answers:
        """Call it, and iterate over its answers; a loop that is left early ends the handler."""
        if positional:
            raise not_by_place(self._op, positional[0])
        return Answers(self._client, self._op, message, timeout)

    def __repr__(self) -> str:
        return f"<{self._op!r} of {self._client.address}>"


class Answers(Iterator[Any]):
    """The answers of one call, as they come; dropped or closed before their end, they end the handler."""

    _connection: BlockingConnection | None = None

    def __init__(self, client: SyncClient, op: str, message: dict[str, Any], timeout: float | None) -> None:
        self._client = client
        self._timeout = timeout if timeout is not None else client.call_timeout
        self._deadline = None if self._timeout is None else monotonic() + self._timeout
        self._call = BlockingCall(op)
        self._call.begin_parts().is_iterated = True
        self._connection = client._begin(self._call, message, self._timeout, self._deadline)

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
            if isinstance(error, TimeoutError) and self._timeout is not None:
                raise too_late(call.op, self._client.address, self._timeout) from None
            raise

    def _after_the_last(self) -> Any:
        call = self._call
        last, call.last = call.last, None
        error, call.error = call.error, None
        self.close()
        if error is not None:
            raise error
        if last is None:
            raise StopIteration
        if not isinstance(last, list):
            raise no_stream(call.op)
        # A server that knows no parts gives a list of them.
        assert call.parts is not None
        call.parts.values.extend(last)
        return next(self)

    def close(self) -> None:
        """Take no further answer: the handler is ended, if it isn't over."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.give_up(self._call)
            self._client._release(connection)

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


#: Those whose connections are no longer theirs after a fork.
_clients: WeakSet[SyncClient] = WeakSet()


def _after_fork() -> None:
    for client in [*_clients]:
        client._free.clear()
        for reference in client._open.valuerefs():
            connection = reference()
            if connection is not None:
                connection.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
