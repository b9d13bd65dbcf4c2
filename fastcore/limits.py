"""How much a peer may ask for: every limit, with its default."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_BUFFER_SIZE",
    "Limits",
    "check_limit",
    "get_total_physical_memory",
    "usable_memory",
]


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


def _memory_limit() -> int | None:
    """Give what the system lets this process have, where it is in a container; None without a limit."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                text = file.read().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None


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


def check_limit(name: str, value: object) -> None:
    """Raise the error for a limit that makes no sense; None is no limit."""
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")


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
        Most containers inside each other in a message, itself included.
    max_values : int
        Most values in a message, its containers and their keys included. Each takes up to some
        70 bytes of memory, however few bytes it had.
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
            check_limit(field.name, getattr(self, field.name))

    @classmethod
    def taken_from(cls, keywords: dict[str, Any]) -> Limits:
        """Make limits of those keywords that name one, and take them out."""
        return cls(
            **{field.name: keywords.pop(field.name) for field in fields(cls) if field.name in keywords}
        )


#: The limits of a stream of which nobody said anything.
DEFAULT_LIMITS = Limits()
