"""Types of iterating; see ``_iterating.pyx``."""

from collections.abc import Awaitable, Generator
from typing import Any, Self, final

from typing_extensions import disjoint_base

@disjoint_base
class Source: ...

@final
class Next(Awaitable[Any]):
    def __await__(self) -> Generator[Any, None, Any]: ...

@disjoint_base
class Values:
    def __init__(self, source: Source) -> None: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Next: ...
