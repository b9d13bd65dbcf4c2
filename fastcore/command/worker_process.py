"""A worker, as its parent sees it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from tornado.iostream import IOStream

from fastcore.client.rpc import send_recv
from fastcore.command.door import DoorToWorker
from fastcore.command.worker_arguments import WorkerArguments
from fastcore.logs import get_logger
from fastcore.server.snapshot import Health, Snapshot

__all__ = ["WorkerProcess"]

logger = get_logger("fastcore.command")

#: Seconds that a worker has for an answer, before it is said that it doesn't answer.
_ANSWER_TIMEOUT: Final = 1.0


class WorkerProcess:
    """The process of a worker.

    Attributes
    ----------
    name : str
        Its place among the workers.
    health : str
        What it told last.
    left : asyncio.Event
        Set when it takes no further connections: it has ended, or shall, or wants to.
    ended : asyncio.Event
        Set when the process is over.
    """

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        door: DoorToWorker,
        control: IOStream,
        orphaned: Callable[[Iterable[socket.socket]], object],
    ) -> None:
        self.name = name
        self.health: Health = "draining"
        self.left = asyncio.Event()
        self.ended = asyncio.Event()
        self._process = process
        self._door = door
        self._orphaned = orphaned
        self._control = control
        self._born = self._answered = time.monotonic()
        self._has_served = self._is_retired = False
        #: Connections that it had when it told last, those it was given since, and when the last one was.
        self._open = self._given = 0
        self._given_at = 0.0
        self._last: Snapshot | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(door, self._hear)
        self._reaping = self._loop.create_task(self._reap())

    @classmethod
    async def started(
        cls,
        name: str,
        listening: socket.socket,
        arguments: argparse.Namespace,
        orphaned: Callable[[Iterable[socket.socket]], object],
    ) -> Self:
        """Start the process of a worker.

        Parameters
        ----------
        name : str
            Its place among the workers.
        listening : socket.socket
            Where its connections come from.
        arguments : argparse.Namespace
            Those of ``fastcore serve``.
        orphaned : callable
            Called with the connections that it was handed and didn't take, when it has ended.

        Raises
        ------
        OSError
            If the machine lacks what it takes.
        """
        door, its_door = socket.socketpair()
        control, its_control = socket.socketpair()
        with its_door, its_control:
            told = WorkerArguments(
                name, its_door.fileno(), its_control.fileno(), listening.getsockname(), arguments.given
            )
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "fastcore.command.worker", json.dumps(told)),
                    pass_fds=(its_door.fileno(), its_control.fileno()),
                    env={**os.environ, "FASTCORE_WORKER": name},
                    # Ctrl-C is the parent's: it says when they end.
                    process_group=0,
                )
            except BaseException:
                door.close()
                control.close()
                raise
        return cls(name, process, DoorToWorker(door), IOStream(control), orphaned)

    def __str__(self) -> str:
        return f"worker {self.name} (process {self._process.pid})"

    # ---- its life

    async def serves(self) -> bool:
        """Wait until it serves; False if it ends before."""
        serving = await self.ask("identity", None) is not None and await self.ask("ready", None) is not None
        if not serving:
            await self.ended.wait()
            return False
        self._has_served = True
        await self.poll()
        await self.snapshot()
        return True

    @property
    def is_serving(self) -> bool:
        """Whether it takes connections."""
        return self._has_served and not self.left.is_set()

    @property
    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self.ended.is_set()

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._born

    @property
    def how_it_ended(self) -> str:
        """What became of the process, in words."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        # Not all have names: those of real time are numbers.
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-code, f'signal {-code}')}"

    def takes(self, connection: socket.socket) -> bool:
        """Hand in a connection; False if it takes none now."""
        if not (self.is_serving and self._door.hand_in(connection)):
            return False
        self._given += 1
        self._given_at = time.monotonic()
        return True

    def retire(self) -> None:
        """Hand in no further connections; it ends when those that run are answered."""
        self._is_retired = True
        self._leave()
        if not self._has_served:
            # It may be importing, and look at no door.
            self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _hear(self) -> None:
        if not self._door.hear():
            self._leave()
        if self._door.is_over:
            self._loop.remove_reader(self._door)

    def _leave(self) -> None:
        self.left.set()
        self._door.shut()

    async def _reap(self) -> None:
        await self._process.wait()
        self._loop.remove_reader(self._door)
        # What it said last. There may be no end of it: programs that it has started can hold it open.
        self._door.hear()
        self._leave()
        self._door.close()
        if self._has_served and not self._is_retired:
            logger.error("%s %s; another one takes its place", self, self.how_it_ended)
        self._control.close()
        self.ended.set()
        self._orphaned(self._door.in_door)

    # ---- what it tells

    async def ask(self, op: str, timeout: float | None = _ANSWER_TIMEOUT) -> Any:
        """Ask it; None if it doesn't answer, or not in time."""
        try:
            async with asyncio.timeout(timeout):
                return await send_recv(self._control, op=op)
        except Exception:
            return None

    async def poll(self) -> None:
        """Ask how many connections it has, and how it is."""
        if self.is_serving and (told := await self.ask("load")) is not None:
            self._open, self.health = told
            self._given = 0
            self._answered = time.monotonic()

    @property
    def silent(self) -> float:
        """Seconds for which it has given no answer; 0 where it isn't late."""
        passed = time.monotonic() - self._answered
        return passed if passed > 2 * _ANSWER_TIMEOUT + 1 else 0.0

    @property
    def is_answering(self) -> bool:
        """Whether it serves and answers."""
        return self.is_serving and not self.silent

    @property
    def load(self) -> tuple[bool, int, float]:
        """What says whose turn it is: the least goes first; of equals, who has waited longest."""
        is_slow = not self.is_answering or self.health != "ready"
        return is_slow, self._open + self._given, self._given_at

    async def snapshot(self) -> Snapshot | None:
        """Tell all of it, as it is or as it was when it last told; None if it never did."""
        told = await self.ask("snapshot") if self.is_serving else None
        if told is not None:
            self._last = told
            self._answered = time.monotonic()
        return None if self._last is None else self._last | {"silent": self.silent}
