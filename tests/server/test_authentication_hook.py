"""A server whose hook decides who calls: it may wait, ask back, look at certificates, refuse and fail."""

import asyncio
import hmac

import pytest

from fastcore import LimitReached, caller_of, read, rpc, write
from helpers.certificates import client_context, server_context
from helpers.handlers import RecordingHandlers
from helpers.support import until
from helpers.wire import frame, served, stranger_at


async def test_the_hook_gets_the_stream_and_the_first_message_and_names_the_caller():
    def authenticate(stream, message):
        assert not stream.closed()
        assert message.pop("password") == "please"
        return {"user": message.pop("user")}

    async with (
        served({"whoami": caller_of}, authenticate=authenticate) as server,
        stranger_at(server) as stranger,
    ):
        stranger.say(frame({"op": "whoami", "user": "ada", "password": "please"}))
        assert await stranger.hears() == {"user": "ada"}
        # Once for each connection.
        stranger.say(frame({"op": "whoami"}))
        assert await stranger.hears() == {"user": "ada"}


async def test_the_hook_may_wait_for_something():
    async def authenticate(stream, message):
        await asyncio.sleep(0.01)
        return message["token"].upper()

    async with (
        served({"whoami": caller_of}, authenticate=authenticate) as server,
        rpc(ip="127.0.0.1", port=server.port, token="ada") as remote,
    ):
        assert await remote.whoami() == "ADA"


async def test_the_hook_may_ask_back():
    """As where a secret shall not be sent: who knows it answers what was asked."""

    def answer(challenge: str) -> str:
        return hmac.new(b"secret", challenge.encode(), "sha256").hexdigest()

    async def authenticate(stream, message):
        user = message.pop("user")
        await write(stream, "challenge")
        return user if await read(stream) == answer("challenge") else None

    async with served({"whoami": caller_of}, authenticate=authenticate) as server:
        for replies, told in ((answer("challenge"), "ada"), ("guess", "PermissionError: ")):
            async with stranger_at(server) as stranger:
                stranger.say(frame({"op": "whoami", "user": "ada"}))
                assert await stranger.hears() == "challenge"
                stranger.say(frame(replies))
                if told == "ada":
                    assert await stranger.hears() == told
                    assert await stranger.is_served()
                else:
                    assert (await stranger.hears_error()).startswith(told)


async def test_the_hook_may_know_callers_by_their_certificates():
    from helpers.certificates import OURS

    def authenticate(stream, message):
        (_kind, name), *_ = stream.socket.getpeercert()["subjectAltName"]
        return name

    context = server_context(clients_of=OURS)
    async with served({"whoami": caller_of}, authenticate=authenticate, ssl_options=context) as server:
        options = client_context(certified_by=OURS)
        async with rpc(ip="127.0.0.1", port=server.port, ssl_options=options) as remote:
            assert await remote.whoami() == "client@example.org"


@pytest.mark.parametrize("answer", [None, False])
async def test_a_hook_that_names_nobody_refuses(answer: object):
    async with (
        served(authenticate=lambda stream, message: answer) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(PermissionError, match="doesn't know you"):
            await remote.add(x=1, y=2)


async def test_the_text_of_a_permission_error_is_what_the_caller_is_told():
    def authenticate(stream, message):
        raise PermissionError("not on Sundays")

    async with (
        served(authenticate=authenticate) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(PermissionError, match="not on Sundays"):
            await remote.add(x=1, y=2)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_hook_that_fails_refuses_and_only_the_log_says_why(is_async: bool, caplog):
    async def authenticate(stream, message):
        return message["secret of the server"]

    hook = authenticate if is_async else lambda stream, message: message["secret of the server"]
    handlers = RecordingHandlers()
    async with (
        served(handlers, authenticate=hook) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(PermissionError, match="can't tell who you are") as told:
            await remote.add(x=1, y=2)
    assert "secret" not in repr(told.value)
    assert "secret of the server" in caplog.text
    assert handlers.called == []


@pytest.mark.parametrize("stubborn", [False, True], ids=["that waits", "that can't be cancelled"])
async def test_a_hook_that_never_returns_is_given_up(stubborn: bool):
    end = asyncio.Event()

    async def authenticate(stream, message):
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise
        return "too late"

    handlers = RecordingHandlers()
    async with served(handlers, authenticate=authenticate, handshake_timeout=0.1) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(LimitReached, match="handshake_timeout"):
                await remote.add(x=1, y=2)
        await until(lambda: not server.stats()["connections"]["open"])
        end.set()
        await asyncio.sleep(0)
    assert handlers.called == []


async def test_a_hook_ends_with_the_client_that_it_asks_about():
    events = []

    async def authenticate(stream, message):
        events.append("asked")
        try:
            await asyncio.sleep(60)
        finally:
            events.append("ended")

    async with served(authenticate=authenticate) as server:
        async with stranger_at(server) as stranger:
            stranger.calls(0, "add", x=1, y=2)
            await until(lambda: events)
            stranger.leave()
            await until(lambda: events == ["asked", "ended"])
        await until(lambda: not server.stats()["connections"]["open"])
