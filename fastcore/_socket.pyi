"""Types of the compiled socket; see ``_socket.pyx``."""

from collections.abc import Callable
from typing import Protocol, TypeVar, final, type_check_only

_T = TypeVar("_T")

def undisturbed(function: Callable[[], _T]) -> _T: ...

@type_check_only
class Source(Protocol):
    def recv_into(self, memory: memoryview, /) -> int | None: ...
    def send(self, data: memoryview, /) -> int: ...

@final
class Socket:
    def __init__(
        self,
        source: Source,
        gathers: bool = False,
        *,
        fileno: Callable[[], int] | None = None,
        bare_fileno: Callable[[], int] | None = None,
    ) -> None: ...
    @property
    def source(self) -> Source: ...
