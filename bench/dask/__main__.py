"""python -m bench.dask [--repeats N] [--seconds S] [--out STEM] [--into PAGE]

Messages of Dask over ``fastcore://`` and ``fastcores://`` beside ``tcp://`` and ``tls://``, and the work of a
cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import distributed

from bench.dask import clusters
from bench.dask.comms import PEAKS, WORKLOADS, exchange, idle, peak, serving, system_calls
from bench.dask.echo import make_certificates, meet
from bench.report import conditions, number, put_into, table
from bench.results import Cell, Results, about_this_machine
from bench.run import can_trace

#: Each scheme of fastcore, and whose place it takes.
PAIRS = {"fastcore": "tcp", "fastcores": "tls"}
SCHEMES = [scheme for pair in PAIRS.items() for scheme in pair]
IDLE = 1_000


async def measure_comms(results: Results, options: argparse.Namespace, folder: Path) -> None:
    """Measure what is one comm's, the schemes in turns."""
    with ExitStack() as stack:
        peers = {scheme: stack.enter_context(serving(scheme, folder)) for scheme in SCHEMES}
        comms = {scheme: await meet(peer.address, folder) for scheme, peer in peers.items()}
        for workload in WORKLOADS:
            print(workload.name, flush=True)
            message = workload.message()
            cells = {scheme: cell(results, scheme, workload.name) for scheme in SCHEMES}
            for turn in range(options.repeats):
                for scheme in SCHEMES if turn % 2 else reversed(SCHEMES):
                    figures = await exchange(
                        comms[scheme], peers[scheme], message, options.seconds, os.getpid()
                    )
                    cells[scheme].add(figures)
        for name, arrays in PEAKS.items():
            for scheme in SCHEMES:
                for _ in range(3):
                    cell(results, scheme, name).add(
                        {"payloads": await peak(comms[scheme], peers[scheme], arrays)}
                    )
        for comm in comms.values():
            await comm.close()
    for scheme in SCHEMES:
        with serving(scheme, folder) as peer:
            cell(results, scheme, "idle").add({"bytes": await idle(peer, folder, IDLE)})


def cell(results: Results, scheme: str, workload: str) -> Cell:
    """Find a cell, or make it."""
    found = results.cell(scheme, workload)
    if found is None:
        found = Cell(scheme, workload)
        results.cells.append(found)
    return found


def measure(options: argparse.Namespace) -> Results:
    """Measure all."""
    results = Results(about_this_machine())
    results.about["command"] = f"python -m bench.dask --repeats {options.repeats} --seconds {options.seconds}"
    results.about["versions"]["distributed"] = distributed.__version__
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        asyncio.run(measure_comms(results, options, folder))
        if obstacle := can_trace():
            results.skipped["system calls"] = obstacle
        else:
            for scheme in SCHEMES:
                cell(results, scheme, "system calls").add({"calls": system_calls(scheme, folder)})
    print(f"{clusters.TASKS:,} tasks", flush=True)
    for scheme, figures in clusters.side_by_side(["fastcore", "tcp"], options.repeats):
        cell(results, scheme, "tasks").add(figures)
    results.about["load after"] = os.getloadavg()[0]
    return results


def markdown(results: Results) -> str:
    """Write what was found, and where fastcore is behind."""
    parts = [
        "Medians, with the lowest and highest in brackets; both ends in a process each, loopback, the "
        "schemes in turns. Time is noisy where others have work too: CPU of both processes stands beside it.",
        "## A message there and back",
        messages(results),
        "## Beside that",
        beside(results),
        "## A cluster's work",
        work(results),
        "## Conditions",
        conditions(results),
    ]
    return "\n\n".join(parts) + "\n"


def shown(results: Results, scheme: str, workload: str, figure: str) -> str:
    """Write a figure with its spread."""
    values = found.figures.get(figure) if (found := results.cell(scheme, workload)) else None
    if not values:
        return ""
    middle, low, high = map(number, (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def ratio(results: Results, scheme: str, workload: str, figure: str) -> float:
    """Divide a figure by that of the scheme whose place ours takes."""
    ours, theirs = (results.median(name, workload, figure) for name in (scheme, PAIRS[scheme]))
    assert ours is not None
    assert theirs
    return ours / theirs


def against(value: float, goal: float) -> str:
    """Write a ratio; in bold where it isn't what is wanted."""
    return f"{value:.2f}" if value <= goal else f"**{value:.2f}**"


def messages(results: Results) -> str:
    """Write the workloads, one a line."""
    head = ["", "tcp: µs", "fastcore: µs", "x of tcp's time", "wanted", "x of its CPU"]
    head += ["tls: µs", "fastcores: µs", "x of tls's time", "wanted", "x of its CPU"]
    lines = []
    for workload in WORKLOADS:
        line = [workload.name]
        for ours, theirs in PAIRS.items():
            goal = workload.goal if theirs == "tcp" else 1.1
            line += [shown(results, scheme, workload.name, "wall_us") for scheme in (theirs, ours)]
            line += [against(ratio(results, ours, workload.name, "wall_us"), goal), f"{goal}"]
            line += [f"{ratio(results, ours, workload.name, 'cpu_us'):.2f}"]
        lines.append(line)
    return table(head, lines)


def beside(results: Results) -> str:
    """Write memory and system calls."""
    order = [scheme for ours, theirs in PAIRS.items() for scheme in (theirs, ours)]
    rows = {
        "system calls of a small request and its reply, both ends; 8 are wanted": ("system calls", "calls"),
        "receiver's peak for one array of 95 MB, in payloads; 1.05 are wanted": ("one array", "payloads"),
        "receiver's peak for two of them": ("two arrays", "payloads"),
        f"server's bytes for each of {IDLE:,} idle comms": ("idle", "bytes"),
    }
    return table(
        ["", *order],
        ([name, *(shown(results, scheme, *figure) for scheme in order)] for name, figure in rows.items()),
    )


def work(results: Results) -> str:
    """Write what the tasks took."""
    rows = {"seconds": ("wall_s", 1.1), "CPU seconds of all processes": ("cpu_s", 0.9)}
    return table(
        [f"{clusters.TASKS:,} tasks of nearly nothing, two workers", "tcp", "fastcore", "ratio", "wanted"],
        (
            [
                name,
                *(shown(results, scheme, "tasks", figure) for scheme in ("tcp", "fastcore")),
                against(ratio(results, "fastcore", "tasks", figure), goal),
                f"{goal}",
            ]
            for name, (figure, goal) in rows.items()
        ),
    )


def main() -> None:
    """Measure, save, report."""
    top = argparse.ArgumentParser(
        prog="python -m bench.dask", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    top.add_argument("--repeats", type=int, default=9)
    top.add_argument("--seconds", type=float, default=0.3, help="of each measured run")
    top.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "dask")
    top.add_argument("--into", type=Path, metavar="PAGE", help="between <!-- dask --> and <!-- /dask -->")
    options = top.parse_args()
    results = measure(options)
    results.save(options.out.with_suffix(".json"))
    text = markdown(results)
    options.out.with_suffix(".md").write_text(text)
    if options.into is not None:
        put_into(options.into, "dask", text)
    print(text)


if __name__ == "__main__":
    main()
