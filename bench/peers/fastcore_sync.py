"""fastcore's client that blocks, with its usual server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench.peers import HOST, fastcore
from fastcore import SyncClient


def serve(announce: Callable[[int], None]) -> None:
    asyncio.run(fastcore.serve(announce))


class Connection:
    """One call after the other."""

    def __init__(self, port: int) -> None:
        self.remote = SyncClient(ip=HOST, port=port)

    def add(self, x: int, y: int) -> Any:
        return self.remote.add(x=x, y=y)


connect = Connection
