"""Types of the compiled framing engine; see ``_framing.pyx`` for the plan and the costs."""

from collections.abc import Callable, Iterator
from typing import Protocol, final

from fastcore._buffer import SENTINEL as SENTINEL
from fastcore._buffer import Buffer

DEFAULT_MAX_FRAME_SIZE: int
DEFAULT_MAX_HEADER_SIZE: int

class Sink(Protocol):
    """Takes the payload of one long frame straight into memory of its own."""

    @property
    def length(self) -> int: ...
    def prepare(self, size: int, /) -> memoryview: ...
    def commit(self, size: int, /) -> None: ...
    def pieces(self) -> list[bytes | memoryview]: ...

@final
class FrameBuffer(Buffer):
    def __init__(self, sentinel: bytes = ..., *, max_frame_size: int = ...) -> None: ...
    def next_frame(self) -> bytes | None: ...
    def next_view(self) -> memoryview | None: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...

@final
class MessageBuffer(Buffer):
    def __init__(
        self,
        read_header: Callable[[bytes], int | Sink | None],
        sentinel: bytes = ...,
        *,
        max_frame_size: int = ...,
        max_header_size: int = ...,
    ) -> None: ...
    @property
    def max_header_size(self) -> int: ...
    def next_message(self) -> tuple[bytes, bytes | memoryview | Sink] | None: ...
