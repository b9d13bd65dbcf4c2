"""Calls that have a number, asked for by a raw socket that speaks the wire: each answer says whose it is."""

import asyncio

import msgpack
import pytest

from fastcore import read, write
from helpers.answers import error_type
from helpers.handlers import STREAMS, Gates
from helpers.support import until
from helpers.wire import frame, raw_frame, served, stranger_at


def says_two(stream):
    write(stream, "first")
    write(stream, "second")
    return "end"


def fails(stream):
    raise ValueError("as it does")


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
