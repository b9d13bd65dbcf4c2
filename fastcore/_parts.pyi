"""Types of the answers of one call; see ``_parts.pyx``."""

from collections import deque
from typing import Any, Final, final

from fastcore._iterating import Source

FIRST_WINDOW: Final = 32
SMALLEST_WINDOW: Final = 8
LARGEST_WINDOW: Final = 1024
BYTES_IN_WINDOW: Final = 262144

@final
class Parts(Source):
    is_iterated: bool

    def __init__(self, call: Any) -> None: ...
    @property
    def values(self) -> deque[Any]: ...
    def add(self, value: object, more_are_here: bool) -> None: ...
    def take(self) -> Any: ...
    def wake(self) -> None: ...
