"""Which worker of a cluster has which server: kept by the scheduler, as metadata.

Not asked of the workers: one whose machine has vanished would keep everybody waiting, and one that
computes answers late. The scheduler knows at once, and who of them is still there.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any, Final

from distributed import Client, Scheduler, SchedulerPlugin, Worker
from distributed.protocol.pickle import dumps

from fastcore.logs import get_logger

__all__ = ["TELL_END", "Entry", "have_the_gone_forgotten", "lookup", "publish"]

logger = get_logger("fastcore.dask")

#: Asks a server for a message when it is about to end.
TELL_END: Final = "fastcore.dask.tell_end"

_KEY: Final = "fastcore.dask"


@dataclass(frozen=True)
class Entry:
    """What is known of a plugin's server in one worker.

    Attributes
    ----------
    address : str or None
        ``'host:port'``; None where it couldn't start, or was stopped.
    tls : bool
        Whether it speaks TLS.
    error : str or None
        Why it couldn't start.
    """

    address: str | None = None
    tls: bool = False
    error: str | None = None


async def publish(worker: Worker, name: str, entry: Entry) -> None:
    """Have the scheduler know of the server that a worker has under a plugin's name."""
    await worker.scheduler.set_metadata(keys=[_KEY, name, worker.address], value=asdict(entry))


class _Forgetter(SchedulerPlugin):
    """Forgets the servers of workers that are gone: metadata stays as long as its scheduler."""

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Forget the servers of all workers that aren't there. Called by Dask, when one was removed."""
        servers = scheduler.get_metadata(keys=[_KEY], default={})
        for name, entries in servers.items():
            # Not only this one's: what a dying worker said may have come after its end.
            servers[name] = {known: entries[known] for known in entries if known in scheduler.workers}


async def have_the_gone_forgotten(worker: Worker) -> None:
    """Have the scheduler of a worker forget the servers of those that are gone."""
    try:
        await worker.scheduler.register_scheduler_plugin(
            plugin=dumps(_Forgetter()), name=_KEY, idempotent=True
        )
    except Exception as error:
        # It has no fastcore. All it costs is some 80 bytes there for each worker that was lost.
        logger.info("the scheduler won't forget the servers of workers that are gone: %r", error)


async def lookup(client: Client, name: str) -> dict[str, Entry]:
    """Ask the scheduler for the servers of a plugin, by the addresses of their workers.

    Called in the loop of the client. Workers that are gone have none.
    """
    scheduler: Any = client.scheduler
    if scheduler is None:
        raise RuntimeError(f"the client is {client.status}, and has no scheduler to ask")
    entries, workers = await asyncio.gather(
        scheduler.get_metadata(keys=[_KEY, name], default={}), scheduler.ncores(workers=None)
    )
    return {worker: Entry(**entries[worker]) for worker in workers if worker in entries}
