"""TLS: who is let in, and what the others are told."""

import asyncio
import functools
import logging
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from fastcore import (
    ConnectionLost,
    ConnectionPool,
    Server,
    SyncClient,
    connect,
    messages,
    read,
    rpc,
    send_recv,
    write,
)
from fastcore.transport import tornado
from fastcore.transport.tls import with_own_errors
from fastcore.transport.tornado import accept_stream
from helpers.certificates import OURS, THEIRS, client_context, server_context
from helpers.support import DEADLINE, in_a_thread, until
from helpers.wire import SENTINEL, frame, served, stranger_at


async def refusal(server, **options):
    """What a client gets to read that can't come in."""
    async with rpc(ip="127.0.0.1", port=server.port, timeout=5, **options) as remote:
        with pytest.raises(OSError, match=r".") as caught:
            await remote.add(x=1, y=2)
    text = "; ".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert f"127.0.0.1:{server.port}" in text
    return text


# -- Let in


async def test_calls_streams_and_pools_go_over_tls():
    async with served(ssl_options=server_context()) as server:
        async with rpc(ip="127.0.0.1", port=server.port, ssl_options=client_context()) as remote:
            assert await asyncio.gather(*[remote.add(x=n, y=1) for n in range(20)]) == [*range(1, 21)]

        pool = ConnectionPool(limit=2, ssl_options=client_context())
        calls = [pool(ip="127.0.0.1", port=server.port).add(x=n, y=1) for n in range(20)]
        assert await asyncio.gather(*calls) == [*range(1, 21)]
        pool.close()

        stream = await connect("127.0.0.1", server.port, ssl_options=client_context())
        await write(stream, {"op": "add", "x": 1, "y": 2})
        assert await read(stream) == 3
        assert await send_recv(stream=stream, op="add", x=3, y=4) == 7
        stream.close()


async def test_options_may_be_a_dict_as_tornado_takes_them(tmp_path):
    authority, certificate = tmp_path / "ca.pem", tmp_path / "server.pem"
    OURS.cert_pem.write_to_path(str(authority))
    OURS.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    trust = {"ca_certs": str(authority), "cert_reqs": ssl.CERT_REQUIRED}
    async with (
        served(ssl_options={"certfile": str(certificate)}) as server,
        rpc(ip="127.0.0.1", port=server.port, ssl_options=trust) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3


async def test_a_client_with_a_certificate_comes_in_where_one_is_asked_for():
    async with (
        served(ssl_options=server_context(clients_of=OURS)) as server,
        rpc(ip="127.0.0.1", port=server.port, ssl_options=client_context(certified_by=OURS)) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3


async def test_a_large_message_goes_over_tls_both_ways():
    value = bytes(range(256)) * 2**18
    async with (
        served({"echo": lambda stream, value: value}, ssl_options=server_context()) as server,
        rpc(ip="127.0.0.1", port=server.port, ssl_options=client_context()) as remote,
    ):
        assert await remote.echo(value=value) == value


async def test_messages_before_the_handshake_is_done_wait_for_it():
    def shout(stream):
        for number in range(100):
            write(stream, number)

    async with served({"shout": shout}, ssl_options=server_context()) as server:
        stream = await connect("127.0.0.1", server.port, ssl_options=client_context())
        write(stream, {"op": "shout", "reply": False})
        assert [await read(stream) for _ in range(100)] == [*range(100)]
        stream.close()


# -- Kept out, and told why


async def test_a_server_of_another_authority_is_refused():
    async with served(ssl_options=server_context()) as server:
        text = await refusal(server, ssl_options=client_context(trusts=THEIRS))
        assert "certificate verify failed" in text
        assert "issuer" in text or "self-signed" in text


async def test_a_server_of_another_name_is_refused():
    async with served(ssl_options=server_context()) as server:
        context = client_context()
        with pytest.raises(ConnectionLost, match=r"localhost\.example") as caught:
            await connect("localhost.example", server.port, ssl_options=context, timeout=1)
        assert isinstance(caught.value, OSError)

    only_by_name = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    OURS.issue_cert("fastcore.example").configure_cert(only_by_name)
    async with served(ssl_options=only_by_name) as server:
        text = await refusal(server, ssl_options=client_context())
        assert "certificate is not valid for '127.0.0.1'" in text


async def test_an_expired_certificate_is_refused():
    async with served(ssl_options=server_context(expired=True)) as server:
        assert "certificate has expired" in await refusal(server, ssl_options=client_context())


async def test_a_client_without_a_certificate_is_refused_where_one_is_asked_for():
    async with served(ssl_options=server_context(clients_of=OURS)) as server:
        text = await refusal(server, ssl_options=client_context())
        assert "the server asks for a client certificate" in text


async def test_a_client_of_another_authority_is_refused_where_a_certificate_is_asked_for():
    async with served(ssl_options=server_context(clients_of=OURS)) as server:
        text = await refusal(server, ssl_options=client_context(certified_by=THEIRS))
        assert "doesn't trust this client's certificate" in text


async def test_a_plain_client_at_a_tls_port_learns_that_it_needs_tls():
    async with served(ssl_options=server_context()) as server:
        assert "speaks TLS; pass ssl_options=" in await refusal(server)


async def test_a_tls_client_at_a_plain_port_learns_that_there_is_no_tls():
    async with served() as server:
        assert "doesn't speak TLS" in await refusal(server, ssl_options=client_context())


# -- What the server's log says


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        (frame({"op": "identity"}), "doesn't speak TLS"),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "doesn't speak TLS here, but HTTP"),
        (b"*1\r\n$4\r\nPING\r\n", "doesn't speak TLS here, but Redis"),
    ],
)
async def test_the_log_of_a_tls_server_names_who_spoke_no_tls(hello, words, caplog):
    caplog.set_level(logging.INFO, "fastcore")
    async with served(ssl_options=server_context()) as server, stranger_at(server) as stranger:
        stranger.say(hello)
        await stranger.hears_the_end()
        host, port = stranger.writer.get_extra_info("sockname")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("fastcore")]
    assert any(f"{host}:{port}" in line and words in line for line in lines), lines


async def test_who_says_too_much_at_once_is_refused_once(caplog):
    async with served(ssl_options=server_context(), max_buffer_size=100_000) as server:
        listening, saying = await asyncio.open_connection("127.0.0.1", server.port, ssl=client_context())
        saying.write(b"\0" * 3_000_000)
        assert b"FrameTooLarge" in await listening.readuntil(SENTINEL)
        saying.transport.abort()
    assert "asyncio" not in [record.name for record in caplog.records]


async def test_the_log_of_a_plain_server_names_who_spoke_tls(caplog):
    caplog.set_level(logging.INFO, "fastcore")
    async with served() as server:
        await refusal(server, ssl_options=client_context())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("fastcore")]
    assert any("127.0.0.1:" in line and "speaks TLS" in line for line in lines), lines


async def test_who_never_finishes_the_handshake_is_dropped_and_others_are_served(caplog):
    caplog.set_level(logging.INFO, "fastcore")
    async with (
        served(ssl_options=server_context(), handshake_timeout=0.2) as server,
        stranger_at(server) as stranger,
        rpc(ip="127.0.0.1", port=server.port, ssl_options=client_context()) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3
        assert await stranger.hears_the_end() == b""
        assert await remote.add(x=1, y=2) == 3
    assert "handshake" in caplog.text


async def test_who_leaves_in_the_handshake_or_has_finished_it_has_not_taken_too_long_for_it():
    async with served(ssl_options=server_context(), handshake_timeout=1) as server:
        stream = await connect("127.0.0.1", server.port, ssl_options=client_context())
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        async with stranger_at(server):
            await until(lambda: server.stats()["connections"]["open"] == 2)
        await until(lambda: server.stats()["connections"]["open"] == 1)
        over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1.3, over.set_result, None)
        await over
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        stream.close()
        assert "handshake_timeout" not in server.stats()["errors"]


async def test_a_socket_with_which_no_tls_can_begin_is_closed(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionResetError("it has gone already")

    monkeypatch.setattr(tornado, "ssl_wrap_socket", refuse)
    one, another = socket.socketpair()
    with another:
        with pytest.raises(ConnectionResetError):
            accept_stream(Server({}, ssl_options=server_context()), one)
        assert one.fileno() == -1


@pytest.mark.parametrize("asks", [{}, {"token": "correct horse"}])
async def test_clients_whose_certificate_is_refused_are_told_so_each_counted_and_logged_once(caplog, asks):
    caplog.set_level(logging.INFO)
    context = client_context(certified_by=THEIRS)

    async def call(port):
        async with rpc(ip="127.0.0.1", port=port, ssl_options=context, **asks) as remote:
            await remote.add(x=bytes(200_000), y=b"")

    async with served(ssl_options=server_context(clients_of=OURS), **asks) as server:
        results = await asyncio.gather(*[call(server.port) for _ in range(60)], return_exceptions=True)
        assert all("doesn't trust this client's certificate" in str(result) for result in results), results
        assert server.stats()["errors"] == {"tls": 60}
        await until(lambda: server.stats()["connections"]["open"] == 0)
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert "the peer's certificate isn't trusted: unable to get local issuer certificate" in line


def knock(port: int, times: int, say: bytes, *, reset: bool) -> None:
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.send(say)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hello_and_goodbye() -> bytes:
    """The first message of a handshake, and that this was all."""
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read() + b"\x15\x03\x03\x00\x02\x01\x00"


@pytest.mark.parametrize("says", [b"x", hello_and_goodbye()], ids=["something", "goodbye"])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_port_scan_is_in_the_figures_and_in_one_line_of_the_log(caplog, reset, says):
    caplog.set_level(logging.INFO)
    async with served(ssl_options=server_context()) as server:
        await in_a_thread(lambda: knock(server.port, 300, says, reset=reset))
        await until(lambda: server.stats()["errors"].get("tls") == 300)
        async with rpc(ip="127.0.0.1", port=server.port, ssl_options=client_context()) as remote:
            assert await remote.add(x=1, y=2) == 3
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert all("left before the TLS handshake was done" in line for line in lines)
    # A second one where more than ten seconds have passed.
    assert len(lines) <= 2


async def test_who_only_looks_whether_there_is_somebody_is_no_error(caplog):
    caplog.set_level(logging.INFO)
    async with served(ssl_options=server_context()) as server:
        await in_a_thread(lambda: knock(server.port, 10, b"", reset=False))
        await until(lambda: server.stats()["connections"] == {"open": 0, "ever": 10})
        assert server.stats()["errors"] == {}
    assert not caplog.records


# -- The end


@asynccontextmanager
async def peer(act: Callable[[ssl.SSLSocket], None]) -> AsyncIterator[int]:
    """A server of Python's own TLS sockets that does something to one connection; its port."""

    def accept() -> None:
        sock, _ = listening.accept()
        with server_context().wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as secure:
            act(secure)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        acting = in_a_thread(accept)
        yield listening.getsockname()[1]
        await acting


def say_six(sock: ssl.SSLSocket) -> None:
    for number in range(6):
        sock.sendall(frame(number))


def say_six_and_goodbye(sock: ssl.SSLSocket) -> None:
    say_six(sock)
    sock.unwrap()


async def test_an_end_that_the_peer_has_announced_is_the_end_of_its_messages():
    async with peer(say_six_and_goodbye) as port:
        stream = await connect("127.0.0.1", port, ssl_options=client_context())
        assert [message async for message in messages(stream)] == [*range(6)]


def asked_and_said_goodbye(port: int) -> bytes:
    """What comes for a client that says that it will send no more, as TLS 1.3 allows, and reads on."""
    came, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(came, going, server_hostname="127.0.0.1")
    plain = b""

    def step(act: Callable[[], object]) -> bool:
        try:
            act()
        except ssl.SSLWantReadError:
            return False
        finally:
            sock.sendall(going.read())
        return True

    with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
        while not step(tls.do_handshake):
            came.write(sock.recv(65_536))
        tls.write(frame({"op": "later"}))
        step(tls.unwrap)
        while part := sock.recv(65_536):
            came.write(part)
            with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while True:
                    plain += tls.read(65_536)
    return plain


async def test_who_says_goodbye_over_tls_still_gets_a_late_answer():
    async def later(stream):
        await asyncio.sleep(0.05)
        return bytes(100_000)

    server = Server({"later": later}, ssl_options=server_context())
    server.listen(0, "127.0.0.1")
    answer = await in_a_thread(lambda: asked_and_said_goodbye(server.port))
    assert answer.endswith(bytes(100_000) + SENTINEL)
    await server.shutdown()


async def test_an_end_that_nobody_has_announced_is_a_cut_after_what_had_arrived():
    async with peer(say_six) as port:
        stream = await connect("127.0.0.1", port, ssl_options=client_context())
        said = messages(stream)
        assert [await anext(said) for _ in range(6)] == [*range(6)]
        with pytest.raises(ConnectionLost, match="cut off"):
            await anext(said)
        with pytest.raises(ConnectionLost, match="cut off"):
            await read(stream)


@pytest.mark.parametrize("wrong", [b"\x17\x03\x03\x00\x20" + bytes(32), b"no TLS any more", b""])
async def test_what_is_wrong_behind_full_records_comes_after_their_message(wrong):
    # Of a large message, several are received at once.
    empty = len(frame(b"-" * 30_000)) - 30_000
    message = b"-" * (2 * 16_384 - empty)

    def say(sock: ssl.SSLSocket) -> None:
        sock.sendall(frame(message))
        socket.socket.send(sock, wrong)

    async with peer(say) as port:
        stream = await connect("127.0.0.1", port, ssl_options=client_context())
        assert await read(stream) == message
        with pytest.raises(ConnectionLost, match=r"TLS|cut off|record"):
            await read(stream)


async def test_when_a_record_came_alone_the_next_one_is_waited_for(monkeypatch):
    record, count = 16_384, 100
    whole = frame(b"-" * count * record)
    outcomes: list[bool] = []
    receive = ssl.SSLSocket.recv_into

    def counted(sock, *args):
        try:
            received = receive(sock, *args)
        except ssl.SSLWantReadError:
            outcomes.append(False)
            raise
        outcomes.append(True)
        return received

    monkeypatch.setattr(ssl.SSLSocket, "recv_into", counted)

    def say(sock: ssl.SSLSocket) -> None:
        for sent, at in enumerate(range(0, len(whole), record), 1):
            sock.sendall(whole[at : at + record])
            # Both that it was received and that nothing was behind it.
            in_time = time.monotonic() + DEADLINE
            while (outcomes.count(True) < sent or outcomes[-1]) and time.monotonic() < in_time:
                time.sleep(0.000_1)

    async with peer(say) as port:
        stream = await connect("127.0.0.1", port, ssl_options=client_context())
        assert len(await read(stream)) == count * record
    # Beside what comes before the first record and behind the last.
    assert outcomes.count(False) <= count + 5


async def test_an_answer_arrives_although_its_server_closes_without_a_word():
    def answer(sock: ssl.SSLSocket) -> None:
        sock.recv(1000)
        sock.sendall(frame("answer"))

    async with peer(answer) as port, rpc(ip="127.0.0.1", port=port, ssl_options=client_context()) as remote:
        assert await remote.ask() == "answer"


async def test_a_call_whose_server_is_cut_off_says_so():
    async with (
        peer(lambda sock: sock.recv(1000)) as port,
        rpc(ip="127.0.0.1", port=port, ssl_options=client_context()) as remote,
    ):
        with pytest.raises(ConnectionLost, match=r"cut off.* during the call of 'ask'"):
            await remote.ask()


async def test_so_does_one_of_a_client_that_blocks():
    async with peer(lambda sock: sock.recv(1000)) as port:
        with (
            SyncClient(ip="127.0.0.1", port=port, ssl_options=client_context()) as remote,
            pytest.raises(ConnectionLost, match=r"cut off.* during the call of 'ask'"),
        ):
            await in_a_thread(remote.ask)


@pytest.mark.parametrize("size", [10, 5_000_000])
async def test_a_client_hears_that_the_end_of_its_server_is_one(size):
    def ask(port: int) -> int:
        heard = 0
        with (
            socket.create_connection(("127.0.0.1", port)) as sock,
            client_context().wrap_socket(
                sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            ) as secure,
        ):
            secure.sendall(frame({"op": "zeros", "close": True}))
            while data := secure.recv(2**16):
                heard += len(data)
        return heard

    async with served({"zeros": lambda stream: bytes(size)}, ssl_options=server_context()) as server:
        assert await in_a_thread(lambda: ask(server.port)) > size
        assert server.stats()["errors"] == {}


async def test_a_server_hears_that_the_end_of_its_client_is_one():
    def hear_all(sock: ssl.SSLSocket) -> None:
        while sock.recv(2**16):
            pass

    async with peer(hear_all) as port:
        stream = await connect("127.0.0.1", port, ssl_options=client_context())
        await write(stream, "goodbye")
        stream.close()
    async with peer(hear_all) as port, rpc(ip="127.0.0.1", port=port, ssl_options=client_context()) as remote:
        await remote.tell(reply=False)


async def test_a_client_that_closes_without_a_word_is_no_error_of_its_server(caplog):
    async with served(ssl_options=server_context()) as server:
        stream = await connect("127.0.0.1", server.port, ssl_options=client_context())
        await write(stream, {"op": "add", "x": 1, "y": 2})
        assert await read(stream) == 3
        # As Python's own sockets do.
        socket.socket.shutdown(stream.socket, socket.SHUT_RDWR)
        await until(lambda: server.stats()["connections"]["open"] == 0)
        assert server.stats()["errors"] == {}
        stream.close()
    assert not caplog.records


async def test_time_in_which_the_loop_stood_still_is_not_the_clients():
    def ask(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port)) as sock,
            client_context().wrap_socket(sock, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(frame({"op": "add", "x": 1, "y": 2}))
            return secure.recv(1000)

    async with served(ssl_options=server_context(), handshake_timeout=0.5) as server:
        asking = in_a_thread(lambda: ask(server.port))
        for _ in range(3):
            await asyncio.sleep(0.001)
            time.sleep(0.6)  # a handler that computes, for longer than a handshake may take
        assert await asking == frame(3)
        assert server.stats()["errors"] == {}


# -- Whose error it is


def leaves_unread(port):
    """Ask for something large, say goodbye, and close without reading it: that resets the connection."""
    with (
        socket.create_connection(("127.0.0.1", port), DEADLINE) as sock,
        client_context().wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(frame({"op": "echo", "x": bytes(100_000)}))
        secure.recv(1)
        secure.setblocking(False)
        with suppress(ssl.SSLError):
            secure.unwrap()


async def test_a_connection_that_is_reset_ends_no_other_one_of_its_thread():
    async with served({"echo": lambda stream, x: x}, ssl_options=server_context()) as server:
        stream = await connect("127.0.0.1", server.port, ssl_options=client_context())
        for number in range(10):
            await in_a_thread(functools.partial(leaves_unread, server.port))
            await until(lambda: server.open_connections() == 1)
            assert await send_recv(stream=stream, op="add", x=number, y=1) == number + 1
        stream.close()


class Told:
    """Something that uses OpenSSL, and what it raises, one after the other."""

    def __init__(self, *errors):
        self.errors = [*errors]

    def __call__(self, data):
        if self.errors:
            raise self.errors.pop(0)
        return len(data)


def test_an_error_that_another_connection_has_left_is_not_told():
    with secure_socket() as sock:
        for left in (BrokenPipeError(), ssl.SSLError(ssl.SSL_ERROR_SYSCALL, "unexpected eof")):
            assert with_own_errors(sock, Told(left), b"data") == 4
        with pytest.raises(ssl.SSLWantReadError):
            with_own_errors(sock, Told(ConnectionResetError(), ssl.SSLWantReadError()), b"")


def test_an_error_of_its_own_is_the_first_one():
    with secure_socket() as sock:
        with pytest.raises(ConnectionResetError):
            with_own_errors(sock, Told(ConnectionResetError(), BrokenPipeError()), b"")
        for own in (ssl.SSLWantWriteError(), ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "cut off")):
            told = Told(own, ValueError("called again"))
            with pytest.raises(type(own)):
                with_own_errors(sock, told, b"")


@contextmanager
def secure_socket():
    with (
        socket.socket() as sock,
        client_context().wrap_socket(
            sock, server_hostname="127.0.0.1", do_handshake_on_connect=False
        ) as secure,
    ):
        yield secure
