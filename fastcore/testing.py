"""For tests of programs that use fastcore: the fixture ``fastcore_server``.

pytest finds it by itself where fastcore is installed. Until a test asks for it, it costs next to
nothing: neither Tornado nor asyncio is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastcore.background import ServerInThread

__all__ = ["fastcore_server"]


@pytest.fixture
def fastcore_server() -> Iterator[Callable[..., ServerInThread]]:
    """Make servers, each in a thread of its own, that end with the test.

    It is called like :class:`fastcore.ServerInThread`: ``fastcore_server(handlers, **keywords)``.
    """
    from fastcore.background import ServerInThread

    with ExitStack() as stack:
        yield lambda *handlers, **keywords: stack.enter_context(ServerInThread(*handlers, **keywords))
