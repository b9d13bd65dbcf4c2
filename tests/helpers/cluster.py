"""Dask clusters on this machine, and handlers that workers of other processes can import."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import distributed
import pytest

from fastcore import Server


def known(*protocols: str) -> list[Any]:
    """As parameters: those that this Dask knows; ours are told to it when the package is installed."""
    schemes = {entry.name for entry in entry_points(group="distributed.comm.backends")} | {"tcp", "tls"}
    unknown = {protocol: pytest.mark.skip(reason="no such scheme") for protocol in {*protocols} - schemes}
    return [pytest.param(protocol, marks=unknown.get(protocol, ())) for protocol in protocols]


PROTOCOLS = pytest.mark.parametrize("protocol", known("tcp", "fastcore"))
SECURE_PROTOCOLS = pytest.mark.parametrize("protocol", known("tls", "fastcores"))


def add(stream, x, y):
    return x + y


def where(stream):
    """The address of the worker, as Dask tells it."""
    return distributed.get_worker().address


def process(stream):
    return os.getpid()


def fails(stream):
    return {}["nothing"]


def rows(stream, count):
    yield from range(count)


async def ticks(stream, count):
    for number in range(count):
        yield number


async def nap(stream, seconds, told=None):
    """Sleep; leave a word in a file when it is over, in whichever way."""
    try:
        await asyncio.sleep(seconds)
        return "slept"
    except asyncio.CancelledError:
        if told:
            Path(told).write_text("cancelled")
        raise


def works(stream, seconds, told):
    """Compute, until that is done or nobody waits for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stream.closed():
            Path(told).write_text("left")
            return
        time.sleep(0.01)


def asks_its_peer(stream):
    return stream.socket.getpeername()


def mark(stream, folder):
    """Leave a file for each time that it runs."""
    (Path(folder) / str(time.monotonic_ns())).touch()


def leaves(stream, status):
    os._exit(status)


class Counter(Server):
    """A server with a state of its own in each worker."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        super().__init__({"increment": self.increment, "deafen": self.deafen, "where": where})

    def increment(self, stream):
        self.count += 1
        return self.count

    def deafen(self, stream):
        """Accept nobody any more."""
        self.stop()


class Broken(Server):
    def __init__(self) -> None:
        raise FileNotFoundError("no model here")


@asynccontextmanager
async def cluster(workers: int = 2, **options: Any) -> AsyncIterator[distributed.Client]:
    """The client of a new cluster, whose workers are in this process and in this loop."""
    usual: dict[str, Any] = {"processes": False, "dashboard_address": ":0", "threads_per_worker": 2}
    options = usual | {"n_workers": workers} | options
    async with (
        distributed.LocalCluster(asynchronous=True, **options) as here,
        distributed.Client(here, asynchronous=True) as client,
    ):
        yield client


async def eventually(ask: Any, wanted: Any) -> None:
    """Ask until the answer is the one that is wanted."""
    while not wanted(await ask()):
        await asyncio.sleep(0.02)
