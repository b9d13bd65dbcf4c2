"""How much a peer may ask for: every limit, with its default."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "MAX_BUFFER_SIZE", "Limits", "get_total_physical_memory"]


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


#: The most bytes that a message may have, unless the user says otherwise.
MAX_BUFFER_SIZE = get_total_physical_memory() // 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost.

    Parameters
    ----------
    max_buffer_size : int
        Most bytes in one incoming message.
    max_header_size : int
        Most bytes in the header of a message.
    max_decompressed_size : int, optional
        Most bytes that a compressed payload may turn into; ``max_buffer_size`` if None.
    """

    max_buffer_size: int = MAX_BUFFER_SIZE
    max_header_size: int = 64 * 1024
    max_decompressed_size: int | None = None


#: The limits of a stream of which nobody said anything.
DEFAULT_LIMITS = Limits()
