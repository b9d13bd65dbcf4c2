"""How a serving command logs: lines to read, or JSON."""

from __future__ import annotations

import argparse
import json
import logging
import textwrap
from datetime import UTC, datetime

__all__ = ["JsonLines", "add_logging", "set_up"]

_LEVELS = ("debug", "info", "warning", "error")
_FORMATS = ("text", "json")


def add_logging(command: argparse.ArgumentParser) -> None:
    """Let a command be told how to log."""
    command.add_argument(
        "--log-level",
        choices=_LEVELS,
        default="info",
        help="the least that is logged (default: %(default)s)",
    )
    command.add_argument(
        "--log-format", choices=_FORMATS, default="text", help="lines to read, or a JSON object on each"
    )


def set_up(arguments: argparse.Namespace, worker: str | None = None) -> None:
    """Log to stderr as the arguments say.

    Parameters
    ----------
    arguments : argparse.Namespace
        What ``add_logging`` has read.
    worker : str, optional
        The name of this process among several.
    """
    level = logging.DEBUG if arguments.verbose else getattr(logging, arguments.log_level.upper())
    handler = logging.StreamHandler()
    handler.setLevel(level)
    if arguments.log_format == "json":
        handler.setFormatter(JsonLines(worker))
    else:
        who = "" if worker is None else f" [worker {worker}]"
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s %(name)s{who}: %(message)s"))
    # The monitor shows the last warnings also where only errors are logged.
    logging.basicConfig(level=min(level, logging.WARNING), handlers=[handler])


class JsonLines(logging.Formatter):
    r"""A JSON object on one line for each record.

    Parameters
    ----------
    worker : str, optional
        What ``worker`` says in each.

    Examples
    --------
    >>> record = logging.makeLogRecord({'created': 0, 'levelname': 'INFO', 'name': 'x', 'msg': 'two\nlines'})
    >>> json.loads(JsonLines().format(record))['message']
    'two\nlines'
    """

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Write a record down."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if self._worker is not None:
            said["worker"] = self._worker
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            # Of the lines of a log it is told apart by being indented; here it is by its key.
            said["traceback"] = textwrap.dedent(record.exc_text)
        return json.dumps(said)
