"""Giant frames give their memory back, and thousands of idle buffers cost next to nothing."""

from __future__ import annotations

import gc
import os

from fastcore._framing import SENTINEL, FrameBuffer, MessageBuffer

PAGE = os.sysconf("SC_PAGE_SIZE")
MB = 1024 * 1024
GIANT = 256 * MB
PIECE = memoryview(bytes(MB))


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


def receive(buffer: FrameBuffer | MessageBuffer, size: int) -> int:
    """Receive zeros; give the most memory that the process had meanwhile."""
    peak = 0
    while size:
        memory = buffer.prepare(MB)
        part = min(len(memory), size, MB)
        memory[:part] = PIECE[:part]
        buffer.commit(part)
        size -= part
        peak = max(peak, resident())
    return peak


def main() -> None:
    before = resident()
    problems = []

    def check(what: str, grown: int, allowed: int) -> None:
        if grown > allowed:
            problems.append(f"{what}: {grown:,} bytes, more than {allowed:,}")

    buffer = FrameBuffer()
    peak = receive(buffer, GIANT)
    buffer.feed(SENTINEL)
    view = buffer.next_view()
    assert len(view) == GIANT
    check("peak without a length", peak - before, GIANT + 8 * MB)
    del view
    check("after a giant frame", resident() - before, 4 * MB)

    messages = MessageBuffer(lambda header: GIANT)
    messages.feed(b"\1\0\0\0h")
    assert messages.next_message() is None
    peak = receive(messages, GIANT)
    messages.feed(SENTINEL)
    assert messages.next_message() is not None
    check("peak with a length", peak - before, GIANT + 8 * MB)
    check("after a giant message", resident() - before, 4 * MB)

    before = resident()
    crowd = [FrameBuffer() for _ in range(10_000)]
    for one in crowd:
        one.prepare()[:5] = b"hello"
        one.commit(5)
        assert one.next_frame() is None
    check("10,000 unfinished frames", resident() - before, 10 * MB)
    del crowd
    gc.collect()
    print("; ".join(problems) or "flat", flush=True)


if __name__ == "__main__":
    main()
