"""The client dies: its handler hears of it, and the server serves the others."""

import asyncio
import signal
import time

from fastcore import ConnectionLost, Server, read, rpc, write
from helpers.support import Program, until
from helpers.wire import frame, reset, served, stranger_at

CLIENT = """
import asyncio, sys
from fastcore import connect, write

async def main(port):
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "stream"})
    print("asked")
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1])))
"""


async def test_a_handler_that_streams_to_a_killed_client_hears_of_it():
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def stream(stream):
        try:
            while True:
                await write(stream, b"x" * 10_000)
        except ConnectionLost as error:
            ended.set_result(error)
            raise

    async with served({"stream": stream}) as server:
        with Program("-c", CLIENT, str(server.port)) as program:
            program.line()
            program.send(signal.SIGKILL)
            assert "127.0.0.1:" in str(await ended)
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3


async def test_a_handler_that_reads_from_a_client_that_left_hears_of_it():
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def listen(stream):
        try:
            await read(stream)
        except ConnectionLost as error:
            ended.set_result(error)
            raise

    async with served({"listen": listen}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "listen"}))
        reset(stranger.writer)
        assert isinstance(await ended, ConnectionLost)


async def test_an_answer_after_the_client_is_gone_troubles_nobody(caplog):
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(stream):
        asked.set()
        await may_answer.wait()
        return "too late"

    async with served({"slow": slow}) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "slow"}))
            await asked.wait()
        may_answer.set()
        await until(lambda: not server.stats()["running"])
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_client_that_only_stops_sending_still_gets_the_answers_it_asked_for():
    async with served() as server, stranger_at(server) as stranger:
        stranger.say(*(frame({"op": "add", "x": n, "y": 0}) for n in range(100)))
        stranger.writer.write_eof()
        assert [await stranger.hears() for _ in range(100)] == [*range(100)]
        assert await stranger.hears_the_end() == b""


async def test_it_gets_them_too_where_each_takes_longer_than_its_share_of_a_turn():
    def slow(stream, n):
        time.sleep(0.002)
        return n

    async with served({"slow": slow}) as server, stranger_at(server) as stranger:
        stranger.say(*(frame({"op": "slow", "n": n}) for n in range(20)))
        stranger.writer.write_eof()
        assert [await stranger.hears() for _ in range(20)] == [*range(20)]
        assert await stranger.hears_the_end() == b""


async def test_a_client_that_stops_sending_gets_the_answers_of_requests_that_wait_for_their_turn_too():
    may_answer = asyncio.Event()
    handlers = {"slow": lambda stream: may_answer.wait()}
    async with (
        served(handlers, max_running=1) as server,
        stranger_at(server) as other,
        stranger_at(server) as stranger,
    ):
        other.say(frame({"op": "slow"}, call=0))
        await until(lambda: server.stats()["running"])
        stranger.say(frame({"op": "add", "x": 1, "y": 2}))
        stranger.writer.write_eof()
        await until(lambda: server.stats()["messages"]["in"] == 2)
        # The end is at the server by now, which looks at its sockets in each turn.
        for _ in range(10):
            await asyncio.sleep(0)
        may_answer.set()
        assert await stranger.hears() == 3
        assert await stranger.hears_the_end() == b""


async def test_ends_of_all_kinds_leave_the_server_serving():
    async with served() as server:
        for number in range(200):
            async with stranger_at(server) as stranger:
                stranger.say(frame({"op": "add", "x": 1, "y": 2})[: number % 40 - 1])
                if number % 3 == 0:
                    reset(stranger.writer)
                elif number % 3 == 1:
                    stranger.writer.write_eof()
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3


async def test_a_server_is_done_with_a_client_that_left_without_reading_its_answers():
    class Handled(Server):
        async def handle_stream(self, stream, address):
            await super().handle_stream(stream, address)
            gone.set()

    gone = asyncio.Event()
    server = Handled({"big": lambda stream: b"x" * 50_000_000})
    server.listen(0, "127.0.0.1")
    async with server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "big"}) * 2)
        await until(lambda: server.stats()["buffers"] > 1_000_000)
        reset(stranger.writer)
        await gone.wait()


async def test_a_server_subclass_learns_of_the_end_by_the_close_callback():
    gone = asyncio.Event()

    class Watchful(Server):
        def handle_stream(self, stream, address):
            stream.set_close_callback(gone.set)
            return super().handle_stream(stream, address)

    server = Watchful({})
    server.listen(0, "127.0.0.1")
    async with server, stranger_at(server) as stranger:
        stranger.leave()
        await gone.wait()


async def test_who_closes_only_its_own_side_gets_the_answers_it_asked_for():
    async def later(stream, number):
        await asyncio.sleep(0.01)
        return number

    async with served({"later": later}) as server, stranger_at(server) as stranger:
        stranger.say(*(frame({"op": "later", "number": number}) for number in range(5)))
        stranger.writer.write_eof()
        assert [await stranger.hears() for _ in range(5)] == [*range(5)]
        assert await stranger.hears_the_end() == b""
        await until(lambda: server.stats()["connections"]["open"] == 0)


async def test_a_handler_that_reads_by_hand_hears_that_its_client_has_closed_its_side():
    ended = asyncio.get_running_loop().create_future()

    async def reading(stream):
        try:
            while True:
                await read(stream)
        except ConnectionLost as error:
            ended.set_result(error)
            raise

    async with served({"reading": reading}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "reading"}), frame("one"))
        stranger.writer.write_eof()
        assert isinstance(await ended, ConnectionLost)
        await until(lambda: server.stats()["connections"]["open"] == 0)
