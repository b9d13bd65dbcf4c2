"""fastcore beside today's Dask: servers inside of its workers, handlers that run as its tasks.

Needs the extra ``dask``. Importing this room costs nothing; what needs ``distributed`` is
imported when it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcore.dask.calling import WorkerLost, rpc
    from fastcore.dask.tasks import on_cluster
    from fastcore.dask.workers import ServerPlugin, addresses

__all__ = ["ServerPlugin", "WorkerLost", "addresses", "on_cluster", "rpc"]

_homes = {
    "ServerPlugin": "fastcore.dask.workers",
    "WorkerLost": "fastcore.dask.calling",
    "addresses": "fastcore.dask.workers",
    "on_cluster": "fastcore.dask.tasks",
    "rpc": "fastcore.dask.calling",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(_homes[name]), name)
    except ImportError as error:
        package = sys.modules.get("distributed")
        if package is not None and getattr(package, "__file__", None) is None:
            why = "install_as_distributed_core() stands in this process for the distributed that it needs"
        elif error.name in ("dask", "distributed") and isinstance(error, ModuleNotFoundError):
            why = f"it needs {error.name}: pip install 'fastcore-rpc[dask]'"
        else:
            raise
        raise ImportError(f"no fastcore.dask.{name} here: {why}", name=error.name) from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
