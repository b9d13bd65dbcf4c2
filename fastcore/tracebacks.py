"""Tracebacks as Python writes them, at a price that a stranger may make a program pay again and again."""

from __future__ import annotations

from functools import lru_cache
from traceback import FrameSummary, StackSummary, TracebackException
from types import TracebackType
from typing import Any, Final

__all__ = ["traceback_of"]

#: Most exceptions that are told with the one that they led to: each costs as much as a call or more.
_MAX_EXCEPTIONS: Final = 50


class _Alone(Exception):
    """Stands for an exception whose story would be too long: what it says, and nothing of the others."""


def traceback_of(error: BaseException, most_places: int | None, first: TracebackType | None = None) -> str:
    """Write what Python itself would, with the source of each place looked up and parsed once.

    Parameters
    ----------
    error : BaseException
        It, and those that led to it, unless they are many.
    most_places : int, optional
        Most places in the program that are told of each of them, those next to the error; all, if None.
    first : traceback, optional
        From where on it is told; the whole, if None.

    Examples
    --------
    >>> print(traceback_of(ValueError('no such thing'), 10), end='')
    ValueError: no such thing
    """
    first = first or error.__traceback__
    limit = None if most_places is None else -most_places
    shown = error if _are_few(error) else _alone(error)
    told = TracebackException(type(error), shown, first, limit=limit, lookup_lines=False, compact=True)
    rest = [told]
    while rest:
        each = rest.pop()
        each.stack = _Places(each.stack)
        rest += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
    return "".join(told.format())


def _are_few(error: BaseException) -> bool:
    """Whether it is soon told what led to an error, and what is in it."""
    # Kept, as some are made when they are asked for, and then let go.
    seen: dict[int, BaseException] = {}
    rest: list[BaseException | None] = [error]
    while rest and len(seen) <= _MAX_EXCEPTIONS:
        each = rest.pop()
        if each is not None and id(each) not in seen:
            seen[id(each)] = each
            rest += each.__cause__, each.__context__
            if isinstance(each, BaseExceptionGroup):
                rest += each.exceptions
    return len(seen) <= _MAX_EXCEPTIONS


def _alone(error: BaseException) -> _Alone:
    alone = _Alone(error)
    for note in getattr(error, "__notes__", ()):
        alone.add_note(note)
    alone.add_note(f"(there are more than {_MAX_EXCEPTIONS} other exceptions in it, or that led to it)")
    return alone


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
