"""The handlers of a server, run as tasks of a Dask cluster: the server's side of it."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client, Future
from distributed.protocol.pickle import dumps
from tornado.iostream import IOStream

from fastcore.dask.running import run_handler
from fastcore.server.service import Handler

__all__ = ["on_cluster"]


def on_cluster(
    client: Client, handlers: Mapping[str, Handler], **options: Any
) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Give handlers that run these as tasks of a Dask cluster.

    Their server stays where it is, and its callers notice nothing: a handler's answer and its
    error are theirs, and a call that is given up cancels its task. What is different: a handler
    computes in a thread of a worker, an ``async`` one in an event loop of its own there; a
    generator's answers come together when it is through; instead of the stream it gets something
    that only tells, by ``closed()``, whether its caller has given up. Where it returns Dask's
    Futures or collections, one or a list, tuple or dict of them, its answer is what they come to.

    A task costs some milliseconds: this is for handlers of 50 ms and more. If its worker dies, Dask
    runs it once more in another one.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster. Whether it is asynchronous makes no difference.
    handlers : dict of str to callable
        As :class:`fastcore.Server` takes them.
    **options
        For each task, as ``distributed.Client.submit`` takes them: ``resources``, ``retries``,
        ``priority``, ``workers``.

    Returns
    -------
    dict of str to callable
        For a Server, that may have others beside them.

    Raises
    ------
    TypeError
        If a handler can't be sent to a worker.

    Examples
    --------
    >>> import asyncio
    >>> from distributed import Client, LocalCluster
    >>> import fastcore.dask
    >>> from fastcore import Server, rpc
    >>> async def main():
    ...     async with (
    ...         LocalCluster(n_workers=2, processes=False, asynchronous=True, dashboard_address=':0') as here,
    ...         Client(here, asynchronous=True) as client,
    ...         Server(fastcore.dask.on_cluster(client, {'add': lambda stream, x, y: x + y})) as server,
    ...     ):
    ...         server.listen(0, '127.0.0.1')
    ...         async with rpc(ip='127.0.0.1', port=server.port) as remote:
    ...             print(await remote.add(x=1, y=2))
    >>> asyncio.run(main())
    3
    """
    return {op: _as_task(client, op, handler, options) for op, handler in handlers.items()}


def _as_task(client: Client, op: str, handler: Handler, options: dict[str, Any]) -> Handler:
    try:
        # Once, and not with each call; the worker knows it again by these bytes.
        pickled: bytes = dumps(handler)
    except Exception as error:
        raise TypeError(
            f"the handler {op!r} can't be sent to a worker: {error}; a plain function can, that gets or "
            f"makes what it needs"
        ) from error

    @functools.wraps(handler)
    async def call(stream: IOStream, **message: Any) -> Any:
        io_loop: Any = client.loop
        loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
        if client.status == "closed" or not loop.is_running():
            raise RuntimeError(f"{op!r} runs as a task of a cluster, whose client is closed: {client}")
        running = _run(client, op, pickled, message, options)
        if loop is asyncio.get_running_loop():
            return await running
        # To give this up cancels what runs there.
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(running, loop))

    return call


async def _run(
    client: Client, op: str, pickled: bytes, message: dict[str, Any], options: dict[str, Any]
) -> Any:
    """Run a task in the cluster; in the client's loop."""
    key = f"{op}-{uuid.uuid4().hex}"
    # In one piece: Dask looks through arguments for what is to be computed first.
    task: Future = client.submit(run_handler, pickled, dumps(message), key, key=key, pure=False, **options)
    try:
        return await task.result()
    except (CancelledError, asyncio.CancelledError) as error:
        if task.cancelled():
            raise RuntimeError(
                f"the task of {op!r} was cancelled by the cluster: {error or 'it was restarted, or lost'}"
            ) from None
        raise
    finally:
        # The last one who wanted it: a task that waits is forgotten, and one that runs can see it.
        task.release()
