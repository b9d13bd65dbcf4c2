"""``fastcore serve --workers``: the parent, which accepts connections and looks after its workers.

The parent alone listens, and hands each connection to the worker that has the fewest. So the
kernel's queue of those who knock belongs to no worker: one may die, or be replaced, and nobody in
the queue notices. It serves nothing itself, imports nothing of the program, and each worker is a
process of its own from the start, so that a new one runs the program as it is then.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Final

from fastcore.command.listening import Listening
from fastcore.command.systemd import notify
from fastcore.command.usage import CommandError
from fastcore.command.worker_process import WorkerProcess
from fastcore.logs import get_logger
from fastcore.server.accepting import Acceptor
from fastcore.server.snapshot import Health, Snapshot, health_of_all

__all__ = ["Fleet"]

logger = get_logger("fastcore.command")

#: Seconds between two looks at each worker.
_CHECK_INTERVAL: Final = 1.0
#: Seconds before a worker is started again that ended soon after its start: the first time, and at most.
_BACKOFF: Final = 0.5
_MAX_BACKOFF: Final = 30.0
#: Seconds after which a worker that ended didn't end at its start.
_START_PERIOD: Final = 5.0
#: Seconds for a worker to end after all its time is over.
_GRACE_PERIOD: Final = 5.0
#: What is passed on to the workers, where the system has it.
_FORWARDED_SIGNALS: Final = ("SIGUSR1", "SIGUSR2")


class Fleet:
    """Workers that serve on the same port.

    Parameters
    ----------
    arguments : argparse.Namespace
        Those of ``fastcore serve``; each worker gets the same.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        if not hasattr(socket, "send_fds"):
            raise CommandError("this system hands no connections to other processes; serve without --workers")
        if getattr(sys, "frozen", False):
            raise CommandError("a frozen program starts no further Python; serve without --workers")
        self._arguments = arguments
        self._names = [str(number) for number in range(arguments.workers)]
        #: The one that has each place now, and all that were started.
        self._workers: dict[str, WorkerProcess] = {}
        self._started: list[WorkerProcess] = []
        self._places = {name: asyncio.Lock() for name in self._names}
        self._listening: Listening | None = None
        self._gates: list[Acceptor] = []
        #: Connections that no worker could take yet.
        self._waiting: list[socket.socket] = []
        self._is_ending = False
        self._shall_replace = asyncio.Event()

    # ---- what a monitor looks at

    @property
    def health(self) -> Health:
        """How the workers are together."""
        if self._is_ending:
            return "draining"
        return health_of_all([worker.health for worker in self._workers.values() if worker.is_answering])

    async def snapshots(self) -> dict[str, Snapshot]:
        """Tell all of each worker; of one that doesn't answer, what it told last."""
        workers = [self._workers[name] for name in self._names if name in self._workers]
        told = await asyncio.gather(*[worker.snapshot() for worker in workers])
        return {worker.name: told for worker, told in zip(workers, told, strict=True) if told is not None}

    async def ops(self) -> list[dict[str, str]]:
        """Tell which ops there are: as all workers run the same program, those of one that answers."""
        for worker in self._workers.values():
            if (told := await worker.ask("ops")) is not None:
                ops: list[dict[str, str]] = told
                return ops
        return []

    # ---- from the first worker to the last

    async def serve(self, listening: Listening, asked: asyncio.Event, ready: Callable[[], object]) -> None:
        """Serve until it is asked for the end, and all workers have ended.

        Parameters
        ----------
        listening : Listening
            Whose connections are served; closed at the end.
        asked : asyncio.Event
            Set when it shall end.
        ready : callable
            Called when all workers serve.

        Raises
        ------
        CommandError
            If a worker ends before it serves, the first time that it is started.
        """
        self._listening = listening
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._shall_replace.set)
        for name in _FORWARDED_SIGNALS:
            number = getattr(signal, name)
            loop.add_signal_handler(number, self._pass_on, number)
        asking = asyncio.ensure_future(asked.wait())
        try:
            serving = asyncio.ensure_future(self._serve(ready))
            await asyncio.wait([asking, serving], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            serving.cancel()
            await asyncio.wait([serving])
        finally:
            asking.cancel()
            await self._end()

    async def _serve(self, ready: Callable[[], object]) -> None:
        # One first: what is wrong with the program is told once.
        for names in (self._names[:1], self._names[1:]):
            started = await asyncio.gather(*[self._start(name) for name in names])
            if not all(started):
                raise CommandError("a worker ended before it served, or couldn't be started; see above")
        ready()
        async with asyncio.TaskGroup() as tasks:
            for name in self._names:
                tasks.create_task(self._keep(name))
            tasks.create_task(self._poll())
            tasks.create_task(self._replace_when_told())

    async def _end(self) -> None:
        self._is_ending = True
        notify("STOPPING=1")
        self._close_gates()
        if self._listening is not None:
            self._listening.close()
        for connection in self._waiting:
            connection.close()
        deadline = self._arguments.deadline
        for worker in self._living():
            worker.retire()
        ended = [asyncio.ensure_future(worker.ended.wait()) for worker in self._living()]
        if ended:
            _, late = await asyncio.wait(ended, timeout=0.2)
            if late:
                logger.info(
                    "ending: up to %g s for workers (%d of %d); Ctrl-C once more ends at once",
                    deadline,
                    len(late),
                    len(ended),
                )
                await asyncio.wait(ended, timeout=deadline + _GRACE_PERIOD)
        if self._living():
            logger.error("killed, as they didn't end: %s", ", ".join(map(str, self._living())))
            self.kill()
            await asyncio.wait(ended, timeout=_GRACE_PERIOD)

    def kill(self) -> None:
        """End all workers at once; may be called from a signal's handler."""
        for worker in self._living():
            worker.send(signal.SIGKILL)

    def _pass_on(self, number: int) -> None:
        for worker in self._workers.values():
            worker.send(number)

    def _living(self) -> list[WorkerProcess]:
        return [worker for worker in self._started if not worker.has_ended]

    # ---- workers

    async def _start(self, name: str) -> bool:
        """Start a worker for a place, and have it once it serves; False if it never does."""
        assert self._listening is not None
        try:
            worker = await WorkerProcess.started(
                name, self._listening.sockets[0], self._arguments, self._take_back
            )
        except OSError as error:
            # The machine lacks something, such as descriptors, that it may have again soon.
            logger.error("worker %s can't be started: %s", name, error)
            return False
        self._started = [*self._living(), worker]
        if self._is_ending:
            worker.retire()
        if not await worker.serves():
            if not self._is_ending:
                logger.error("%s %s before it served", worker, worker.how_it_ended)
            return False
        before = self._workers.get(name)
        self._workers[name] = worker
        self._open_gates()
        if before is not None:
            before.retire()
        return True

    async def _keep(self, name: str) -> None:
        """Have a worker in a place, for ever."""
        pause = 0.0
        while True:
            worker = self._workers[name]
            await worker.left.wait()
            async with self._places[name]:
                if self._workers[name] is not worker:
                    # It was replaced.
                    continue
                soon = worker.age < _START_PERIOD
                pause = min(_MAX_BACKOFF, 2 * pause or _BACKOFF) if soon else 0.0
                await asyncio.sleep(pause)
                while not await self._start(name):
                    pause = min(_MAX_BACKOFF, 2 * pause or _BACKOFF)
                    logger.error("worker %s is started again in %g s", name, pause)
                    await asyncio.sleep(pause)

    async def _replace_when_told(self) -> None:
        """Replace all workers for each time that it is told; told in the middle of it, once more."""
        while True:
            await self._shall_replace.wait()
            self._shall_replace.clear()
            await self._replace_all()

    async def _replace_all(self) -> None:
        """Replace one worker after the other: the new one serves before the old one ends."""
        for name in self._names:
            async with self._places[name]:
                before = self._workers[name]
                if not await self._start(name):
                    logger.error("the workers are not replaced any further; %s goes on", before)
                    return
            await before.ended.wait()
        logger.info("all workers were replaced")

    async def _poll(self) -> None:
        """Ask each worker again and again how many connections it has."""
        while True:
            await asyncio.gather(*[worker.poll() for worker in self._workers.values()])
            self._hand_out_waiting()
            await asyncio.sleep(_CHECK_INTERVAL)

    # ---- connections

    def _open_gates(self) -> None:
        self._hand_out_waiting()
        if not self._gates and not self._waiting and self._listening is not None and not self._is_ending:
            loop = asyncio.get_running_loop()
            self._gates = [
                Acceptor(sock, loop, self._hand_out, self._lacks) for sock in self._listening.sockets
            ]

    def _close_gates(self) -> None:
        for gate in self._gates:
            gate()
        self._gates = []

    def _hand_out(self, connection: socket.socket, address: object = None) -> None:
        """Give a connection to the worker that has the fewest."""
        for worker in sorted(self._workers.values(), key=lambda worker: worker.load):
            if worker.takes(connection):
                return
        # All are busy, or none is there. Those who still knock wait in the kernel's queue.
        self._waiting.append(connection)
        self._close_gates()

    def _take_back(self, connections: Iterable[socket.socket]) -> None:
        """Let another worker have what one had been handed, and hadn't taken when it ended."""
        for connection in connections:
            if self._is_ending:
                connection.close()
            else:
                self._hand_out(connection)

    def _hand_out_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._hand_out(connection)
        if waiting and not self._waiting:
            self._open_gates()

    def _lacks(self, error: OSError) -> None:
        logger.error("can't accept connections for now: %s", error)
