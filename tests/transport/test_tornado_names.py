"""Tornado's private names: used in one file, and each of them needed there.

Without the line that uses one, the test that names it fails.
"""

import ast
import asyncio
import gc
import re
import socket
import threading
import weakref
from collections import deque
from pathlib import Path

import pytest
import tornado
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream

import fastcore
from fastcore import ConnectionLost, Server, read, write
from fastcore.transport.tornado import accept_stream, channel_of
from helpers.certificates import client_context, server_context
from helpers.streams import close_both, stream_pair
from helpers.support import in_a_thread
from helpers.wire import frame, served

HOUSE = Path(fastcore.__file__).parent
TORNADO = Path(tornado.__file__).parent
USED = {
    "_buffers",
    "_connect_future",
    "_finish_ssl_connect",
    "_handle_write",
    "_handlers",
    "_pending_sockets",
    "_read_buffer",
    "_read_buffer_size",
    "_sockets",
    "_ssl_accepting",
    "_ssl_connect_future",
    "_state",
    "_write_buffer",
    "_write_futures",
}
QUESTION = {"op": "add", "x": 1, "y": 2}
#: More than a socket takes while nobody reads.
MUCH = 5_000_000


# ---- where they are used


def private_attributes(tree: ast.AST) -> set[tuple[bool, str]]:
    """Those that code asks for, by a dot or as a text; and whether it asks itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add((isinstance(node.value, ast.Name) and node.value.id == "self", node.attr))
        elif isinstance(node, ast.Call):
            texts = [argument for argument in node.args if isinstance(argument, ast.Constant)]
            found.update((False, str(text.value)) for text in texts)
    return {(own, name) for own, name in found if re.fullmatch(r"_(?!_)\w+", name)}


def tornados_names() -> set[str]:
    """All private attributes that Tornado's streams, servers and loops use of themselves."""
    names: set[str] = set()
    for part in ("iostream", "tcpserver", "tcpclient", "ioloop", "platform/asyncio"):
        tree = ast.parse((TORNADO / f"{part}.py").read_text())
        names |= {name for own, name in private_attributes(tree) if own}
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in names if re.fullmatch(r"_(?!_)\w+", name)}


def test_they_are_used_in_one_file_alone():
    private = tornados_names()
    assert private > USED
    # The second one at each message, where a step more is felt.
    transport = HOUSE / "transport"
    used = {transport / "tornado.py": USED, transport / "streams.py": {"_write_futures"}}
    for path in sorted(HOUSE.rglob("*.py*")):
        if path.suffix == ".py":
            asked_for = private_attributes(ast.parse(path.read_text()))
            # What inherits from Tornado has its names for its own.
            inherits = path.name == "server.py"
            names = {name for own, name in asked_for if not own or inherits} & private
            assert names == used.get(path, set()), path
        elif path.suffix == ".pyx":
            assert not {*re.findall(r"\b(?!self\.)\w+\.(_\w+)", path.read_text())} & private, path


# ---- a stream that isn't open yet


@pytest.mark.deadline(5)
async def test_messages_to_a_stream_that_still_connects_wait_for_that():
    """By `_connect_future`."""
    async with served() as server:
        stream = IOStream(socket.socket())
        connecting = stream.connect(("127.0.0.1", server.port))
        written = write(stream, QUESTION)
        assert not written.done()
        assert await read(stream) == 3
        assert await connecting is stream
        stream.close()


@pytest.mark.deadline(5)
async def test_messages_to_a_tls_stream_that_still_connects_wait_for_its_handshake():
    """By `_ssl_accepting`, and by `_ssl_connect_future` as Tornado waits for the handshake too."""
    async with served(ssl_options=server_context()) as server:
        stream = SSLIOStream(socket.socket(), ssl_options=client_context())
        connecting = stream.connect(("127.0.0.1", server.port), server_hostname="127.0.0.1")
        written = write(stream, QUESTION)
        assert not written.done()
        assert await read(stream) == 3
        assert await connecting is stream
        # Not where it is done already.
        another = SSLIOStream(socket.socket(), ssl_options=client_context())
        await another.connect(("127.0.0.1", server.port), server_hostname="127.0.0.1")
        assert write(another, QUESTION).done()
        assert await read(another) == 3
        close_both(stream, another)


@pytest.mark.deadline(5)
async def test_messages_to_an_accepted_tls_stream_wait_for_the_handshake_whoever_else_waits_for_it():
    """By `_ssl_accepting` and `_ssl_connect_future`."""
    server = Server({}, ssl_options=server_context())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = SSLIOStream(socket.socket(), ssl_options=client_context())
        connecting = client.connect(listening.getsockname(), server_hostname="127.0.0.1")
        sock, _ = listening.accept()
        sock.setblocking(False)
        accepted = accept_stream(server, sock)
        waiting = accepted.wait_for_handshake()
        write(accepted, "for whom has shaken hands")
        assert await waiting is accepted
        await connecting
        assert await read(client) == "for whom has shaken hands"
        close_both(client, accepted)


# ---- a stream that was used before


@pytest.mark.deadline(5)
async def test_bytes_that_tornado_has_received_are_read_as_messages_and_by_nobody_else():
    """By `_read_buffer` and `_read_buffer_size`."""
    one, another = socket.socketpair()
    stream = IOStream(another)
    one.sendall(b"hello\n" + frame("first"))
    assert await stream.read_until(b"\n") == b"hello\n"
    assert await read(stream) == "first"
    raw = stream.read_bytes(1)
    assert not raw.done()
    one.sendall(b"!")
    # In the same turn, and so by Tornado.
    stream.close()
    with pytest.raises(OSError, match="closed"):
        await raw
    one.close()


@pytest.mark.deadline(5)
async def test_what_is_read_by_hand_afterwards_is_not_what_came_before():
    """By `_read_buffer`, which is cleared."""
    one, another = socket.socketpair()
    stream = IOStream(another)
    one.sendall(b"hello\n" + frame("first"))
    assert await stream.read_until(b"\n") == b"hello\n"
    assert await read(stream) == "first"
    one.sendall(b"!")
    # In one turn: the bytes are fetched before anybody else could.
    assert stream.read_bytes(1).result() == b"!"
    close_both(stream, one)


@pytest.mark.deadline(5)
async def test_bytes_written_before_the_first_message_leave_before_it():
    """By `_handle_write`."""
    one, another = stream_pair()
    raw = one.write(b"x" * MUCH)
    reading = read(one)
    assert await another.read_bytes(MUCH) == b"x" * MUCH
    await raw
    write(another, "an answer")
    assert await reading == "an answer"
    close_both(one, another)


@pytest.mark.deadline(5)
async def test_a_descriptor_serves_again_after_its_stream_was_closed():
    """By no private name: what Tornado had registered for it is forgotten."""
    async with served() as server:
        stream = IOStream(socket.socket())
        await stream.connect(("127.0.0.1", server.port))
        await write(stream, QUESTION)
        number = stream.socket.fileno()
        stream.close()
        sockets = [socket.socket()]
        while sockets[-1].fileno() < number:
            sockets.append(socket.socket())
        assert sockets[-1].fileno() == number
        again = IOStream(sockets[-1])
        # Tornado refuses a number that it thinks it has.
        await again.connect(("127.0.0.1", server.port))
        close_both(again, *sockets)


class Watched:
    """A loop, and in which threads somebody had it watch less."""

    def __init__(self, loop):
        self.loop = loop
        self.threads = []

    def __getattr__(self, name):
        if name.startswith("remove_"):
            self.threads.append(threading.current_thread())
        return getattr(self.loop, name)


@pytest.mark.deadline(5)
async def test_a_stream_closed_in_another_thread_touches_its_loop_in_its_own_alone(monkeypatch):
    """By no private name either: Tornado, which unregisters wherever it is, finds nothing to do."""
    io_loop = IOLoop.current()
    watched = Watched(io_loop.selector_loop)
    async with served() as server:
        with monkeypatch.context() as patched:
            patched.setattr(io_loop, "selector_loop", watched)
            stream = IOStream(socket.socket())
            await stream.connect(("127.0.0.1", server.port))
            await write(stream, QUESTION)
            assert await read(stream) == 3
            watched.threads.clear()
            await in_a_thread(stream.close)
            assert {*watched.threads} == {threading.current_thread()}


# ---- a stream that its maker goes on using


@pytest.mark.deadline(5)
async def test_whoever_sets_a_close_callback_later_takes_no_messages_away():
    """By `_state`: Tornado would listen for the end, and receive what comes."""
    one, another = stream_pair()
    write(one, "first")
    assert await read(another) == "first"
    closed = asyncio.Event()
    another.set_close_callback(closed.set)
    await asyncio.sleep(0)
    write(one, "second")
    assert await read(another) == "second"
    one.close()
    await closed.wait()


@pytest.mark.deadline(5)
async def test_bytes_written_between_messages_leave_as_the_socket_takes_them():
    """By `_write_futures` and `_handle_write`."""
    one, another = stream_pair()
    reading = read(one)
    raw = one.write(b"x" * MUCH)
    assert await another.read_bytes(MUCH) == b"x" * MUCH
    await raw
    write(another, "an answer")
    assert await reading == "an answer"
    write(one, "a message")
    assert await read(another) == "a message"
    # Nothing is left to be written, and nobody asks the loop again and again whether it could be.
    assert not asyncio.get_running_loop().remove_writer(one.socket.fileno())
    close_both(one, another)


async def test_a_closed_stream_leaves_nothing_to_the_collector():
    """By no private name: the transport is let go."""
    one, another = stream_pair()
    write(one, "last")
    assert await read(another) == "last"
    gone = weakref.ref(another), weakref.ref(channel_of(another))
    gc.disable()
    try:
        close_both(one, another)
        # Its callbacks have their turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del one, another
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


async def test_a_stream_takes_as_little_memory_as_it_can():
    """By `_write_buffer`, its `_buffers`, and `_write_futures`: a deque takes as much as all the rest."""
    fresh, taken = stream_pair()
    write(taken, "a message")
    assert not [value for value in vars(taken).values() if isinstance(value, deque)]
    assert not [value for value in vars(taken._write_buffer).values() if isinstance(value, deque)]
    # For a second name there is no room in the table of names that all streams share.
    assert {*vars(taken)} - {*vars(fresh)} == {"close_fd"}
    close_both(fresh, taken)


# ---- a server


async def test_a_server_that_stops_closes_what_listens():
    """By `_sockets` and `_handlers`, and of what is only bound by `_pending_sockets`."""
    for begin in (Server.listen, Server.bind):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        server = Server({})
        begin(server, port, "127.0.0.1")
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_server_stops_twice_and_its_unix_socket_is_gone(tmp_path):
    """By `_sockets`, in which they aren't any more."""
    path = tmp_path / "server.sock"
    server = Server({})
    server.listen(f"unix:{path}")
    server.stop()
    assert not path.exists()
    # Somebody else's now.
    path.touch()
    server.stop()
    assert path.exists()


async def test_a_stream_whose_connecting_fails_says_so_to_its_reader():
    """By `_connect_future`, which holds no stream then."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        address = reserved.getsockname()
    stream = IOStream(socket.socket())
    connecting = stream.connect(address)
    assert not channel_of(stream).is_lost
    with pytest.raises(ConnectionLost):
        await read(stream)
    with pytest.raises(OSError, match="closed"):
        await connecting
