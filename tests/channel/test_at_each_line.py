"""Whoever comes in between two lines of ours may close the connection, call over it, or give a call up.

Between any two that run, from the connecting to the end. At most the call that is under way is lost.
"""

import asyncio

import pytest

from fastcore import ConnectionLost, Server, rpc
from helpers.certificates import client_context, server_context
from helpers.torture import at_each_line

pytestmark = [pytest.mark.deadline(3600), pytest.mark.timeout(3600)]
KINDS = {"plain": (None, None), "TLS": (server_context(), client_context())}
WAYS = ["close the client's", "close the server's", "close the client's and call", "call", "give up"]


def echo(stream, x):
    return x


async def later(stream, x):
    await asyncio.sleep(0)
    return x


def rows(stream, x):
    yield from range(x)


@pytest.mark.parametrize("does", WAYS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_after_the_other(kind, does):
    servers, clients = KINDS[kind]
    await at_each_line(does, WAYS, lambda at: conversation(at, does, servers, clients))


async def conversation(at, does, servers, clients):
    """Connect, call and close while somebody comes in."""
    server = Server({"echo": echo, "later": later, "rows": rows}, ssl_options=servers)
    server.listen(0, "127.0.0.1")
    remote = rpc(ip="127.0.0.1", port=server.port, ssl_options=clients, share=1)
    calls = []
    between = []

    def come_in():
        if "the client's" in does:
            remote.close_streams()
        if "the server's" in does:
            for connection in server._connections.copy():
                connection.close()
        if "call" in does:
            between.append(remote.echo(x="between"))
        if does == "give up" and calls:
            calls[-1].cancel()

    def call(op, x):
        calls.append(getattr(remote, op)(x=x))
        return calls[-1]

    lost = []
    with at.comes_in(come_in):
        for op, x, expected in [
            ("echo", 1, 1),
            ("later", b"x" * 300_000, b"x" * 300_000),
            ("echo", b"y" * 3_000_000, b"y" * 3_000_000),
            ("rows", 3, [0, 1, 2]),
        ]:
            try:
                assert await call(op, x) == expected
            except ConnectionLost:
                lost.append(op)
            except asyncio.CancelledError:
                assert calls[-1].cancelled()
        assert await asyncio.gather(*between) == ["between"] * len(between)
        remote.close_rpc()
        await server.shutdown()
    assert len(lost) <= (1 if does.startswith("close") else 0)
