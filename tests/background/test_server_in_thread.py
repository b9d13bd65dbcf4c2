"""A server in a thread of its own: for callers that have no loop, another one, or one that is busy."""

import asyncio
import gc
import threading
import time

import pytest

from fastcore import ConnectionLost, Server, ServerInThread, SyncClient, background, connect, rpc
from helpers.support import Program


def add(stream, x, y):
    return x + y


def call(server: ServerInThread, op: str, **message: object) -> object:
    with SyncClient(server.address) as remote:
        return getattr(remote, op)(**message)


def test_it_serves_who_has_no_loop():
    with ServerInThread({"add": add, "thread": lambda stream: threading.get_ident()}) as server:
        assert call(server, "add", x=1, y=2) == 3
        assert call(server, "thread") != threading.get_ident()
        assert repr(server) == f"<ServerInThread: Server serving on {server.address}>"
    assert repr(server) == f"<ServerInThread: Server was on {server.address}>"


async def test_it_serves_who_has_one():
    with ServerInThread({"add": add}) as server:
        async with rpc(server.address) as remote:
            assert await remote.add(x=1, y=2) == 3


def test_it_makes_a_subclass_in_its_thread():
    class Counter(Server):
        def __init__(self, start: int) -> None:
            self.count = start
            self.made_in = threading.current_thread()
            super().__init__({"increment": self.increment})

        def increment(self, stream):
            self.count += 1
            return self.count

    with ServerInThread(Counter, start=5) as server:
        assert call(server, "increment") == 6
        assert server.server.made_in is not threading.current_thread()
        # Its loop can be had do something.
        stats = asyncio.run_coroutine_threadsafe(later(server.server.stats), server.loop).result(5)
        assert stats["ops"]["increment"]["count"] == 1


async def later(function):
    return function()


def test_what_goes_wrong_while_it_is_made_is_raised_where_it_is_made():
    def broken():
        raise KeyError("no settings")

    with pytest.raises(KeyError, match="no settings"):
        ServerInThread(broken)
    with pytest.raises(ValueError, match="no such port"):
        ServerInThread({}, port=70_000)
    with pytest.raises(TypeError):
        ServerInThread({}, max_conections=5)


def test_it_ends_what_runs_and_all_connections():
    ended = []

    async def never(stream):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def waits(server: ServerInThread) -> None:
        async with rpc(server.address) as remote:
            running = remote.never()
            while not server.server.stats()["running"]:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.stop, 0.1)
            with pytest.raises(ConnectionLost):
                await running

    server = ServerInThread({"never": never})
    begun = time.monotonic()
    asyncio.run(waits(server))
    assert ended == [True]
    assert time.monotonic() - begun < 5
    server.stop()


async def stops_later(server: ServerInThread) -> str:
    await asyncio.sleep(0)
    server.stop()
    return "stopped"


@pytest.mark.parametrize("stop", [lambda server: server.stop() or "stopped", stops_later])
def test_a_handler_may_stop_it_and_answers(stop):
    server = ServerInThread({"stop": lambda stream: stop(server)})
    assert call(server, "stop") == "stopped"
    server._thread.join(5)
    assert repr(server).startswith("<ServerInThread: Server was on")


def test_many_may_stop_it_at_the_same_time():
    server = ServerInThread({"add": add})
    threads = [threading.Thread(target=server.stop) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


def test_one_whose_handler_blocks_is_not_waited_for_without_end(monkeypatch, caplog):
    monkeypatch.setattr(background, "_JOIN_TIMEOUT", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def blocks(stream):
        begun.set()
        go_on.wait()

    server = ServerInThread({"blocks": blocks})
    with SyncClient(server.address) as remote:
        remote.blocks(reply=False)
        begun.wait(5)
        server.stop(deadline=0)
        assert "doesn't end: something blocks its thread" in caplog.text
        go_on.set()
        server.stop(deadline=0)
    assert repr(server).startswith("<ServerInThread: Server was on")


def test_one_that_nobody_stops_keeps_no_program_from_ending():
    program = """if True:
        from fastcore import ServerInThread, SyncClient
        server = ServerInThread({"add": lambda stream, x, y: x + y})
        print(SyncClient(server.address).add(x=1, y=2))
    """
    with Program("-W", "ignore", "-c", program) as running:
        assert running.line() == "3"
        assert running.wait() == 0


async def test_a_token_is_asked_for_there_too():
    with ServerInThread({"add": add}, token="correct horse") as server:
        with pytest.raises(PermissionError):
            await connect(server.ip, server.port, token="wrong")
        gc.collect()
