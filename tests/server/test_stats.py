"""What ``server.stats()`` tells."""

import asyncio

import msgpack
import pytest

from fastcore import connect, read, rpc, write
from helpers.wire import frame, served, stranger_at


async def test_figures_of_a_server_that_did_nothing_are_zero():
    async with served() as server:
        stats = server.stats()
        assert stats.pop("uptime") >= 0
        assert stats == {
            "running": 0,
            "connections": {"open": 0, "ever": 0},
            "messages": {"in": 0, "out": 0},
            "bytes": {"in": 0, "out": 0},
            "buffers": 0,
            "errors": {},
            "ops": {},
        }


async def test_messages_and_bytes_of_open_and_past_connections_are_counted():
    request = frame({"op": "add", "x": 1, "y": 2})
    async with served() as server:
        for _ in range(3):
            async with stranger_at(server) as stranger:
                stranger.say(request)
                assert await stranger.hears() == 3
        async with stranger_at(server) as stranger:
            stranger.say(request, request)
            assert await stranger.hears() == 3
            assert await stranger.hears() == 3
            while server.stats()["connections"]["open"] > 1:
                await asyncio.sleep(0.001)
            stats = server.stats()
            assert stats["connections"] == {"open": 1, "ever": 4}
            assert stats["messages"] == {"in": 5, "out": 5}
            assert stats["bytes"] == {"in": 5 * len(request), "out": 5 * len(frame(3))}
            assert stats["ops"]["add"]["count"] == 5


async def test_latencies_are_those_of_the_handlers():
    async def slow(stream):
        await asyncio.sleep(0.05)

    async with served({"slow": slow}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.slow()
        await remote.add(x=1, y=2)
        ops = server.stats()["ops"]
    assert 0.04 < ops["slow"]["p50"] <= ops["slow"]["p99"] < 5
    assert 0 < ops["add"]["p99"] < ops["slow"]["p50"]


async def test_errors_are_counted_by_kind_and_by_op():
    def fail(stream):
        raise KeyError("x")

    async with served({"fail": fail}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for _ in range(3):
            with pytest.raises(KeyError):
                await remote.fail()
        with pytest.raises(ValueError, match="no handler"):
            await remote.nonsense()
        stats = server.stats()
    assert stats["ops"]["fail"]["errors"] == 3
    assert stats["errors"] == {"handler": 3, "ValueError": 1}


async def test_strangers_cannot_make_the_figures_grow():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for number in range(100):
            with pytest.raises(ValueError, match="no handler"):
                await getattr(remote, f"op{number}")()
        stats = server.stats()
        assert list(stats["ops"]) == []
        assert stats["errors"] == {"ValueError": 100}


async def test_buffers_are_what_messages_hold_at_the_moment():
    go_on = asyncio.Event()

    async def busy(stream):
        await go_on.wait()

    async with served({"busy": busy}) as server:
        stream = await connect("127.0.0.1", server.port)
        write(stream, {"op": "busy"})
        write(stream, {"op": "add", "x": b"x" * 100_000, "y": b""})
        while server.stats()["buffers"] < 100_000:
            await asyncio.sleep(0.001)
        go_on.set()
        assert await read(stream) is None
        assert len(await read(stream)) == 100_000
        assert server.stats()["buffers"] == 0
        stream.close()


async def test_a_handler_can_tell_the_figures_to_clients():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        server.handlers["stats"] = lambda stream: server.stats()
        await remote.add(x=1, y=2)
        stats = await remote.stats()
        assert stats["ops"]["add"]["count"] == 1
        assert msgpack.packb(stats)
