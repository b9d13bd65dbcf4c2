"""``fastcore ops``: which ops a server has, and how they are called."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from fastcore.command.looking import ask, place
from fastcore.command.usage import add_server
from fastcore.logs import in_one_line

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser("ops", help="show which ops a server has, and how they are called")
    add_server(command, read=place, form="HOST:PORT|URL")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=lambda arguments: asyncio.run(run(arguments)))


async def run(arguments: argparse.Namespace) -> None:
    """Ask, and print."""
    told = await ask(arguments, "ops")
    if arguments.json:
        print(json.dumps(told))
        return
    for op in told:
        print(in_one_line(op["op"] + op["signature"]))
        if op["doc"]:
            print(f"    {in_one_line(op['doc'])}")
