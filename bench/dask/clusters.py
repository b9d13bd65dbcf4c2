"""What many small tasks cost a whole cluster by each scheme."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from distributed import Client, LocalCluster

from bench.measure import cpu_seconds

TASKS = 5_000


@contextmanager
def cluster(scheme: str) -> Iterator[Client]:
    """Two worker processes, their nannies, a scheduler and a client."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, protocol=scheme, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        yield client


def plus_one(number: int) -> int:
    return number + 1


def many_tasks(client: Client, workers: list[int]) -> dict[str, float]:
    """Do many tasks that are nearly nothing; seconds, and CPU of scheduler, client and workers."""

    def cpu() -> float:
        return sum(map(cpu_seconds, [os.getpid(), *workers]))

    begun, used = time.perf_counter(), cpu()
    client.gather(client.map(plus_one, range(TASKS), pure=False))
    return {"wall_s": time.perf_counter() - begun, "cpu_s": cpu() - used}


def side_by_side(schemes: list[str], repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Have a cluster of each scheme do the same, in turns."""
    with ExitStack() as stack:
        clients = {scheme: stack.enter_context(cluster(scheme)) for scheme in schemes}
        workers = {scheme: [*client.run(os.getpid).values()] for scheme, client in clients.items()}
        for client in clients.values():
            many_tasks(client, [])
        for number in range(repeats):
            for scheme in schemes if number % 2 else reversed(schemes):
                yield scheme, many_tasks(clients[scheme], workers[scheme])
