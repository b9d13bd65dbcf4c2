"""Calling the servers inside of a cluster's workers: whichever is free, or all of them."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from distributed import Client

from fastcore.dask.dispatcher import Dispatcher, WorkerLost
from fastcore.limits import check_limit
from fastcore.transport.connecting import limits_of

__all__ = ["WorkerLost", "rpc"]

Begin = Callable[[dict[str, Any], "float | None"], Awaitable[Any]]


class _Access:
    """What an rpc, its operations and its calls have of a dispatcher, which retires after the last of them.

    So an operation is as good as its rpc: ``rpc(client).op()`` drops that before it begins.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def call(self, message: dict[str, Any], timeout: float | None) -> Awaitable[Any]:
        return self._dispatcher.call(message, timeout)

    async def call_all(self, message: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        return await self._dispatcher.call_all(message, timeout)

    def __del__(self) -> None:
        self._dispatcher.retire()


class _Remote:
    """Operations that are called like methods, and waited for as the client is used."""

    def __init__(self, client: Client, begin: Begin) -> None:
        self._client = client
        self._begin = begin

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if op.startswith("_"):
            raise AttributeError(f"{op!r}: a name with a leading underscore is no remote call")
        call = functools.partial(_call, self._client, self._begin, op)
        # Found there the next time.
        self.__dict__[op] = call
        return call


def _call(
    client: Client,
    begin: Begin,
    op: str,
    /,
    *positional: Any,
    timeout: float | None = None,
    **message: Any,
) -> Any:
    if positional:
        raise TypeError(f"{op}() takes its arguments by keyword, as the handler names them")
    message["op"] = op
    if client.asynchronous:
        return begin(message, timeout)
    return client.sync(_awaited, begin, message, timeout)


async def _awaited(begin: Begin, message: dict[str, Any], timeout: float | None) -> Any:
    return await begin(message, timeout)


class rpc(_Remote):
    """The servers that a :class:`ServerPlugin` started, called like one.

    A call goes to the worker that has the fewest of this object's calls. Workers that come are
    called, and those that are gone aren't. A call that was under way at a worker when that was
    lost raises :class:`WorkerLost`; it may have run. One that wasn't sent yet goes to another.

    Used as its client is: where that is asynchronous, a call gives what :class:`fastcore.rpc`
    gives, to be awaited, iterated over or cancelled; elsewhere it waits, and gives the answer. Any
    name without a leading underscore is a remote operation, but for the few that are documented
    here.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster; may be that of a task, ``distributed.get_client()``.
    name : str
        The plugin's.
    timeout : float
        Seconds to wait while no worker has a server.
    per_worker : int, optional
        Most calls that are under way at one worker; those beyond wait here for the first that is
        free, and lose nothing when a worker does. Without end if None.
    share, call_timeout : optional
        As :class:`fastcore.ConnectionPool` takes them.
    **options
        As :func:`fastcore.connect` takes them. Without ``ssl_options``, servers with TLS are
        shown the client's own certificate for the cluster.

    Attributes
    ----------
    name : str
        As given.
    status : str
        ``'running'`` or ``'closed'``.
    on_all
        The same operations, at each worker that has a server now: they give a dict of the answers,
        by the worker's address. Where one fails, its error is raised when all are over.

    Examples
    --------
    >>> import asyncio
    >>> from distributed import Client, LocalCluster
    >>> import fastcore.dask
    >>> async def main():
    ...     async with (
    ...         LocalCluster(n_workers=2, processes=False, asynchronous=True, dashboard_address=':0') as here,
    ...         Client(here, asynchronous=True) as client,
    ...     ):
    ...         await client.register_plugin(fastcore.dask.ServerPlugin({'double': lambda stream, n: 2 * n}))
    ...         async with fastcore.dask.rpc(client) as remote:
    ...             print(await asyncio.gather(*[remote.double(n=n) for n in range(5)]))
    ...             print(len(await remote.on_all.identity()))
    >>> asyncio.run(main())
    [0, 2, 4, 6, 8]
    2
    """

    def __init__(
        self,
        client: Client,
        name: str = "fastcore",
        *,
        timeout: float = 10,
        per_worker: int | None = 64,
        share: int = 4,
        call_timeout: float | None = None,
        **options: Any,
    ) -> None:
        limits_of(rpc, options)
        check_limit("timeout", timeout, optional=False)
        check_limit("per_worker", per_worker, whole=True)
        check_limit("call_timeout", call_timeout)
        dispatcher = Dispatcher(client, name, timeout, per_worker, call_timeout, share, options)
        access = _Access(dispatcher)
        super().__init__(client, access.call)
        self.name = name
        self.on_all = _Remote(client, access.call_all)
        self._dispatcher = dispatcher
        self.status = "running"

    def close_rpc(self) -> None:
        """Close all connections for good; a later call raises RPCClosed."""
        if self.status != "closed":
            self.status = "closed"
            self._dispatcher.end()

    def __enter__(self) -> rpc:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_rpc()

    async def __aenter__(self) -> rpc:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close_rpc()

    def __repr__(self) -> str:
        return f"<rpc to the servers {self.name!r} in the workers of {self._client}: {self.status}>"
