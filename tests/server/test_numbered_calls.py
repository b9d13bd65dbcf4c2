"""Calls that have a number, asked for by a raw socket that speaks the wire: each answer says whose it is."""

import asyncio

import msgpack
import pytest
from tornado import gen

from fastcore import read, rpc, write
from helpers.support import until
from helpers.wire import frame, raw_frame, served, stranger_at


class Gates:
    """Handlers that wait until the test lets them go on, and tell how they ended."""

    def __init__(self):
        self.begun = []
        self.ended = []
        self.gates = {}

    async def wait(self, stream, key):
        self.begun.append(key)
        gate = self.gates[key] = asyncio.get_running_loop().create_future()
        try:
            await gate
        except asyncio.CancelledError:
            self.ended.append((key, "cancelled"))
            raise
        self.ended.append((key, "answered"))
        return key

    async def opens(self, *keys):
        for key in keys:
            await until(lambda key=key: key in self.gates)
            self.gates.pop(key).set_result(None)

    @property
    def handlers(self):
        return {"wait": self.wait}


def says_two(stream):
    write(stream, "first")
    write(stream, "second")
    return "end"


def fails(stream):
    raise ValueError("as it does")


def rows(stream, n):
    yield from range(n)


async def async_rows(stream, n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def gives_rows(stream, n):
    return rows(stream, n)


async def gives_rows_later(stream, n):
    await asyncio.sleep(0)
    return async_rows(stream, n)


STREAMS = {"rows": rows, "async_rows": async_rows, "gives": gives_rows, "gives_later": gives_rows_later}


def error_type(answer):
    """The type of the error that an answer tells of, with `error` in its header."""
    message, header = answer
    assert header == {"error": True}
    return message["exception"]["type"]


# ---- the number


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**16, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1])
async def test_an_answer_has_the_number_of_its_request(number):
    async with served() as server, stranger_at(server) as stranger:
        stranger.calls(number, "add", x=1, y=2)
        assert await stranger.hears_all() == (3, {"call": number})


@pytest.mark.parametrize("number", [-1, True, False, 1.5, 1.0, "1", b"1", [], {}, -(2**63)])
@pytest.mark.parametrize("key", ["call", "cancel"])
async def test_a_number_that_is_none_costs_an_error_and_not_the_connection(key, number):
    async with served() as server, stranger_at(server) as stranger:
        stranger.calls(7, "add", x=1, y=2)
        assert await stranger.hears_all() == (3, {"call": 7})
        stranger.say(frame({"op": "add", "x": 1, "y": 2}, **{key: number}))
        message, header = await stranger.hears_all()
        assert message["exception"]["type"] == "BadMessage"
        assert header["call"] is None
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("key", ["window", "grant"])
@pytest.mark.parametrize("number", [-1, True, 1.5, "1"])
async def test_a_wrong_count_of_parts_ends_the_call_that_it_is_about(key, number):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "rows", "n": 3}, call=5, **{key: number}))
        message, header = await stranger.hears_all()
        assert (message["exception"]["type"], header) == ("BadMessage", {"call": 5, "error": True})
        assert await stranger.has_heard_nothing_more()


async def test_a_number_that_is_in_use_is_refused():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        stranger.calls(1, "wait", key="a")
        await until(lambda: gates.begun)
        stranger.calls(1, "add", x=1, y=2)
        message, header = await stranger.hears_all()
        assert (message["exception"]["type"], header) == ("ValueError", {"call": 1, "error": True})
        await gates.opens("a")
        assert await stranger.hears_all() == ("a", {"call": 1})
        # Free again.
        stranger.calls(1, "add", x=1, y=2)
        assert await stranger.hears_all() == (3, {"call": 1})


async def test_keys_that_nobody_knows_are_ignored():
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2}, call=3, colour="blue", weight=[1, {}]))
        assert await stranger.hears_all() == (3, {"call": 3})


async def test_flags_of_answers_say_nothing_in_a_request():
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2}, call=3, part=True, error=True))
        assert await stranger.hears_all() == (3, {"call": 3})


# ---- what is nobody's


async def test_without_numbers_no_answer_has_any():
    async with served({"says": says_two}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "says"}), frame({"op": "nothing"}))
        heard = [await stranger.hears_all() for _ in range(4)]
        assert [header for _, header in heard] == [{}] * 4
        assert [message for message, _ in heard[:3]] == ["first", "second", "end"]


async def test_after_the_first_number_all_else_is_marked_as_nobodys():
    async with served({"says": says_two}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "says")
        nobody = {"call": None}
        assert await stranger.hears_all() == ("first", nobody)
        assert await stranger.hears_all() == ("second", nobody)
        assert await stranger.hears_all() == ("end", {"call": 1})
        stranger.say(frame({"op": "add", "x": 1, "y": 2}))
        assert await stranger.hears_all() == (3, nobody)
        stranger.say(raw_frame(b"\xc1"))
        message, header = await stranger.hears_all()
        assert message["exception"]["type"] == "BadMessage"
        assert header["call"] is None


@pytest.mark.parametrize(
    "first",
    [
        raw_frame(b"\xc1", msgpack.packb({"call": 5})),
        raw_frame(msgpack.packb([[[[[[1]]]]]]), msgpack.packb({"call": 5})),
        frame({"op": "add", "x": 1, "y": 2, "reply": False}, call=5),
        frame({"op": "nothing", "reply": False}, call=5),
        frame({"op": "nothing"}, call=5),
    ],
    ids=["no MessagePack", "too deep", "no reply", "refused without reply", "refused"],
)
async def test_the_first_number_counts_whatever_becomes_of_its_request(first):
    async with served(max_depth=5) as server, stranger_at(server) as stranger:
        stranger.say(first, frame({"op": "add", "x": 1, "y": 2}))
        message, header = await stranger.hears_all()
        if message != 3:
            assert header == {"call": 5, "error": True}
            message, header = await stranger.hears_all()
        assert (message, header) == (3, {"call": None})


async def test_nil_as_a_number_is_none():
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "add", "x": 1, "y": 2}, call=None))
        message, header = await stranger.hears_all()
        assert message == 3
        assert header.get("call") is None


async def test_what_it_says_before_it_closes_is_nobodys():
    async with served(message_timeout=0.2) as server, stranger_at(server) as stranger:
        stranger.calls(1, "add", x=1, y=2)
        assert await stranger.hears_all() == (3, {"call": 1})
        stranger.say(b"\x00\x00")
        message, header = await stranger.hears_all()
        assert "message_timeout" in message["exception"]["message"]
        assert header == {"call": None}
        assert await stranger.hears_the_end() == b""


# ---- refused


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"\xc1", "BadMessage"),
        (msgpack.packb([[[[[[1]]]]]]), "TooDeep"),
        (msgpack.packb({"op": "add", "x": 1}), "TypeError"),
        (msgpack.packb({"op": "nothing"}), "ValueError"),
        (msgpack.packb({"x": 1}), "TypeError"),
        (msgpack.packb({"op": [1]}), "ValueError"),
        (msgpack.packb([1, 2]), "TypeError"),
        (msgpack.packb(None), "TypeError"),
        (b"", "BadMessage"),
    ],
)
async def test_a_request_that_is_refused_is_answered_with_its_number(payload, error):
    async with served(max_depth=5) as server, stranger_at(server) as stranger:
        stranger.say(raw_frame(payload, msgpack.packb({"call": 9})))
        answers = await stranger.hears_answers(9)
        assert error_type(answers[9]) == error
        assert await stranger.has_heard_nothing_more()


async def test_a_request_that_is_too_large_is_answered_with_its_number():
    async with served(max_buffer_size=10_000) as server, stranger_at(server) as stranger:
        stranger.say(raw_frame(bytes(20_000), msgpack.packb({"call": 9, "length": 20_000})))
        answers = await stranger.hears_answers(9)
        assert error_type(answers[9]) == "FrameTooLarge"


async def test_an_answer_that_cannot_be_packed_is_an_error_of_that_call():
    async with served({"odd": lambda stream: object()}) as server, stranger_at(server) as stranger:
        stranger.calls(9, "odd")
        assert error_type((await stranger.hears_answers(9))[9]) == "TypeError"


async def test_what_a_handler_returns_is_no_error_whatever_it_looks_like():
    stored = {"status": "uncaught-error", "exception": {"type": "ValueError", "message": "a"}}
    async with served({"get": lambda stream: stored}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "get")
        assert await stranger.hears_all() == (stored, {"call": 1})


@pytest.mark.parametrize(
    "request_without_reply",
    [
        {"op": "add", "x": 1, "y": 2},
        {"op": "add", "x": 1},
        {"op": "nothing"},
        {"op": [1]},
        {"x": 1},
        {"op": "fails"},
        {"op": "odd"},
        {"op": "rows", "n": 3},
        {"op": "async_rows", "n": 3},
        {"op": "fails_later"},
    ],
)
@pytest.mark.parametrize("numbered", [True, False])
async def test_who_wants_no_reply_gets_none_and_no_error_either(request_without_reply, numbered):
    async def fails_later(stream):
        await asyncio.sleep(0)
        raise ValueError("as it does")

    handlers = {"fails": fails, "odd": lambda stream: object(), "fails_later": fails_later, **STREAMS}
    async with served(handlers) as server, stranger_at(server) as stranger:
        header = {"call": 4} if numbered else {}
        stranger.say(frame({**request_without_reply, "reply": False}, **header))
        # Handled in order, so the one before is over by then.
        stranger.say(frame({"op": "add", "x": 1, "y": 2}))
        assert await stranger.hears() == 3
        await until(lambda: not server.stats()["running"])
        assert await stranger.has_heard_nothing_more()


# ---- side by side


async def test_numbered_requests_are_answered_as_they_end():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        for number, key in enumerate("abc"):
            stranger.calls(number, "wait", key=key)
        await until(lambda: len(gates.begun) == 3)
        for key in "cab":
            await gates.opens(key)
            assert await stranger.hears_all() == (key, {"call": "abc".index(key)})


async def test_requests_without_a_number_are_handled_in_order_while_numbered_ones_run():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        stranger.calls(1, "wait", key="numbered")
        stranger.say(*[frame({"op": "wait", "key": key}) for key in "abc"])
        for key in "abc":
            await gates.opens(key)
            assert await stranger.hears_all() == (key, {"call": None})
            # The next one has begun no earlier than this one was answered.
            assert [key for key, _ in gates.ended] == list("abc"[: "abc".index(key) + 1])
        await gates.opens("numbered")
        assert await stranger.hears_all() == ("numbered", {"call": 1})


async def test_a_handler_may_read_by_hand_while_numbered_calls_run():
    async def takes(stream):
        return await read(stream)

    gates = Gates()
    async with served({"takes": takes, **gates.handlers}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "wait", key="a")
        await until(lambda: gates.begun)
        stranger.say(frame({"op": "takes"}), frame("what it takes"))
        assert await stranger.hears_all() == ("what it takes", {"call": None})
        await gates.opens("a")
        assert await stranger.hears_all() == ("a", {"call": 1})


# ---- giving up


async def test_giving_up_cancels_the_handler_and_the_last_message_comes_all_the_same():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        stranger.calls(1, "wait", key="a")
        await until(lambda: gates.begun)
        stranger.gives_up(1)
        assert await stranger.hears_all() == (None, {"call": 1})
        assert gates.ended == [("a", "cancelled")]
        assert await stranger.has_heard_nothing_more()


async def test_giving_up_in_the_same_breath():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "wait", "key": "a"}, call=1), frame(None, cancel=1))
        message, header = await stranger.hears_all()
        assert (message, header["call"]) == (None, 1)
        await until(lambda: not server.stats()["running"])
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("number", [0, 1, 99, 2**64 - 1])
async def test_giving_up_what_is_over_or_never_was_changes_nothing(number):
    async with served() as server, stranger_at(server) as stranger:
        stranger.calls(1, "add", x=1, y=2)
        assert await stranger.hears_all() == (3, {"call": 1})
        stranger.gives_up(number)
        stranger.gives_up(number)
        assert await stranger.has_heard_nothing_more()


async def test_a_handler_that_is_given_up_twice_cleans_up_undisturbed():
    cleaned = []

    async def tidy(stream):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.02)
            cleaned.append(True)

    async with served({"tidy": tidy}) as server:
        async with stranger_at(server) as stranger:
            stranger.calls(1, "tidy")
            await until(lambda: server.stats()["running"])
            stranger.gives_up(1)
            stranger.gives_up(1)
            # And then it leaves, which ends handlers too.
            assert await stranger.has_heard_nothing_more()
        await until(lambda: not server.stats()["running"])
        assert cleaned == [True]


async def test_a_handler_may_answer_though_it_was_given_up():
    async def stubborn(stream):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "all the same"

    async with served({"stubborn": stubborn}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "stubborn")
        await until(lambda: server.stats()["running"])
        stranger.gives_up(1)
        assert await stranger.hears_all() == ("all the same", {"call": 1})


# ---- held back


async def test_what_is_held_back_can_be_given_up():
    gates = Gates()
    async with (
        served(gates.handlers, max_running_per_connection=1) as server,
        stranger_at(server) as stranger,
    ):
        for number in range(4):
            stranger.calls(number, "wait", key=number)
        for number in (2, 3, 1, 0):
            # The running one last: others stand in the way of its being heard.
            stranger.gives_up(number)
            assert await stranger.hears_all() == (None, {"call": number})
        assert gates.begun == [0]
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("size", [1, 30_000])
async def test_a_call_is_given_up_from_behind_more_than_is_held_back_at_first(size):
    gates = Gates()
    async with (
        served(gates.handlers, max_running_per_connection=1, max_waiting=10_000) as server,
        stranger_at(server) as stranger,
    ):
        stranger.calls(0, "wait", key=0)
        count = 200_000 // size if size > 1 else 2_000
        for number in range(1, count):
            stranger.calls(number, "add", x=number, y=0, reply=True, padding=bytes(size))
        stranger.gives_up(0)
        answers = await stranger.hears_answers(*range(count))
        assert answers[0] is None
        assert gates.ended == [(0, "cancelled")]


async def test_a_stream_of_answers_is_let_go_on_from_behind_what_is_held_back():
    async with (
        served(STREAMS, max_running_per_connection=1, max_waiting=1_000) as server,
        stranger_at(server) as stranger,
    ):
        stranger.say(frame({"op": "rows", "n": 3}, call=0, window=1))
        for number in range(1, 6):
            stranger.calls(number, "rows", n=0, padding=bytes(2_000))
        stranger.grants(0, 2)
        parts = [await stranger.hears_all() for _ in range(4)]
        assert parts == [*((value, {"call": 0, "part": True}) for value in range(3)), (None, {"call": 0})]


async def test_what_is_far_too_much_is_refused_when_nothing_ends_and_the_rest_is_answered(monkeypatch):
    monkeypatch.setattr("fastcore.server.held.PATIENCE", (0.01, 0.05))
    gates = Gates()
    async with (
        served(gates.handlers, max_running_per_connection=1, max_waiting=1_000) as server,
        stranger_at(server) as stranger,
    ):
        stranger.calls(0, "wait", key=0)
        for number in range(1, 200):
            stranger.calls(number, "wait", key=number, padding=bytes(1_000), reply=number % 2 == 0)
        refused = [await stranger.hears_all() for _ in range(50)]
        assert all(header["error"] for _, header in refused)
        assert "send fewer at a time (max_running_per_connection=)" in str(refused[0])
        assert len({header["call"] for _, header in refused}) == 50
        assert server.stats()["buffers"] < 2**18
        for number in range(64):
            stranger.gives_up(number)


async def test_a_stream_of_answers_goes_on_while_others_are_held_back():
    async with served(STREAMS, max_running_per_connection=1) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "rows", "n": 5}, call=1, window=1))
        stranger.say(frame({"op": "async_rows", "n": 2}, call=2))
        for value in range(5):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
            stranger.grants(1, 1)
        assert await stranger.hears_all() == (None, {"call": 1})
        heard = [await stranger.hears_all() for _ in range(3)]
        assert heard == [(0, {"call": 2, "part": True}), (1, {"call": 2, "part": True}), (None, {"call": 2})]


async def test_what_is_held_back_comes_in_order():
    gates = Gates()
    async with (
        served(gates.handlers, max_running_per_connection=2) as server,
        stranger_at(server) as stranger,
    ):
        for number in range(50):
            stranger.calls(number, "wait", key=number)
        for number in range(50):
            await gates.opens(number)
        answers = await stranger.hears_answers(*range(50))
        assert answers == {number: number for number in range(50)}
        assert gates.begun == list(range(50))


async def test_a_connection_that_was_to_be_closed_is_though_some_are_held_back():
    gates = Gates()
    async with served(gates.handlers, max_running_per_connection=1) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "wait", "key": "last", "close": True}, call=0))
            for number in range(1, 5):
                stranger.calls(number, "wait", key=number)
            await until(lambda: gates.begun)
            await gates.opens("last")
            assert await stranger.hears_all() == ("last", {"call": 0})
            for gate in [*gates.gates.values()]:
                gate.set_result(None)
            await stranger.hears_the_end()
        await until(lambda: not server.stats()["connections"]["open"])


# ---- beside a request without a number


async def by_hand(stream, n):
    return [await read(stream) for _ in range(n)]


@gen.coroutine
def by_hand_at_once(stream, n):
    """Read for the first time inside of what hands out the request."""
    messages = []
    while len(messages) < n:
        messages.append((yield read(stream)))
    return messages


@pytest.mark.parametrize("knows", [False, True])
async def test_calls_go_on_beside_a_request_without_a_number_that_takes_its_time(knows):
    gates = Gates()
    async with served({**gates.handlers, **STREAMS}) as server, stranger_at(server) as stranger:
        if knows:
            assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "wait", "key": "in order"}))
        stranger.calls(0, "wait", key=0)
        stranger.say(frame({"op": "rows", "n": 2}, call=1, window=1))
        stranger.calls(2, "add", x=1, y=1)
        stranger.gives_up(0)
        stranger.grants(1, 1)
        heard = [await stranger.hears_all() for _ in range(5)]
        assert sorted(header["call"] for _, header in heard) == [0, 1, 1, 1, 2]
        await gates.opens("in order")
        assert await stranger.hears_all() == ("in order", {"call": None})
        assert await stranger.has_heard_nothing_more()


async def test_what_has_no_number_waits_for_its_turn_beside_calls_that_do_not():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "wait", "key": "first"}))
        for number in range(20):
            stranger.say(frame({"op": "add", "x": number, "y": 0}), raw_frame(b"\xc1"))
            stranger.calls(number, "add", x=number, y=0)
        assert await stranger.hears_answers(*range(20)) == {number: number for number in range(20)}
        await gates.opens("first")
        assert await stranger.hears() == "first"
        for number in range(20):
            assert await stranger.hears() == number
            assert "BadMessage" in await stranger.hears_error()


@pytest.mark.parametrize("handler", [by_hand, by_hand_at_once])
@pytest.mark.parametrize("size", [1, 3_000])
async def test_a_handler_without_a_number_reads_what_has_none_and_calls_get_the_rest(size, handler):
    async with (
        served({"by_hand": handler}, max_waiting=10_000) as server,
        stranger_at(server) as stranger,
    ):
        assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "by_hand", "n": 40}))
        for number in range(40):
            stranger.say(frame([number, bytes(size)]))
            stranger.calls(number, "add", x=number, y=0)
        heard = [await stranger.hears_all() for _ in range(41)]
        by_number = {header["call"]: message for message, header in heard}
        assert by_number.pop(None) == [[number, bytes(size)] for number in range(40)]
        assert by_number == {number: number for number in range(40)}


# Nobody listens at the address of a stream that was accepted: connections to there are waited for in vain.
CONNECTING = 3600


async def calls_back(stream):
    async with rpc(stream=stream, timeout=CONNECTING) as remote:
        return await asyncio.gather(*[remote.question(n=n) for n in range(3)])


async def calls_back_later(stream):
    await asyncio.sleep(0)
    return await calls_back(stream)


@gen.coroutine
def calls_back_at_once(stream):
    remote = rpc(stream=stream, timeout=CONNECTING)
    answers = yield [remote.question(n=n) for n in range(3)]
    remote.close_rpc()
    return answers


@pytest.mark.parametrize("handler", [calls_back, calls_back_later, calls_back_at_once])
@pytest.mark.parametrize("knows", [False, True])
async def test_a_handler_without_a_number_calls_back_to_who_numbers_his_calls(handler, knows):
    async with served({"calls_back": handler}) as server, stranger_at(server) as stranger:
        if knows:
            assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "calls_back"}))
        for n in range(3):
            request, header = await stranger.hears_all()
            assert request == {"op": "question", "n": n}
            stranger.say(frame(n * n, call=header["call"]))
        assert await stranger.hears() == [0, 1, 4]
        assert await stranger.has_heard_nothing_more()


async def test_what_nobody_reads_by_hand_is_bounded_and_becomes_requests():
    gates = Gates()
    async with served(gates.handlers, max_waiting=10_000) as server, stranger_at(server) as stranger:
        assert await stranger.has_heard_nothing_more()
        stranger.say(frame({"op": "wait", "key": "first"}))
        for number in range(10_000):
            stranger.say(frame({"op": "add", "x": number, "y": 0}))
        stranger.calls(1, "add", x=1, y=0)
        await until(lambda: server.stats()["buffers"] > 10_000)
        assert server.stats()["buffers"] < 2**20
        await gates.opens("first")
        assert await stranger.hears() == "first"
        assert [await stranger.hears() for _ in range(10_001)] == [*range(10_000), 1]


# ---- many answers


@pytest.mark.parametrize("op", STREAMS)
async def test_each_value_is_a_part_and_the_last_message_is_none(op):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.calls(6, op, n=200)
        for value in range(200):
            assert await stranger.hears_all() == (value, {"call": 6, "part": True})
        assert await stranger.hears_all() == (None, {"call": 6})
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("op", STREAMS)
async def test_without_a_number_they_come_as_a_list(op):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": op, "n": 3}), frame({"op": op, "n": 0}))
        assert await stranger.hears_all() == ([0, 1, 2], {})
        assert await stranger.hears_all() == ([], {})


@pytest.mark.parametrize("op", STREAMS)
async def test_at_the_window_the_handler_stops_and_others_go_on(op):
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": op, "n": 10}, call=1, window=3))
        for value in range(3):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        stranger.say(frame({"op": op, "n": 2}, call=2))
        for value in range(2):
            assert await stranger.hears_all() == (value, {"call": 2, "part": True})
        assert await stranger.hears_all() == (None, {"call": 2})
        assert await stranger.has_heard_nothing_more()
        stranger.grants(1, 5)
        for value in range(3, 8):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        assert await stranger.has_heard_nothing_more()
        stranger.grants(1, 2**63)
        for value in range(8, 10):
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        assert await stranger.hears_all() == (None, {"call": 1})
        # That call is over, and others never were.
        stranger.grants(1, 5)
        stranger.grants(77, 5)
        assert await stranger.has_heard_nothing_more()


async def test_a_window_of_nothing_waits_for_the_first_grant():
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "rows", "n": 1}, call=1, window=0))
        assert await stranger.has_heard_nothing_more()
        stranger.grants(1, 1)
        assert await stranger.hears_all() == (0, {"call": 1, "part": True})
        assert await stranger.hears_all() == (None, {"call": 1})


@pytest.mark.parametrize("op", STREAMS)
async def test_giving_up_a_stream_of_answers_ends_its_generator(op):
    ended = []

    def endless(stream):
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    async def async_endless(stream):
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def later(stream):
        return async_endless(stream)

    handlers = {"rows": endless, "async_rows": async_endless, "gives": lambda stream: endless(stream)}
    async with served({**handlers, "gives_later": later}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": op}, call=1, window=2))
        for _ in range(2):
            assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        stranger.gives_up(1)
        assert await stranger.hears_all() == (None, {"call": 1})
        assert ended == [True]
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_stream_of_answers_ends_with_its_connection(cancels):
    ended = []

    async def endless(stream):
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    async with served({"rows": endless}, cancel_handlers=cancels) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "rows"}, call=1, window=2))
            for _ in range(2):
                assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        # Nobody will ever let more of it go.
        await until(lambda: ended)
        await until(lambda: not server.stats()["running"])


async def test_an_error_in_the_middle_ends_the_parts():
    def breaks(stream):
        yield 1
        raise ValueError("in the middle")

    async with served({"breaks": breaks}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "breaks")
        assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        message, header = await stranger.hears_all()
        assert (message["exception"]["message"], header) == ("in the middle", {"call": 1, "error": True})
        assert await stranger.has_heard_nothing_more()


async def test_a_part_that_cannot_be_packed_ends_them():
    ended = []

    def odd(stream):
        try:
            yield 1
            yield object()
            yield 2
        finally:
            ended.append(True)

    async with served({"odd": odd}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "odd")
        assert await stranger.hears_all() == (1, {"call": 1, "part": True})
        assert error_type((await stranger.hears_answers(1))[1]) == "TypeError"
        assert ended == [True]


async def test_a_reader_that_is_slow_without_a_window_stops_the_generator():
    given = []

    def endless(stream):
        while True:
            given.append(1)
            yield bytes(10_000)

    async with served({"rows": endless}) as server, stranger_at(server) as stranger:
        stranger.writer.transport.pause_reading()
        stranger.calls(1, "rows")
        await until(lambda: given)
        seen = -1
        while len(given) != seen:
            seen = len(given)
            await asyncio.sleep(0.1)
        # What the kernel takes, and no more.
        assert seen < 2_000


async def test_shutdown_lets_a_stream_of_answers_end():
    async with served(STREAMS) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "async_rows", "n": 20}, call=1, window=1))
        assert await stranger.hears_all() == (0, {"call": 1, "part": True})
        ending = asyncio.ensure_future(server.shutdown(deadline=20))
        for value in range(1, 20):
            stranger.grants(1, 1)
            assert await stranger.hears_all() == (value, {"call": 1, "part": True})
        assert await stranger.hears_all() == (None, {"call": 1})
        async with asyncio.timeout(5):
            await ending


# ---- the end


async def test_close_with_a_number_closes_after_all_answers():
    gates = Gates()
    async with served(gates.handlers) as server, stranger_at(server) as stranger:
        stranger.calls(1, "wait", key="a")
        await until(lambda: gates.begun)
        stranger.calls(2, "add", x=1, y=2, close=True)
        assert await stranger.hears_all() == (3, {"call": 2})
        await gates.opens("a")
        assert await stranger.hears_all() == ("a", {"call": 1})
        assert await stranger.hears_the_end() == b""


async def test_the_op_close_with_a_number():
    async with served() as server, stranger_at(server) as stranger:
        stranger.calls(2, "close")
        assert await stranger.hears_all() == ("OK", {"call": 2})
        assert await stranger.hears_the_end() == b""


async def test_a_client_that_leaves_ends_its_handlers_and_its_place_is_free():
    gates = Gates()
    async with served(gates.handlers, max_running=2) as server:
        async with stranger_at(server) as stranger:
            for number in range(5):
                stranger.calls(number, "wait", key=number)
            await until(lambda: len(gates.begun) == 2)
        await until(lambda: len(gates.ended) == 2)
        assert {how for _, how in gates.ended} == {"cancelled"}
        await until(lambda: not server.stats()["connections"]["open"])
        # Those that were held back never began, and others have their place.
        assert gates.begun == [0, 1]
        async with stranger_at(server) as other:
            assert await other.has_heard_nothing_more()
        assert server.stats()["running"] == 0


async def test_a_client_that_leaves_in_the_middle_of_a_request():
    gates = Gates()
    async with served(gates.handlers) as server:
        async with stranger_at(server) as stranger:
            stranger.calls(1, "wait", key="a")
            await until(lambda: gates.begun)
            stranger.say(frame({"op": "add", "x": 1, "y": 2}, call=2)[:-5])
            stranger.writer.write_eof()
            assert await stranger.hears_the_end() == b""
        await until(lambda: gates.ended)
        await until(lambda: not server.stats()["connections"]["open"])


async def test_handlers_run_on_where_the_server_says_so():
    gates = Gates()
    async with served(gates.handlers, cancel_handlers=False) as server:
        async with stranger_at(server) as stranger:
            stranger.calls(1, "wait", key="a")
            await until(lambda: gates.begun)
        await until(lambda: not server.stats()["connections"]["open"])
        assert server.stats()["running"] == 1
        await gates.opens("a")
        await until(lambda: not server.stats()["running"])
        assert gates.ended == [("a", "answered")]


@pytest.mark.parametrize("most", [None, 1])
async def test_what_wants_no_reply_is_done_though_its_client_has_left(most):
    done = []

    async def note(stream, n):
        await asyncio.sleep(0.001)
        done.append(n)

    async with served({"note": note}, max_running_per_connection=most) as server:
        async with stranger_at(server) as stranger:
            for n in range(20):
                stranger.calls(n, "note", n=n, reply=False)
            stranger.writer.write_eof()
            await stranger.hears_the_end()
        await until(lambda: len(done) == 20)
        assert done == list(range(20))
        await until(lambda: not server.stats()["running"])
