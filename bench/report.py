"""A run as Markdown and as plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from bench.peers import PEERS
from bench.results import Cell, Results
from bench.workloads import GOALS, LIMITS, MAIN, MIB, WORKLOADS, Limit, Workload

OURS = ("fastcore", "fastcore_uvloop", "fastcore_sync")
INK, PALE = "#b5442e", "#7c93a8"


def markdown(results: Results) -> str:
    """Write the tables, the goals, the losses, and what the figures depend on."""
    parts = [
        "Medians, with the lowest and highest in brackets; server and client in a process each, "
        "loopback. Rates are noisy: what counts is the ratios within a column.",
        *filter(None, [main_table(results)]),
        *section("What fastcore is to reach", goals(results)),
        *section("Where fastcore loses", losses(results)),
        *section("Beside the headlines", side_table(results)),
        *section("Growth", growth_table(results)),
        *section("Conditions", conditions(results)),
    ]
    return "\n\n".join(parts) + "\n"


def section(title: str, body: str) -> list[str]:
    """Put a heading over a body; nothing over none."""
    return [f"## {title}", body] if body else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; empty without rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + "---|" * len(head)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *lines]) if lines else ""


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def shown(cell: Cell | None, figure: str = "", scale: float = 1) -> str:
    """Write a cell's figure with its spread, or why there is none."""
    if cell is None:
        return ""
    values = cell.figures.get(figure or WORKLOADS[cell.workload].figure)
    if not values:
        return cell.failure
    median = cell.median(figure)
    assert median is not None
    middle, low, high = (number(scale * value) for value in (median, min(values), max(values)))
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def columns(results: Results, wanted: Iterable[Workload]) -> list[Workload]:
    """Keep the workloads that were measured."""
    measured = {cell.workload for cell in results.cells}
    return [workload for workload in wanted if workload.name in measured]


def rows(results: Results, workloads: Sequence[Workload]) -> list[str]:
    """Keep the peers that took part in some of the workloads."""
    names = {workload.name for workload in workloads}
    return [p for p in PEERS if any(c.peer == p and c.workload in names for c in results.cells)]


def grid(results: Results, workloads: Sequence[Workload]) -> str:
    """Write the headline figures: peers down, workloads across."""
    head = ["", *(f"{workload.name} {workload.title}" for workload in workloads)]
    return table(
        head,
        (
            [
                f"**{PEERS[peer].title}**" if peer in OURS else PEERS[peer].title,
                *(shown(results.cell(peer, workload.name)) for workload in workloads),
            ]
            for peer in rows(results, workloads)
        ),
    )


def main_table(results: Results) -> str:
    """Write the workloads that have a name of their own."""
    return grid(results, columns(results, MAIN.values()))


def growth_table(results: Results) -> str:
    """Write the growth rows: one measured thing a line, since there are many and few peers."""
    workloads = columns(results, (w for w in WORKLOADS.values() if w.name not in MAIN))
    peers = rows(results, workloads)
    lines = [
        [workload.title, *(shown(results.cell(peer, workload.name)) for peer in peers)]
        for workload in workloads
    ]
    lines += [
        [
            f"{w.title.partition(':')[0]}: CPU ns per KiB",
            *(shown(results.cell(p, w.name), "cpu_ns_per_kib") for p in peers),
        ]
        for w in workloads
        if w.kind == "sizes"
    ]
    lines += [
        ["W1 beside them: x of W1 alone", *(shown(results.cell(p, w.name), "slowdown") for p in peers)]
        for w in workloads
        if w.kind == "idle"
    ]
    return table(["", *(PEERS[peer].title for peer in peers)], lines)


def side_table(results: Results) -> str:
    """Write CPU, system calls and memory."""
    if not columns(results, MAIN.values()):
        return ""
    head = ["", "W1 system calls per round trip", "W2 CPU µs per call", "W3 CPU µs per message"]
    head += ["W4 CPU ms per round trip", "W4 client's peak, MiB over its start", "W4 server's peak"]
    head += ["W5 CPU µs per round trip", "W6 CPU µs per call", "W7 CPU µs per value"]
    head += ["W8 CPU µs per value", "W9 CPU µs per message"]
    wanted = [("W1", "system_calls", 1.0), ("W2", "cpu_us", 1.0), ("W3", "cpu_us", 1.0)]
    wanted += [("W4", "cpu_us", 1e-3), ("W4", "client_peak", 1 / MIB), ("W4", "server_peak", 1 / MIB)]
    wanted += [(name, "cpu_us", 1.0) for name in ("W5", "W6", "W7", "W8", "W9")]
    return table(
        head,
        (
            [
                PEERS[peer].title,
                *(shown(results.cell(peer, name), figure, scale) for name, figure, scale in wanted),
            ]
            for peer in rows(results, list(MAIN.values()))
        ),
    )


def goals(results: Results) -> str:
    """Write what fastcore is to reach, and what it does."""
    lines = []
    for goal in GOALS:
        ratios = [
            results.ratio(peer, goal.workload, goal.beside or peer, goal.than)
            if goal.who in ("", peer)
            else None
            for peer in OURS
        ]
        bound = "at most" if MAIN[goal.workload].lower else "at least"
        other = PEERS[goal.beside].title if goal.beside else f"its own {goal.than}"
        wanted = f"{bound} {goal.must}x of {other}, aim {goal.aim}x"
        lines.append([goal.workload, wanted, *(f"{ratio:.2f}x" if ratio else "" for ratio in ratios)])
    for limit in LIMITS:
        values = [kept(results, limit, peer) for peer in OURS]
        shown = [number(value) if value is not None else "" for value in values]
        lines.append([limit.workload, f"{limit.title}: at most {number(limit.most)}", *shown])
    head = ["", "wanted", *(PEERS[peer].title for peer in OURS)]
    return table(head, [line for line in lines if any(line[2:])])


def kept(results: Results, limit: Limit, peer: str) -> float | None:
    """Return what a peer has where there is a limit: None where it can't be told."""
    value = results.median(peer, limit.workload, limit.figure)
    base = results.median(limit.over, limit.workload, limit.figure) if limit.over else 0.0
    unit = results.median(peer, limit.than, limit.figure) if limit.than else limit.unit
    return (value - base) / unit if value is not None and base is not None and unit else None


def losses(results: Results) -> str:
    """List the peers, floors aside, that beat fastcore on the same kind of event loop or none."""
    lines = []
    for workload in columns(results, WORKLOADS.values()):
        for peer in rows(results, [workload]):
            first = next((ours for ours in OURS if results.cell(ours, workload.name)), "fastcore")
            ratio = results.ratio(first, workload.name, peer)
            if ratio is None or peer in OURS:
                continue
            if (ratio > 1) if workload.lower else (ratio < 1):
                lines.append(f"- {workload.name}: {ratio:.2f}x of {PEERS[peer].title}")
    return "\n".join(lines)


def conditions(results: Results) -> str:
    """Write what the figures depend on, and who could not take part."""
    lines = [
        f"- {name}: {value:.2f}" if isinstance(value, float) else f"- {name}: {value}"
        for name, value in results.about.items()
        if name != "versions"
    ]
    versions = ", ".join(f"{name} {number}" for name, number in results.about["versions"].items())
    lines.append(f"- versions: {versions}")
    lines += [f"- skipped {name}: lacks {lack}" for name, lack in results.skipped.items()]
    return "\n".join(lines)


def bars(axes: Axes, results: Results, workload: Workload) -> None:
    """Draw one workload: a bar for each peer, whiskers from lowest to highest."""
    cells = [results.cell(peer, workload.name) for peer in rows(results, [workload])]
    drawn = [(cell, cell.figures[workload.figure]) for cell in cells if cell and cell.median()]
    drawn.sort(key=lambda pair: pair[0].median() or 0, reverse=not workload.lower)
    titles = [PEERS[cell.peer].title for cell, _ in drawn]
    medians = [cell.median() or 0 for cell, _ in drawn]
    below = [median - min(values) for median, (_, values) in zip(medians, drawn, strict=True)]
    above = [max(values) - median for median, (_, values) in zip(medians, drawn, strict=True)]
    colors = [INK if cell.peer in OURS else PALE for cell, _ in drawn]
    axes.barh(titles, medians, xerr=(below, above), color=colors, ecolor="#333333", capsize=2)
    axes.invert_yaxis()
    axes.set_title(f"{workload.name}  {workload.title}", loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def curves(axes: Axes, results: Results, kind: str, title: str) -> None:
    """Draw a growth row: a line for each peer over the amounts."""
    workloads = columns(results, (w for w in WORKLOADS.values() if w.kind == kind))
    for peer in rows(results, workloads):
        points = [(w.amount, results.median(peer, w.name)) for w in workloads]
        known = [(amount, value) for amount, value in points if value is not None]
        color = INK if peer in OURS else None
        axes.plot(*zip(*known, strict=True), marker="o", color=color, label=PEERS[peer].title)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def plot(results: Results, stem: Path) -> list[Path]:
    """Draw the bars of the main workloads and the curves of growth; return the files written."""
    written = []
    main = columns(results, MAIN.values())
    if main:
        figure, grid = pyplot.subplots(len(main), 1, figsize=(9, 3.4 * len(main)), squeeze=False)
        for axes, workload in zip(grid[:, 0], main, strict=True):
            bars(axes, results, workload)
        written.append(stem.with_name(f"{stem.name}.svg"))
        figure.tight_layout()
        figure.savefig(written[-1])
        pyplot.close(figure)
    growth = {
        "busy": "CPU µs per call over busy connections",
        "sizes": "echo, MB/s over bytes",
    }
    kinds = [kind for kind in growth if any(WORKLOADS[c.workload].kind == kind for c in results.cells)]
    if kinds:
        figure, grid = pyplot.subplots(1, len(kinds), figsize=(6 * len(kinds), 4), squeeze=False)
        for axes, kind in zip(grid[0], kinds, strict=True):
            curves(axes, results, kind, growth[kind])
        written.append(stem.with_name(f"{stem.name}-growth.svg"))
        figure.tight_layout()
        figure.savefig(written[-1])
        pyplot.close(figure)
    return written


def write(results: Results, stem: Path) -> list[Path]:
    """Write the Markdown and the plots beside a result file; return the files written."""
    text = stem.with_name(f"{stem.name}.md")
    text.write_text(markdown(results))
    return [text, *plot(results, stem)]


def put_into(page: Path, name: str, text: str) -> None:
    """Put a report into a page, between two comments that name it."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.read_text().partition(first)
    _, found, after = rest.partition(last)
    if not found:
        raise ValueError(f"{page} has no place for the report: it needs the lines {first} and {last}")
    page.write_text(f"{before}{first}\n\n{text}\n{last}{after}")
