"""Clocks and memory of a process, seen from another one. Linux only, like the rest of the runner."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """CPU that all threads of a process have used, in user space and in the kernel."""
    # The kernel's own numbering of per-process CPU clocks; /proc/PID/stat counts in 10 ms only.
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process: now, and the most since `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    now, peak = (int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def forget_peak(pid: int) -> None:
    """Let the peak of a process's memory start again from what it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass
class Meter:
    """Find a count that keeps a workload running for a while, and time that run.

    Parameters
    ----------
    client, server : int
        The two process ids.
    seconds : float
        How long the measured run is to take at least.
    count : int
        A fixed count instead; 0 to look for one.
    """

    client: int
    server: int
    seconds: float
    count: int = 0
    wall: float = 0.0
    client_cpu: float = 0.0
    server_cpu: float = 0.0

    def runs(self) -> Iterator[int]:
        """Yield the count for each run; the last one is the measurement, the first a warm-up."""
        fixed, self.count = self.count, 1
        yield self.count
        self.count = fixed or 1
        while True:
            start = time.perf_counter(), cpu_seconds(self.client), cpu_seconds(self.server)
            yield self.count
            self.wall = time.perf_counter() - start[0]
            self.client_cpu = cpu_seconds(self.client) - start[1]
            self.server_cpu = cpu_seconds(self.server) - start[2]
            if fixed or self.wall >= self.seconds:
                return
            # A little more than what seems to be missing, and never a leap from a cold start.
            self.count *= max(2, min(10, round(1.2 * self.seconds / self.wall)))

    def figures(self, calls: int) -> dict[str, float]:
        """Rates and CPU per call of the measured run, in which *calls* calls were made."""
        client, server = (1e6 * cpu / calls for cpu in (self.client_cpu, self.server_cpu))
        return {
            "rate": calls / self.wall,
            "cpu_us": client + server,
            "client_cpu_us": client,
            "server_cpu_us": server,
        }
