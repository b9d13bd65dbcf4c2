"""Tracebacks as Python writes them, at a price that a stranger may make a program pay again and again."""

from __future__ import annotations

from functools import lru_cache
from traceback import FrameSummary, StackSummary, TracebackException
from types import TracebackType
from typing import Any

__all__ = ["traceback_of"]


def traceback_of(error: BaseException, most_places: int, first: TracebackType | None = None) -> str:
    """Write what Python itself would, with the source of each place looked up and parsed once.

    Parameters
    ----------
    error : BaseException
        It, and those that led to it.
    most_places : int
        Most places in the program that are told of each of them, those next to the error.
    first : traceback, optional
        From where on it is told; the whole, if None.

    Examples
    --------
    >>> print(traceback_of(ValueError('no such thing'), 10), end='')
    ValueError: no such thing
    """
    first = first or error.__traceback__
    told = TracebackException(type(error), error, first, limit=-most_places, lookup_lines=False, compact=True)
    rest = [told]
    while rest:
        each = rest.pop()
        each.stack = _Places(each.stack)
        rest += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
    return "".join(told.format())


class _Places(StackSummary):
    def format_frame_summary(self, frame_summary: FrameSummary, **_: Any) -> str:
        """Give the lines of one place."""
        place = frame_summary
        return _lines_of(
            place.filename, place.lineno, place.name, place.end_lineno, place.colno, place.end_colno
        )


@lru_cache(maxsize=1024)
def _lines_of(
    filename: str,
    lineno: int | None,
    name: str,
    end_lineno: int | None,
    colno: int | None,
    end_colno: int | None,
) -> str:
    # To find what to underline, Python compiles the line.
    place = FrameSummary(filename, lineno, name, end_lineno=end_lineno, colno=colno, end_colno=end_colno)
    return StackSummary().format_frame_summary(place)
