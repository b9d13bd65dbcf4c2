"""MessageBuffer: header length, header, payload, sentinel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastcore._framing import SENTINEL, MessageBuffer
from fastcore.errors import BadFrame, BadMessage, BufferMisuse, FrameTooLarge
from helpers.differential import CollectingSink, plain, read_header

LARGE = 100_000


def message(header: bytes, payload: bytes, header_length: int | None = None) -> bytes:
    size = len(header) if header_length is None else header_length
    return size.to_bytes(4, "little") + header + payload + SENTINEL


GOOD = message(b"", b"good")


def buffer_of(data: bytes, **limits: int) -> MessageBuffer:
    buffer = MessageBuffer(read_header, **limits)
    buffer.feed(data)
    return buffer


class TestGoodMessages:
    def test_one_without_a_header_asks_nobody(self):
        buffer = MessageBuffer(lambda header: pytest.fail("asked for a header that isn't there"))
        buffer.feed(bytes(4) + b"\xc4\x04pong" + SENTINEL)
        assert buffer.next_message() == (b"", b"\xc4\x04pong")
        assert buffer.next_message() is None

    def test_one_whose_header_says_nothing_ends_at_the_first_sentinel(self):
        buffer = buffer_of(message(b"h", b"payload") + GOOD)
        assert buffer.next_message() == (b"h", b"payload")
        assert buffer.next_message() == (b"", b"good")

    def test_one_of_known_length_may_hold_the_sentinel(self):
        payload = SENTINEL + b"op" + SENTINEL
        buffer = buffer_of(message(b"n%d" % len(payload), payload) + GOOD)
        assert buffer.next_message() == (b"n%d" % len(payload), payload)
        assert buffer.next_message() == (b"", b"good")

    def test_an_empty_payload_is_a_payload(self):
        buffer = buffer_of(message(b"", b"") + message(b"n0", b"") + message(b"h", b"") + message(b"s0", b""))
        assert [plain(buffer.next_message()) for _ in range(4)] == [
            (b"", b""), (b"n0", b""), (b"h", b""), (b"s0", b"")
        ]  # fmt: skip

    def test_a_small_payload_is_bytes_and_a_large_one_a_view(self):
        buffer = buffer_of(message(b"", b"x" * 100) + message(b"", b"y" * LARGE))
        _, small = buffer.next_message()
        _, large = buffer.next_message()
        assert type(small) is bytes
        assert type(large) is memoryview
        assert large.readonly
        assert (small, large) == (b"x" * 100, b"y" * LARGE)

    def test_every_cut_gives_the_same_messages(self):
        payload = b"a" + SENTINEL + b"b"
        data = (
            GOOD
            + message(b"n%d" % len(payload), payload)
            + message(b"s%d" % len(payload), payload)
            + message(b"h", SENTINEL[:31])
            + GOOD
        )
        for place in range(len(data)):
            buffer = MessageBuffer(read_header)
            messages = []
            for part in (data[:place], data[place:]):
                buffer.feed(part)
                while (taken := buffer.next_message()) is not None:
                    messages.append(plain(taken)[1])
            assert messages == [b"good", payload, payload, SENTINEL[:31], b"good"]

    def test_the_header_is_read_once_however_its_payload_arrives(self):
        headers = []
        buffer = MessageBuffer(headers.append)
        for byte in message(b"once", b"payload"):
            buffer.feed(bytes([byte]))
            buffer.next_message()
        assert headers == [b"once"]


class TestSink:
    def test_the_payload_is_received_into_the_sink(self):
        sink = CollectingSink(LARGE, step=30_000)
        buffer = MessageBuffer(lambda header: sink)
        payload = bytes(range(250)) * 400
        data = message(b"h", payload) + GOOD
        buffer.feed(data[:100])
        assert buffer.next_message() is None
        assert sink.received == payload[: 100 - 5]
        place = 100
        while place < len(data):
            memory = buffer.prepare()
            if len(sink.received) < sink.length:
                assert len(memory) <= sink.length - len(sink.received), "lent past the payload's end"
            size = min(len(memory), len(data) - place)
            memory[:size] = data[place : place + size]
            buffer.commit(size)
            place += size
        assert buffer.next_message() == (b"h", sink)
        assert sink.received == payload
        assert buffer.next_message() == (b"", b"good")

    def test_the_buffer_holds_nothing_of_what_went_into_the_sink(self):
        buffer = MessageBuffer(lambda header: CollectingSink(LARGE))
        buffer.feed(message(b"h", b"x" * LARGE)[:50_000])
        assert len(buffer) == 50_000
        assert buffer.next_message() is None
        assert len(buffer) == 0
        assert buffer.__sizeof__() < 1024

    def test_memory_of_the_sink_given_back_unused_changes_nothing(self):
        sink = CollectingSink(10)
        sink.prepare = lambda size: memoryview(bytearray(5))
        sink.commit = lambda size: pytest.fail("nothing was received")
        buffer = MessageBuffer(lambda header: sink)
        buffer.feed(message(b"h", b"")[:5])
        assert buffer.next_message() is None
        buffer.prepare()
        buffer.commit(0)
        assert buffer.next_message() is None

    @pytest.mark.parametrize(
        ("lent", "reason"),
        [
            (memoryview(b"read-only"), "read-only|not writable"),
            (memoryview(bytearray()), "empty|no memory"),
            (memoryview(bytearray(10))[::2], "contiguous"),
            ("text", "bytes-like"),
        ],
        ids=["read-only", "empty", "in pieces", "no memory at all"],
    )
    @pytest.mark.parametrize("already_here", [b"x" * 10, b""])
    def test_a_sink_that_lends_no_usable_memory_ends_the_buffer(self, lent, reason, already_here):
        sink = CollectingSink(10)
        sink.prepare = lambda size: lent
        buffer = MessageBuffer(lambda header: sink)
        buffer.feed(b"\1\0\0\0h" + already_here)

        def go_on() -> None:
            buffer.next_message()
            buffer.prepare()

        with pytest.raises(BadFrame, match=reason):
            go_on()
        assert buffer.failure is not None
        with pytest.raises(BadFrame):
            buffer.next_message()

    @pytest.mark.parametrize("method", ["prepare", "commit"])
    def test_an_error_of_the_sink_is_the_cause_of_the_failure(self, method: str):
        sink = CollectingSink(10)

        def fail(size: int) -> None:
            raise OSError("disk full")

        setattr(sink, method, fail)
        buffer = MessageBuffer(lambda header: sink)
        buffer.feed(message(b"h", b"x" * 10))
        with pytest.raises(BadFrame, match="disk full") as caught:
            buffer.next_message()
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(BadFrame):
            buffer.feed(b"")

    def test_an_interrupt_passes_through_the_sink_as_it_is(self):
        sink = CollectingSink(10)

        def interrupt(size: int) -> None:
            raise KeyboardInterrupt

        sink.prepare = interrupt
        buffer = MessageBuffer(lambda header: sink)
        buffer.feed(message(b"h", b"x" * 10))
        with pytest.raises(KeyboardInterrupt):
            buffer.next_message()
        assert buffer.failure is not None

    def test_a_peer_whose_length_was_not_true_gets_no_sink_again(self):
        buffer = buffer_of(message(b"s100", b"x" * 50) + b"z" * 100 + SENTINEL)
        with pytest.raises(BadFrame, match="100 bytes, but no sentinel"):
            buffer.next_message()
        buffer.feed(message(b"s4", b"true"))
        with pytest.raises(BadFrame):  # the z's are no message either
            buffer.next_message()
        assert buffer.next_message() == (b"s4", b"true")

    @pytest.mark.parametrize("pieces", [[], [b"too few"], [b"far too many" * 100], [b"x", "text"], None])
    def test_a_sink_that_lost_what_it_received_ends_the_buffer(self, pieces):
        sink = CollectingSink(50)
        sink.pieces = lambda: pieces
        buffer = MessageBuffer(lambda header: sink)
        buffer.feed(message(b"h", b"x" * 40) + GOOD + GOOD)
        with pytest.raises(BadFrame, match="sink"):
            buffer.next_message()
        assert buffer.failure is not None


class TestBadMessages:
    """Each costs one error and itself; then the next good message comes."""

    @pytest.mark.parametrize(
        ("bad", "error", "text"),
        [
            (SENTINEL, BadFrame, "header"),
            (b"\1" + SENTINEL, BadFrame, "header"),
            (message(b"", b"", header_length=20), BadFrame, "ends before its header does"),
            (message(b"h", b"", header_length=30), BadFrame, "ends before its header does"),
            (message(b"", b"x", header_length=2**32 - 1), FrameTooLarge, "header of 4,294,967,295 bytes"),
            (message(b"h" * 101, b"x"), FrameTooLarge, "header of 101 bytes.*100 bytes.*max_header_size="),
            (message(b"n1001", b"x"), FrameTooLarge, "frame of 1,010 bytes.*1,000 bytes.*max_frame_size="),
            (message(b"s%d" % 10**30, b"x"), FrameTooLarge, "frame.*max_frame_size="),
            (message(b"n3", b"1234"), BadFrame, "3 bytes, but no sentinel"),
            (message(b"s3", b"1234"), BadFrame, "3 bytes, but no sentinel"),
            (message(b"x", b"1234"), ValueError, "makes no sense"),
        ],
        ids=lambda value: None if isinstance(value, type | str) else repr(value[:8]),
    )  # fmt: skip
    @pytest.mark.parametrize("at_once", [True, False])
    def test_the_next_good_one_comes(self, bad: bytes, error: type, text: str, at_once: bool):
        buffer = MessageBuffer(read_header, max_frame_size=1000, max_header_size=100)
        data = GOOD + bad + GOOD
        errors = []
        messages = []
        for part in [data] if at_once else [bytes([byte]) for byte in data]:
            buffer.feed(part)
            taken: object = b""
            while taken is not None:
                try:
                    taken = buffer.next_message()
                except ValueError as caught:
                    errors.append(caught)
                else:
                    messages.append(taken)
        assert [taken for taken in messages if taken is not None] == [(b"", b"good"), (b"", b"good")]
        assert buffer.failure is None
        assert len(errors) == 1
        with pytest.raises(error, match=text):
            raise errors[0]

    def test_an_absurd_header_length_is_known_at_once(self):
        buffer = buffer_of(b"\xff\xff\xff\xff")
        with pytest.raises(FrameTooLarge):
            buffer.next_message()

    def test_a_header_that_ends_early_does_not_wait_for_the_rest(self):
        buffer = buffer_of((60_000).to_bytes(4, "little") + b"short" + SENTINEL)
        with pytest.raises(BadFrame, match="ends before its header does"):
            buffer.next_message()

    def test_while_skipping_almost_nothing_is_held(self):
        buffer = buffer_of(b"\xff\xff\xff\xff" + b"x" * 100_000)
        with pytest.raises(FrameTooLarge):
            buffer.next_message()
        for _ in range(3):
            assert buffer.next_message() is None
            assert len(buffer) == len(SENTINEL) - 1
            assert buffer.__sizeof__() < 1024
            buffer.feed(b"x" * 10_000)

    def test_skipping_does_not_go_on_forever(self):
        buffer = buffer_of(b"\xff\xff\xff\xff", max_frame_size=1000)
        with pytest.raises(FrameTooLarge, match="max_header_size"):
            buffer.next_message()
        for _ in range(10):
            buffer.feed(b"x" * 100)
            assert buffer.next_message() is None
        buffer.feed(b"x" * 100)
        with pytest.raises(FrameTooLarge, match="max_frame_size"):
            buffer.next_message()
        assert buffer.failure is not None

    def test_a_message_over_the_limit_without_a_length_ends_the_buffer(self):
        buffer = buffer_of(GOOD + message(b"", b"x" * 1000) + GOOD, max_frame_size=1003)
        assert buffer.next_message() == (b"", b"good")
        with pytest.raises(FrameTooLarge, match="1,004 bytes"):
            buffer.next_message()
        with pytest.raises(FrameTooLarge):
            buffer.next_message()

    def test_the_limit_counts_header_length_header_and_payload(self):
        for header, payload in ((b"", b"x" * 1000), (b"n997", b"x" * 997), (b"h", b"x" * 1000)):
            size = 4 + len(header) + len(payload)
            assert buffer_of(message(header, payload), max_frame_size=size).next_message() is not None
            with pytest.raises(FrameTooLarge):
                buffer_of(message(header, payload), max_frame_size=size - 1).next_message()

    def test_lengths_nested_in_lengths_that_are_not_true_are_found_out_one_by_one(self):
        nested = b"".join(message(b"s500", b"") for _ in range(20))
        buffer = buffer_of(nested + b"y" * 600 + SENTINEL + GOOD)
        errors = 0
        while True:
            try:
                taken = buffer.next_message()
            except BadFrame:
                errors += 1
            else:
                break
        assert taken == (b"", b"good")
        assert errors == 21


class TestReadHeader:
    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (-1, ValueError),
            ("text", AttributeError),
            (1.5, AttributeError),
            (CollectingSink(-1), ValueError),
            (CollectingSink(None), ValueError),
            (CollectingSink(2.0), ValueError),
        ],
    )
    def test_a_nonsensical_answer_costs_one_message(self, answer: object, error: type[Exception]):
        buffer = MessageBuffer(lambda header: answer)
        buffer.feed(message(b"h", b"") + GOOD)
        with pytest.raises(error):
            buffer.next_message()
        assert buffer.next_message() == (b"", b"good")

    @pytest.mark.parametrize("error", [BadMessage("no"), KeyError("no"), MemoryError(), KeyboardInterrupt()])
    def test_its_error_comes_through_and_costs_one_message(self, error: BaseException):
        def fail(header: bytes) -> None:
            raise error

        buffer = MessageBuffer(fail)
        buffer.feed(message(b"h", b"") + GOOD)
        with pytest.raises(type(error)):
            buffer.next_message()
        assert buffer.next_message() == (b"", b"good")

    @pytest.mark.parametrize(
        "use",
        [
            lambda buffer: buffer.feed(b"x"),
            lambda buffer: buffer.prepare(),
            lambda buffer: buffer.commit(0),
            lambda buffer: buffer.next_message(),
            lambda buffer: buffer.clear(),
        ],
        ids=["feed", "prepare", "commit", "next_message", "clear"],
    )
    def test_the_buffer_can_not_be_used_from_inside_it(self, use: Callable[[MessageBuffer], object]):
        def come_back(header: bytes) -> None:
            with pytest.raises(BufferMisuse, match="callbacks"):
                use(buffer)

        buffer = MessageBuffer(come_back)
        buffer.feed(message(b"h", b"payload"))
        assert buffer.next_message() == (b"h", b"payload")

    def test_it_has_to_be_callable(self):
        with pytest.raises(TypeError, match="read_header"):
            MessageBuffer(b"sentinel")
