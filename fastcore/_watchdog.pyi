"""Types of the compiled watchdog; see ``_watchdog.pyx``."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias, final

from fastcore.errors import LimitReached
from fastcore.limits import Limits

_Figures: TypeAlias = tuple[object, ...]

@final
class Watchdog:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        figures: Callable[[], _Figures],
        on_limit: Callable[[LimitReached], object],
    ) -> None: ...
    @property
    def is_awake(self) -> bool: ...
    def wake(self) -> None: ...
    def doze(self) -> None: ...
    def stop(self) -> None: ...
    def check(self) -> None: ...
