"""Whoever comes in between two lines of a server may end connections, handlers and the server itself."""

import asyncio
import contextlib
import gc

import pytest

from fastcore import ConnectionLost, RemoteError, Server, connect, read, rpc, send_recv, write
from helpers.torture import at_each_line
from helpers.wire import frame, stranger_at

pytestmark = [pytest.mark.deadline(3600), pytest.mark.timeout(3600)]


def echo(stream, x):
    return x


async def later(stream, x):
    await asyncio.sleep(0)
    return x


def rows(stream, count):
    yield from range(count)


def wrong(stream):
    raise ValueError("wrong")


async def ask(stream):
    async with rpc(stream=stream) as client:
        return ["heard", await client.question(x=1)]


async def ask_once(stream):
    return ["heard", await send_recv(stream=stream, op="question", x=1)]


async def ask_by_hand(stream):
    await write(stream, {"op": "question"})
    return ["heard", await read(stream)]


@contextlib.contextmanager
def middleware(call):
    yield


HANDLERS = {each.__name__: each for each in (echo, later, rows, wrong, ask, ask_once, ask_by_hand)}


def close_all(server):
    for connection in server._connections.copy():
        connection.close()


def cancel_handlers(server):
    for task in [*server._service.tasks]:
        task.cancel()


SERVER = ["close", "stop", "shut down", "shut down now", "cancel", "call"]


@pytest.mark.parametrize("does", SERVER)
async def test_a_server_that_is_ended_twice_and_serves_again(does):
    async def conversation(at):
        server = Server(HANDLERS, middleware=[middleware], max_running=3, max_running_per_connection=2)
        server.listen(0, "127.0.0.1")
        port = server.port
        # Not long: the server may have ended, and nobody listens then.
        remote = rpc(ip="127.0.0.1", port=port, share=1, timeout=0.05)
        ends = []
        between = []

        def come_in():
            if does == "close":
                close_all(server)
            if does == "stop":
                server.stop()
            if does == "shut down":
                ends.append(asyncio.ensure_future(server.shutdown()))
            if does == "shut down now":
                ends.append(asyncio.ensure_future(server.shutdown(0)))
            if does == "cancel":
                cancel_handlers(server)
            if does == "call":
                between.append(remote.later(x="between"))

        async def ended(*calls):
            for call in calls:
                try:
                    await call
                except ValueError:
                    assert call.op == "wrong"
                except (asyncio.CancelledError, RemoteError):
                    assert does in ("cancel", "shut down now")
                except (ConnectionLost, TimeoutError):
                    # It came when the server had begun to end.
                    pass

        with at.comes_in(come_in):
            for _ in range(2):
                if not ends:
                    await ended(remote.echo(x=1), remote.later(x=2), remote.rows(count=3), remote.wrong())
                calls = [remote.later(x=each) for each in range(5)] + [remote.rows(count=300)]
                await asyncio.gather(server.shutdown(), server.shutdown(2))
                await ended(*calls)
                await asyncio.gather(*ends)
                assert server.stats()["connections"]["open"] == server.stats()["running"] == 0
                server.listen(port, "127.0.0.1")
            remote.close_rpc()
            await server.shutdown()
        await asyncio.gather(*ends)
        await asyncio.gather(*between, return_exceptions=True)
        await server.shutdown()
        assert server.stats()["connections"]["open"] == server.stats()["running"] == 0

    await at_each_line(does, SERVER, conversation, "server")


HANDLER = ["close", "close the client's", "cancel", "collect"]


@pytest.mark.parametrize("does", HANDLER)
async def test_handlers_that_call_back_over_their_stream(does):
    async def conversation(at):
        server = Server(HANDLERS)
        server.listen(0, "127.0.0.1")
        streams = []

        def come_in():
            if does == "close":
                close_all(server)
            if does == "close the client's" and streams:
                streams[0].close()
            if does == "cancel":
                cancel_handlers(server)
            if does == "collect":
                gc.collect(0)

        with at.comes_in(come_in):
            try:
                streams.append(stream := await connect("127.0.0.1", server.port))
                for op in ("ask", "ask_once", "ask_by_hand"):
                    await write(stream, {"op": op})
                    while not isinstance(answer := await read(stream), list):
                        if "status" in answer:
                            assert does == "cancel"
                            break
                        await write(stream, "answer")
                    else:
                        assert answer == ["heard", "answer"]
                await write(stream, {"op": "echo", "x": 1})
                assert await read(stream) in ([1] if does == "collect" else [1, "answer"])
            except ConnectionLost:
                assert does != "collect"
            for stream in streams:
                stream.close()
            await server.shutdown()
        assert server.stats()["connections"]["open"] == server.stats()["running"] == 0

    await at_each_line(does, HANDLER, conversation, "server", "client/connection.py", "client/rpc.py")


HALF_CLOSED = ["close", "shut down", "cancel"]


@pytest.mark.parametrize("does", HALF_CLOSED)
async def test_a_client_that_says_no_more_and_waits(does):
    async def conversation(at):
        server = Server(HANDLERS)
        server.listen(0, "127.0.0.1")
        ends = []

        def come_in():
            if does == "close":
                close_all(server)
            if does == "shut down":
                ends.append(asyncio.ensure_future(server.shutdown()))
            if does == "cancel":
                cancel_handlers(server)

        async with stranger_at(server) as stranger:
            with at.comes_in(come_in):
                for call in range(3):
                    stranger.say(frame({"op": "rows", "count": 500}, call=call, window=10))
                stranger.calls(3, "later", x=1)
                stranger.writer.write_eof()
                await stranger.hears_the_end()
                await server.shutdown()
        await asyncio.gather(*ends)
        assert server.stats()["connections"]["open"] == server.stats()["running"] == 0

    await at_each_line(does, HALF_CLOSED, conversation, "server")


TOKEN = ["close", "close the client's", "shut down", "call"]


@pytest.mark.parametrize("does", TOKEN)
async def test_callers_who_show_a_token(does):
    async def conversation(at):
        server = Server(HANDLERS, token="correct horse", max_connections=2)
        server.listen(0, "127.0.0.1")
        ends = []
        between = []
        # Not long where the server may have ended.
        patience = 0.05 if does == "shut down" else 3
        options = {"ip": "127.0.0.1", "port": server.port, "share": 1, "timeout": patience}
        remote = rpc(token="correct horse", **options)
        wrong = rpc(token="guessed", **options)

        def come_in():
            if does == "close":
                close_all(server)
            if does == "close the client's":
                remote.close_streams()
                wrong.close_streams()
            if does == "shut down":
                ends.append(asyncio.ensure_future(server.shutdown()))
            if does == "call":
                between.append(remote.later(x="between"))

        with at.comes_in(come_in):
            for caller, op in [(remote, "echo"), (remote, "later"), (wrong, "echo"), (remote, "echo")]:
                if ends:
                    break
                try:
                    assert await getattr(caller, op)(x=1) == 1
                    assert caller is remote
                except PermissionError:
                    assert caller is wrong
                except ConnectionLost:
                    assert does != "call"
            assert await asyncio.gather(*between) == ["between"] * len(between)
            remote.close_rpc()
            wrong.close_rpc()
            await server.shutdown()
        await asyncio.gather(*ends)

    await at_each_line(does, TOKEN, conversation, "server", "tokens", "transport/connecting")
