"""``fastcore completion``: what a shell needs to complete the command's arguments."""

from __future__ import annotations

import argparse
from typing import Any

from fastcore.command.usage import CommandError

__all__ = ["add_to"]

_SHELLS = ("bash", "zsh", "tcsh")


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
    print(shtab.complete(parser, shell))
