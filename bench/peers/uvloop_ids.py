"""The hand-written asyncio Protocol with ids, unchanged, on uvloop."""

from __future__ import annotations

import uvloop

from bench.peers.asyncio_ids import connect, serve

__all__ = ["connect", "run", "serve"]

run = uvloop.run
