"""Whoever comes in between two lines of a stream's messages may close it, write to it and read from it."""

import asyncio
import socket

import pytest
from tornado.iostream import IOStream, SSLIOStream

from fastcore import ConnectionLost, Server, connect, read, write
from helpers.certificates import client_context, server_context
from helpers.torture import at_each_line

pytestmark = [pytest.mark.deadline(3600), pytest.mark.timeout(3600)]


def pair(kind):
    """Two streams that are connected, on which no messages have gone yet."""
    ours, theirs = socket.socketpair()
    if kind == "plain":
        return IOStream(ours), IOStream(theirs)
    options = {"do_handshake_on_connect": False}
    ours.setblocking(False)
    theirs.setblocking(False)
    client, server = client_context(), server_context()
    return (
        SSLIOStream(client.wrap_socket(ours, server_hostname="127.0.0.1", **options), ssl_options=client),
        SSLIOStream(server.wrap_socket(theirs, server_side=True, **options), ssl_options=server),
    )


MESSAGES = ["close", "close the peer's", "write"]


@pytest.mark.parametrize("does", MESSAGES)
@pytest.mark.parametrize("kind", ["plain", "TLS"])
async def test_messages(kind, does):
    async def conversation(at):
        ours, theirs = pair(kind)
        between = []

        def come_in():
            if does == "close":
                ours.close()
            if does == "close the peer's":
                theirs.close()
            if does == "write":
                between.append(write(ours, "between"))

        with at.comes_in(come_in):
            try:
                for message in ("small", bytes(300_000), bytes(600_000)):
                    write(ours, message)
                    while (heard := await read(theirs)) != message:
                        assert heard == "between"
                    await write(theirs, "answer")
                    assert await read(ours) == "answer"
                await asyncio.gather(*between)
            except ConnectionLost:
                assert does != "write"
            ours.close()
            theirs.close()
        await asyncio.gather(*between, return_exceptions=True)

    await at_each_line(does, MESSAGES, conversation, "transport")


CONNECTING = ["give up", "connect"]


@pytest.mark.parametrize("does", CONNECTING)
async def test_connecting_to_a_host_of_many_addresses(does, monkeypatch):
    with socket.socket() as refuses:
        refuses.bind(("127.0.0.1", 0))

        async def conversation(at):
            server = Server({})
            server.listen(0, "127.0.0.1")
            more = []
            connecting = []

            def come_in():
                if does == "give up" and connecting:
                    connecting[0].cancel()
                if does == "connect":
                    more.append(connect("a.host", server.port))

            # Also as if the host were a number: uvloop looks names up by itself.
            def addresses(host, port, *arguments, **keywords):
                ports = [refuses.getsockname()[1], server.port, server.port]
                return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", each)) for each in ports]

            with monkeypatch.context() as patched, at.comes_in(come_in):
                patched.setattr(socket, "getaddrinfo", addresses)
                try:
                    connecting.append(connect("a.host", server.port))
                    stream = await connecting[0]
                    await write(stream, {"op": "identity"})
                    assert (await read(stream))["type"] == "Server"
                    stream.close()
                except asyncio.CancelledError:
                    assert connecting[0].cancelled()
                for each in more:
                    (await each).close()
            await server.shutdown()

        await at_each_line(does, CONNECTING, conversation, "transport/connecting", "transport/event_loop")
