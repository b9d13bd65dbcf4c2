"""The command ``fastcore``: serve handlers, call them, look at them, run old programs.

What goes wrong is told in one line on stderr, with exit code 1; wrong usage with 2.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from fastcore import __version__
from fastcore.command import call, completion, demo, ops, ping, run_classic, serve, stats, top
from fastcore.command.usage import INTERRUPTED, WRONG_USAGE, Parser, WrongUsage, in_one_line

__all__ = ["main", "parser", "told"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if left out.

    Returns
    -------
    int
        The exit code: 0, 1 after an error that was told, 2 after wrong usage, 130 after Ctrl-C.

    Examples
    --------
    >>> main(['call', '127.0.0.1:1', 'identity', '--timeout', '0.1'])
    1
    """
    given = [*(sys.argv[1:] if argv is None else argv)]
    if not given:
        parser().print_help()
        return 0
    arguments = parser().parse_args(given)
    # Who starts further processes gives them the same.
    arguments.given = given
    if arguments.run is not serve.run:
        logging.basicConfig(
            level=logging.DEBUG if arguments.verbose else logging.WARNING,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
    return told(arguments)


def told(arguments: argparse.Namespace) -> int:
    """Run a command, and tell on stderr what goes wrong.

    Parameters
    ----------
    arguments : argparse.Namespace
        What :func:`parser` has read.

    Returns
    -------
    int
        The exit code.
    """
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads the output has enough, as `head` does. What is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.verbose:
            traceback.print_exc()
        print(f"fastcore: {in_one_line(error)}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, WrongUsage) else 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Make what reads the arguments."""
    made = Parser(prog="fastcore", description="Messages and remote calls over Tornado streams.")
    made.add_argument("--version", action="version", version=f"fastcore {__version__}")
    made.add_argument("-v", "--verbose", action="store_true", help="log all there is, and show tracebacks")
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("demo", help="start a server, talk to it, show what is said")
    command.set_defaults(run=lambda arguments: asyncio.run(demo.show()))
    serve.add_to(commands)
    call.add_to(commands)
    ping.add_to(commands)
    stats.add_to(commands)
    top.add_to(commands)
    ops.add_to(commands)
    run_classic.add_to(commands)
    completion.add_to(commands, made)
    return made
