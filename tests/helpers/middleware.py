"""Middleware that keeps what it has seen."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from fastcore import CallDetails

#: The op around which the middleware is.
span: ContextVar[str] = ContextVar("span", default="none")


class Events(list[str]):
    """What middleware has seen of calls: when they were entered, and how they were left."""

    @contextmanager
    def plain(self, call: CallDetails) -> Iterator[None]:
        self.append(f"enter {call.op}")
        token = span.set(call.op)
        try:
            yield
        except BaseException as error:
            self.append(f"{type(error).__name__} {call.op}")
            raise
        else:
            self.append(f"leave {call.op}")
        finally:
            # Raises in another context than that of `set`.
            span.reset(token)

    @asynccontextmanager
    async def waiting(self, call: CallDetails) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        with self.plain(call):
            yield
            await asyncio.sleep(0)
