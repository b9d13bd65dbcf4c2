"""Loggers that a flood can't drown.

A stranger can make a server say the same line as often as it likes. Of one line (its
text before the arguments are filled in, and what it is about where that is said with
``extra={"about": ...}``), a few come through in each interval, or one of those with
``extra={"once": True}``; how many were held back is said with the next that does.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastcore.tracebacks import traceback_of

__all__ = [
    "HoldBackFloods",
    "KeepLines",
    "LastWarnings",
    "escaped",
    "get_logger",
    "in_one_line",
    "last_warnings",
    "shown",
]


#: Characters of a line, and of a traceback, that are logged.
_MAX_LINE: Final = 2_000
_MAX_TRACEBACK: Final = 20_000
#: Kinds of lines that are kept apart; strangers can't make it more.
_MAX_KINDS: Final = 4096


@dataclass(slots=True)
class _Line:
    """What happened to one line in the interval that began at ``since``."""

    since: float
    passed: int = 0
    held: int = 0


class HoldBackFloods(logging.Filter):
    """Let a line through so many times in each interval; DEBUG lines always.

    Parameters
    ----------
    burst : int
        How often the same line may be said in an interval.
    interval : float
        Seconds.

    Examples
    --------
    >>> limit = HoldBackFloods(burst=2)
    >>> def passes():
    ...     record = logging.makeLogRecord({'msg': 'refused %s', 'levelno': logging.INFO})
    ...     return bool(limit.filter(record))
    >>> [passes() for _ in range(4)]
    [True, True, False, False]
    """

    # Whoever has it may be interrupted by a signal handler, or by the collector, that logs too.
    _lock = threading.RLock()

    def __init__(self, burst: int = 20, interval: float = 10.0) -> None:
        super().__init__()
        self.burst = burst
        self.interval = interval
        # By text, level, and what the line is about where that is said. The oldest go.
        self._lines: dict[tuple[str, int, object], _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is logged."""
        if record.levelno <= logging.DEBUG:
            return True
        with HoldBackFloods._lock:
            key = (str(record.msg), record.levelno, getattr(record, "about", None))
            line = self._lines.get(key)
            if line is None:
                if len(self._lines) >= _MAX_KINDS:
                    self._lines.pop(next(iter(self._lines)), None)
                line = self._lines[key] = _Line(record.created)
            held = 0
            # A clock may be set back: nothing is held back until it has caught up.
            if not 0 <= record.created - line.since < self.interval:
                held = line.held
                line.since, line.passed, line.held = record.created, 0, 0
            if line.passed >= (1 if getattr(record, "once", False) else self.burst):
                line.held += 1
                return False
            line.passed += 1
        if held:
            record.msg = f"{record.getMessage()} [{held:,} more of this line were held back]"
            record.args = None
        return True


def _after_fork() -> None:
    """Begin with a lock of this process: who had the other one is a thread of the parent's."""
    HoldBackFloods._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def escaped(text: str) -> str:
    r"""Write control characters so that they can be read and do nothing, but for line ends and tabs.

    Examples
    --------
    >>> escaped('red \x1b[31m')
    'red \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def in_one_line(text: str) -> str:
    r"""Write a text so that it can't be taken for more than one line.

    Examples
    --------
    >>> in_one_line('one\ntwo')
    'one\\ntwo'
    """
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def shown(value: object, most: int = 100, convert: Callable[[object], str] = repr) -> str:
    r"""Write the beginning of any value in one line; what a message can hold, in no time whatever its size.

    Parameters
    ----------
    value : object
        Whatever a peer sent, or a program gave: also one whose ``__repr__`` fails.
    most : int
        Characters, beyond which it is cut off.
    convert : callable
        ``repr``, or ``str`` for what should read as a text.

    Examples
    --------
    >>> shown({'op': ['add', 'x' * 1000]}, 30)
    "{'op': ['add', 'xxxxxxxxxxxxxx..."
    >>> shown(ValueError('one\ntwo'), 30, str)
    'one\\ntwo'
    """
    try:
        text = convert(value) if convert is str else _begun(value, most + 1)
    except KeyboardInterrupt:
        raise
    except BaseException:  # it may want to end the program: not where it is only described
        text = f"a {type(value).__name__} that can't be shown"
    return in_one_line(text if len(text) <= most else text[:most] + "...")


def _begun(value: Any, most: int) -> str:
    """Give a repr, of which what is beyond so many characters may be wrong or left out."""
    kind = type(value)
    if most <= 0:
        return "..."
    if kind is str or kind is bytes or kind is bytearray:
        return repr(value[:most])
    if kind is int:
        # Python writes none of thousands of digits.
        return repr(value) if value.bit_length() < 1000 else f"an int of {value.bit_length():,} bits"
    if isinstance(value, tuple):
        begin, end = (kind.__name__ if kind is not tuple else "") + "(", ",)" if len(value) == 1 else ")"
    elif kind is list or kind is dict:
        begin, end = "[]" if kind is list else "{}"
    else:
        return repr(value)
    text = begin
    for item in value:
        if len(text) > most:
            break
        if text != begin:
            text += ", "
        text += _begun(item, most - len(text))
        if kind is dict:
            text += f": {_begun(value[item], most - len(text))}"
    return text + end


class KeepLines(logging.Filter):
    """Keep what strangers said from ending a line of the log and beginning another.

    Names, messages and tracebacks may hold their words. A traceback's own lines are
    indented, so that none of them looks like a line of the log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape what the record says."""
        try:
            text = record.getMessage()
        except Exception:
            text = f"{shown(record.msg, 1000)} (and its arguments can't be told)"
        # Cut first: to escape millions of characters would take seconds.
        text = text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}... ({len(text):,} characters)"
        record.msg, record.args = in_one_line(text), None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            try:
                told = traceback_of(record.exc_info[1], None, record.exc_info[2])
            except KeyboardInterrupt:
                raise
            except BaseException:  # what describes itself may raise anything
                told = f"(a {record.exc_info[0]} that can't be described)"
            if len(told) > _MAX_TRACEBACK:
                # Where it was raised, and what, is at the end; the text of the error may be what is long.
                half = _MAX_TRACEBACK // 2
                told = f"{told[:half]}\n... ({len(told):,} characters)\n{told[-half:]}"
            record.exc_text = "\n".join(f"    {line}" for line in escaped(told).splitlines())
        return True


class LastWarnings(logging.Filter):
    """Remember the last warnings, for who looks at a program only after they were logged.

    Not a handler: a program that has set up no logging would lose what Python prints by itself.

    Parameters
    ----------
    most : int
        How many to remember.
    longest : int
        Characters of each.

    Examples
    --------
    >>> last = LastWarnings()
    >>> last.filter(logging.makeLogRecord({'msg': 'no %s', 'args': ('TLS',), 'levelno': logging.WARNING}))
    True
    >>> [line['text'] for line in last.as_list()]
    ['no TLS']
    """

    def __init__(self, most: int = 50, longest: int = 500) -> None:
        super().__init__()
        self._longest = longest
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=most)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what is a warning, or worse."""
        if record.levelno >= logging.WARNING:
            text = record.getMessage()
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                # Not the end of its traceback: what it says may have several lines.
                text += f": {type(error).__name__}"
                if said := shown(error, self._longest, str):
                    text += f": {said}"
            self._lines.append((record.created, record.levelname, text[: self._longest]))
        return True

    def as_list(self) -> list[dict[str, Any]]:
        """Tell them as plain values, the oldest first."""
        return [{"time": time, "level": level, "text": text} for time, level, text in self._lines.copy()]


#: Those of all loggers of this process.
last_warnings: Final = LastWarnings()


def _handled(handle: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    """Give a record to filters and handlers, the program's own among them, which may raise."""
    try:
        handle(record)
    except Exception:
        # As Python does with what its own handlers can't write.
        logging.Handler().handleError(record)


@functools.cache
def get_logger(name: str) -> logging.Logger:
    """Give a logger whose floods are held back, whose lines are its own, and which never raises.

    Parameters
    ----------
    name : str
        Its name, below ``fastcore``.

    Returns
    -------
    logging.Logger
    """
    logger = logging.getLogger(name)
    # Not a class of its own: the program may have asked for this logger before.
    logger.handle = functools.partial(_handled, logger.handle)  # type: ignore[method-assign]
    logger.addFilter(HoldBackFloods())
    logger.addFilter(KeepLines())
    # After those: what is remembered is held back and escaped as what is logged.
    logger.addFilter(last_warnings)
    return logger
