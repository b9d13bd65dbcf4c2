"""What a monitor looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fastcore.server.server import Server
from fastcore.server.snapshot import Health, Snapshot, describe_ops

__all__ = ["OneServer", "Watched"]


class Watched(Protocol):
    """The processes that serve together."""

    @property
    def health(self) -> Health:
        """How they are together."""
        ...

    async def snapshots(self) -> Mapping[str, Snapshot]:
        """Tell all of each process, by its name; of the only one under ``''``."""
        ...

    async def ops(self) -> list[dict[str, str]]:
        """Tell which ops there are."""
        ...


class OneServer:
    """A server that is watched from its own process.

    Parameters
    ----------
    server : Server
        What is watched.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def health(self) -> Health:
        """How it is."""
        # Not by itself: a subclass may have something else of that name.
        return Server.health(self._server)

    async def snapshots(self) -> dict[str, Snapshot]:
        """Tell all of it."""
        return {"": Server.snapshot(self._server)}

    async def ops(self) -> list[dict[str, str]]:
        """Tell which ops it has."""
        return describe_ops(self._server.handlers)
