"""Types of the compiled socket; see ``_socket.pyx``."""

from collections.abc import Callable
from typing import Any, TypeVar, final

from fastcore._wire import Piece

_T = TypeVar("_T")

def undisturbed(function: Callable[[], _T]) -> _T: ...

@final
class Socket:
    def __init__(
        self,
        recv_into: Callable[[memoryview], int | None],
        send_bytes: Callable[[Any], int],
        sendmsg: Callable[[list[Piece]], int] | None = None,
        fileno: Callable[[], int] | None = None,
        *,
        bare_fileno: Callable[[], int] | None = None,
    ) -> None: ...
    @property
    def recv_into(self) -> Callable[[memoryview], int | None]: ...
    @property
    def send_bytes(self) -> Callable[[Any], int]: ...
    @property
    def sendmsg(self) -> Callable[[list[Piece]], int] | None: ...
