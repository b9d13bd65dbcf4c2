"""A million buffers are made, used, failed and dropped; the process stays as large as it was."""

from __future__ import annotations

import gc
import os

from fastcore._framing import FrameBuffer, MessageBuffer
from fastcore.errors import BufferMisuse

ROUNDS = 250_000  # four buffers each
PAGE = os.sysconf("SC_PAGE_SIZE")
ALLOWED = 2 * 1024 * 1024


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


class Sink:
    """Forgets what it receives."""

    length = 10

    def __init__(self) -> None:
        self.lent = memoryview(bytearray(4))

    def prepare(self, size: int) -> memoryview:
        return self.lent

    def commit(self, size: int) -> None:
        pass

    def pieces(self) -> list[bytes]:
        return [b"forgotten!"]


def frames(number: int) -> None:
    # A sentinel of its own, so the tables made for it have to go too.
    sentinel = b"%032d" % number
    buffer = FrameBuffer(sentinel)
    buffer.feed(b"a" * 100 + sentinel + b"b" * 9000 + sentinel + b"c")
    view = buffer.next_view()
    buffer.next_frame()
    assert buffer.next_frame() is None
    buffer.prepare()
    assert len(view) == 100


def failure(number: int) -> None:
    buffer = FrameBuffer(max_frame_size=10)
    buffer.feed(b"x" * 100)
    for use in (buffer.next_frame, buffer.next_view, buffer.prepare):
        try:
            use()
        except ValueError:
            continue
        raise AssertionError("it should have failed")


def misuse(number: int) -> None:
    buffer = FrameBuffer()
    buffer.prepare(1000 if number % 2 else 200_000)
    try:
        buffer.feed(b"x")
    except BufferMisuse:
        return
    raise AssertionError("it should have been refused")


def messages(number: int) -> None:
    buffer = MessageBuffer(lambda header: Sink(), b"--")
    buffer.feed(b"\1\0\0\0hforgotten!--" + b"\1\0\0\0hforgotten" + (b"!--" if number % 2 else b"! no"))
    buffer.next_message()
    try:
        buffer.next_message()
    except ValueError:
        assert number % 2 == 0


def main() -> None:
    before = 0
    for number in range(ROUNDS + 20_000):
        if number == 20_000:
            gc.collect()
            before = resident()
        frames(number)
        failure(number)
        misuse(number)
        messages(number)
    gc.collect()
    grown = resident() - before
    print("flat" if grown <= ALLOWED else f"grown by {grown:,} bytes", flush=True)


if __name__ == "__main__":
    main()
