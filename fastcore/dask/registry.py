"""Which worker of a cluster has which server: kept by the scheduler, as metadata.

Not asked of the workers: one whose machine has vanished would keep everybody waiting, and one that
computes answers late. The scheduler knows at once, and who of them is still there.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any, Final

from distributed import Client, Worker

__all__ = ["TELL_END", "Entry", "lookup", "publish"]

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
