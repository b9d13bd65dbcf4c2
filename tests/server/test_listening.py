"""Where a server listens: ports, addresses, unix sockets, and what is taken already."""

import asyncio
import errno
import os
import signal
import socket

import pytest
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from fastcore import ConnectionLost, Server, connect, read, rpc, send_recv, write
from helpers.support import Program, in_a_thread
from helpers.surface import HANDLERS, serving
from helpers.wire import served


async def test_before_listening_it_has_no_port_and_says_what_to_do():
    with pytest.raises(OSError, match=r"\.listen"):
        Server({}).port  # noqa: B018


async def test_listen_without_a_port_takes_the_default():
    class Fixed(Server):
        default_port = 0

    server = Fixed({})
    server.listen(address="127.0.0.1")
    assert server.port > 1024
    server.stop()


# Tornado leaves the socket that it couldn't bind to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_taken_port_raises():
    with serving() as server, pytest.raises(OSError, match="in use"):
        Server({}).listen(server.port, "127.0.0.1")


async def test_it_listens_twice_and_stops_twice_and_keeps_its_first_port():
    server = Server(HANDLERS)
    server.listen(0, "127.0.0.1")
    first = server.port
    server.listen(0, "127.0.0.1")
    ports = {sock.getsockname()[1] for sock in server._sockets.values()}
    assert len(ports) == 2
    for port in ports:
        assert await send_recv(ip="127.0.0.1", port=port, op="ping", close=True) == b"pong"
    server.stop()
    server.stop()
    assert server.port == first


async def test_bind_and_start_and_add_sockets_serve_too():
    bound = Server(HANDLERS)
    bound.bind(0, "127.0.0.1")
    bound.start()
    added = Server(HANDLERS)
    added.add_sockets(bind_sockets(0, "127.0.0.1"))
    for server in (bound, added):
        assert await send_recv(ip="127.0.0.1", port=server.port, op="ping", close=True) == b"pong"
        server.stop()


def test_it_can_listen_before_the_loop_runs():
    loop = IOLoop()
    server = Server(HANDLERS)
    server.listen(0, "127.0.0.1")
    try:
        call = lambda: send_recv(ip="127.0.0.1", port=server.port, op="ping", close=True)  # noqa: E731
        assert loop.run_sync(call, timeout=30) == b"pong"
    finally:
        server.stop()
        loop.close(all_fds=True)
        asyncio.set_event_loop(None)


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


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("address", ["::1", "[::1]"])
async def test_a_server_on_ipv6_only_is_called_by_all_spellings_of_its_address(address):
    server = Server({"add": lambda stream, x, y: x + y})
    server.listen(0, address, family=socket.AF_INET6)
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


async def test_a_server_listens_on_a_port_and_a_unix_socket_at_once(tmp_path):
    async with served() as server:
        server.listen(f"unix:{tmp_path}/server.sock")
        for address in (f"unix:{tmp_path}/server.sock", f"127.0.0.1:{server.port}"):
            async with rpc(address) as remote:
                assert await remote.add(x=1, y=2) == 3


@pytest.mark.parametrize("become", ["gone", "a file", "a folder", "another socket"])
async def test_a_server_stops_and_leaves_what_others_have_put_in_the_place_of_its_file(tmp_path, become):
    path = tmp_path / "server.sock"
    server = Server({})
    server.listen(f"unix:{path}")
    server.listen(0, "127.0.0.1")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        if become == "a file":
            path.touch()
        elif become == "a folder":
            path.mkdir()
        elif become == "another socket":
            another.bind(str(path))
        server.stop()
        assert path.exists() is (become != "gone")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_the_file_of_a_unix_socket_is_removed_wherever_the_server_is_by_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server = Server({})
    server.listen("unix:server.sock")
    monkeypatch.chdir("/")
    server.stop()
    assert not (tmp_path / "server.sock").exists()


async def test_the_file_of_a_socket_that_was_given_stays(tmp_path):
    """It is somebody else's, such as systemd's."""
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.setblocking(False)
        given.bind(str(path))
        given.listen()
        server = Server({})
        server.add_sockets([given])
        server.stop()
        assert path.exists()


async def test_a_server_may_listen_again_after_it_has_stopped():
    server = Server({"add": lambda stream, x, y: x + y})
    for _ in range(2):
        server.listen(0, "127.0.0.1")
        [sock] = server._sockets.values()
        port = sock.getsockname()[1]
        async with rpc(ip="127.0.0.1", port=port) as remote:
            assert await remote.add(x=1, y=2) == 3
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


# -- Processes


async def test_processes_cannot_be_made_inside_of_a_loop_and_one_can_serve_there():
    server = Server({"add": lambda stream, x, y: x + y})
    server.bind(0, "127.0.0.1")
    with pytest.raises(RuntimeError, match=r"start\(4\).* before asyncio.run"):
        server.start(4)
    server.start()
    async with server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert await remote.add(x=1, y=2) == 3


IN_PROCESSES = """
import asyncio, os, signal, socket
from fastcore import Server

async def main():
    async with server:
        await asyncio.Event().wait()

server = Server({"who": lambda stream: os.getpid()})
server.bind(0, "127.0.0.1")
[sock] = server._pending_sockets
print(sock.getsockname()[1])
server.start(2)
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
async def test_a_server_in_processes_serves_in_each_of_them():
    with Program("-c", IN_PROCESSES, start_new_session=True) as program:
        port = int(await in_a_thread(program.line))
        who = set()
        while len(who) < 2:
            async with rpc(ip="127.0.0.1", port=port, timeout=10) as remote:
                who.add(await remote.who())
        os.killpg(program.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("port", [-1, 65536, 1.5, "many", b"", float("nan"), "unix:"])
async def test_what_is_no_port_is_an_error(port):
    with pytest.raises(ValueError, match=r"no such port|no path"):
        Server({}).listen(port, "127.0.0.1")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "two..dots", "\ud800"])
async def test_a_name_that_no_host_can_have_is_an_error_that_says_so(host):
    with pytest.raises(OSError, match="no such host") as caught:
        Server({}).listen(0, host)
    str(caught.value).encode()


async def test_a_path_that_is_too_long_is_an_error_that_says_so(tmp_path):
    with pytest.raises(OSError, match="too long"):
        Server({}).listen(f"unix:{tmp_path}/{'x' * 200}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_that_stops_its_copy_of_a_server_takes_nothing_from_the_parent(tmp_path):
    path = tmp_path / "server.sock"
    async with served() as server:
        server.listen(f"unix:{path}")
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            assert await remote.add(x=1, y=2) == 3
            child = os.fork()
            if child == 0:
                try:
                    server.stop()
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert await remote.add(x=1, y=2) == 3
        for address in (f"127.0.0.1:{server.port}", f"unix:{path}"):
            async with rpc(address) as another:
                assert await another.add(x=1, y=2) == 3
