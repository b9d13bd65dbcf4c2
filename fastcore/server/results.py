"""What handlers give: a value, something to wait for, or many answers."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["end_of", "gives_parts", "is_async", "is_to_wait_for"]


def is_to_wait_for(result: object) -> bool:
    """Tell whether a result isn't the answer itself."""
    return inspect.isawaitable(result) or gives_parts(result)


def gives_parts(result: object) -> bool:
    """Tell whether a result gives many answers."""
    return inspect.isgenerator(result) or is_async(result)


def is_async(result: object) -> bool:
    """Tell whether it is an async generator, or anything else that can be iterated over like one."""
    return hasattr(type(result), "__anext__")


async def end_of(result: Any) -> None:
    """Have a generator end; what only looks like one may have no end of its own."""
    if inspect.isgenerator(result):
        result.close()
    elif hasattr(result, "aclose"):
        await result.aclose()
