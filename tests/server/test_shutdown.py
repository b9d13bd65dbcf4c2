"""Ends: what was acknowledged is done, what hangs doesn't hang the end."""

import asyncio

import pytest
from tornado import gen

from fastcore import ConnectionLost, Server, connect, read, rpc, write
from helpers.support import in_a_thread
from helpers.wire import frame, served, stranger_at


class Work:
    """Handlers that end when they are told."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = False

    async def work(self, stream):
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return b"done" * 100_000

    @property
    def handlers(self):
        return {"work": self.work}


async def test_stop_leaves_open_connections_alive_and_may_be_called_twice():
    async with served() as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        server.stop()
        server.stop()
        assert await stranger.is_served()


async def test_shutdown_lets_running_handlers_answer():
    work = Work()
    async with served(work.handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.work()
        await work.begun.wait()
        ending = asyncio.ensure_future(server.shutdown(deadline=20))
        await asyncio.sleep(0)
        assert not ending.done()
        work.go_on.set()
        assert await call == b"done" * 100_000
        await ending
        assert server.stats()["connections"]["open"] == 0


async def test_shutdown_closes_idle_connections_at_once():
    async with served() as server, stranger_at(server) as stranger:
        assert await stranger.is_served()
        await server.shutdown(deadline=20)
        assert await stranger.hears_the_end() == b""


async def test_after_shutdown_nobody_is_let_in():
    async with served() as server:
        port = server.port
        await server.shutdown(deadline=20)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_requests_behind_the_running_one_are_not_begun_after_shutdown():
    work, begun = Work(), []
    handlers = {**work.handlers, "note": lambda stream: begun.append(1)}
    async with served(handlers) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "work"}), frame({"op": "note"}))
        await work.begun.wait()
        ending = asyncio.ensure_future(server.shutdown(deadline=20))
        await asyncio.sleep(0)
        work.go_on.set()
        assert await stranger.hears() == b"done" * 100_000
        assert await stranger.hears_the_end() == b""
        await ending
    assert begun == []


async def test_a_handler_that_never_ends_is_cancelled_at_the_deadline():
    work = Work()
    async with served(work.handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.work()
        await work.begun.wait()
        await server.shutdown(deadline=0.05)
        assert work.cancelled
        with pytest.raises(ConnectionLost, match="'work'"):
            await call


async def test_a_client_that_never_reads_does_not_hold_shutdown_past_the_deadline():
    async with served({"big": lambda stream: b"x" * 2**26}) as server, stranger_at(server) as stranger:
        stranger.writer.transport.pause_reading()
        stranger.say(frame({"op": "big"}))
        while not server.stats()["messages"]["out"]:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            await server.shutdown(deadline=0.1)
        assert server.stats()["connections"]["open"] == 0


async def test_an_answer_that_is_on_its_way_arrives_whole():
    big = {"big": lambda stream: b"x" * 2**26}
    async with served(big) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.big()
        while not server.stats()["messages"]["out"]:
            await asyncio.sleep(0)
        await server.shutdown(deadline=20)
        assert await call == b"x" * 2**26


async def test_shutdown_of_a_server_that_never_listened_is_done_at_once():
    await Server({}).shutdown()


async def test_who_asks_a_second_time_may_have_less_patience():
    work = Work()
    async with served(work.handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.work()
        await work.begun.wait()
        async with asyncio.timeout(10):
            await asyncio.gather(server.shutdown(deadline=3600), server.shutdown(deadline=0.05))
        assert work.cancelled
        with pytest.raises(ConnectionLost, match="'work'"):
            await call


async def test_a_server_closes_all_that_it_has_opened_at_the_end_of_its_block(tmp_path):
    work = Work()
    path = tmp_path / "server.sock"
    async with Server(work.handlers) as server:
        server.listen(0, "127.0.0.1")
        server.listen(f"unix:{path}")
        idle = await connect("127.0.0.1", server.port)
        busy = await connect(f"unix:{path}")
        write(busy, {"op": "work"})
        await work.begun.wait()
    assert work.cancelled
    assert not path.exists()
    for stream in (idle, busy):
        with pytest.raises(ConnectionLost):
            await read(stream)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


class EndsItself(Server):
    """A server whose handlers end it, each in a way of its own."""

    def __init__(self, together=1):
        self.together = asyncio.Barrier(together)
        ways = [getattr(self, way) for way in WAYS]
        super().__init__({"wait": self.wait, **{way.__name__: way for way in ways}})

    async def end(self):
        await self.together.wait()
        await self.shutdown(60)

    async def wait(self, stream):
        await asyncio.sleep(0.05)
        return "waited"

    async def at_once(self, stream):
        await self.end()
        return ["ended"]

    async def in_a_task(self, stream):
        await asyncio.create_task(self.end())
        return ["ended"]

    async def with_a_time_limit(self, stream):
        await asyncio.wait_for(self.end(), 60)
        return ["ended"]

    @gen.coroutine
    def as_of_old(self, stream):
        yield self.end()
        raise gen.Return(["ended"])

    async def in_parts(self, stream):
        await self.end()
        yield "ended"

    def later_in_parts(self, stream):
        async def rows():
            await asyncio.gather(self.end(), self.end())
            yield "ended"

        return rows()


WAYS = ["at_once", "in_a_task", "with_a_time_limit", "as_of_old", "in_parts", "later_in_parts"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_that_ends_its_server_waits_for_others_and_answers(way):
    async with EndsItself() as server:
        server.listen(0, "127.0.0.1")
        stream = await connect("127.0.0.1", server.port)
        async with rpc(ip="127.0.0.1", port=server.port) as remote, asyncio.timeout(30):
            await write(stream, {"op": "wait"})
            assert await getattr(remote, way)() == ["ended"]
            assert await read(stream) == "waited"
        stream.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_without_a_number_may_end_its_server_too(way):
    async with EndsItself() as server, asyncio.timeout(30):
        server.listen(0, "127.0.0.1")
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": way})
        assert await read(stream) == ["ended"]
        stream.close()


async def test_handlers_that_end_their_server_at_the_same_time_all_answer():
    async with EndsItself(together=len(WAYS) + 1) as server:
        server.listen(0, "127.0.0.1")
        async with rpc(ip="127.0.0.1", port=server.port, share=0) as remote, asyncio.timeout(30):
            answers = await asyncio.gather(*[getattr(remote, way)() for way in WAYS])
            assert answers == [["ended"]] * len(WAYS)


async def test_a_server_may_listen_again_when_it_has_ended():
    work = Work()
    async with served(work.handlers) as server:
        port = server.port
        async with rpc(ip="127.0.0.1", port=port) as remote:
            call = remote.work()
            await work.begun.wait()
            ending = asyncio.ensure_future(server.shutdown(deadline=20))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="is ending: await its shutdown"):
                server.listen(0, "127.0.0.1")
            work.go_on.set()
            await call
            await ending
        server.listen(0, "127.0.0.1")
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.work() == b"done" * 100_000
        assert server.health() == "ready"
        await server.shutdown(deadline=20)
        assert server.health() == "draining"


@pytest.mark.parametrize("deadline", [None, "3", float("nan"), True])
async def test_a_deadline_that_is_none_is_an_error_and_the_server_serves_on(deadline):
    async with served() as server, stranger_at(server) as stranger:
        with pytest.raises((TypeError, ValueError), match="deadline must be a number of seconds"):
            await server.shutdown(deadline)
        assert await stranger.is_served()


@pytest.mark.parametrize("turns", [0, 1])
async def test_an_end_that_somebody_cancelled_can_be_asked_for_again(turns):
    async with served({"wait": lambda stream: asyncio.sleep(60)}) as server, stranger_at(server) as stranger:
        stranger.calls(1, "wait")
        assert await stranger.is_served()
        before = asyncio.all_tasks()
        ending = asyncio.ensure_future(server.shutdown())
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert server.open_connections() == 1
        await server.shutdown(0.01)
        assert server.open_connections() == 0


async def test_from_another_thread_a_server_is_neither_ended_nor_made_to_listen_and_goes_on():
    async with served({}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for use in (
            lambda: asyncio.run(server.shutdown(0)),
            lambda: server.listen(0, "127.0.0.1"),
            lambda: server.add_sockets([]),
        ):
            with pytest.raises(RuntimeError, match=r"a server is used from another thread.*call_soon_thread"):
                await in_a_thread(use)
        assert (await remote.identity())["type"] == "Server"
        assert server.health() == "ready"
        await in_a_thread(server.stop)
        assert server.health() == "draining"
