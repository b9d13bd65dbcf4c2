"""Calls beyond those that may run at once wait for their turn, and can be given up meanwhile."""

import pytest

from helpers.handlers import STREAMS, Gates
from helpers.support import until
from helpers.wire import frame, served, stranger_at


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
