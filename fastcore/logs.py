"""Loggers that a flood can't drown.

A stranger can make a server say the same line as often as it likes. Of one line (its
text before the arguments are filled in), a few come through in each interval; how many
were held back is said with the next that does.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

__all__ = ["HoldBackFloods", "get_logger"]


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

    def __init__(self, burst: int = 20, interval: float = 10.0) -> None:
        super().__init__()
        self.burst = burst
        self.interval = interval
        # One entry for each line that the source has: it can't grow.
        self._lines: dict[tuple[str, int], _Line] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is logged."""
        if record.levelno <= logging.DEBUG:
            return True
        with self._lock:
            line = self._lines.setdefault((str(record.msg), record.levelno), _Line(record.created))
            held = 0
            if record.created - line.since >= self.interval:
                held = line.held
                line.since, line.passed, line.held = record.created, 0, 0
            if line.passed >= self.burst:
                line.held += 1
                return False
            line.passed += 1
        if held:
            record.msg = f"{record.getMessage()} [{held:,} more of this line were held back]"
            record.args = None
        return True


def get_logger(name: str) -> logging.Logger:
    """Give a logger whose floods are held back.

    Parameters
    ----------
    name : str
        Its name, below ``fastcore``.

    Returns
    -------
    logging.Logger
    """
    logger = logging.getLogger(name)
    logger.addFilter(HoldBackFloods())
    return logger
