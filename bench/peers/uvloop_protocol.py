"""The hand-written asyncio Protocol, unchanged, on uvloop."""

from __future__ import annotations

import uvloop

from bench.peers.asyncio_protocol import connect, serve

__all__ = ["connect", "run", "serve"]

run = uvloop.run
