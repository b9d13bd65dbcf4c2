"""The command ``fastcore`` as a program beside the test."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.support import Program


def fastcore(*arguments: str, **options: Any) -> Program:
    return Program("-m", "fastcore", *arguments, **options)


@contextmanager
def serving(folder: Path, *arguments: str, target: str = "shop:handlers") -> Iterator[tuple[Program, str]]:
    """The program, and the line that says where it serves; it ends well."""
    with fastcore("serve", target, *arguments, cwd=folder) as program:
        yield program, program.line()
        program.send(signal.SIGTERM)
        assert program.wait() == 0, program.errors


@contextmanager
def served_at(folder: Path, *arguments: str, target: str = "shop:handlers") -> Iterator[str]:
    """The address of a server that is served meanwhile."""
    with serving(folder, *arguments, target=target) as (_, line):
        yield line.rpartition(" ")[2]
