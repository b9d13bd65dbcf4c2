"""Types of the compiled outbox; see ``_outbox.pyx``."""

from collections.abc import Callable
from typing import Any

from fastcore._encode import Piece

class Outbox:
    @property
    def unsent(self) -> int: ...
    @property
    def sent(self) -> int: ...
    def put(self, frame: bytes | list[Piece], /) -> None: ...
    def clear(self) -> None: ...
    def flush(
        self, send: Callable[[Any], int], sendmsg: Callable[[list[Piece]], int] | None, /
    ) -> None: ...
