"""How long those wait for the answer who guess."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

__all__ = ["Penalties", "origin"]

#: Failures of one address that cost nothing: a wrong setting should be told of at once.
_FREE_FAILURES: Final = 3
#: Seconds for the next one; each further one takes twice as long, up to the longest. That is
#: less than callers wait for a connection, so that they get the reason.
_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 2.0
#: Seconds without a failure after which all is forgotten.
_FORGET_AFTER: Final = 60.0
#: Addresses that are remembered.
_MAX_ADDRESSES: Final = 1024


class Penalties:
    """The failures of addresses, as far as they are recent.

    Parameters
    ----------
    clock : callable
        Gives seconds.

    Examples
    --------
    >>> penalties = Penalties()
    >>> [penalties.failed('192.0.2.1') for _ in range(6)]
    [0.0, 0.0, 0.0, 0.1, 0.2, 0.4]
    >>> penalties.failed('192.0.2.2')
    0.0
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: How often an address failed, and when last; who failed last is last.
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def failed(self, address: str) -> float:
        """Count a failure, and give the seconds for which its answer is held back."""
        now = self._clock()
        count, last = self._failures.pop(address, (0, now))
        count = 1 if now - last > _FORGET_AFTER else count + 1
        self._failures[address] = count, now
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        # Bounded before it is a power, which has no end.
        doublings = count - _FREE_FAILURES - 1
        return min(_FIRST_DELAY * 2.0 ** min(doublings, 30), _MAX_DELAY) if doublings >= 0 else 0.0


def origin(name: object) -> str:
    """Tell whom a failure is counted for: an address, or for IPv6 what one subscriber has of them.

    Parameters
    ----------
    name : object
        As a socket's ``getpeername`` gives it.

    Examples
    --------
    >>> origin(('192.0.2.1', 4711)), origin(('2001:db8:1:2:3::4', 4711, 0, 0)), origin('')
    ('192.0.2.1', '2001:db8:1:2::/64', 'unix')
    """
    if not isinstance(name, tuple) or not isinstance(name[0], str):
        # All programs of this machine.
        return "unix"
    address = ip_address(name[0].partition("%")[0])
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
