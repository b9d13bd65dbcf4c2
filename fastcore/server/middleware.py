"""Middleware of a server: context managers around each handler, whatever kind it is of.

Each is entered before the handler is called, and left when its last answer is given. All of it, the
handler's own steps included, runs in one context: so what middleware sets in a ContextVar the
handler sees, and it can be reset at the end.

Where a server has none, none of this is in the way of a message: its connections are of another class.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from contextvars import Context, copy_context
from typing import Any, Final

from tornado.gen import convert_yielded
from tornado.iostream import IOStream

from fastcore._header import CallHeader
from fastcore.logs import shown
from fastcore.middleware import CallDetails, Middleware
from fastcore.server.connection import Connection
from fastcore.server.results import end_of, gives_parts, is_async, is_to_wait_for
from fastcore.server.service import Handler, HasHandlers
from fastcore.transport.tornado import channel_of

__all__ = ["WrappedConnection", "WrappedHandlers"]


class WrappedConnection(Connection):
    """A connection that tells middleware what the header of a request says."""

    __slots__ = ()

    def on_message(self, message: Any, header: CallHeader | None) -> bool:
        """Handle a request; its handler is looked up and called within this."""
        host = self.service.host
        assert isinstance(host, WrappedHandlers)
        host.header = header
        return super().on_message(message, header)


class WrappedHandlers(Mapping[Any, Handler]):
    """The handlers of a server, each within the middleware.

    Parameters
    ----------
    host : HasHandlers
        Whose handlers; looked up anew for each call.
    middleware : sequence of callable
        The first one is the outermost.

    Attributes
    ----------
    header : CallHeader or None
        Of the request that is being begun.
    """

    def __init__(self, host: HasHandlers, middleware: Sequence[Middleware]) -> None:
        self._host = host
        self._middleware = middleware
        self.header: CallHeader | None = None

    @property
    def handlers(self) -> Mapping[Any, Handler]:
        """These, as a server has them."""
        return self

    def __getitem__(self, op: Any) -> Handler:
        return functools.partial(self._call, op, self._host.handlers[op])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._host.handlers)

    def __len__(self) -> int:
        return len(self._host.handlers)

    def _call(self, op: Any, handler: Handler, stream: IOStream, /, **keywords: Any) -> Any:
        said = self.header.extra if self.header is not None else None
        call = CallDetails(op, keywords, said or {}, channel_of(stream).peer, stream)
        # Not the one that this runs in: a task would get a copy of that.
        context = copy_context()
        steps = _whole(context, handler, call, self._middleware)
        try:
            context.run(steps.send, None)
        except StopIteration as done:
            return done.value
        return _Within(context, steps)


async def _whole(
    context: Context, handler: Handler, call: CallDetails, middleware: Sequence[Middleware]
) -> Any:
    """Call a handler within its middleware.

    With a plain handler and plain context managers that is one step, which needs no task.
    Before all that may wait, it pauses once, to be gone on with in a task.
    """
    in_task = False
    async with AsyncExitStack() as stack:
        for each in middleware:
            manager = each(call)
            if isinstance(manager, AbstractContextManager):
                stack.enter_context(manager)
                continue
            if not isinstance(manager, AbstractAsyncContextManager):
                raise TypeError(
                    f"middleware gives a context manager, not {shown(manager, 50)}: "
                    "decorate it with @contextmanager"
                )
            if not in_task:
                await _pause()
                in_task = True
            await stack.enter_async_context(manager)
        result = handler(call.stream, **call.keywords)
        if not is_to_wait_for(result):
            return result
        if not in_task:
            try:
                await _pause()
            except GeneratorExit:
                # Given up before its first step; nobody else knows it.
                if isinstance(result, Coroutine):
                    result.close()
                raise
        if not gives_parts(result):
            result = await (result if inspect.isawaitable(result) else convert_yielded(result))
        return _Parts(context, stack.pop_all(), result) if gives_parts(result) else result


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


class _Within(Coroutine[Any, Any, Any]):
    """A coroutine whose steps run in a context."""

    def __init__(self, context: Context, steps: Any) -> None:
        self._context = context
        self._steps = steps

    def send(self, value: Any) -> Any:
        return self._context.run(self._steps.send, value)

    def throw(self, *error: Any) -> Any:
        return self._context.run(self._steps.throw, *error)

    def close(self) -> None:
        self._context.run(self._steps.close)

    def __await__(self) -> Generator[Any, Any, Any]:
        # It has all that `yield from` asks of one.
        return self

    def __iter__(self) -> _Within:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class _Parts:
    """The answers of a handler; its middleware is left with the last one, or when nobody wants more."""

    def __init__(self, context: Context, stack: AsyncExitStack, source: Any) -> None:
        self._context = context
        self._stack = stack
        self._source = source

    def __aiter__(self) -> _Parts:
        return self

    def __anext__(self) -> _Within:
        return _Within(self._context, self._next())

    def aclose(self) -> _Within:
        return _Within(self._context, self._end())

    async def _next(self) -> Any:
        value = _END
        async with AsyncExitStack() as stack:
            # If it raises, or is over, the middleware is left; and otherwise kept.
            stack.push_async_exit(self._stack)
            if is_async(self._source):
                value = await anext(self._source, _END)
            else:
                value = next(self._source, _END)
            if value is not _END:
                stack.pop_all()
        if value is _END:
            raise StopAsyncIteration
        return value

    async def _end(self) -> None:
        async with self._stack:
            await end_of(self._source)


_END: Final = object()
