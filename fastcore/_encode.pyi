"""Types of the compiled way from messages to bytes; see ``_encode.pyx``."""

from typing import TypeAlias

#: What a message consists of on its way out.
Piece: TypeAlias = bytes | memoryview

IN_PLACE: int

def encode(message: object, compression: str | None = None) -> bytes | list[Piece]: ...
