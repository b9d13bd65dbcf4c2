"""What the framing engine should do, written to be obviously right and not to be fast.

Everything is one bytes object that is cut again from its start on. No state but the
bytes that are left and, for messages, whether a bad one is being skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from fastcore.errors import BadFrame, FrameTooLarge


class ReferenceFrames:
    """Frames of a FrameBuffer: everything up to the sentinel."""

    def __init__(self, sentinel: bytes, max_frame_size: int) -> None:
        self.sentinel = sentinel
        self.max_frame_size = max_frame_size
        self.data = b""
        self.failure: FrameTooLarge | None = None

    def feed(self, data: bytes) -> None:
        self.data += data

    def next_frame(self) -> bytes | None:
        frame, found, rest = self.data.partition(self.sentinel)
        # Without a sentinel, the last bytes may be the beginning of one.
        size = len(frame) if found else len(frame) - (len(self.sentinel) - 1)
        if size > self.max_frame_size:
            self.failure = FrameTooLarge("frame", size, self.max_frame_size, "max_frame_size")
            raise self.failure
        if not found:
            return None
        self.data = rest
        return frame


class ReferenceMessages(ReferenceFrames):
    """Messages of a MessageBuffer: header length, header, payload, sentinel."""

    def __init__(
        self,
        read_header: Callable[[bytes], int | None],
        sentinel: bytes,
        max_frame_size: int,
        max_header_size: int,
    ) -> None:
        super().__init__(sentinel, max_frame_size)
        self.read_header = read_header
        self.max_header_size = max_header_size
        self.skipping = False

    def next_message(self) -> tuple[bytes, bytes] | None:
        if self.skipping:
            if self.next_frame() is None:
                return None
            self.skipping = False
        try:
            return self.first_message()
        except ValueError:
            self.skipping = True
            raise

    def first_message(self) -> tuple[bytes, bytes] | None:
        if self.sentinel in self.data[:4]:
            raise BadFrame("too short")
        if len(self.data) < 4:
            return None
        body = 4 + int.from_bytes(self.data[:4], "little")
        length = None
        if body > 4:
            if body - 4 > self.max_header_size:
                raise FrameTooLarge("header", body - 4, self.max_header_size, "max_header_size")
            if body > self.max_frame_size:
                raise FrameTooLarge("frame", body, self.max_frame_size, "max_frame_size")
            if self.sentinel in self.data[:body]:
                raise BadFrame("ends inside its header")
            if len(self.data) < body:
                return None
            length = self.read_header(self.data[4:body])
        if length is None:
            return self.up_to_sentinel(body)
        if body + length > self.max_frame_size:
            raise FrameTooLarge("frame", body + length, self.max_frame_size, "max_frame_size")
        end = body + length + len(self.sentinel)
        if len(self.data) < end:
            return None
        if not self.data[:end].endswith(self.sentinel):
            raise BadFrame("no sentinel after its length")
        message, self.data = self.data[: body + length], self.data[end:]
        return message[4:body], message[body:]

    def up_to_sentinel(self, body: int) -> tuple[bytes, bytes] | None:
        before = self.data
        message = self.next_frame()
        if message is None:
            return None
        if len(message) < body:
            self.data = before
            raise BadFrame("ends inside its header")
        return message[4:body], message[body:]
