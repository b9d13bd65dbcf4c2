"""fastcore: framed messages and remote calls over Tornado streams.

The interface of the classic ``distributed.core``, on today's Python:

- :func:`read`, :func:`write`, :func:`connect`: messages over a stream;
- :class:`Server`: handlers, called by name;
- :class:`fastcore.rpc`, :func:`send_recv`: calling them.

``import fastcore as core`` is the drop-in for ``distributed.core``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import fastcore as core

if TYPE_CHECKING:
    from fastcore.surface import *  # noqa: F403

__version__ = "0.2.0"

_folder = os.path.dirname(__file__)
# Of the other package of this name, which in this folder is overwritten and overwrites.
if os.path.exists(os.path.join(_folder, "basics.py")):
    from fastcore.collision import explain

    raise ImportError(explain(_folder), name=__name__)
# A checkout, where the compiled modules may be elsewhere.
if os.path.exists(os.path.join(os.path.dirname(_folder), "pyproject.toml")):
    from fastcore.checkout import complete

    complete(__path__)  # noqa: F405  # which every package has

# `fastcore.core` is the drop-in under its old name, for `from fastcore.core import rpc` too.
sys.modules["fastcore.core"] = core


def __getattr__(name: str) -> Any:
    """Import the surface when its first name is asked for.

    Whoever imports the framing engine alone, or only the version, gets no Tornado and no
    event loop with it.
    """
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # A statement, so that those who freeze programs read it; not by `from`, which would ask here first.
    import fastcore.surface as surface

    globals().update({public: getattr(surface, public) for public in surface.__all__})
    globals()["__all__"] = [*surface.__all__, "core"]
    try:
        return globals()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *core.__all__})
