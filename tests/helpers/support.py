"""A loop with a deadline, ways to wait, and programs that run beside the test."""

import asyncio
import gc
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

#: Seconds that nothing takes, however much else the machine has to do.
DEADLINE = 60.0

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], seconds: float = DEADLINE) -> T:
    """Run ``main`` in a loop of its own; fail after ``seconds``, or if only the loop heard of an error."""
    unheard: list[dict[str, Any]] = []

    async def in_time() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unheard.append(context))
        # In debug mode it logs each slow turn, and tests read the log.
        loop.slow_callback_duration = seconds
        async with asyncio.timeout(seconds):
            return await main

    result = asyncio.run(in_time())
    assert not unheard, f"the event loop complained: {unheard}"
    return result


def in_a_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call it in a thread of its own; to be awaited, so that the loop goes on meanwhile."""
    return asyncio.get_running_loop().run_in_executor(None, function)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what comes in some turn of the loop, or from another process."""
    while not condition():
        await asyncio.sleep(0.001)


class Program:
    """A Python program beside the test, its output read line by line, never for longer than a deadline.

    >>> with Program("-c", "print(1 + 1)") as program:
    ...     program.line(), program.wait()
    ('2', 0)
    """

    def __init__(self, *arguments: str, command: Sequence[str] | None = None, **options: Any) -> None:
        # Unbuffered, and any warning or leaked socket is an error, as in the tests themselves.
        ours = [sys.executable, "-u", "-X", "dev", "-W", "error", *arguments]
        self.process = subprocess.Popen(
            command or ours,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background has it ignored, and that is inherited.
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if os.name == "posix" else None,
            **options,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        # asyncio, in debug mode, warns of each step of a tenth of a second: on a busy machine, of any.
        slow = re.compile(r"Executing .* took [\d.]+ seconds")
        self._errors.extend(line for line in self.process.stderr if not slow.search(line))

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far; all of it after `wait`."""
        return "".join(self._errors)

    def line(self, seconds: float = DEADLINE) -> str:
        """The next line of its output."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no line of output in {seconds} s; stderr: {self.errors}") from None
        if line is None:
            self._lines.put(None)
            self._readers[1].join(seconds)
            raise AssertionError(f"the program ended instead of printing a line; stderr: {self.errors}")
        return line

    def rest(self, seconds: float = DEADLINE) -> str:
        """All the output that is left, once the program has ended."""
        deadline = time.monotonic() + seconds
        lines: list[str] = []
        while (line := self._lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            lines.append(line)
        return "\n".join(lines)

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its exit code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return code

    def send(self, signal_number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(signal_number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def left_to_the_collector(*kinds: type) -> list[Any]:
    """Give what of these kinds the collector finds: objects that hold each other, and nobody else does."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = [each for each in gc.garbage if isinstance(each, kinds)]
    gc.garbage.clear()
    return found
