"""fastcore at one end, the genuine core of ``distributed`` 1.9.0 in a process of its own at the other."""

import asyncio
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import PurePosixPath

import pytest
from tornado import gen

from fastcore import ConnectionLost, Server, SyncClient, connect, pingpong, read, rpc, write
from helpers.support import Program, in_a_thread
from interop.classic import HERE, Classic

SERVER = str(HERE / "programs" / "server.py")
CLIENT = str(HERE / "programs" / "client.py")

pytestmark = pytest.mark.deadline(60)


@pytest.fixture(scope="module")
def port(genuine: Classic) -> Iterator[int]:
    """Where a genuine server listens."""
    with Program(command=genuine.command(SERVER), env=genuine.environment) as server:
        yield int(server.line())


async def test_a_genuine_server_tells_who_it_is(port: int) -> None:
    async with rpc(ip="127.0.0.1", port=port) as remote:
        identity = await remote.identity()
    assert identity["type"] == "Server"


async def test_a_genuine_server_answers_a_ping(port: int) -> None:
    async with rpc(ip="127.0.0.1", port=port) as remote:
        assert await remote.ping() == b"pong"


async def test_thirty_megabytes_go_to_a_genuine_server_and_back(port: int) -> None:
    sent = bytes(range(256)) * (30 * 4096)
    async with rpc(ip="127.0.0.1", port=port) as remote:
        assert await remote.echo(x=sent) == sent


async def test_a_genuine_server_drops_the_connection_on_an_error_and_the_call_says_so(port: int) -> None:
    async with rpc(ip="127.0.0.1", port=port) as remote:
        with pytest.raises(ConnectionLost, match="divide"):
            await remote.divide(x=1, y=0)
        assert await remote.divide(x=4, y=2) == 2


async def test_a_genuine_server_sends_no_reply_where_none_is_wanted(port: int) -> None:
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "echo", "x": 1, "reply": False})
    await write(stream, {"op": "echo", "x": 2})
    assert await read(stream) == 2
    stream.close()


async def test_a_genuine_server_closes_after_the_reply_when_asked_to(port: int) -> None:
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "ping", "close": True})
    assert await read(stream) == b"pong"
    with pytest.raises(ConnectionLost):
        await read(stream)


async def test_a_genuine_server_answers_pipelined_requests_in_order(port: int) -> None:
    stream = await connect("127.0.0.1", port)
    for i in range(100):
        write(stream, {"op": "add", "x": i, "y": 1})
    assert [await read(stream) for _ in range(100)] == list(range(1, 101))
    stream.close()


async def test_a_genuine_handler_streams_to_a_reader(port: int) -> None:
    stream = await connect("127.0.0.1", port)
    await write(stream, {"op": "count", "n": 3, "reply": False})
    assert [await read(stream) for _ in range(3)] == [0, 1, 2]
    stream.close()


COMPRESSIBLE = {"text": "abc" * 10_000, "bytes": b"\0" * 10_000}


@pytest.mark.parametrize("compression", ["zlib", "lz4", "snappy"])
async def test_compressed_messages_go_to_a_genuine_server_and_back(
    classic: Classic, compression: str
) -> None:
    pytest.importorskip(compression)
    command = classic.command(SERVER, compression)
    with Program(command=command, env=classic.environment) as server:
        port = int(server.line())
        async with rpc(ip="127.0.0.1", port=port, compression=compression) as remote:
            assert await remote.echo(x=COMPRESSIBLE) == COMPRESSIBLE


async def test_zlib_goes_to_a_server_of_2016_and_back(of_2016: Classic) -> None:
    with Program(command=of_2016.command(SERVER, "zlib"), env=of_2016.environment) as server:
        port = int(server.line())
        async with rpc(ip="127.0.0.1", port=port, compression="zlib") as remote:
            assert await remote.echo(x=COMPRESSIBLE) == COMPRESSIBLE


@gen.coroutine
def count(stream, n):
    for i in range(n):
        yield write(stream, i)


HANDLERS = {
    "ping": pingpong,
    "add": lambda stream, x, y: x + y,
    "echo": lambda stream, x: x,
    "divide": lambda stream, x, y: x / y,
    "count": count,
}


@pytest.mark.parametrize(
    ("thing", "seen"),
    [
        ("identity", "'Server'"),
        ("ping", "b'pong'"),
        ("large", f"({30 * 2**20}, True)"),
        ("error", "('uncaught-error', 'ZeroDivisionError', b'pong')"),
        ("noreply", "2"),
        ("close", "(b'pong', 'closed')"),
        ("pipelined", "True"),
        ("stream", "[0, 1, 2]"),
    ],
)
async def test_a_genuine_client_gets_from_a_fastcore_server(genuine: Classic, thing: str, seen: str) -> None:
    assert await what_a_genuine_client_sees(genuine, thing) == seen


@pytest.mark.parametrize("compression", ["zlib", "lz4", "snappy"])
async def test_a_genuine_client_and_a_fastcore_server_compress(classic: Classic, compression: str) -> None:
    pytest.importorskip(compression)
    assert await what_a_genuine_client_sees(classic, "compressible", compression) == "True"


async def test_a_client_of_2016_and_a_fastcore_server_compress_by_zlib(of_2016: Classic) -> None:
    assert await what_a_genuine_client_sees(of_2016, "compressible", "zlib") == "True"


async def what_a_genuine_client_sees(genuine: Classic, thing: str, *compression: str) -> str:
    server = Server(HANDLERS, compression=compression[0] if compression else None)
    server.listen(0, "127.0.0.1")
    command = genuine.command(CLIENT, str(server.port), thing, *compression)
    with Program(command=command, env=genuine.environment) as client:
        line = await asyncio.to_thread(client.line)
    server.stop()
    return line


async def test_a_genuine_server_gets_values_in_forms_that_it_reads(port: int) -> None:
    values = {"day": date(2024, 2, 29), "price": Decimal("9.90"), "ids": {1}, "path": PurePosixPath("/a")}
    plain = {"day": "2024-02-29", "price": "9.90", "ids": [1], "path": "/a"}
    async with rpc(ip="127.0.0.1", port=port) as remote:
        assert await remote.echo(x=values) == plain
        assert await remote.echo(x=values) == plain


async def test_the_client_that_blocks_calls_a_genuine_server(port: int) -> None:
    def use() -> None:
        with SyncClient(ip="127.0.0.1", port=port) as remote:
            assert remote.echo(x={1}) == [1]
            assert [remote.add(x=n, y=1) for n in range(20)] == [*range(1, 21)]
            with pytest.raises(ConnectionLost, match="divide"):
                remote.divide(x=1, y=0)
            assert remote.ping() == b"pong"

    await in_a_thread(use)
