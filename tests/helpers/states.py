"""What a channel says of its state, and time for it to change."""

import asyncio
import re

import pytest

from fastcore import ConnectionLost


def state(end) -> str:
    [word] = re.findall(r"<Channel to \w+: (\w+), \d+ bytes unsent>", repr(end.channel))
    return word


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


async def lost(end, words="closed"):
    """Every use of an end whose connection is over says so."""
    assert state(end) == "lost"
    assert (end.channel.is_lost, end.channel.is_open, end.channel.is_full) == (True, False, False)
    assert end.channel.unsent == 0
    for use in (end.channel.read, lambda: end.channel.write("too late")):
        with pytest.raises(ConnectionLost, match=words):
            await use()
    with pytest.raises(ConnectionLost, match=words):
        end.channel.send("too late")
    # These ask for what is there already.
    end.channel.close()
    end.channel.close_when_sent()
    end.channel.farewell("too late")
    end.channel.writable()
    assert not end.channel.receive()
    assert state(end) == "lost"
