"""``connect``: a stream to a server, or an error that says where nobody was."""

import asyncio
import socket
import time

import pytest
from tornado.iostream import IOStream, StreamClosedError

from fastcore import ConnectionLost, connect, read, write
from helpers.surface import serving


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
