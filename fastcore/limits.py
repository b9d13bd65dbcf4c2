"""How much a peer may ask for: every limit, with its default."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from fastcore.logs import shown

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_BUFFER_SIZE",
    "Limits",
    "check_flag",
    "check_keywords",
    "check_limit",
    "check_seconds",
    "get_total_physical_memory",
    "usable_memory",
]


T = TypeVar("T")


def get_total_physical_memory() -> int:
    """Give the machine's memory in bytes; 2 GB where the system doesn't tell.

    Examples
    --------
    >>> get_total_physical_memory() > 0
    True
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2_000_000_000


def _memory_limit(told: str = "/proc/self/cgroup", mounted: str = "/sys/fs/cgroup") -> int | None:
    """Give what the system lets this process have; None without a limit.

    That is the least that is said of the control group it is in, and of those around that. A container may
    see its own as the outermost one, whatever it is called outside.

    Parameters
    ----------
    told : str
        The file that names the groups of this process.
    mounted : str
        The folder of all groups; those of the first version have one more, below it.
    """
    found = []
    for controllers, group in [*_control_groups(told), ("", "/"), ("memory", "/")]:
        folder, name = ("", "memory.max") if not controllers else ("memory", "memory.limit_in_bytes")
        while True:
            try:
                with open(os.path.join(mounted, folder, group.lstrip("/"), name)) as file:
                    found.append(int(file.read()))
            except (OSError, ValueError):
                # There is no such group here, or no limit: "max".
                pass
            if group in ("", "/"):
                break
            group = os.path.dirname(group)
    return min(found, default=None)


def _control_groups(told: str) -> list[tuple[str, str]]:
    """Give those of this process that may limit its memory, as controllers and path."""
    try:
        with open(told) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, UnicodeError):
        return []
    found = [(line[1], line[2]) for line in lines if len(line) == 3 and ".." not in line[2]]
    return [each for each in found if not each[0] or "memory" in each[0].split(",")]


def usable_memory() -> int:
    """Give the memory in bytes that this process may have: the machine's, or its container's.

    Examples
    --------
    >>> 0 < usable_memory() <= get_total_physical_memory()
    True
    """
    total = get_total_physical_memory()
    return min(total, _memory_limit() or total)


#: The most bytes that a message may have, unless the user says otherwise.
MAX_BUFFER_SIZE = usable_memory() // 2

#: MessagePack's decoder goes no deeper.
MAX_DEPTH = 1024


def check_limit(name: str, value: object, *, whole: bool = False, optional: bool = True) -> None:
    """Raise the error for a limit that makes no sense.

    Parameters
    ----------
    name : str
        The keyword that sets it.
    value : object
        What was given.
    whole : bool
        Whether it counts something: bytes, values, connections.
    optional : bool
        Whether None takes it away.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not (
        hasattr(value, "__index__") if whole else isinstance(value, int | float)
    ):
        kind = "a whole number" if whole else "a number"
        raise TypeError(f"{name} must be {kind}{' or None' if optional else ''}, not {shown(value)}")
    if not value > 0:  # type: ignore[operator]
        raise ValueError(f"{name} must be above 0, not {shown(value)}")
    if whole and value >= 2**63:  # type: ignore[operator]
        raise ValueError(f"{name} must be below 2**63, not {shown(value)}")


def check_flag(name: str, value: object) -> None:
    """Raise the error for what is neither true nor false: ``'no'`` would be taken for yes.

    Examples
    --------
    >>> check_flag('writable_values', 'no')
    Traceback (most recent call last):
        ...
    TypeError: writable_values must be True or False, not 'no'
    """
    if value not in (True, False):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


#: Parameters that are no keywords.
_COLLECTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_seconds(name: str, value: object) -> None:
    """Raise the error for a time to wait that is none; what is over already may be asked for."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = float("nan")
    if seconds != seconds:
        raise ValueError(f"{name} must be a number of seconds, not {shown(value)}")


def check_keywords(function: Callable[..., Any], given: Iterable[str], further: Collection[str]) -> None:
    """Raise the error for a keyword that there isn't, with the one that may be meant.

    Parameters
    ----------
    function : callable
        Whoever was called.
    given : iterable of str
        The keywords that he doesn't name himself.
    further : collection of str
        Those of them that he takes.

    Examples
    --------
    >>> def buy(what, price=None, **options):
    ...     check_keywords(buy, options, ['wrapped'])
    >>> buy('apple', prise=1)
    Traceback (most recent call last):
        ...
    TypeError: buy has no keyword 'prise': did you mean 'price'? There are price, what, wrapped
    """
    for name in given:
        if name not in further:
            own = inspect.signature(function).parameters.values()
            known = sorted({each.name for each in own if each.kind not in _COLLECTS}.union(further))
            close = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {close[0]!r}? There" if close else "there"
            raise TypeError(
                f"{function.__name__} has no keyword {shown(name)}: {meant} are {', '.join(known)}"
            )


def _refuses_others(kind: type[T]) -> type[T]:
    """Have a class tell its keywords to who gives another one."""
    init = kind.__init__
    _, *names = inspect.signature(init).parameters

    @functools.wraps(init)
    def checked(self: T, *args: Any, **keywords: Any) -> None:
        check_keywords(kind, keywords, names)
        init(self, *args, **keywords)

    kind.__init__ = checked  # type: ignore[method-assign, assignment]
    return kind


@_refuses_others
@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost: keywords of ``Server``, ``connect`` and ``rpc``.

    Parameters
    ----------
    max_buffer_size : int
        Most bytes in one incoming message.
    max_header_size : int
        Most bytes in the header of a message.
    max_decompressed_size : int, optional
        Most bytes that a compressed payload may turn into; ``max_buffer_size`` if None.
    max_depth : int
        Most containers inside each other in a message, itself included; 1,024 at most.
    max_values : int
        Most values in a message, its containers and their keys included. Each takes up to some
        70 bytes of memory, however few bytes it had; what takes more, such as a set or a path,
        counts as two to five.
    max_waiting : int
        Bytes of complete messages that wait for somebody to take them before no more
        are received. At least one message always is, and what one system call gives.
    message_timeout : float, optional
        Seconds to finish a message that was begun.
    write_timeout : float, optional
        Seconds in which a peer must read something of what waits for it.
    idle_timeout : float, optional
        Seconds without a byte in either direction, while nobody works for the peer,
        after which the connection is closed.
    handshake_timeout : float, optional
        Seconds to finish the TLS handshake of an accepted connection, and to say who it is
        where the server asks. What ``connect`` makes has until its ``timeout``.
    peer_timeout : float, optional
        Seconds after which a peer whose machine, or the network to it, is silent counts
        as dead; to be found even if nothing is sent. One whose machine is alive and that
        doesn't read isn't dead. None leaves it to the system, which may take hours.

    Examples
    --------
    >>> Limits(max_header_size=1000).max_header_size
    1000
    >>> Limits(max_header_size=-1)
    Traceback (most recent call last):
        ...
    ValueError: max_header_size must be above 0, not -1
    """

    max_buffer_size: int = MAX_BUFFER_SIZE
    max_header_size: int = 64 * 1024
    max_decompressed_size: int | None = None
    max_depth: int = MAX_DEPTH
    max_values: int = 2_000_000
    max_waiting: int = 256 * 1024
    message_timeout: float | None = 600.0
    write_timeout: float | None = 600.0
    idle_timeout: float | None = None
    handshake_timeout: float | None = 60.0
    peer_timeout: float | None = 120.0

    def __post_init__(self) -> None:
        for field in fields(self):
            # Annotations are texts in this file.
            annotation = str(field.type)
            whole, optional = "int" in annotation, "None" in annotation
            check_limit(field.name, getattr(self, field.name), whole=whole, optional=optional)
        if self.max_depth > MAX_DEPTH:
            raise ValueError(
                f"max_depth can be {MAX_DEPTH:,} at most, not {shown(self.max_depth)}: "
                "MessagePack's decoder goes no deeper"
            )

    @classmethod
    def names(cls) -> list[str]:
        """Give the keywords that name a limit."""
        return [field.name for field in fields(cls)]

    @classmethod
    def taken_from(cls, keywords: dict[str, Any]) -> Limits:
        """Make limits of those keywords that name one, and take them out."""
        return cls(**{name: keywords.pop(name) for name in cls.names() if name in keywords})


#: The limits of a stream of which nobody said anything.
DEFAULT_LIMITS = Limits()
