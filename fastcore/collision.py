"""The other package named ``fastcore``: both in one folder overwrite each other's files.

It is another project's, known to pip as ``fastcore``. Whichever was installed last has its
``__init__.py`` in the folder that they share. If that is ours, it raises; if it is theirs, a
line in ``fastcore-rpc.pth`` runs this file when Python starts, so that whoever asks their
package for one of our names is told. Where there is one of them alone, nothing of this runs.
"""

from __future__ import annotations

import importlib
import os
from typing import NoReturn

__all__ = ["THEIRS", "explain", "watch"]

#: A module of theirs, and never one of ours: it tells that they are here.
THEIRS = "basics.py"


def explain(folder: str) -> str:
    """Say what has happened in the folder, and what to do.

    Examples
    --------
    >>> explain('/env/fastcore')[:61]
    'two packages share the folder /env/fastcore and overwrite eac'
    """
    return (
        f"two packages share the folder {folder} and overwrite each other's files: fastcore-rpc, and "
        "another project's fastcore (fastai's). Give each a virtual environment of its own. "
        "To keep fastcore-rpc here: pip uninstall -y fastcore fastcore-rpc && pip install fastcore-rpc. "
        "To keep the other one: pip uninstall -y fastcore fastcore-rpc && pip install fastcore"
    )


def watch() -> None:
    """Have their package, where it won, explain why it has none of our names."""
    try:
        theirs = importlib.import_module("fastcore")
    except ImportError:
        return  # it is ours that won, and that has said so

    def __getattr__(name: str) -> NoReturn:
        # Python and its tools look for such names anywhere.
        if name.startswith("_"):
            raise AttributeError(f"module 'fastcore' has no attribute {name!r}")
        raise ImportError(f"no {name!r} here: {explain(os.path.dirname(__file__))}", name="fastcore")

    theirs.__dict__.setdefault("__getattr__", __getattr__)


if __name__ == "fastcore-rpc.pth":
    watch()
