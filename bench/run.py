"""Runs pairs of processes, the peers taking turns, and collects what the clients report."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Peer
from bench.results import Cell, Results, about_this_machine
from bench.workloads import MAIN, Workload

ROOT = Path(__file__).parents[1]
CALLS_COUNTED = 1000


class Failed(Exception):
    """A pair of processes gave no figures."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Parameters
    ----------
    repeats : int
        Rounds; each has every peer at every workload once.
    seconds : float
        How long one measured run takes at least.
    patience : float
        Seconds after which a pair is given up.
    core : int
        Where both processes are pinned in the workloads of one core.
    """

    repeats: int = 5
    seconds: float = 1.0
    patience: float = 90.0
    core: int = max(os.sched_getaffinity(0))


@contextmanager
def serving(peer: Peer, core: int, wrapper: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """Run a peer's server in a process; yield its port and process id."""
    command = [*wrapper, sys.executable, "-m", "bench.server", peer.name, str(core)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        # Leaving it closes its standard input, which ends the server, and waits for that.
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise Failed(f"the server didn't start: {last_line(errors.read())}")
            where = json.loads(line)
            yield where["port"], where["pid"]
        except BaseException:
            # It may hang as well, and may not see that its standard input has ended.
            process.kill()
            raise


def measure(
    peer: Peer, workload: Workload, options: Options, count: int = 0, wrapper: Sequence[str] = ()
) -> dict[str, float]:
    """Run one pair once.

    Raises
    ------
    Failed
        When it gives no figures, or not in time.
    """
    core = options.core if workload.one_core else -1
    with serving(peer, core, wrapper) as (port, pid):
        command = [*wrapper, sys.executable, "-m", "bench.client", peer.name, workload.kind]
        command += [str(number) for number in (workload.amount, port, pid)]
        command += [f"--core={core}", f"--seconds={options.seconds}", f"--count={count}"]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=options.patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"over {options.patience:g} s") from None
        if done.returncode:
            raise Failed(last_line(done.stderr))
        figures: dict[str, float] = json.loads(done.stdout)
        return figures


def last_line(text: str) -> str:
    """Take from a process's errors the line that says most."""
    return (text.strip().splitlines() or ["no message"])[-1][:200]


def system_calls(peer: Peer, options: Options) -> float:
    """Count the system calls of one round trip of W1, in both processes.

    Runs under strace, half of them with some calls more: what is left after subtracting is theirs. A busy
    machine only adds to a run, so the fewest of several are those to subtract.
    """
    few, more = (
        min(traced_calls(peer, options, count) for _ in range(options.repeats))
        for count in (CALLS_COUNTED, 2 * CALLS_COUNTED)
    )
    return (more - few) / CALLS_COUNTED


def traced_calls(peer: Peer, options: Options, count: int) -> int:
    """Count the system calls of two processes, from their start to their end."""
    with tempfile.TemporaryDirectory() as folder:
        # With -ff each process, and each thread, has a file of its own.
        wrapper = ["strace", "-ff", "-qq", "-o", f"{folder}/trace"]
        measure(peer, MAIN["W1"], options, count, wrapper)
        return sum(len(p.read_bytes().splitlines()) for p in Path(folder).iterdir())


def can_trace() -> str:
    """Say why system calls can't be counted here: empty when they can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    return last_line(tried.stderr) if tried.returncode else ""


def run(
    peers: Sequence[Peer],
    workloads: Sequence[Workload],
    options: Options,
    progress: Callable[[int, int, str], None],
) -> Results:
    """Measure all that is asked for.

    Parameters
    ----------
    peers, workloads : sequences
        The rows and the columns.
    options : Options
        How to measure.
    progress : callable
        Called with the number of measurements done, of all, and the name of the next one.

    Returns
    -------
    Results
        Complete, but for the peers that it names as skipped and the cells that say why they failed.
    """
    results = Results(about_this_machine())
    results.skipped = {peer.name: lack for peer in peers if (lack := peer.missing())}
    present = [peer for peer in peers if peer.name not in results.skipped]
    pairs = [(p, w) for w in workloads for p in present if w.kind in p.kinds.split()]
    cells = {(p, w): Cell(p.name, w.name) for p, w in pairs}
    results.cells = list(cells.values())

    obstacle = can_trace()
    if obstacle:
        results.skipped["system calls"] = obstacle
    traced = [] if obstacle else [(p, w) for p, w in pairs if w.name == "W1"]
    total = options.repeats * len(pairs) + len(traced)
    done = 0
    for _ in range(options.repeats):
        # In a new order each round: nobody always runs after the same neighbour.
        for peer, workload in random.sample(pairs, len(pairs)):
            progress(done, total, f"{workload.name} {peer.title}")
            cell = cells[peer, workload]
            if not cell.failure:
                try:
                    cell.add(measure(peer, workload, options))
                except Failed as failure:
                    cell.failure = str(failure)
            done += 1
    for peer, workload in traced:
        progress(done, total, f"system calls {peer.title}")
        cell = cells[peer, workload]
        if not cell.failure:
            cell.add({"system_calls": system_calls(peer, options)})
        done += 1
    progress(total, total, "")
    results.about["load after"] = os.getloadavg()[0]
    return results
