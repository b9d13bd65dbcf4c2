"""What a message costs by each scheme: time, CPU of both processes, memory, system calls."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed.comm import Comm
from distributed.protocol import to_serialize

from bench.dask.echo import SMALL, meet
from bench.measure import cpu_seconds, forget_peak, memory
from bench.run import ROOT

KIB, MB = 2**10, 10**6
#: Requests that are traced, and once more.
COUNTED = 500


@dataclass(frozen=True)
class Workload:
    """A message that is sent there and back.

    Parameters
    ----------
    name : str
        What it is, for people.
    arrays, size : int
        How many arrays of how many bytes it has.
    goal : float
        The most of tcp's time.
    """

    name: str
    arrays: int
    size: int
    goal: float

    def message(self) -> dict[str, Any]:
        """Make it: of numbers that don't compress."""
        if not self.arrays:
            return SMALL
        random = np.random.default_rng(1)
        arrays = [random.random(self.size // 8) for _ in range(self.arrays)]
        return {"op": "echo", "data": [to_serialize(array) for array in arrays]}


WORKLOADS = [
    Workload("small request and reply", 0, 0, 0.7),
    Workload("numpy, 1 KiB", 1, KIB, 0.85),
    Workload("numpy, 16 KiB", 1, 16 * KIB, 0.85),
    Workload("numpy, 64 KiB", 1, 64 * KIB, 0.85),
    Workload("numpy, 256 KiB", 1, 256 * KIB, 0.85),
    Workload("numpy, 1 MiB", 1, 1024 * KIB, 1.0),
    Workload("numpy, 10 MB", 1, 10 * MB, 1.0),
    Workload("numpy, 100 MB", 1, 100 * MB, 1.0),
    Workload("100 arrays of 100 KiB", 100, 100 * KIB, 1.05),
    Workload("200 arrays of 100 KiB", 200, 100 * KIB, 1.05),
    Workload("100 arrays of 200 KiB", 100, 200 * KIB, 1.05),
    Workload("200 arrays of 200 KiB", 200, 200 * KIB, 1.05),
]
#: Of how many arrays the receiver's peak is looked at, and how large they are.
PEAKS = {"one array": 1, "two arrays": 2}
PEAK_SIZE = 95 * MB


@dataclass(frozen=True)
class Peer:
    """A server that answers, in a process of its own."""

    address: str
    pid: int


@contextmanager
def serving(scheme: str, folder: Path, wrapper: Sequence[str] = ()) -> Iterator[Peer]:
    """Run a server that answers until the end of the block."""
    command = [*wrapper, sys.executable, "-m", "bench.dask.echo", "serve", scheme, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield Peer(**json.loads(process.stdout.readline()))


async def exchange(comm: Comm, peer: Peer, message: Any, seconds: float, own_pid: int) -> dict[str, float]:
    """Send a message there and back for a while.

    Returns
    -------
    dict
        Microseconds of each: ``wall_us``, and of both processes ``cpu_us``.
    """

    def cpu() -> float:
        return cpu_seconds(peer.pid) + cpu_seconds(own_pid)

    await comm.write(message)
    await comm.read()
    count = 0
    begun, used = time.perf_counter(), cpu()
    while time.perf_counter() < begun + seconds or not count:
        await comm.write(message)
        await comm.read()
        count += 1
    wall, used = time.perf_counter() - begun, cpu() - used
    return {"wall_us": 1e6 * wall / count, "cpu_us": 1e6 * used / count}


async def peak(comm: Comm, peer: Peer, arrays: int) -> float:
    """The most memory of a receiver beyond what it had, in payloads."""
    message = Workload("", arrays, PEAK_SIZE, 0).message() | {"op": "keep"}
    forget_peak(peer.pid)
    before, _ = memory(peer.pid)
    await comm.write(message)
    await comm.read()
    return (memory(peer.pid)[1] - before) / (arrays * PEAK_SIZE)


async def idle(peer: Peer, folder: Path, count: int) -> float:
    """Bytes of a server for each comm that does nothing."""
    # What the first ones need is there for all.
    comms = [await meet(peer.address, folder) for _ in range(20)]
    before, _ = memory(peer.pid)
    comms += [await meet(peer.address, folder) for _ in range(count)]
    after, _ = memory(peer.pid)
    for comm in comms:
        comm.abort()
    return (after - before) / count


def system_calls(scheme: str, folder: Path) -> float:
    """System calls of a small request and its reply, of both processes."""
    totals = []
    for count in (COUNTED, 2 * COUNTED):
        with tempfile.TemporaryDirectory() as traces:
            # With -ff each process, and each thread, has a file of its own.
            strace = ["strace", "-ff", "-qq", "-o", f"{traces}/trace"]
            with serving(scheme, folder, strace) as peer:
                command = [
                    *strace,
                    sys.executable,
                    "-m",
                    "bench.dask.echo",
                    "call",
                    peer.address,
                    str(folder),
                ]
                subprocess.run([*command, str(count)], cwd=ROOT, check=True)
            totals.append(sum(len(path.read_bytes().splitlines()) for path in Path(traces).iterdir()))
    return (totals[1] - totals[0]) / COUNTED
