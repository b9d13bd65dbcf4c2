"""``fastcore top``: a running server's figures, live in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any

from fastcore.command.looking import ask, place, title
from fastcore.command.usage import CommandError, add_server, positive, seconds
from fastcore.command.words import describe_bytes, describe_latency, describe_seconds
from fastcore.errors import ConnectionLost
from fastcore.logs import in_one_line
from fastcore.server.figures import OpStats
from fastcore.server.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser("top", help="watch a running server in the terminal")
    add_server(command, read=place, form="HOST:PORT|URL")
    command.add_argument(
        "--every",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="between two looks (default: %(default)g)",
    )
    command.add_argument("-n", "--count", type=positive, help="end after so many looks")
    command.set_defaults(run=lambda arguments: asyncio.run(run(arguments)))


async def run(arguments: argparse.Namespace) -> None:
    """Look again and again, until Ctrl-C.

    Raises
    ------
    CommandError
        If rich isn't installed, or the server doesn't tell at the beginning.
    """
    try:
        from rich.live import Live
    except ImportError:
        raise CommandError("top needs rich: pip install 'fastcore-rpc[rich]'") from None
    from rich.console import Group
    from rich.text import Text

    before, asked = await ask(arguments, "stats"), time.monotonic()
    shown = _table(title(arguments), before, before, 1.0)
    looks = 1
    with Live(shown, auto_refresh=False) as live:
        while arguments.count is None or looks < arguments.count:
            await asyncio.sleep(arguments.every)
            looks += 1
            try:
                told, now = await ask(arguments, "stats"), time.monotonic()
            except (CommandError, ConnectionLost) as error:
                # It may be restarted just now.
                gone = Text(f"{in_one_line(str(error))}; it is tried again", style="red")
                live.update(Group(gone, shown), refresh=True)
                continue
            shown = _table(title(arguments), before, told, now - asked)
            live.update(shown, refresh=True)
            before, asked = told, now


def _table(where: str, before: Snapshot, told: Snapshot, passed: float) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    # What a server says becomes Text, in which rich looks for no markup.
    since = {name: _since(before["ops"].get(name), op) for name, op in told["ops"].items()}
    rate = sum(op.count for op in since.values()) / passed
    head = Text(
        f"{where}: {told['health']}, up {describe_seconds(told['uptime'])}, "
        f"{told['connections']['open']:,} connections, {rate:,.0f} calls/s, {told['running']:,} running, "
        f"{describe_bytes(told['buffers'])} in buffers, {sum(told['errors'].values()):,} errors"
    )
    ops = Table("op", *(f"{name}" for name in ("calls/s", "calls", "p50", "p99", "errors")), expand=True)
    for column in ops.columns[1:]:
        column.justify = "right"
    for name, op in sorted(told["ops"].items()):
        # Where nothing was called in this time, of all time.
        recent = since[name].as_dict() if since[name].count else op
        ops.add_row(
            Text(in_one_line(name)),
            f"{since[name].count / passed:,.0f}",
            f"{op['count']:,}",
            *describe_latency(recent),
            Text(f"{op['errors']:,}", style="red" if op["errors"] else ""),
        )
    parts: list[RenderableType] = [head, ops]
    if told["calls"]:
        running = Table("running", "for", "called from", expand=True)
        for call in told["calls"][:10]:
            running.add_row(
                Text(in_one_line(call["op"])),
                describe_seconds(call["seconds"]),
                Text(in_one_line(call["peer"])),
            )
        parts.append(running)
    parts += [
        Text(in_one_line(line["text"]), style="yellow", overflow="ellipsis") for line in told["warnings"][-5:]
    ]
    return Group(*parts)


def _since(before: dict[str, Any] | None, told: dict[str, Any]) -> OpStats:
    """Give the calls of an op between two looks; a process that was replaced begins anew."""
    old = before["buckets"] if before else {}
    buckets = {bucket: max(0, count - old.get(bucket, 0)) for bucket, count in told["buckets"].items()}
    op = OpStats()
    op.add({"errors": told["errors"], "buckets": buckets})
    return op
