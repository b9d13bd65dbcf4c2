"""What a worker is told when it is started, by its parent."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["WorkerArguments"]


class WorkerArguments(NamedTuple):
    """What a worker is told.

    Attributes
    ----------
    name : str
        Which one of the workers it is.
    door, control : int
        Descriptors: where connections come, and what the parent asks.
    listens_on : Any
        The name of the parent's listening socket.
    given : list of str
        The arguments of the command.
    """

    name: str
    door: int
    control: int
    listens_on: Any
    given: list[str]
