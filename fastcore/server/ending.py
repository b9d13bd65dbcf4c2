"""The end of a server: handlers that run may answer, and then nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastcore._channel import Channel
from fastcore._futures import set_value
from fastcore.logs import get_logger
from fastcore.server.connection import Connection
from fastcore.server.service import Service

if TYPE_CHECKING:
    from fastcore.server.admission import Newcomer

__all__ = ["Ending"]

logger = get_logger("fastcore.server")

#: Seconds in which handlers that are cancelled may clean up.
_CLEANUP_TIMEOUT = 0.1


class Ending:
    """Ends the connections of a server, once for all who ask for it.

    Parameters
    ----------
    service : Service
        The server's.
    connections : dict of Channel to Connection or Newcomer
        Those that are open.
    turned_away : iterable of Channel
        Those that are being told that there are too many.
    """

    def __init__(
        self,
        service: Service,
        connections: Mapping[Channel, Connection | Newcomer],
        turned_away: Iterable[Channel],
    ) -> None:
        self._service = service
        self._connections = connections
        self._turned_away = turned_away
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._enough: asyncio.Future[None] = self._loop.create_future()
        #: Handlers that wait for this end themselves; their connections go on until they have answered.
        self._askers: set[asyncio.Task[Any] | None] = set()
        self._staying: set[Channel] = set()

    @property
    def is_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._task is not None and self._task.done() and not self._task.cancelled()

    async def wait(self, deadline: float) -> None:
        """Wait until all has ended; who asks may be given up, and the end goes on.

        Parameters
        ----------
        deadline : float
            Seconds after which nobody's answer is waited for. Who asks later may have less patience.
        """
        begins = self._task is None or self._task.cancelled()
        if begins:
            # Anew, where a program has cancelled all tasks there were, and goes on.
            self._enough = self._loop.create_future()
        self._let_stay(asyncio.current_task())
        if begins:
            self._task = self._loop.create_task(self._end(deadline))
        assert self._task is not None
        timer = self._loop.call_later(deadline, set_value, self._enough, None)
        self._task.add_done_callback(lambda _: timer.cancel())
        await asyncio.shield(self._task)

    def _let_stay(self, asker: asyncio.Task[Any] | None) -> None:
        """Not wait for a handler that asks, or has started who asks: it answers when it is through."""
        for channel, connection in [*self._connections.items()]:
            for request in connection.requests_of(asker):
                self._staying.add(channel)
                self._askers.add(request.task)
        self.look()

    def look(self) -> None:
        """Wait no longer if all is closed that is waited for."""
        if self._connections.keys() <= self._staying:
            set_value(self._enough, None)

    async def _end(self, deadline: float) -> None:
        service = self._service
        begun = self._loop.time()
        service.is_ending = True
        for connection in [*self._connections.values()]:
            connection.finish()
        await self._enough
        left = self._connections.keys() - self._staying
        if left and deadline > 0:
            logger.warning(
                "ended with %d handlers running and %d connections open, after %.1f s",
                len(service.tasks),
                len(left),
                self._loop.time() - begun,
            )
        cancelled = [task for task in [*service.tasks] if task not in self._askers]
        for task in cancelled:
            task.cancel()
        if cancelled:
            await asyncio.wait(cancelled, timeout=_CLEANUP_TIMEOUT)
        for channel in [*left, *self._turned_away]:
            channel.close()
