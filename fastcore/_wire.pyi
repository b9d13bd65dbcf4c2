"""Types of the compiled way from messages to bytes and back; see ``_wire.pyx``."""

from collections.abc import Callable
from typing import Any, TypeAlias, final

from fastcore._framing import Sink

#: What a message consists of on its way out.
Piece: TypeAlias = bytes | memoryview

IN_PLACE: int

SPEAKS_VALUES: int
SPEAKS_PLAINLY: int
HAS_TO_BE_ASKED: int

class DialectUnknown(Exception): ...

@final
class Dialect:
    speaks: int
    def __call__(self, code: int, body: bytes) -> Any: ...

def frozen(value: object) -> object: ...
def frozen_call(message: dict[str, Any]) -> dict[str, Any]: ...
def with_extra(fields: bytes, extra: dict[str, Any]) -> bytes: ...
def encode(
    message: object, compression: str | None = None, fields: bytes | None = None, dialect: int = 0
) -> bytes | list[Piece]: ...
def decode(
    header: bytes,
    payload: bytes | memoryview | Sink,
    max_decompressed_size: int = ...,
    max_depth: int = ...,
    max_values: int = ...,
    writable_values: bool = False,
    ext_hook: Callable[[int, bytes], Any] | None = None,
) -> Any: ...
def bad_payload(error: Exception) -> Exception: ...
