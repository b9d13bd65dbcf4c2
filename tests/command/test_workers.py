"""``fastcore serve --workers``: processes that share a port, as clients and operators see them."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from fastcore import ConnectionLost, connect, read, rpc, send_recv, write
from helpers.commands import fastcore
from helpers.support import Program, in_a_thread
from helpers.web import get, get_json

pytest.importorskip("fcntl", reason="there are signals in it")
resource = pytest.importorskip("resource")
pytestmark = pytest.mark.deadline(120)

PROGRAM = """
import asyncio, os, signal, time

VERSION = 1
counted = []

def pid(stream):
    return os.getpid()

def version(stream):
    return VERSION

async def slow(stream, seconds):
    await asyncio.sleep(seconds)
    return os.getpid()

def block(stream, seconds):
    print("blocking", flush=True)
    time.sleep(seconds)
    return os.getpid()

def die(stream):
    os._exit(3)

def count(stream, number):
    with open("counted", "a") as file:
        file.write(f"{number}\\n")
    return number

handlers = {"pid": pid, "version": version, "slow": slow, "block": block, "die": die, "count": count}
signal.signal(signal.SIGUSR1, lambda *_: print(f"heard {os.getpid()}\\n", end="", flush=True))
"""


class Fleet:
    """A running `fastcore serve --workers`."""

    def __init__(self, program: Program, line: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.address = re.search(r" on (\S+?),", line)[1]
        self.monitor = int(re.search(r"monitor on http://127.0.0.1:(\d+)/", line)[1])

    @classmethod
    async def started(cls, program: Program, folder: Path) -> Self:
        return cls(program, await in_a_thread(program.line), folder)

    async def ask(self, op: str, **keywords: Any) -> Any:
        """One call, over a connection of its own."""
        return await send_recv(addr=self.address, op=op, **keywords)

    async def stats(self) -> Any:
        return await get_json(self.monitor, "/stats")

    async def pids(self) -> set[int]:
        return {worker["pid"] for worker in (await self.stats())["workers"].values()}

    async def has_replaced(self, pids: set[int], count: int) -> set[int]:
        """Wait until so many are there again, and none of those."""
        while len(now := await self.pids()) < count or now & pids:
            await asyncio.sleep(0.05)
        return now

    async def is_logged(self, text: str) -> None:
        while text not in self.program.errors:
            await asyncio.sleep(0.02)

    async def ends(self, code: int = 0) -> None:
        assert await in_a_thread(self.program.wait) == code, self.program.errors


@asynccontextmanager
async def fleet(folder: Path, *arguments: str, workers: int = 2) -> AsyncIterator[Fleet]:
    (folder / "shop.py").write_text(PROGRAM)
    command = ("serve", "shop:handlers", "--workers", str(workers), "--monitor", "0", *arguments)
    with fastcore(*command, cwd=folder) as program:
        yield await Fleet.started(program, folder)
        if program.process.poll() is None:
            program.send(signal.SIGTERM)
            assert await in_a_thread(program.wait) == 0, program.errors


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_connections_are_shared_out_evenly(tmp_path: Path):
    async with fleet(tmp_path, workers=3) as running:
        streams = [await connect(*address(running)) for _ in range(6)]
        pids = Counter([await send_recv(stream, op="pid") for stream in streams])
        assert sorted(pids.values()) == [2, 2, 2]
        assert pids.keys() == await running.pids()
        for stream in streams:
            stream.close()


def address(running: Fleet) -> tuple[str, int]:
    host, _, port = running.address.rpartition(":")
    return host, int(port)


async def test_the_figures_of_all_are_on_one_page(tmp_path: Path):
    async with fleet(tmp_path) as running:
        for _ in range(4):
            await running.ask("pid")
        told = await running.stats()
        assert told["ops"]["pid"]["count"] == 4
        assert [worker["ops"]["pid"]["count"] for worker in told["workers"].values()] == [2, 2]
        assert (told["health"], [*told["workers"]]) == ("ready", ["0", "1"])
        metrics = (await get(running.monitor, "/metrics")).body.decode()
        assert 'fastcore_call_duration_seconds_count{op="pid",worker="1"} 2.0' in metrics
        ops = await get_json(running.monitor, "/ops")
        assert {"op": "block", "signature": "(seconds)", "doc": ""} in ops


async def test_one_that_is_killed_is_replaced_and_nobody_who_knocks_notices(tmp_path: Path):
    async with fleet(tmp_path) as running:
        before = await running.pids()
        os.kill(min(before), signal.SIGKILL)
        for _ in range(20):
            assert await running.ask("pid") != min(before)
        await running.is_logged("was killed by SIGKILL; another one takes its place")
        after = await running.has_replaced({min(before)}, 2)
        assert max(before) in after
        # The new one has had fewer connections, until the other one tells how many of its own are over.
        answered: set[int] = set()
        while answered != after:
            answered.add(await running.ask("pid"))


async def test_one_that_ends_again_and_again_is_started_with_pauses(tmp_path: Path):
    async with fleet(tmp_path) as running:
        begun = time.monotonic()
        for _ in range(3):
            pids = await running.pids()
            with pytest.raises(ConnectionLost):
                await running.ask("die")
            await running.has_replaced(set(), 2)
            while await running.pids() == pids:
                await asyncio.sleep(0.05)
        assert running.program.errors.count("ended with exit code 3") == 3
        # Each had two to choose from, so one of them has ended twice, and waited.
        assert time.monotonic() - begun > 0.5


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="another process has its own limits here")
async def test_one_that_cannot_be_started_now_is_started_later(tmp_path: Path):
    async with fleet(tmp_path) as running:
        parent = running.program.process.pid
        before = await running.pids()
        limits = resource.prlimit(parent, resource.RLIMIT_NOFILE)
        # No further descriptor; those that are used are told by the kernel.
        used = max(int(number) for number in os.listdir(f"/proc/{parent}/fd"))
        resource.prlimit(parent, resource.RLIMIT_NOFILE, (used + 1, limits[1]))
        os.kill(min(before), signal.SIGKILL)
        await running.is_logged("can't be started: [Errno 24]")
        resource.prlimit(parent, resource.RLIMIT_NOFILE, limits)
        assert max(before) in await running.has_replaced({min(before)}, 2)


async def test_a_program_that_cannot_be_served_is_told_once(tmp_path: Path):
    (tmp_path / "bad.py").write_text("raise LookupError('no registry')")
    with fastcore("serve", "bad:handlers", "--workers", "3", cwd=tmp_path) as program:
        assert await in_a_thread(program.rest) == ""
        assert await in_a_thread(program.wait) == 1
    assert program.errors.count("no registry") == 1
    assert "a worker ended before it served" in program.errors


async def test_a_worker_that_is_blocked_is_told_of_and_others_answer(tmp_path: Path):
    async with fleet(tmp_path) as running:
        stream = await connect(*address(running))
        blocked = send_recv(stream, op="block", seconds=6)
        while not any(worker["silent"] for worker in (await running.stats())["workers"].values()):
            await asyncio.sleep(0.1)
        for _ in range(3):
            await asyncio.wait_for(running.ask("pid"), 3)
        assert (await get(running.monitor, "/health")).body == b"ready"
        assert await blocked in await running.pids()
        while any(worker["silent"] for worker in (await running.stats())["workers"].values()):
            await asyncio.sleep(0.1)
        assert "blocked the loop" in (await running.stats())["warnings"][-1]["text"]
        stream.close()


# ---- replacing them all


async def test_they_are_replaced_one_after_the_other_and_run_the_program_as_it_is_then(tmp_path: Path):
    async with fleet(tmp_path) as running:
        before = await running.pids()
        (tmp_path / "shop.py").write_text(PROGRAM.replace("VERSION = 1", "VERSION = 2  # and longer"))
        running.program.send(signal.SIGHUP)
        await running.is_logged("all workers were replaced")
        after = await running.pids()
        assert len(after) == 2
        assert not after & before
        assert {await running.ask("version") for _ in range(2)} == {2}
        assert not any(map(is_running, before))


async def test_told_in_the_middle_of_it_they_are_replaced_once_more(tmp_path: Path):
    async with fleet(tmp_path) as running:
        first = await running.pids()
        (tmp_path / "shop.py").write_text(PROGRAM.replace("VERSION = 1", "VERSION = 2  # and longer"))
        running.program.send(signal.SIGHUP)
        while len(await running.pids() & first) != 1:
            await asyncio.sleep(0.02)
        (tmp_path / "shop.py").write_text(PROGRAM.replace("VERSION = 1", "VERSION = 3  # and longer still"))
        for _ in range(3):
            running.program.send(signal.SIGHUP)
        while running.program.errors.count("all workers were replaced") < 2:
            await asyncio.sleep(0.02)
        assert {await running.ask("version") for _ in range(2)} == {3}


async def test_told_to_end_in_the_middle_of_it_nothing_is_wrong(tmp_path: Path):
    async with fleet(tmp_path) as running:
        before = await running.pids()
        running.program.send(signal.SIGHUP)
        while len(await running.pids() & before) != 1:
            await asyncio.sleep(0.02)
        running.program.send(signal.SIGTERM)
        await running.ends()
        assert "ERROR" not in running.program.errors


async def test_while_they_are_replaced_each_connection_is_served_and_no_answer_is_lost(tmp_path: Path):
    async with fleet(tmp_path) as running:
        stop = asyncio.Event()
        acknowledged: list[int] = []
        refused: list[Exception] = []

        async def one_after_the_other(client: int) -> None:
            """Calls, each over a connection of its own: none of these may fail."""
            number = client
            while not stop.is_set():
                assert await running.ask("count", number=number) == number
                acknowledged.append(number)
                number += 10

        async def over_one_connection(client: int) -> None:
            """Calls over a connection that may be closed between two of them."""
            number = client
            async with rpc(running.address) as remote:
                while not stop.is_set():
                    try:
                        acknowledged.append(await remote.count(number=number))
                    except ConnectionLost as error:
                        refused.append(error)
                    number += 10

        clients = [asyncio.ensure_future(one_after_the_other(client)) for client in range(2)]
        clients += [asyncio.ensure_future(over_one_connection(client)) for client in range(2, 4)]
        running.program.send(signal.SIGHUP)
        await running.is_logged("all workers were replaced")
        stop.set()
        await asyncio.gather(*clients)
        counted = Counter(map(int, (tmp_path / "counted").read_text().split()))
        assert len(acknowledged) > 100
        assert all(counted[number] == 1 for number in acknowledged)
        # A connection is closed once for each worker, at most.
        assert len(refused) <= 8


async def test_what_runs_is_answered_while_its_worker_is_replaced(tmp_path: Path):
    async with fleet(tmp_path) as running:
        before = await running.pids()
        calls = [running.ask("slow", seconds=2) for _ in range(2)]
        answers = asyncio.gather(*calls)
        while (await running.stats())["running"] < 2:
            await asyncio.sleep(0.02)
        running.program.send(signal.SIGHUP)
        assert set(await answers) == before


async def test_a_program_that_got_worse_replaces_nothing(tmp_path: Path):
    async with fleet(tmp_path) as running:
        before = await running.pids()
        (tmp_path / "shop.py").write_text("raise LookupError('a mistake')")
        running.program.send(signal.SIGHUP)
        await running.is_logged("the workers are not replaced any further")
        assert await running.pids() == before
        assert await running.ask("version") == 1


async def test_one_that_is_told_to_end_alone_answers_first_and_is_replaced(tmp_path: Path):
    async with fleet(tmp_path) as running:
        before = await running.pids()
        call = asyncio.ensure_future(running.ask("slow", seconds=1))
        while not (calls := (await running.stats())["running"]):
            await asyncio.sleep(0.02)
        assert calls == 1
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        assert await call in before
        await running.has_replaced(before, 2)
        assert await running.ask("version") == 1


# ---- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_end_all_answer_first(tmp_path: Path, number: signal.Signals):
    async with fleet(tmp_path) as running:
        pids = await running.pids()
        calls = asyncio.gather(*[running.ask("slow", seconds=1.5) for _ in range(2)])
        while (await running.stats())["running"] < 2:
            await asyncio.sleep(0.02)
        running.program.send(number)
        await running.is_logged("up to 10 s for workers (2 of 2)")
        assert (await get(running.monitor, "/health")).body == b"draining"
        assert set(await calls) == pids
        await running.ends()
        assert not any(map(is_running, pids))


async def test_ctrl_c_twice_ends_all_at_once(tmp_path: Path):
    async with fleet(tmp_path) as running:
        pids = await running.pids()
        calls = [running.ask("block", seconds=60), running.ask("slow", seconds=60)]
        waiting = asyncio.gather(*calls, return_exceptions=True)
        assert await in_a_thread(running.program.line) == "blocking"
        running.program.send(signal.SIGINT)
        await running.is_logged("Ctrl-C once more ends at once")
        running.program.send(signal.SIGINT)
        await running.ends(130)
        assert all(isinstance(error, ConnectionLost) for error in await waiting)
        while any(map(is_running, pids)):
            await asyncio.sleep(0.02)


async def test_a_worker_that_does_not_end_is_killed(tmp_path: Path):
    async with fleet(tmp_path, "--deadline", "0.2") as running:
        pids = await running.pids()
        blocked = running.ask("block", seconds=60)
        waiting = asyncio.gather(blocked, return_exceptions=True)
        assert await in_a_thread(running.program.line) == "blocking"
        running.program.send(signal.SIGTERM)
        await running.ends()
        assert "killed, as they didn't end: worker" in running.program.errors
        await waiting
        assert not any(map(is_running, pids))


async def test_without_their_parent_they_answer_what_runs_and_end(tmp_path: Path):
    async with fleet(tmp_path) as running:
        pids = await running.pids()
        call = asyncio.ensure_future(running.ask("slow", seconds=1))
        while not (await running.stats())["running"]:
            await asyncio.sleep(0.02)
        running.program.send(signal.SIGKILL)
        assert await call in pids
        while any(map(is_running, pids)):
            await asyncio.sleep(0.02)


async def test_signals_of_the_program_reach_all(tmp_path: Path):
    async with fleet(tmp_path) as running:
        running.program.send(signal.SIGUSR1)
        heard = {await in_a_thread(running.program.line) for _ in range(2)}
        assert heard == {f"heard {pid}" for pid in await running.pids()}


async def test_they_share_a_unix_socket_too(tmp_path: Path):
    path = tmp_path / "shop.sock"
    async with fleet(tmp_path, "--host", f"unix:{path}") as running:
        assert {await running.ask("pid") for _ in range(4)} == await running.pids()
    assert not path.exists()


async def test_they_log_which_one_says_it(tmp_path: Path):
    async with fleet(tmp_path) as running:
        stream = await connect(*address(running))
        write(stream, {"op": "nothing"})
        await read(stream)
        await running.is_logged("no handler found for 'nothing'")
        assert re.search(r"\[worker [01]\]: refused a message", running.program.errors)
        stream.close()
