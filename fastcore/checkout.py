"""A checkout: Python finds its folder before what is installed, and there may be no compiled modules in it.

Nothing of this runs where the package is installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableSequence
from importlib.machinery import EXTENSION_SUFFIXES

__all__ = ["complete"]


def complete(path: MutableSequence[str]) -> None:
    """Let a checkout have the compiled modules that ``pip install .`` made of it.

    Parameters
    ----------
    path : mutable sequence of str
        The ``__path__`` of the package; where compiled modules are is added.

    Raises
    ------
    ImportError
        If there are none for this Python.
    """
    [here] = path
    if _is_compiled(here):
        return
    for folder in _packages():
        if _is_compiled(folder):
            path.append(folder)
            return
    raise ImportError(
        f"the compiled modules of fastcore are not built for this Python; in {os.path.dirname(here)}, run "
        f"{os.path.basename(sys.executable)} -m pip install -e .",
        name="fastcore",
    )


def _packages() -> Iterator[str]:
    for entry in sys.path:
        yield os.path.join(entry or os.getcwd(), "fastcore")


def _is_compiled(folder: str) -> bool:
    try:
        return any(name.endswith(EXTENSION_SUFFIXES[0]) for name in os.listdir(folder))
    except OSError:
        return False
