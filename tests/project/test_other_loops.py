"""The surface on each event loop that can be installed: calls, streams, large values, endings."""

import asyncio
import importlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastcore import ConnectionLost, RPCClosed, Server, connect, messages, read, rpc, write

Run = Callable[[Any], Any]


@pytest.fixture(
    params=[
        "uvloop",
        # It forgets to close two sockets of its own when a loop ends.
        pytest.param(
            "rloop", marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
        ),
        "winloop",
    ]
)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine to its end on one of the loops, within a deadline."""
    name: str = request.param
    if (name == "winloop") != (sys.platform == "win32"):
        pytest.skip(f"{name} isn't for {sys.platform}")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} isn't installed; it has no wheel for every Python and system")
    module = importlib.import_module(name)
    unheard: list[dict[str, Any]] = []

    async def in_time(main: Any) -> Any:
        loop = asyncio.get_running_loop()
        assert type(loop).__module__.partition(".")[0] == name
        loop.set_exception_handler(lambda _, context: unheard.append(context))
        async with asyncio.timeout(30):
            return await main

    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        yield lambda main: runner.run(in_time(main))
    assert unheard == []


async def slow(stream: Any, x: int) -> int:
    await asyncio.sleep(0.01)
    return x


async def count(stream: Any, n: int) -> None:
    for i in range(n):
        await write(stream, i)


def serve(address: str | None = None) -> Server:
    server = Server(
        {"add": lambda stream, x, y: x + y, "echo": lambda stream, x: x, "slow": slow, "count": count}
    )
    server.listen(address) if address else server.listen(0, "127.0.0.1")
    return server


def test_calls_one_after_the_other_and_at_once(run: Run) -> None:
    async def main() -> None:
        server = serve()
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert [await remote.add(x=i, y=1) for i in range(100)] == list(range(1, 101))
            assert await asyncio.gather(*(remote.slow(x=i) for i in range(20))) == list(range(20))
            with pytest.raises(TypeError):
                await remote.add(x=1, y="two")
        await server.shutdown(1)

    run(main())


def test_large_values_both_ways(run: Run) -> None:
    async def main() -> None:
        server = serve()
        value = bytes(range(256)) * 2**15
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            answers = await asyncio.gather(*(remote.echo(x=value) for _ in range(3)))
        assert [answer == value for answer in answers] == [True] * 3
        await server.shutdown(1)

    run(main())


def test_streams_of_messages(run: Run) -> None:
    async def main() -> None:
        server = serve()
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "count", "n": 1000, "reply": False, "close": True})
        assert [message async for message in messages(stream)] == list(range(1000))
        stream.close()
        await server.shutdown(1)

    run(main())


def test_a_writer_waits_for_a_slow_reader(run: Run) -> None:
    async def main() -> None:
        got: list[int] = []

        async def sink(stream: Any) -> None:
            await asyncio.sleep(0.2)
            while len(got) < 40:
                got.append(len(await read(stream)))

        server = Server({"sink": sink})
        server.listen(0, "127.0.0.1")
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "sink"})
        for _ in range(40):
            await write(stream, b"x" * 2**20)
        assert await read(stream) is None
        assert got == [2**20] * 40
        stream.close()
        await server.shutdown(1)

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system's Python has no unix sockets")
def test_unix_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        address = f"unix:{tmp_path}/s"
        server = serve(address)
        async with rpc(address) as remote:
            assert await remote.add(x=1, y=2) == 3
        await server.shutdown(1)

    run(main())


def test_calls_that_are_given_up_and_peers_that_go(run: Run) -> None:
    async def main() -> None:
        server = serve()
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(TimeoutError):
                await remote.slow(x=1, timeout=0.001)
            assert await remote.slow(x=2) == 2
            waiting = asyncio.ensure_future(remote.slow(x=3))
            await asyncio.sleep(0)
            for stream in remote.streams:
                stream.close()
            with pytest.raises(ConnectionLost):
                await waiting
        with pytest.raises(RPCClosed):
            await remote.add(x=1, y=2)
        await server.shutdown(1)
        with pytest.raises(OSError):  # noqa: PT011  # each system has a text of its own
            await connect("127.0.0.1", server.port, timeout=0.2)

    run(main())


def test_an_rpc_is_closed_by_another_thread(run: Run) -> None:
    async def main() -> None:
        server = serve()
        remote = rpc(ip="127.0.0.1", port=server.port)
        assert await remote.add(x=1, y=2) == 3
        thread = threading.Thread(target=remote.close_rpc)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        while server.stats()["connections"]["open"]:
            await asyncio.sleep(0.001)
        await server.shutdown(1)

    run(main())
