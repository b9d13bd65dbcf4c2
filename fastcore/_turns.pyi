"""Types of the compiled turns; see ``_turns.pyx``."""

from typing import final

@final
class Turns: ...

@final
class RunQueue:
    def serve(self) -> None: ...
