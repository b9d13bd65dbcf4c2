"""``fastcore run-classic``: a program written for ``distributed.core``, on fastcore in its place."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import runpy
import sys
import traceback
from typing import Any

from fastcore.classic import install_as_distributed_core
from fastcore.command.usage import CommandError

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser(
        "run-classic", help="run a program written for distributed.core, on fastcore in its place"
    )
    command.add_argument("-m", dest="is_module", action="store_true", help="PROGRAM is a module's name")
    command.add_argument("program", metavar="PROGRAM")
    command.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its arguments")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run it in this process.

    Raises
    ------
    CommandError
        If there is no such program.
    SystemExit
        As the program ends.
    """
    program = arguments.program
    if not arguments.is_module and not os.path.exists(program):
        raise CommandError(f"there is no file {program!r}")
    install_as_distributed_core()
    _prefer_fork()
    sys.argv = [program, *arguments.arguments]
    try:
        if arguments.is_module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
            runpy.run_path(program, run_name="__main__")
    except Exception as error:
        # Its author wants to read where, as python itself would tell.
        traceback.print_exception(error)
        raise SystemExit(1) from None


def _prefer_fork() -> None:
    """Start processes as it was in 2016 everywhere: they go on with the modules that the program has.

    Whoever has chosen a start method, or chooses one later, has it.
    """
    usual, *others = multiprocessing.get_all_start_methods()
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen is None and usual != "fork" and "fork" in others:
        choose = multiprocessing.set_start_method
        choose("fork")
        # To the program it is a default: as a choice, it would refuse the program's own.
        multiprocessing.set_start_method = functools.partial(choose, force=True)
