"""A server that asks who calls: no handler runs for a connection before it knows."""

import asyncio
import contextlib
import hmac
import logging
import ssl

import pytest

from fastcore import (
    ConnectionLost,
    ConnectionPool,
    Server,
    SyncClient,
    caller_of,
    connect,
    read,
    rpc,
    send_recv,
    write,
)
from fastcore.server.admission import Tokens
from fastcore.server.penalties import Penalties, origin
from helpers.certificates import client_context, server_context
from helpers.classic_server import classic_server
from helpers.handlers import RecordingHandlers
from helpers.support import in_a_thread, until
from helpers.wire import SENTINEL, fake_server, frame, served, stranger_at

TOKEN = "correct horse battery staple"


def greeting(token: object = TOKEN, **more: object) -> bytes:
    return frame({"op": "authenticate", "token": token, **more})


# ---- who shows the token


@pytest.mark.parametrize("uses", ["rpc", "pool", "connect", "SyncClient"])
async def test_whoever_shows_the_token_may_call(uses: str):
    async with served({"whoami": caller_of}, token={"ada": "hers", "bob": "his"}) as server:
        where = {"ip": "127.0.0.1", "port": server.port}
        if uses == "rpc":
            async with rpc(**where, token="his") as remote:
                assert await remote.whoami() == "bob"
        elif uses == "pool":
            pool = ConnectionPool(token="hers")
            assert await pool(**where).whoami() == "ada"
            pool.close()
        elif uses == "SyncClient":
            with SyncClient(**where, token="his") as client:
                assert await in_a_thread(client.whoami) == "bob"
                assert await in_a_thread(client.whoami) == "bob"
        else:
            stream = await connect(**where, token="hers")
            assert await send_recv(stream, op="whoami") == "ada"
            stream.close()


async def test_calls_that_overlap_show_it_once_for_each_connection():
    async with (
        served(token=TOKEN) as server,
        rpc(ip="127.0.0.1", port=server.port, token=TOKEN) as remote,
    ):
        assert await asyncio.gather(*[remote.add(x=n, y=1) for n in range(50)]) == [*range(1, 51)]
        assert server.stats()["ops"]["authenticate"]["count"] == len(remote.streams)


async def test_a_program_that_writes_by_hand_shows_it_as_its_first_message():
    """Also one of 2016: the message has no number, and no header."""
    async with served(token=TOKEN) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "authenticate", "token": TOKEN})
        await write(stream, {"op": "add", "x": 1, "y": 2})
        assert [await read(stream), await read(stream)] == ["OK", 3]
        stream.close()


async def test_who_asks_for_no_answer_gets_none():
    async with served(token=TOKEN) as server, stranger_at(server) as stranger:
        stranger.say(greeting(reply=False), frame({"op": "add", "x": 1, "y": 2}))
        assert await stranger.hears() == 3


async def test_a_server_that_asks_for_no_token_takes_any():
    """So callers can be given theirs before the servers are."""
    async with (
        served({"whoami": caller_of}) as server,
        rpc(ip="127.0.0.1", port=server.port, token=TOKEN) as remote,
    ):
        assert await remote.whoami() is None


async def test_a_handler_of_that_name_is_a_programs_own():
    async with (
        served({"authenticate": lambda stream, user: f"hello {user}"}) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.authenticate(user="ada") == "hello ada"


# ---- who doesn't


@pytest.mark.parametrize("token", ["wrong", TOKEN + " ", TOKEN[:-1], "\N{SNOWMAN}" * 1000])
async def test_a_wrong_token_is_told_to_who_shows_it(token: str):
    async with served(token=TOKEN) as server:
        with pytest.raises(PermissionError, match="none of the server's tokens"):
            await connect("127.0.0.1", server.port, token=token)
        async with rpc(ip="127.0.0.1", port=server.port, token=token) as remote:
            with pytest.raises(PermissionError, match="none of the server's tokens"):
                await remote.add(x=1, y=2)
        assert server.stats()["errors"] == {"authenticate": 2}


@pytest.mark.parametrize(
    ("token", "told"), [("wrong", "none of the server's tokens"), (None, "asks for a token")]
)
async def test_a_client_that_blocks_is_told_as_well(token: str | None, told: str):
    async with served(token=TOKEN) as server:
        client = SyncClient(ip="127.0.0.1", port=server.port, token=token)
        with client, pytest.raises(PermissionError, match=told):
            await in_a_thread(lambda: client.add(x=1, y=2))
    with pytest.raises(TypeError, match="a token is a str"):
        SyncClient("a:1", token=5)


async def test_a_client_that_blocks_waits_no_longer_than_it_would_for_a_connection():
    async with fake_server() as server:
        with SyncClient(ip="127.0.0.1", port=server.port, timeout=0.1, token=TOKEN) as client:
            with pytest.raises(ConnectionLost, match=r"not within 0\.1 s"):
                await in_a_thread(lambda: client.add(x=1, y=2))
            calling = in_a_thread(lambda: client.add(x=1, y=2))
            await server.next()
            stranger = await server.next()
            await stranger.hears()
            stranger.leave()
            with pytest.raises(ConnectionLost, match="authenticate"):
                await calling


async def test_who_shows_none_is_told_to():
    async with served(token=TOKEN) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(PermissionError, match="asks for a token; pass token="):
                await remote.add(x=1, y=2)
        with pytest.raises(PermissionError, match="asks for a token"):
            await send_recv(ip="127.0.0.1", port=server.port, op="add", x=1, y=2)


@pytest.mark.parametrize("token", [None, True, 1, b"bytes", [TOKEN], {"token": TOKEN}, ""])
async def test_a_token_of_another_type_is_a_wrong_one(token: object):
    async with served(token=TOKEN) as server, stranger_at(server) as stranger:
        stranger.say(greeting(token))
        assert await stranger.hears_error() == "PermissionError: this is none of the server's tokens"


async def test_the_refusal_of_a_numbered_request_has_its_number():
    async with served(token=TOKEN) as server, stranger_at(server) as stranger:
        stranger.calls(7, "add", x=1, y=2)
        answer, header = await stranger.hears_all()
        assert header == {"call": 7, "error": True}
        assert answer["exception"]["type"] == "PermissionError"


FIRST_MESSAGES = {
    "a request": frame({"op": "add", "x": 1, "y": 2}),
    "a request with a number": frame({"op": "add", "x": 1, "y": 2}, call=0, window=32),
    "who are you": frame({"op": "identity"}),
    "the op that closes": frame({"op": "close"}),
    "a cancel": frame(None, cancel=0),
    "a grant": frame(None, call=0, grant=5),
    "nobody's message": frame({"op": "add", "x": 1, "y": 2}, call=None),
    "a message that is no dict": frame([TOKEN]),
    "a token without an op": frame({"tokens": TOKEN}),
    "no message": b"GET / HTTP/1.1\r\n\r\n" + SENTINEL,
    "a wrong token": greeting("wrong"),
    "a token in the header": frame({"op": "add", "x": 1, "y": 2}, token=TOKEN),
}


@pytest.mark.parametrize("first", FIRST_MESSAGES.values(), ids=FIRST_MESSAGES.keys())
async def test_whatever_comes_first_no_handler_runs_before_the_token(first: bytes):
    """Nor after it, when that comes too late."""
    handlers = RecordingHandlers()
    async with served(handlers, token=TOKEN) as server, stranger_at(server) as stranger:
        stranger.say(first, greeting(), *[frame({"op": "add", "x": 1, "y": 2})] * 20)
        said = await stranger.hears_the_end()
        assert said.count(SENTINEL) == 1
        assert b"uncaught-error" in said
        assert handlers.called == []


async def test_a_connection_that_was_let_in_lets_in_no_other():
    handlers = RecordingHandlers()
    async with (
        served(handlers, token=TOKEN) as server,
        stranger_at(server) as known,
        stranger_at(server) as stranger,
    ):
        known.say(greeting())
        assert await known.hears() == "OK"
        stranger.say(frame({"op": "add", "x": 1, "y": 2}))
        assert "PermissionError" in await stranger.hears_error()
        assert handlers.called == []
        assert await known.is_served()


async def test_a_message_that_shows_a_token_is_small():
    """Strangers can't have a server keep what they send."""
    async with served(token=TOKEN, max_buffer_size=2**24) as server, stranger_at(server) as stranger:
        stranger.say(greeting("x" * 100_000))
        assert (await stranger.hears_error()).startswith("FrameTooLarge: ")
        async with rpc(ip="127.0.0.1", port=server.port, token=TOKEN) as remote:
            assert len(await remote.add(x="x" * 1_000_000, y="y")) == 1_000_001


async def test_what_waits_behind_the_token_is_bounded():
    """Until it is known who it is."""
    asked = asyncio.Event()

    async def authenticate(stream, message):
        asked.set()
        await asyncio.sleep(60)

    async with (
        served(authenticate=authenticate, max_waiting=10_000) as server,
        stranger_at(server) as stranger,
    ):
        stranger.say(frame({"op": "add", "x": 1, "y": 2}) * 100)
        await asked.wait()
        stranger.say(frame({"op": "add", "x": 1, "y": 2}) * 100_000)
        await until(lambda: server.stats()["buffers"] >= 10_000)
        for _ in range(100):
            await asyncio.sleep(0)
        assert server.stats()["buffers"] < 2_000_000


# ---- who takes long


async def test_who_says_nothing_is_told_to_leave():
    async with served(token=TOKEN, handshake_timeout=0.1) as server, stranger_at(server) as stranger:
        error = await stranger.hears_error()
        assert error == "LimitReached: who you are wasn't clear within 0.1 s (handshake_timeout=)"
        assert server.stats()["errors"] == {"handshake_timeout": 1}


async def test_who_says_half_of_it_is_told_to_leave():
    async with served(token=TOKEN, handshake_timeout=0.1) as server, stranger_at(server) as stranger:
        stranger.say(greeting()[:-5])
        assert (await stranger.hears_error()).startswith("LimitReached: ")


async def test_who_closes_his_side_after_the_token_still_gets_his_answers():
    async with served(token=TOKEN) as server, stranger_at(server) as stranger:
        stranger.say(greeting(), frame({"op": "add", "x": 1, "y": 2}))
        stranger.writer.write_eof()
        assert (await stranger.hears(), await stranger.hears()) == ("OK", 3)


async def test_who_is_known_may_be_silent():
    async with served(token=TOKEN, handshake_timeout=0.1) as server, stranger_at(server) as stranger:
        stranger.say(greeting())
        assert await stranger.hears() == "OK"
        await asyncio.sleep(0.2)
        assert await stranger.is_served()


async def test_at_the_limit_of_connections_who_is_not_known_makes_room():
    """However many say nothing: they keep out nobody who has the token."""
    async with served(token=TOKEN, max_connections=3) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(stranger_at(server))
        async with rpc(ip="127.0.0.1", port=server.port, token=TOKEN, share=3) as remote:
            assert await asyncio.gather(*[remote.add(x=n, y=1) for n in range(9)]) == [*range(1, 10)]
        assert server.stats()["connections"]["open"] <= 3


async def test_who_is_known_makes_room_for_nobody():
    async with served(token=TOKEN, max_connections=2) as server:
        streams = [await connect("127.0.0.1", server.port, token=TOKEN) for _ in range(2)]
        with pytest.raises(ConnectionRefusedError, match="takes no more"):
            await connect("127.0.0.1", server.port, token=TOKEN)
        assert [await send_recv(stream, op="add", x=1, y=2) for stream in streams] == [3, 3]
        for stream in streams:
            stream.close()


async def test_shutdown_waits_for_no_stranger():
    async with served(token=TOKEN) as server, stranger_at(server) as stranger:
        await until(lambda: server.stats()["connections"]["open"])
        async with asyncio.timeout(5):
            await server.shutdown(60)
            assert await stranger.hears_the_end() == b""


# ---- what is no token


def test_a_token_and_a_hook_are_two_ways():
    with pytest.raises(ValueError, match="token= or authenticate="):
        Server({}, token=TOKEN, authenticate=lambda stream, message: "x")


@pytest.mark.parametrize("token", ["", {}, {"ada": ""}])
def test_an_empty_token_is_none(token: object):
    with pytest.raises(ValueError, match="token"):
        Server({}, token=token)


@pytest.mark.parametrize("makes", [lambda: rpc("a:1", token=b"x"), lambda: ConnectionPool(token=5)])
async def test_what_is_no_token_is_told_at_once_and_not_shown(makes):
    with pytest.raises(TypeError, match=r"a token is a str, not a (bytes|int)$"):
        makes()


# ---- attacks on the token


def test_a_token_is_compared_whole_however_it_begins(monkeypatch: pytest.MonkeyPatch):
    """The same steps for each guess: what is compared has one length, and is compared to the end."""
    compared: list[tuple[int, int]] = []

    whole = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return whole(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = Tokens({"ada": TOKEN, "bob": "another"})
    for guess in ("", "c", TOKEN[:-1], TOKEN, "another", "x" * 10_000):
        compared.clear()
        tokens.owner(guess)
        assert compared == [(32, 32), (32, 32)]


async def test_who_guesses_waits_longer_each_time_and_who_knows_does_not():
    """Not even at the same address."""
    loop = asyncio.get_running_loop()
    async with served(token=TOKEN) as server:
        took = []
        for guess in range(6):
            begun = loop.time()
            async with stranger_at(server) as stranger:
                stranger.say(greeting(f"guess {guess}"))
                await stranger.hears_the_end()
            took.append(loop.time() - begun)
        # Some loops know milliseconds only.
        assert took[3] >= 0.099
        assert took[4] >= 0.199
        assert took[5] >= 0.399
        async with stranger_at(server) as guesser:
            guesser.say(greeting("guess"))
            async with rpc(ip="127.0.0.1", port=server.port, token=TOKEN) as remote, asyncio.timeout(0.7):
                assert await remote.add(x=1, y=2) == 3


def test_the_penalty_is_an_addresss_own_ends_and_takes_bounded_memory():
    now = 0.0
    penalties = Penalties(lambda: now)
    assert [penalties.failed("a") for _ in range(200)][-1] == 2.0
    assert penalties.failed("b") == 0.0
    now = 61.0
    assert penalties.failed("a") == 0.0
    for number in range(5_000):
        penalties.failed(str(number))
    assert len(penalties) == 1024


def test_an_owner_of_many_ipv6_addresses_is_one():
    assert (
        origin(("2001:db8::1", 1, 0, 0))
        == origin(("2001:db8::2", 2, 0, 0))
        != origin(("2001:db9::1", 1, 0, 0))
    )
    assert origin(("::ffff:192.0.2.1", 1, 0, 0)) == origin(("192.0.2.1", 5))
    assert origin(("fe80::1%eth0", 1, 0, 2)) == "fe80::/64"


async def test_the_token_is_in_no_line_of_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    async with served(token=TOKEN) as server:
        async with rpc(ip="127.0.0.1", port=server.port, token=TOKEN) as remote:
            await remote.add(x=1, y=2)
            assert TOKEN not in repr(remote)
        with pytest.raises(PermissionError):
            await connect("127.0.0.1", server.port, token="a guess of mine")
    assert TOKEN not in caplog.text
    assert "a guess of mine" not in caplog.text


# ---- other servers


async def test_a_server_that_closes_at_the_token_is_told_apart():
    """As one of 2016 does, where it finds no handler."""
    async with fake_server() as server:
        connecting = connect("127.0.0.1", server.port, token=TOKEN)
        stranger = await server.next()
        await stranger.hears()
        stranger.leave()
        with pytest.raises(ConnectionLost, match="instead of an answer to the token"):
            await connecting


async def test_a_server_that_answers_something_else_is_told_apart():
    async with classic_server(authenticate=lambda token: "what?") as server:
        with pytest.raises(PermissionError, match=r"answered the token by 'what\?'"):
            await connect("127.0.0.1", server.port, token=TOKEN)


async def test_a_server_that_never_answers_the_token_costs_the_timeout():
    async with fake_server() as server:
        with pytest.raises(ConnectionLost, match=r"not within 0\.1 s"):
            await connect("127.0.0.1", server.port, timeout=0.1, token=TOKEN)
        stranger = await server.next()
        await stranger.hears()
        assert await stranger.hears_the_end() == b""


async def test_a_call_given_up_in_the_greeting_leaves_no_connection():
    async with fake_server() as server:
        connecting = connect("127.0.0.1", server.port, token=TOKEN)
        stranger = await server.next()
        await stranger.hears()
        connecting.cancel()
        assert await stranger.hears_the_end() == b""


# ---- where it travels in clear


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback, taken for a network."""
    from fastcore.server import server
    from fastcore.transport import connecting

    for module in (server, connecting):
        monkeypatch.setattr(module, "is_public", lambda host: True)
    connecting.tell_if_in_clear.cache_clear()


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("tls", [False, True])
async def test_a_token_that_others_could_read_on_the_way_is_warned_of(tls: bool, caplog):
    options = {"ssl_options": server_context()} if tls else {}
    async with served(token=TOKEN, **options) as server:
        trust: dict[str, ssl.SSLContext] = {"ssl_options": client_context()} if tls else {}
        for _ in range(2):
            async with rpc(ip="127.0.0.1", port=server.port, token=TOKEN, **trust) as remote:
                await remote.add(x=1, y=2)
    lines = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in lines] == ([] if tls else ["fastcore.server", "fastcore.client"])
    assert all("ssl_options=" in record.getMessage() for record in lines)


async def test_on_loopback_and_unix_sockets_nobody_is_warned(caplog, tmp_path):
    async with served(token=TOKEN) as server:
        server.listen(f"unix:{tmp_path}/socket")
        for where in (f"127.0.0.1:{server.port}", f"unix:{tmp_path}/socket"):
            async with rpc(where, token=TOKEN) as remote:
                assert await remote.add(x=1, y=2) == 3
    assert caplog.records == []


def test_a_server_without_a_token_has_nothing_of_it():
    assert Server({})._admission is None
    assert caller_of(object()) is None
