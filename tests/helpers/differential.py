"""Give the same bytes, in the same pieces, to the engine and to the reference, and compare.

Used by the property tests (hypothesis finds the bytes) and by the fuzzers (chance, or
coverage, finds them). Headers here are text: ``n12`` is a payload of 12 bytes, ``s12`` the
same into a sink, ``x`` a header that makes no sense; anything else says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from random import Random

from fastcore._framing import FrameBuffer, MessageBuffer
from fastcore.errors import FrameTooLarge
from helpers.reference import ReferenceFrames, ReferenceMessages


class CollectingSink:
    """Takes a payload in pieces of a few bytes, and is strict about how it is used."""

    def __init__(self, length: int, step: int = 7) -> None:
        self.length = length
        self.step = step
        self.received = bytearray()
        self.lent: bytearray | None = None

    def prepare(self, size: int, /) -> memoryview:
        assert self.lent is None, "lent twice"
        assert size > 0
        self.lent = bytearray(self.step)
        return memoryview(self.lent)

    def commit(self, size: int, /) -> None:
        assert self.lent is not None, "nothing was lent"
        self.received += self.lent[:size]
        self.lent = None
        assert len(self.received) <= self.length

    def pieces(self) -> list[bytes | memoryview]:
        middle = len(self.received) // 2
        return [bytes(self.received[:middle]), b"", memoryview(bytes(self.received[middle:]))]


def read_header(header: bytes) -> int | CollectingSink | None:
    kind, digits = header[:1], header[1:]
    if kind == b"x":
        raise ValueError("a header that makes no sense")
    if kind not in b"ns" or not digits.isdigit():
        return None
    return int(digits) if kind == b"n" else CollectingSink(int(digits))


def read_length(header: bytes) -> int | None:
    answer = read_header(header)
    return answer.length if isinstance(answer, CollectingSink) else answer


def plain(message: tuple[bytes, object]) -> tuple[bytes, bytes]:
    header, payload = message
    if isinstance(payload, CollectingSink):
        assert len(payload.received) == payload.length
        payload = payload.received
    return header, bytes(payload)  # type: ignore[call-overload]


def outcomes(buffer: MessageBuffer | ReferenceMessages) -> list[object]:
    """Take all messages that are complete, and the names of the errors among them."""
    taken: list[object] = []
    while True:
        try:
            message = buffer.next_message()
        except ValueError as error:
            taken.append("too large" if isinstance(error, FrameTooLarge) else "bad")
            if buffer.failure is not None:
                return [*taken, "failed"]
        else:
            if message is None:
                return taken
            taken.append(plain(message))


def give(buffer: FrameBuffer | MessageBuffer, data: bytes, chance: Random) -> None:
    """One way or the other."""
    if chance.random() < 0.5:
        buffer.feed(data)
        return
    while data:
        memory = buffer.prepare(chance.choice([1, 10, 100, 100_000]))
        size = min(len(memory), len(data))
        memory[:size] = data[:size]
        buffer.commit(size)
        data = data[size:]


def compare_messages(
    sentinel: bytes, max_frame_size: int, max_header_size: int, chunks: Iterable[bytes], seed: int = 0
) -> None:
    chance = Random(seed)
    limits = {"max_frame_size": max_frame_size, "max_header_size": max_header_size}
    engine = MessageBuffer(read_header, sentinel, **limits)
    reference = ReferenceMessages(read_length, sentinel, **limits)
    for chunk in chunks:
        give(engine, chunk, chance)
        reference.feed(chunk)
        expected = outcomes(reference)
        assert outcomes(engine) == expected
        if expected[-1:] == ["failed"]:
            assert len(engine) == 0
            return


def compare_frames(sentinel: bytes, max_frame_size: int, chunks: Iterable[bytes], seed: int = 0) -> None:
    chance = Random(seed)
    engine = FrameBuffer(sentinel, max_frame_size=max_frame_size)
    reference = ReferenceFrames(sentinel, max_frame_size)
    views: list[tuple[memoryview, bytes]] = []
    for chunk in chunks:
        give(engine, chunk, chance)
        reference.feed(chunk)
        frame: bytes | memoryview | None = b""
        while frame is not None:
            try:
                expected = reference.next_frame()
            except FrameTooLarge:
                expect_failure(engine)
                return
            frame = take(engine, chance)
            assert frame == expected
            if isinstance(frame, memoryview):
                views.append((frame, bytes(frame)))
    assert all(view == content for view, content in views)


def take(buffer: FrameBuffer, chance: Random) -> bytes | memoryview | None:
    way = chance.randrange(3)
    if way == 0:
        return buffer.next_frame()
    if way == 1:
        return buffer.next_view()
    return next(buffer, None)


def expect_failure(buffer: FrameBuffer) -> None:
    try:
        frame = buffer.next_frame()
    except FrameTooLarge:
        frame = None
    assert frame is None, "a frame where the buffer should have failed"
    assert buffer.failure is not None


def random_case(chance: Random) -> tuple[bytes, bytes, list[bytes]]:
    """A sentinel, bytes that are meant to be confusing for it, and the same bytes cut."""
    sentinel = random_sentinel(chance)
    data = b"".join(random_message(chance, sentinel) for _ in range(chance.randint(1, 6)))
    longest = chance.choice([1, 3, 20, 100, len(data)])
    cuts = [0]
    while cuts[-1] < len(data):
        cuts.append(cuts[-1] + chance.randint(1, longest))
    return sentinel, data, [data[start:end] for start, end in pairwise(cuts)]


def random_sentinel(chance: Random) -> bytes:
    return chance.choice(
        [
            b"7d629535c4f3a6963f566af7d3e3a2d2",
            b"\n",
            b"\r\n",
            b"\0\0\0\0\0",
            b"aab aab",
            b"aaaaaaaaaaaa",
            bytes(chance.choices(b"ab", k=chance.randint(1, 40))),
            chance.randbytes(chance.randint(1, 255)),
        ]
    )


def random_payload(chance: Random, sentinel: bytes) -> bytes:
    parts = [
        sentinel,
        sentinel * 2,
        sentinel[: chance.randint(0, len(sentinel))],
        sentinel[chance.randint(0, len(sentinel)) :],
        sentinel[:-1] + bytes([sentinel[-1] ^ 1]),
        bytes(chance.choices(sentinel, k=chance.randint(0, 9))),
        chance.randbytes(chance.randint(0, 30)),
        chance.randbytes(chance.randint(0, 300)),
        sentinel[:1] * chance.randint(0, 300),
    ]
    return b"".join(chance.choices(parts, k=chance.randint(0, 4)))


def random_message(chance: Random, sentinel: bytes) -> bytes:
    payload = random_payload(chance, sentinel)
    length = len(payload) if chance.random() < 0.6 else max(0, len(payload) + chance.randint(-40, 300))
    header = chance.choice([b"", b"", b"n%d" % length, b"s%d" % length, b"x", b"q" + payload])
    size = len(header) if chance.random() < 0.9 else len(header) + chance.randint(0, 50)
    debris = payload if chance.random() < 0.1 else b""
    return size.to_bytes(4, "little") + header + payload + sentinel + debris
