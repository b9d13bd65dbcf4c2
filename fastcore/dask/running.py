"""The handlers of a server, run as tasks of a Dask cluster: the worker's side of it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, NoReturn

from distributed import Future, Worker, get_client, get_worker, secede
from distributed.protocol.pickle import loads

from fastcore.server.service import Handler

__all__ = ["run_handler"]

#: Seconds between two looks whether the caller of a handler that waits has given up.
_POLL_INTERVAL: Final = 0.1


class Caller:
    """What a handler gets in place of the stream: there is none in a task."""

    def __init__(self, worker: Worker, key: str) -> None:
        self._worker = worker
        self._key = key

    def closed(self) -> bool:
        """Whether nobody waits for the answer any more."""
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state in ("cancelled", "released", "forgotten")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the handler of {self._key.rpartition('-')[0]!r} runs as a task, where there is no stream: only "
            f"stream.closed() can be asked, not stream.{name}; let it return or yield what it has to say"
        )


def run_handler(pickled: bytes, message: bytes, key: str) -> Any:
    """Run a handler in a thread of a worker: a task.

    Parameters
    ----------
    pickled, message : bytes
        The handler and its keywords.
    key : str
        The task's.
    """
    caller = Caller(get_worker(), key)
    result = _handler(pickled)(caller, **loads(message))
    if inspect.isgenerator(result):
        result = _collected(result, caller)
    elif inspect.isasyncgen(result) or (inspect.isawaitable(result) and not isinstance(result, Future)):
        result = asyncio.run(_waited_for(result, caller))
    return _computed(result, caller)


@functools.lru_cache(maxsize=1024)
def _handler(pickled: bytes) -> Handler:
    """Give a handler; the same object each time, as in a server."""
    try:
        handler: Handler = loads(pickled)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"worker {get_worker().address} lacks what a handler needs: {error}; install it there, or send "
            f"the module by client.upload_file(...)"
        ) from error
    return handler


def _collected(generator: Any, caller: Caller) -> list[Any]:
    parts = []
    for part in generator:
        parts.append(part)
        if caller.closed():
            generator.close()
            break
    return parts


def _computed(result: Any, caller: Caller) -> Any:
    """Give what Dask computes in the place of its Futures and collections.

    The result itself may be one, or a list, tuple or dict of them.
    """
    is_dict, is_list = type(result) is dict, type(result) in (list, tuple)
    parts = result.values() if is_dict else result if is_list else (result,)
    # By their types, as there may be a million of them.
    if not any(issubclass(kind, Future) or hasattr(kind, "__dask_graph__") for kind in set(map(type, parts))):
        return result
    computed = _all_computed([*parts], caller)
    if is_dict:
        return dict(zip(result, computed, strict=True))
    return computed if is_list else computed[0]


def _all_computed(parts: list[Any], caller: Caller) -> list[Any]:
    """Wait for those that Dask computes; for none of them any more when the caller has given up."""
    # What is waited for may need the place of this thread; a handler may have given it up already.
    with suppress(AttributeError, KeyError):
        secede()
    # What pyright makes of its functions is not what they give.
    client: Any = get_client()
    parts = client.compute(parts)
    futures = [part for part in parts if isinstance(part, Future)]
    for future in futures:
        while not client.sync(_waited_a_moment, future):
            if caller.closed():
                return [None] * len(parts)
    computed = iter(client.gather(futures))
    return [next(computed) if isinstance(part, Future) else part for part in parts]


async def _waited_a_moment(future: Future) -> bool:
    """Wait for a Future, and give whether that is done; in the loop of its client."""
    # Not by a timeout of its own: the error would hold the Future, whose task nobody wants any more
    # only when it is gone.
    with suppress(TimeoutError):
        await asyncio.wait_for(future.exception(), _POLL_INTERVAL)
    done: bool = future.done()
    return done


async def _waited_for(result: Any, caller: Caller) -> Any:
    """Wait for a handler, and cancel it when its caller has given up."""
    task = asyncio.ensure_future(_all_of(result) if inspect.isasyncgen(result) else _answer(result))
    while True:
        await asyncio.wait([task], timeout=_POLL_INTERVAL)
        if task.done():
            return task.result()
        if caller.closed():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            return None


async def _answer(result: Awaitable[Any]) -> Any:
    answer = await result
    if inspect.isasyncgen(answer):
        return await _all_of(answer)
    return [*answer] if inspect.isgenerator(answer) else answer


async def _all_of(generator: Any) -> list[Any]:
    return [part async for part in generator]
