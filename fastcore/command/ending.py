"""How a server is told to end: SIGTERM, Ctrl-C, and Ctrl-C once more."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from fastcore.command.usage import INTERRUPTED
from fastcore.logs import get_logger

__all__ = ["Ending", "hear"]

logger = get_logger("fastcore.command")

#: Seconds in which a loop that isn't blocked has heard of a signal.
_SIGNAL_TIMEOUT: Final = 1.0


def hear(number: int, handler: Callable[..., object]) -> None:
    """Have a handler called when a signal comes, at once.

    Not by the loop alone: a handler of the server may block it, and Ctrl-C must end that too. But by
    the loop as well, which watches for signals then: one that comes just before it begins to wait
    would be heard of only after that.

    Parameters
    ----------
    number : int
        The signal.
    handler : callable
        As ``signal.signal`` takes it.
    """
    with suppress(NotImplementedError):
        # Windows' loop watches for them anyway.
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    signal.signal(number, handler)


class Ending:
    """Hears the signals of this process from now on.

    Parameters
    ----------
    at_once : callable, optional
        What is still to be done when nobody wants to wait.

    Attributes
    ----------
    asked : asyncio.Event
        Set by SIGTERM, and by the first Ctrl-C.
    """

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        self.asked = asyncio.Event()
        self._at_once = at_once
        self._loop = asyncio.get_running_loop()
        self._is_asked = False
        hear(signal.SIGTERM, self._terminated)
        hear(signal.SIGINT, self._interrupted)

    def _terminated(self, *_: Any) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._loop.call_soon_threadsafe(self.asked.set)
            # The loop says what is waited for, unless it is what is waited for.
            threading.Thread(target=self._tell_if_blocked, daemon=True).start()

    def _tell_if_blocked(self) -> None:
        time.sleep(_SIGNAL_TIMEOUT)
        if not self.asked.is_set():
            logger.warning(
                "ending as soon as a handler blocks the loop no more; Ctrl-C once more ends at once"
            )

    def _interrupted(self, *_: Any) -> None:
        if not self._is_asked:
            self._terminated()
            return
        self._at_once()
        # No handler, no thread and no clean-up is waited for.
        for stream in (sys.stdout, sys.stderr):
            # It may be what this signal has interrupted.
            with suppress(Exception):
                stream.flush()
        os._exit(INTERRUPTED)
