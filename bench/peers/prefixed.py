"""Length-prefixed msgpack, for the hand-written peers: pack a message, take messages from chunks."""

from __future__ import annotations

from typing import Any

import msgpack

pack = msgpack.Packer().pack


def encode(message: object) -> bytes:
    """Pack a message and put its length, 4 bytes, in front."""
    payload: bytes = pack(message)
    return len(payload).to_bytes(4, "little") + payload


class Decoder:
    """Messages out of chunks; a chunk that holds whole messages is never copied."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.wanted = 4

    def feed(self, data: bytes | bytearray) -> list[Any]:
        """Take a chunk; return the messages that it completes."""
        if self.rest:
            self.rest += data
            if len(self.rest) < self.wanted:
                return []
            data, self.rest = self.rest, bytearray()
        messages = []
        start, end = 0, len(data)
        view = memoryview(data)
        self.wanted = 4
        while end - start >= 4:
            stop = start + 4 + int.from_bytes(view[start : start + 4], "little")
            if stop > end:
                self.wanted = stop - start
                break
            messages.append(msgpack.unpackb(view[start + 4 : stop]))
            start = stop
        if start < end:
            self.rest += view[start:]
        return messages
