"""Types of the compiled way from messages to bytes and back; see ``_wire.pyx``."""

from collections.abc import Callable
from typing import Any, TypeAlias, final

from fastcore._framing import Sink

#: What a message consists of on its way out.
Piece: TypeAlias = bytes | memoryview

IN_PLACE: int

@final
class CallHeader:
    @property
    def call(self) -> int | None: ...
    @property
    def part(self) -> bool: ...
    @property
    def error(self) -> bool: ...
    @property
    def window(self) -> int | None: ...
    @property
    def cancel(self) -> int | None: ...
    @property
    def grant(self) -> int | None: ...
    @property
    def extra(self) -> dict[str, Any] | None: ...

SPEAKS_VALUES: int
SPEAKS_PLAINLY: int
HAS_TO_BE_ASKED: int

class DialectUnknown(Exception): ...

@final
class Dialect:
    speaks: int
    def __call__(self, code: int, body: bytes) -> Any: ...

PART_FLAG: int
ERROR_FLAG: int

def call_fields(
    number: int | None, flags: int = 0, window: int = -1, grant: int = -1, cancel: int | None = None
) -> bytes: ...
def with_extra(fields: bytes, extra: dict[str, Any]) -> bytes: ...
def call_header(header: bytes) -> CallHeader | None: ...
def length_header(length: int, fields: bytes | None = None) -> bytes: ...
def read_header(header: bytes) -> int | Sink | None: ...
def read_header_to_write(header: bytes) -> int | Sink | None: ...
def unpack_header(header: bytes) -> dict[str, Any]: ...
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
