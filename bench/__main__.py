"""fastcore beside its peers: measure, report, compare two runs.

python -m bench run --short                       a few minutes: the peers that say most
python -m bench run                               all peers, and growth
python -m bench report bench/results/peers.json   Markdown and plots again; --into puts it into a page
python -m bench compare OLD.json NEW.json         exit 1 where NEW is worse
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.peers import PEERS
from bench.results import Results, regressions
from bench.run import Options, run
from bench.workloads import GROWTH, HUGE, MAIN, WORKLOADS

SHORT = (
    "fastcore,fastcore_uvloop,fastcore_sync,blocking_by_hand,echo_c,blocking,blocking_batched,blocking_ids,"
    "uvloop_protocol,uvloop_ids,asyncio_protocol,asyncio_ids,tornado_classic"
)
FOLDER = Path(__file__).with_name("results")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    top = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = top.add_subparsers(required=True)

    measure = commands.add_parser("run", help="measure")
    measure.add_argument("--peers", metavar="A,B", help=f"of {', '.join(PEERS)}")
    measure.add_argument("--workloads", metavar="A,B", help=f"of {', '.join(WORKLOADS)}")
    measure.add_argument("--short", action="store_true", help="W1 to W10, few peers, short repeats")
    measure.add_argument("--huge", action="store_true", help="the 3 GiB echo too: 12 GiB of memory")
    for option in fields(Options):
        measure.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    measure.add_argument("--out", type=Path, metavar="STEM", help="results/peers or results/short")
    measure.set_defaults(action=do_run)

    report = commands.add_parser("report", help="write Markdown and plots of a result file")
    report.add_argument("file", type=Path)
    report.add_argument(
        "--into", type=Path, metavar="PAGE", help="between <!-- peers --> and <!-- /peers -->"
    )
    report.set_defaults(action=do_report)

    compare = commands.add_parser("compare", help="exit 1 where a newer file is worse")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    compare.add_argument("--peer", default="fastcore", choices=PEERS)
    compare.add_argument("--beside", default="asyncio_protocol", choices=PEERS)
    compare.add_argument("--tolerance", type=float, default=0.15, metavar="PART")
    compare.set_defaults(action=do_compare)
    return top


def do_run(options: argparse.Namespace) -> int:
    """Measure, save, report."""
    peers = options.peers or (SHORT if options.short else ",".join(PEERS))
    wanted = options.workloads or ",".join(MAIN if options.short else MAIN | GROWTH)
    wanted += f",{HUGE.name}" if options.huge else ""
    try:
        rows = [PEERS[name] for name in peers.split(",")]
        workloads = [WORKLOADS[name] for name in wanted.split(",")]
    except KeyError as unknown:
        print(f"python -m bench: no peer and no workload is called {unknown}", file=sys.stderr)
        return 2
    for peer in rows:
        if lack := peer.missing():
            print(f"skipping {peer.title}: lacks {lack}")
    how = Options(**{option.name: getattr(options, option.name) for option in fields(Options)})
    with Progress(
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    ) as bar:
        task = bar.add_task("starting")
        results = run(
            rows,
            workloads,
            how,
            lambda done, total, text: bar.update(task, completed=done, total=total, description=text),
        )
    stem = options.out or FOLDER / ("short" if options.short else "peers")
    results.save(stem.with_name(f"{stem.name}.json"))
    return show(results, stem)


def do_report(options: argparse.Namespace) -> int:
    """Report on an earlier run."""
    return show(Results.load(options.file), options.file.with_suffix(""), options.into)


def show(results: Results, stem: Path, page: Path | None = None) -> int:
    """Write the report, and print its Markdown."""
    from bench import report

    written = report.write(results, stem)
    if page is not None:
        report.put_into(page, stem.name, written[0].read_text())
        written.append(page)
    print(written[0].read_text())
    print("written:", ", ".join(str(path) for path in written))
    return 0


def do_compare(options: argparse.Namespace) -> int:
    """Say what got worse."""
    old, new = Results.load(options.old), Results.load(options.new)
    worse = regressions(old, new, options.peer, options.beside, options.tolerance)
    print("\n".join(worse) or "nothing got worse")
    return 1 if worse else 0


if __name__ == "__main__":
    options = parser().parse_args()
    sys.exit(options.action(options))
