"""``fastcore stats``: the figures of a running server, once."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

from fastcore.command.looking import ask, place, title
from fastcore.command.usage import add_server
from fastcore.command.words import describe_bytes, describe_latency, describe_seconds
from fastcore.logs import in_one_line
from fastcore.server.snapshot import Snapshot

__all__ = ["add_to", "aligned", "run"]


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser("stats", help="show the figures of a running server")
    add_server(command, read=place, form="HOST:PORT|URL")
    command.add_argument("--json", action="store_true", help="all of them, as JSON")
    command.set_defaults(run=lambda arguments: asyncio.run(run(arguments)))


async def run(arguments: argparse.Namespace) -> None:
    """Ask, and print."""
    told = await ask(arguments, "stats")
    print(json.dumps(told) if arguments.json else _in_words(title(arguments), told))


def _in_words(where: str, told: Snapshot) -> str:
    lines = [
        f"{where}: {told['health']}, up {describe_seconds(told['uptime'])}",
        f"connections  {told['connections']['open']:,} open, {told['connections']['ever']:,} ever",
        f"messages     {told['messages']['in']:,} in, {told['messages']['out']:,} out",
        f"bytes        {describe_bytes(told['bytes']['in'])} in, {describe_bytes(told['bytes']['out'])} out; "
        f"{describe_bytes(told['buffers'])} in buffers",
        "errors       " + (", ".join(f"{kind} {n:,}" for kind, n in told["errors"].items()) or "none"),
    ]
    for name, worker in told.get("workers", {}).items():
        silent = worker.get("silent", 0)
        how = f"no answer for {describe_seconds(silent)}" if silent else worker["health"]
        lines.append(
            f"worker {name:<5} {how}, process {worker['pid']}, up {describe_seconds(worker['uptime'])}, "
            f"{worker['connections']['open']:,} connections"
        )
    rows = [
        [in_one_line(name), f"{op['count']:,}", f"{op['errors']:,}", *describe_latency(op)]
        for name, op in sorted(told["ops"].items())
    ]
    if rows:
        lines += ["", *aligned([["op", "calls", "errors", "p50", "p99"], *rows])]
    calls = [
        [in_one_line(call["op"]), describe_seconds(call["seconds"]), in_one_line(call["peer"])]
        for call in told["calls"]
    ]
    if calls:
        lines += ["", *aligned([["running", "for", "called from"], *calls])]
    if told["warnings"]:
        lines += ["", "last warnings", *(f"  {in_one_line(line['text'])}" for line in told["warnings"][-5:])]
    return "\n".join(lines)


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Write rows as a table.

    Examples
    --------
    >>> aligned([['op', 'calls'], ['add', '12']])
    ['op   calls', 'add  12']
    """
    rows = [*rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
