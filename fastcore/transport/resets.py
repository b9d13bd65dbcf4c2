"""Connections that were reset, on loops that tell of it only once.

libuv, on which uvloop is built, watches a socket no longer as soon as it has an error. Where
bytes had come before a reset, the one time that it tells of both goes for the bytes, and who
waits for more would wait for ever. So there, what has received something is asked once more
some time later.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from fastcore._channel import Channel

__all__ = ["look_for_resets"]

#: Seconds until a connection is asked again.
_RECHECK_AFTER: Final = 0.5


class HasChannel(Protocol):
    """What carries a channel, and knows when it is gone."""

    channel: Channel


class _Looker:
    """Looks after the connections of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # And how much each had received when it was looked at last.
        self._received: WeakKeyDictionary[HasChannel, int] = WeakKeyDictionary()
        self._looks = False

    def add(self, transport: HasChannel) -> None:
        self._received[transport] = 0
        self._look_later()

    def _look_later(self) -> None:
        if self._received and not self._looks:
            self._looks = True
            # Not in the context of who made the first connection, which would be kept as long as any.
            self._loop.call_later(_RECHECK_AFTER, self._look, context=Context())

    def _look(self) -> None:
        self._looks = False
        for transport, before in [*self._received.items()]:
            channel = transport.channel
            if channel.is_lost:
                del self._received[transport]
            elif channel.bytes_in != before and not channel.is_paused:
                self._received[transport] = channel.bytes_in
                channel.receive()
        self._look_later()


_lookers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Looker] = WeakKeyDictionary()


def look_for_resets(transport: HasChannel) -> None:
    """Have a connection asked now and then whether it still is one, where its loop may not tell."""
    loop = transport.channel.loop
    if not type(loop).__module__.startswith("uvloop"):
        return
    looker = _lookers.get(loop)
    if looker is None:
        looker = _lookers[loop] = _Looker(loop)
    looker.add(transport)
