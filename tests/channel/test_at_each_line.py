"""Whoever comes in between two lines of ours may close the connection, or call over it.

Between any two that run from the connecting to the end: a collector, a signal handler or a log
handler can't be had at a chosen line, so a trace function stands for them.
"""

import asyncio
import os

import pytest

from fastcore import ConnectionLost, Server, rpc
from helpers.certificates import client_context, server_context
from helpers.torture import AtLine

KINDS = {"plain": (None, None), "TLS": (server_context(), client_context())}
#: From one line to the next that is tried. ``make torture`` tries each.
STEP = max(118 // int(os.environ.get("FASTCORE_SEEDS", "2")), 1)


def echo(stream, x):
    return x


async def later(stream, x):
    await asyncio.sleep(0)
    return x


def rows(stream, x):
    yield from range(x)


@pytest.mark.deadline(3600 // STEP)
@pytest.mark.parametrize("does", ["close the client's", "close the server's", "call", "give up"])
@pytest.mark.parametrize("kind", KINDS)
async def test_somebody_does_something_between_two_lines(kind, does):
    servers, clients = KINDS[kind]
    line = 0
    came_in = True
    while came_in:
        came_in = await conversation(servers, clients, does, line)
        line += STEP


async def conversation(servers, clients, does, line):
    """Connect, call and close while somebody comes in at a line; False if there is no such line."""
    server = Server({"echo": echo, "later": later, "rows": rows}, ssl_options=servers)
    server.listen(0, "127.0.0.1")
    remote = rpc(ip="127.0.0.1", port=server.port, ssl_options=clients, share=1)
    calls = []
    between = []

    def come_in():
        if does == "close the client's":
            remote.close_streams()
        elif does == "close the server's":
            for connection in server._connections.copy():
                connection.close()
        elif does == "call":
            between.append(remote.echo(x="between"))
        elif calls:
            calls[-1].cancel()

    def call(op, x):
        calls.append(getattr(remote, op)(x=x))
        return calls[-1]

    lost = []
    with AtLine(line, come_in) as at:
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
    # At most the one that was under way.
    assert len(lost) <= (1 if does.startswith("close") else 0), at.where
    return at.where is not None
