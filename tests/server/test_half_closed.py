"""A client shuts its own side and waits: it gets what it asked for, and one that has gone gets nothing."""

import asyncio
import socket

import pytest

from fastcore import ConnectionLost, messages, read, rpc
from helpers.support import until
from helpers.wire import frame, served, stranger_at


class Gate:
    """Handlers that wait until the test lets them go on, and say how they ended."""

    def __init__(self) -> None:
        self.opens = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0
        self.handlers = {"wait": self.wait}

    async def wait(self, stream, n=0):
        self.waiting += 1
        try:
            await self.opens.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return n


async def answers_of(stranger):
    """All that the server says until it closes the connection, by the number of the call."""
    heard = {}
    while True:
        try:
            message, header = await stranger.hears_all()
        except asyncio.IncompleteReadError:
            return heard
        call = header.pop("call")
        if call is None:
            assert message is None
        else:
            heard.setdefault(call, []).append(message)


async def test_a_handler_that_waits_still_answers():
    gate = Gate()
    async with served(gate.handlers) as server, stranger_at(server) as stranger:
        stranger.calls(5, "wait", n=7)
        stranger.writer.write_eof()
        await until(lambda: gate.waiting)
        gate.opens.set()
        assert await answers_of(stranger) == {5: [7]}
        await until(lambda: not server.stats()["connections"]["open"])


async def test_it_does_after_a_long_time_too():
    gate = Gate()
    async with served(gate.handlers) as server, stranger_at(server) as stranger:
        stranger.calls(5, "wait", n=7)
        await until(lambda: gate.waiting)
        stranger.writer.write_eof()
        for _ in range(2):
            assert await stranger.hears_all() == (None, {"call": None})
        gate.opens.set()
        assert await answers_of(stranger) == {5: [7]}
        assert gate.cancelled == 0


@pytest.mark.parametrize("most", [None, 1, 3])
async def test_all_that_it_asked_for_is_answered(most):
    """Also what had to wait for its turn, and what came in one piece with the end."""
    gate = Gate()
    async with (
        served(gate.handlers, max_running_per_connection=most) as server,
        stranger_at(server) as stranger,
    ):
        for n in range(20):
            stranger.calls(n, "wait", n=n)
            stranger.calls(100 + n, "add", x=n, y=1)
        stranger.writer.write_eof()
        await until(lambda: gate.waiting)
        gate.opens.set()
        answers = {n: [n] for n in range(20)} | {100 + n: [n + 1] for n in range(20)}
        assert await answers_of(stranger) == answers


async def test_answers_larger_than_the_socket_takes_arrive_whole():
    async def big(stream, n):
        await asyncio.sleep(0)
        return bytes([n]) * 3_000_000

    async with served({"big": big}) as server, stranger_at(server) as stranger:
        for n in range(3):
            stranger.calls(n, "big", n=n)
        stranger.writer.write_eof()
        assert await answers_of(stranger) == {n: [bytes([n]) * 3_000_000] for n in range(3)}


async def test_parts_go_on_though_nobody_can_let_more_of_them_go():
    async def rows(stream):
        for n in range(10):
            yield n

    async with served({"rows": rows}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "rows"}, call=1, window=2))
        stranger.writer.write_eof()
        assert await answers_of(stranger) == {1: [*range(10), None]}


async def test_beside_one_without_a_number_both_are_answered():
    gate = Gate()
    async with served(gate.handlers) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "wait", "n": 1}))
        stranger.calls(2, "wait", n=2)
        await until(lambda: gate.waiting == 2)
        stranger.writer.write_eof()
        gate.opens.set()
        said = [await stranger.hears_all() for _ in range(2)]
        assert sorted(message for message, _ in said) == [1, 2]
        assert await stranger.hears_the_end() == b""


async def test_a_handler_that_reads_by_hand_until_the_end_can_answer():
    async def total(stream):
        return sum([number async for number in messages(stream)])

    async with served({"total": total}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "total"}))
        await until(lambda: server.stats()["running"])
        stranger.say(*(frame(n) for n in range(10)))
        stranger.writer.write_eof()
        assert await stranger.hears() == 45
        assert await stranger.hears_the_end() == b""


async def test_one_that_is_told_of_the_end_has_that_told_to_its_client(caplog):
    async def reads(stream):
        await read(stream)

    async with served({"reads": reads}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "reads")
        stranger.writer.write_eof()
        said, header = await stranger.hears_all()
        assert header == {"call": 1, "error": True}
        assert "has closed its side of the connection" in said["exception"]["message"]
        assert await stranger.hears_the_end() == b""
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_one_that_goes_on_reading_is_told_each_time():
    errors = []

    async def stubborn(stream):
        for _ in range(3):
            try:
                await read(stream)
            except ConnectionLost as error:
                errors.append(error)
        return len(errors)

    async with served({"stubborn": stubborn}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "stubborn"}))
        stranger.writer.write_eof()
        assert await stranger.hears() == 3


async def test_who_has_gone_is_told_from_who_waits():
    """Both look the same to the server at first: an end of what is said."""
    gate = Gate()
    async with served(gate.handlers) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(frame({"op": "wait"}, call=1) + frame({"op": "wait"}, call=2))
        await until(lambda: gate.waiting == 2)
        sock.close()
        await until(lambda: gate.cancelled == 2)
        await until(lambda: not server.stats()["connections"]["open"])


async def test_who_waits_and_then_goes_is_noticed():
    gate = Gate()
    async with served(gate.handlers) as server:
        async with stranger_at(server) as stranger:
            stranger.calls(1, "wait")
            await until(lambda: gate.waiting)
            stranger.writer.write_eof()
            assert await stranger.hears_all() == (None, {"call": None})
            assert gate.cancelled == 0
        await until(lambda: gate.cancelled)


async def test_a_client_that_is_closed_says_so():
    """Not found out by asking: its calls are given up."""
    gate = Gate()
    async with served(gate.handlers) as server:
        remote = rpc(ip="127.0.0.1", port=server.port)
        assert await remote.add(x=1, y=2) == 3
        call = asyncio.ensure_future(remote.wait())
        await until(lambda: gate.waiting)
        before = server.stats()["messages"]["in"]
        remote.close_rpc()
        with pytest.raises(ConnectionLost):
            await call
        await until(lambda: gate.cancelled)
        assert server.stats()["messages"]["in"] == before + 1


async def test_one_of_whom_it_is_not_known_yet_who_it_is_waits_for_its_answer_too():
    known = asyncio.Event()

    async def authenticate(stream, message):
        await known.wait()
        return "somebody"

    async with served(authenticate=authenticate) as server, stranger_at(server) as stranger:
        stranger.calls(1, "add", x=1, y=2)
        stranger.writer.write_eof()
        assert await stranger.hears_all() == (None, {"call": None})
        known.set()
        assert await answers_of(stranger) == {1: [3]}
