"""The errors of the floors that know no socket, no loop and no Tornado: what is wrong with bytes.

``errors.py`` has them too, beside those of connections and calls.
"""

from __future__ import annotations

__all__ = [
    "BadFrame",
    "BadMessage",
    "BadValue",
    "BufferMisuse",
    "FastcoreError",
    "FrameTooLarge",
    "TooDeep",
    "TooManyValues",
]


class FastcoreError(Exception):
    """The base of every error that fastcore itself raises.

    Attributes
    ----------
    peer : str or None
        Who said so, where it is an error reply that tells of it: then a limit that it names is
        the peer's, and a keyword one that was given there.
    """

    peer: str | None = None

    @property
    def _there(self) -> str:
        return f" at {self.peer}" if self.peer is not None else ""


class BadFrame(FastcoreError, ValueError):
    """Bytes that are no frame: a header that can't be one, a ``length`` that isn't true.

    It costs the one message. The buffer goes on at the next sentinel.
    """


class FrameTooLarge(BadFrame):
    """A frame, a header or a claimed ``length`` is over its limit.

    Parameters
    ----------
    what : str
        What is too large: ``'frame'``, ``'header'``, ``'decompressed payload'``.
    size : int
        Its size in bytes; where it hasn't arrived whole, the size known so far.
    limit : int
        The limit in bytes.
    keyword : str
        The keyword argument that raises the limit.
    """

    def __init__(self, what: str, size: int, limit: int, keyword: str) -> None:
        super().__init__(what, size, limit, keyword)
        self.what = what
        self.size = size
        self.limit = limit
        self.keyword = keyword

    def __str__(self) -> str:
        there = self._there
        return (
            f"{self.what} of {self.size:,} bytes or more is over the limit of {self.limit:,} bytes{there}; "
            f"raise it{there} with {self.keyword}= if the peer is to be trusted with that much memory"
        )


class BadMessage(FastcoreError, ValueError):
    """A frame came whole, but its header or payload can't be decoded.

    It costs the one message; the connection goes on.
    """


class TooDeep(BadMessage):
    """A message nests its containers deeper than it may.

    Parameters
    ----------
    limit : int
        How deep it may.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        raising = f"raise the limit{self._there} with max_depth="
        return f"a message nests deeper than {self.limit:,} levels; {raising}"


class TooManyValues(BadMessage):
    """A message holds more values than it may.

    Parameters
    ----------
    limit : int
        How many it may hold.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"a message holds more than {self.limit:,} values; raise the limit{self._there} with max_values="
        )


class BadValue(FastcoreError, TypeError, ValueError, OverflowError):
    """A message can't be sent, as it holds a value that MessagePack can't express.

    Nothing of it was sent, and the connection goes on.

    Parameters
    ----------
    path : str
        The way to the value from the message on: ``"['rows'][3]['price']"``, and empty where it
        is the message itself.
    problem : str
        What is wrong with it.
    what : str, optional
        What was to be sent, as far as that is known: ``"the call of 'put'"``.
    name : str
        What the message is called at the beginning of the way.
    """

    def __init__(self, path: str, problem: str, what: str | None = None, name: str = "message") -> None:
        super().__init__(path, problem, what, name)
        self.path = path
        self.problem = problem
        self.what = what
        self.name = name

    def __str__(self) -> str:
        return f"{self.what or 'a message'} can't be sent: {self.name}{self.path} {self.problem}"

    def of(self, what: str, name: str) -> BadValue:
        """Make the same of it, where it is known what was to be sent."""
        return BadValue(self.path, self.problem, what, name)


class BufferMisuse(FastcoreError, RuntimeError):
    """A buffer was used in a way that would corrupt it; it did nothing instead.

    Fed from inside its own callback, prepared twice, committed more than was
    prepared, used by two threads at once.
    """
