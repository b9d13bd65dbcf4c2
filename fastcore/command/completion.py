"""``fastcore completion``: what a shell needs to complete the command's arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from fastcore.command.usage import CommandError

__all__ = ["add_to"]

_SHELLS = ("bash", "zsh", "tcsh")
#: What arguments are called that name a file.
_PATHS = ("FILE", "PROGRAM")


def add_to(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the command to the others, all of which it completes."""
    command = commands.add_parser("completion", help="print what completes arguments in a shell")
    command.add_argument("shell", choices=_SHELLS)
    command.set_defaults(run=lambda arguments: _show(parser, arguments.shell))


def _show(parser: argparse.ArgumentParser, shell: str) -> None:
    try:
        import shtab
    except ImportError:
        raise CommandError("completion needs shtab: pip install 'fastcore-rpc[shtab]'") from None
    for action in _actions(parser):
        if action.metavar in _PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
