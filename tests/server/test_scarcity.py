"""What a machine can lack: descriptors, memory, ports, names. The error is clear, the server lives on."""

import asyncio
import errno
import socket

import pytest

from fastcore import ConnectionLost, Server, connect, read, rpc, write
from helpers.support import Program
from helpers.wire import served

FEW_DESCRIPTORS = """
import asyncio, logging, resource, socket
from fastcore import Server, rpc

async def main():
    server = Server({"add": lambda stream, x, y: x + y})
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.add(x=1, y=2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        clients = []
        try:
            while True:
                clients.append(socket.create_connection(("127.0.0.1", server.port)))
                await asyncio.sleep(0.001)
        except OSError as error:
            print("out of descriptors:", error.errno)
        clients.pop().close()
        # One more waits to be accepted, and can't be.
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        turns = 0
        ended = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < ended:
            turns += 1
            await asyncio.sleep(0.01)
        print("answers:", await remote.add(x=1, y=2))
        for client in clients:
            client.close()
        while len(server.stats()["errors"]) == 0:
            await asyncio.sleep(0.01)
        print("errors:", server.stats()["errors"])
        async with rpc(ip="127.0.0.1", port=server.port, timeout=20) as another:
            print("lets in again:", await another.add(x=3, y=4))
    server.stop()

logging.basicConfig(format="%(name)s %(message)s")
asyncio.run(main())
"""

LITTLE_MEMORY = """
import asyncio, resource
from pathlib import Path
from fastcore import Server, rpc

async def main():
    server = Server({"size": lambda stream, value: len(value), "big": lambda stream: bytes(2 * 10**9)})
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        value = bytes(400 * 10**6)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 10**6,) * 2)
        for call in (lambda: remote.size(value=value), lambda: remote.big()):
            try:
                print(await call())
            except Exception as error:
                print(type(error).__name__)
            print("lives on:", await remote.size(value=b"abc"))
    server.stop()

asyncio.run(main())
"""


def test_a_server_without_descriptors_waits_for_some_and_says_so_once():
    with Program("-c", FEW_DESCRIPTORS) as program:
        assert program.wait(60) == 0, program.errors
        assert program.rest().splitlines() == [
            f"out of descriptors: {errno.EMFILE}",
            "answers: 3",
            "errors: {'accept': 1}",
            "lets in again: 7",
        ]
        lines = [line for line in program.errors.splitlines() if line]
        assert len(lines) == 1, program.errors
        assert lines[0].startswith("fastcore.")
        assert "Too many open files" in lines[0]


def test_a_message_for_which_there_is_no_memory_costs_that_message():
    with Program("-c", LITTLE_MEMORY) as program:
        assert program.wait(60) == 0, program.errors
        first, lives, second, lives_still = program.rest().splitlines()
        assert first in ("MemoryError", "BadFrame")
        assert second == "MemoryError"
        assert lives == lives_still == "lives on: 3"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket of Tornado's
async def test_a_port_that_is_taken_is_an_error_and_the_server_can_take_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server({"add": lambda stream, x, y: x + y})
        with pytest.raises(OSError, match="in use") as caught:
            server.listen(taken.getsockname()[1], "127.0.0.1")
        assert caught.value.errno == errno.EADDRINUSE
        server.listen(0, "127.0.0.1")
        async with server, rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3


async def test_a_name_that_does_not_exist_is_an_error_that_says_so():
    with pytest.raises(ConnectionLost, match=r"no-such-host\.invalid:8786") as caught:
        await connect("no-such-host.invalid", 8786, timeout=10)
    assert isinstance(caught.value.real_error, socket.gaierror) or "not within" in str(caught.value)


async def test_a_port_where_nobody_listens_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}, not within 0.1 s .*Connect call failed"):
        await connect("127.0.0.1", port, timeout=0.1)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_a_server_on_ipv6_only_is_called_by_all_spellings_of_its_address():
    server = Server({"add": lambda stream, x, y: x + y})
    server.listen(0, "::1", family=socket.AF_INET6)
    async with server:
        for address in (f"[::1]:{server.port}", ("::1", server.port), ("[::1]", server.port)):
            async with rpc(address) as remote:
                assert remote.address == f"[::1]:{server.port}"
                assert await remote.add(x=1, y=2) == 3
        with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1"):
            await connect("127.0.0.1", server.port, timeout=0.1)


# -- Unix sockets


async def test_a_unix_socket_serves_as_a_port_does(tmp_path):
    path = tmp_path / "server.sock"
    server = Server({"add": lambda stream, x, y: x + y})
    server.listen(f"unix:{path}")
    async with server:
        async with rpc(f"unix:{path}") as remote:
            assert await remote.add(x=1, y=2) == 3
            assert remote.address == f"unix:{path}"
        stream = await connect(f"unix:{path}")
        await write(stream, {"op": "identity"})
        assert (await read(stream))["type"] == "Server"
        stream.close()
        with pytest.raises(OSError, match="listen"):
            _ = server.port


async def test_a_unix_socket_lets_its_owner_in_and_nobody_else(tmp_path):
    path = tmp_path / "server.sock"
    server = Server({})
    server.listen(f"unix:{path}")
    async with server:
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_unix_socket_is_gone_when_its_server_is(tmp_path):
    path = tmp_path / "server.sock"
    for _ in range(2):
        server = Server({})
        server.listen(f"unix:{path}")
        server.stop()
        assert not path.exists()
        server.stop()


async def test_a_unix_socket_left_behind_by_a_crash_is_taken_over(tmp_path):
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    server = Server({})
    server.listen(f"unix:{path}")
    async with server, rpc(f"unix:{path}") as remote:
        assert (await remote.identity())["type"] == "Server"


async def test_a_unix_socket_in_use_is_not_taken_over(tmp_path):
    path = tmp_path / "server.sock"
    first, second = Server({}), Server({})
    first.listen(f"unix:{path}")
    async with first:
        with pytest.raises(OSError, match="in use"):
            second.listen(f"unix:{path}")
        async with rpc(f"unix:{path}") as remote:
            assert (await remote.identity())["id"] == first.id


async def test_a_unix_socket_where_nobody_listens_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConnectionLost, match=r"unix:.*nobody\.sock, not within 0\.1 s"):
        await connect(f"unix:{tmp_path}/nobody.sock", timeout=0.1)


async def test_errors_of_a_unix_socket_name_it_too(tmp_path):
    path = tmp_path / "server.sock"

    async def hang_up(stream):
        await asyncio.sleep(0)
        stream.close()

    server = Server({"hang_up": hang_up})
    server.listen(f"unix:{path}")
    async with server, rpc(f"unix:{path}") as remote:
        with pytest.raises(ConnectionLost, match=f"unix:{path}.*'hang_up'"):
            await remote.hang_up()


async def test_a_server_listens_on_a_port_and_a_unix_socket_at_once(tmp_path):
    async with served() as server:
        server.listen(f"unix:{tmp_path}/server.sock")
        for address in (f"unix:{tmp_path}/server.sock", f"127.0.0.1:{server.port}"):
            async with rpc(address) as remote:
                assert await remote.add(x=1, y=2) == 3
