"""The other package named ``fastcore``: both in one folder overwrite each other's files.

It is another project's, known to pip as ``fastcore``. Whichever was installed last has its
``__init__.py`` in the folder that they share. If that is ours, it raises; if it is theirs, or
went with them when they were uninstalled, a line in ``fastcore-rpc.pth`` runs this file when
Python starts, so that whoever asks for one of our names is told. Where there is one of them alone,
nothing of this runs.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import NoReturn

__all__ = ["THEIRS", "explain", "watch"]

#: A module of theirs, and never one of ours: it tells that they are here.
THEIRS = "basics.py"


def explain(folder: str) -> str:
    """Say what has happened in the folder, and what to do.

    Examples
    --------
    >>> explain('/env/fastcore')[:61]
    'two packages share the folder /env/fastcore and overwrite and'
    """
    return (
        f"two packages share the folder {folder} and overwrite and remove each other's files: fastcore-rpc, "
        "and another project's fastcore (fastai's). Give each a virtual environment of its own. "
        "To keep fastcore-rpc here: pip uninstall -y fastcore fastcore-rpc && pip install fastcore-rpc. "
        "To keep the other one: pip uninstall -y fastcore fastcore-rpc && pip install fastcore"
    )


def watch() -> None:
    """Have what has the place of our ``__init__.py`` explain why it has none of our names.

    That is their package, or the bare folder that they have left.
    """
    try:
        theirs = importlib.import_module("fastcore")
    except ImportError:
        return  # it is ours that won, and that has said so
    folder = os.path.dirname(__file__)

    def __getattr__(name: str) -> NoReturn:
        # Their package has a version; it is asked for here where nothing is left of either.
        if name == "__version__" or name in _ours(folder):
            raise ImportError(f"no {name!r} here: {explain(folder)}", name="fastcore")
        # Of others, Python asks here before it looks for a module of that name: their package has many.
        raise AttributeError(f"module 'fastcore' has no attribute {name!r}")

    theirs.__dict__.setdefault("__getattr__", __getattr__)
    # The old name of ours, for `from fastcore.core import rpc`.
    sys.modules.setdefault("fastcore.core", theirs)


def _ours(folder: str) -> set[str]:
    """Our public names, read where they stand: to import them would run a package that isn't whole."""
    with open(os.path.join(folder, "surface.py"), encoding="utf-8") as surface:
        return {"core", *re.findall(r'^    "(\w+)",$', surface.read(), re.MULTILINE)}


if __name__ == "fastcore-rpc.pth":
    watch()
