"""fastcore, unchanged, on uvloop's event loop."""

from __future__ import annotations

import uvloop

from bench.peers.fastcore import connect, serve

__all__ = ["connect", "run", "serve"]

run = uvloop.run
