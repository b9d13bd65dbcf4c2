"""The command line programs of ``distributed`` 1.9.0, started by ``run-classic``."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from fastcore import connect, rpc
from helpers.support import Program
from interop.classic import HERE, Classic

pytestmark = [pytest.mark.classic_programs, pytest.mark.deadline(60)]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken_for_a_moment:
        return str(taken_for_a_moment.getsockname()[1])


@contextmanager
def run_classic(packages: Classic, *arguments: str) -> Iterator[Program]:
    """A program on fastcore, that ends with all the processes it has started."""
    command = packages.command("-m", "fastcore", "run-classic", *arguments)
    with Program(command=command, env=packages.environment, start_new_session=True) as program:
        try:
            yield program
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGKILL)


async def has_workers(port: str, number: int) -> None:
    """Wait until so many workers are known at a port."""
    stream = await connect("127.0.0.1", int(port), timeout=30)
    async with rpc(stream=stream) as remote:
        while len(await remote.ncores()) < number:
            await asyncio.sleep(0.05)


SCHEDULER = "-m distributed.cli.dscheduler --host 127.0.0.1 --http-port 0 --port"
CENTER = "-m distributed.cli.dcenter --host 127.0.0.1 --port"
WORKERS = "-m distributed.cli.dworker --host 127.0.0.1 --nthreads 1 --nprocs 2"
WORKER_ALONE = "-m distributed.cli.dworker --host 127.0.0.1 --nthreads 1 --no-nanny"


async def test_a_scheduler_and_a_nanny_have_workers_on_fastcore(installed_nowhere: Classic) -> None:
    port = free_port()
    with (
        run_classic(installed_nowhere, *SCHEDULER.split(), port),
        run_classic(installed_nowhere, *WORKERS.split(), f"127.0.0.1:{port}"),
        run_classic(installed_nowhere, *WORKER_ALONE.split(), f"127.0.0.1:{port}"),
    ):
        await has_workers(port, 3)
        with run_classic(installed_nowhere, str(HERE / "programs" / "where.py"), port) as program:
            names = await asyncio.to_thread(program.rest)
    assert names.split() == ["fastcore"] * 4


async def test_a_center_knows_the_workers_that_come_to_it(installed_nowhere: Classic) -> None:
    port = free_port()
    with (
        run_classic(installed_nowhere, *CENTER.split(), port),
        run_classic(installed_nowhere, *WORKERS.split(), f"127.0.0.1:{port}"),
    ):
        await has_workers(port, 2)
        async with rpc(ip="127.0.0.1", port=int(port)) as remote:
            assert (await remote.identity())["type"] == "Center"
