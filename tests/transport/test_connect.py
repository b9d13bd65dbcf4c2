"""``connect``: a stream to a server, or an error that says where nobody was."""

import asyncio
import errno
import socket
import ssl
import sys
import time

import psutil
import pytest
from tornado.iostream import IOStream, StreamClosedError

from fastcore import ConnectionLost, Server, SyncClient, connect, read, rpc, write
from fastcore.transport.connecting import targets_of
from fastcore.transport.tornado import name_of
from helpers.certificates import OURS, client_context
from helpers.support import Program, in_a_thread
from helpers.surface import serving
from helpers.wire import add


async def test_connect_gives_a_stream_as_tornado_has_it():
    closed = asyncio.Event()
    with serving() as server:
        stream = await connect("127.0.0.1", server.port)
        assert isinstance(stream, IOStream)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream in {stream}
        assert {stream: 1}[stream] == 1
        stream.set_nodelay(True)
        stream.set_close_callback(closed.set)
        assert not stream.closed()
        await write(stream, {"op": "ping"})
        await read(stream)
        stream.close()
        assert stream.closed()
        await closed.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_connect_tries_again_while_the_port_refuses():
    port = free_port()
    connecting = connect("127.0.0.1", port, timeout=20)
    await asyncio.sleep(0.1)
    assert not connecting.done()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    (await connecting).close()
    server.close()
    await server.wait_closed()


async def test_connect_gives_up_after_the_timeout_and_tells_ip_port_and_timeout():
    port = free_port()
    started = time.monotonic()
    with pytest.raises(IOError, match=rf"127\.0\.0\.1:{port}.*0\.2") as raised:
        await connect("127.0.0.1", port, timeout=0.2)
    assert isinstance(raised.value, StreamClosedError)
    # A loop may count in milliseconds.
    assert time.monotonic() - started >= 0.199


async def test_a_name_that_does_not_exist_is_an_error_that_says_so():
    with pytest.raises(ConnectionLost, match=r"no-such-host\.invalid:8786") as caught:
        await connect("no-such-host.invalid", 8786, timeout=10)
    assert isinstance(caught.value.real_error, socket.gaierror) or "not within" in str(caught.value)


async def test_a_port_where_nobody_listens_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}, not within 0.1 s .*Connect call failed"):
        await connect("127.0.0.1", port, timeout=0.1)


async def test_a_unix_socket_where_nobody_listens_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConnectionLost, match=r"unix:.*nobody\.sock, not within 0\.1 s"):
        await connect(f"unix:{tmp_path}/nobody.sock", timeout=0.1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_time_in_which_the_loop_stood_still_is_not_the_servers(host):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connecting = connect(host, listening.getsockname()[1], timeout=2)
        await asyncio.sleep(0)
        time.sleep(2.2)  # a program that computes; the kernel connects meanwhile
        stream = await connecting
        stream.close()


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "two..dots", "\ud800"])
async def test_a_name_that_cannot_be_asked_for_is_an_error_that_can_be_printed(name):
    with pytest.raises(ConnectionLost, match="could not connect to") as caught:
        await connect(name, 8786)
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "two..dots", "\ud800"])
def test_so_it_is_for_a_client_that_blocks(name):
    with pytest.raises(ConnectionLost, match="could not connect to") as caught:
        SyncClient(ip=name, port=8786).add()
    str(caught.value).encode()


@pytest.fixture
def without_ipv6(monkeypatch):
    """A machine that has none, and a host, ``both.example``, that has; gives the order of its addresses."""

    class Socket(socket.socket):
        def __init__(self, family=-1, *arguments, **keywords):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no such family here")
            super().__init__(family, *arguments, **keywords)

    def look_up(host, port, *arguments, **keywords):
        if host != "both.example":
            return real(host, port, *arguments, **keywords)
        return [address_of(family, port) for family in order]

    order = [socket.AF_INET6, socket.AF_INET]
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "socket", Socket)
    return order


def address_of(family, port, number=1):
    """What a look-up gives of an address."""
    target = ("127.0.0.1", port) if family == socket.AF_INET else (f"::{number}", port, 0, 0)
    return (family, socket.SOCK_STREAM, 6, "", target)


async def test_where_this_machine_has_no_ipv6_the_next_address_of_the_host_is_taken(without_ipv6):
    with serving() as server:
        (await connect("both.example", server.port)).close()
        with SyncClient(ip="both.example", port=server.port) as remote:
            assert await in_a_thread(lambda: remote.add(x=1, y=2)) == 3


@pytest.mark.parametrize("first", ["the one that refuses", "the other one"])
async def test_a_host_one_of_whose_addresses_refuses_is_tried_again(without_ipv6, first):
    if first == "the one that refuses":
        without_ipv6.reverse()
    port = free_port()
    with SyncClient(ip="both.example", port=port, timeout=20) as remote:
        connecting = connect("both.example", port, timeout=20)
        calling = in_a_thread(lambda: remote.add(x=1, y=2))
        await asyncio.sleep(0.1)
        assert not connecting.done()
        assert not calling.done()
        server = Server({"add": add})
        server.listen(port, "127.0.0.1")
        (await connecting).close()
        assert await calling == 3
        server.stop()


def test_the_addresses_of_a_host_take_turns_by_their_family():
    v6 = [address_of(socket.AF_INET6, 80, number) for number in range(1, 15)]
    v4 = [address_of(socket.AF_INET, 80)]
    assert [family for family, _ in targets_of(v6 + v4)][:3] == [
        socket.AF_INET6,
        socket.AF_INET,
        socket.AF_INET6,
    ]
    assert targets_of(v4 + v6)[0] == (socket.AF_INET, ("127.0.0.1", 80))
    assert [target[0] for _, target in targets_of(v6)] == [f"::{number}" for number in range(1, 15)]
    assert targets_of([]) == []


def link_local() -> str:
    """An address of IPv6 that is one on its interface alone, with the name of that."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET6 and each.address.startswith("fe80:") and "%" in each.address:
                return each.address
    pytest.skip("this machine has no link-local address")


@pytest.mark.parametrize("security", ["plain", "TLS"])
async def test_an_address_that_is_one_on_its_interface_alone(security):
    host = link_local()
    at_server, at_client = None, None
    if security == "TLS":
        at_server, at_client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), client_context()
        OURS.issue_cert(host.partition("%")[0]).configure_cert(at_server)
    async with Server({"add": add}, ssl_options=at_server) as server:
        server.listen(0, host)
        stream = await connect(host, server.port, ssl_options=at_client)
        async with rpc(stream=stream, ssl_options=at_client) as remote:
            assert remote.address == f"[{host}]:{server.port}"
            assert await remote.add(x=1, y=2) == 3
            # It is found again.
            remote.close_streams()
            assert await remote.add(x=1, y=2) == 3
        with SyncClient(ip=host, port=server.port, ssl_options=at_client) as client:
            assert await in_a_thread(lambda: client.add(x=1, y=2)) == 3


def test_a_peer_is_named_with_the_interface_on_which_its_address_is_one():
    number, name = socket.if_nameindex()[0]
    assert name_of(("fe80::1", 8786, 0, number)) == f"[fe80::1%{name}]:8786"
    assert name_of(("fe80::1", 8786, 0, 2**31)) == f"[fe80::1%{2**31}]:8786"
    assert name_of(("2001:db8::1", 8786, 0, 0)) == "[2001:db8::1]:8786"


AT_EXIT = """
import asyncio, atexit
from fastcore import ServerInThread, rpc

async def call(port):
    async with rpc(ip="localhost", port=port) as remote:
        print(await remote.double(x=2))

server = ServerInThread({"double": lambda stream, x: 2 * x})
atexit.register(server.stop)
atexit.register(lambda: asyncio.run(call(server.port)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a loop of its own kind has threads for more than names")
def test_a_name_is_looked_up_when_there_are_no_more_threads_for_that():
    with Program("-c", AT_EXIT) as program:
        assert (program.line(), program.wait()) == ("4", 0)
