"""The handlers of a server run as tasks of a Dask cluster, and its callers notice nothing."""

import asyncio
import os
import signal
import threading
import time
from contextlib import asynccontextmanager

import dask
import distributed
import pytest

from fastcore import Server, register_error, rpc
from fastcore.dask import on_cluster
from helpers.cluster import (
    add,
    asks_its_peer,
    cluster,
    fails,
    mark,
    nap,
    process,
    rows,
    ticks,
    where,
    works,
)
from helpers.support import until

# Processes take their time to start, where others are at work.
pytestmark = pytest.mark.deadline(120)


@register_error
class OutOfStock(Exception):
    """A type that the caller knows too."""


def sells_nothing(stream, item):
    raise OutOfStock(item, 0)


def total(numbers):
    return sum(numbers)


def hands_on(stream, form):
    """Leave the work to other tasks, as a handler of Dask's may."""
    client = distributed.get_client()
    match form:
        case "a Future":
            return client.submit(total, [1, 2])
        case "a delayed":
            return dask.delayed(total)([1, dask.delayed(total)([2])])
        case "Futures":
            return client.map(total, [[1], [2]])
        case "a dict of both":
            future = client.submit(total, [3])
            return {"key": future.key, "future": future, "delayed": dask.delayed(total)([4]), "other": [5]}
        case "one that fails":
            return client.submit(total, [None])


def hands_on_each(stream, count):
    for number in range(count):
        yield distributed.get_client().submit(total, [number])


async def hands_on_later(stream, folder, seconds):
    return distributed.get_client().submit(lambda: (mark(None, folder), time.sleep(seconds)))


HANDLERS = {
    "add": add,
    "asks_its_peer": asks_its_peer,
    "fails": fails,
    "hands_on": hands_on,
    "hands_on_each": hands_on_each,
    "hands_on_later": hands_on_later,
    "mark": mark,
    "nap": nap,
    "process": process,
    "rows": rows,
    "sells_nothing": sells_nothing,
    "ticks": ticks,
    "where": where,
    "works": works,
}


@asynccontextmanager
async def serving(client, **options):
    async with Server(on_cluster(client, HANDLERS, **options)) as server:
        server.listen(0, "127.0.0.1")
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            yield remote


def running(client):
    """How many tasks have begun, in the workers of this process."""
    workers = client.cluster.workers.values()
    return sum(task.state == "executing" for worker in workers for task in worker.state.tasks.values())


async def test_answers_are_as_they_were():
    async with cluster(2) as client, serving(client) as remote:
        assert await remote.add(x=1, y=2) == 3
        assert await remote.nap(seconds=0) == "slept"
        assert await remote.rows(count=3) == [0, 1, 2]
        assert await remote.ticks(count=3) == [0, 1, 2]
        assert [number async for number in remote.ticks(count=3)] == [0, 1, 2]
        assert (await remote.identity())["type"] == "Server"
        # What Dask would take for something else, in arguments that it can see.
        strange = {"args": [["sum", [1, 2]]], "key": "x", "workers": b"none"}
        assert await remote.add(x=[strange], y=[]) == [strange]


async def test_they_run_in_the_workers_and_side_by_side():
    async with cluster(2) as client, serving(client) as remote:
        assert {*await asyncio.gather(*[remote.where() for _ in range(40)])} == {*await client.nthreads()}


async def test_the_options_are_those_of_submit():
    async with cluster(2) as client:
        worker, *_ = await client.nthreads()
        async with serving(client, workers=[worker]) as remote:
            assert {*await asyncio.gather(*[remote.where() for _ in range(20)])} == {worker}


async def test_errors_are_theirs():
    async with cluster(1) as client, serving(client) as remote:
        with pytest.raises(KeyError, match="nothing") as caught:
            await remote.fails()
        # With the line of the handler, in the worker.
        assert 'return {}["nothing"]' in caught.value.__notes__[0]
        with pytest.raises(OutOfStock) as caught:
            await remote.sells_nothing(item="tea")
        assert caught.value.args == ("tea", 0)
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
            await remote.add(x=1)
        with pytest.raises(AttributeError, match=r"'asks_its_peer' runs as a task, .* not stream\.socket"):
            await remote.asks_its_peer()
        assert await remote.add(x=1, y=2) == 3


async def test_what_dask_computes_for_a_handler_is_its_answer(tmp_path):
    async with cluster(2) as client, serving(client) as remote:
        for form in ("a Future", "a delayed"):
            assert await remote.hands_on(form=form) == 3
        assert await remote.hands_on(form="Futures") == [1, 2]
        answer = await remote.hands_on(form="a dict of both")
        assert answer == {"key": answer["key"], "future": 3, "delayed": 4, "other": [5]}
        assert answer["key"].startswith("total-")
        assert await remote.hands_on_each(count=3) == [0, 1, 2]
        assert await remote.hands_on_later(folder=str(tmp_path), seconds=0) == [None, None]
        with pytest.raises(TypeError, match="unsupported operand"):
            await remote.hands_on(form="one that fails")


async def test_handlers_that_wait_for_other_tasks_leave_them_room():
    async with cluster(1, threads_per_worker=1) as client, serving(client) as remote:
        calls = [remote.hands_on(form="a delayed") for _ in range(5)]
        assert await asyncio.gather(*calls, remote.hands_on_each(count=3)) == [3, 3, 3, 3, 3, [0, 1, 2]]


async def test_to_give_up_reaches_what_dask_computes_for_a_handler(tmp_path):
    async with cluster(1, threads_per_worker=1) as client, serving(client) as remote:
        call = remote.hands_on_later(folder=str(tmp_path), seconds=0.5)
        await until(lambda: [*tmp_path.iterdir()])
        call.cancel()
        await until(lambda: not client.cluster.scheduler.tasks)
        assert not client.futures


async def test_to_give_up_reaches_the_task(tmp_path):
    async with cluster(1) as client, serving(client) as remote:
        told = [str(tmp_path / name) for name in ("nap", "works", "late")]
        calls = [remote.nap(seconds=60, told=told[0]), remote.works(seconds=60, told=told[1])]
        await until(lambda: running(client) == 2)
        for call in calls:
            call.cancel()
        with pytest.raises(TimeoutError):
            await remote.nap(seconds=60, told=told[2], timeout=0.2)
        await until(lambda: len([*tmp_path.iterdir()]) == 3)
        await until(lambda: not client.cluster.scheduler.tasks)
        assert not client.futures


async def test_a_task_that_waits_is_never_begun(tmp_path):
    async with cluster(1, threads_per_worker=1) as client, serving(client) as remote:
        busy = remote.nap(seconds=0.5)
        calls = [remote.mark(folder=str(tmp_path)) for _ in range(20)]
        await until(lambda: len(client.cluster.scheduler.tasks) == 21)
        for call in calls[5:]:
            call.cancel()
        await asyncio.gather(busy, *calls[:5])
        assert len([*tmp_path.iterdir()]) == 5


async def test_a_client_that_is_gone_ends_its_tasks(tmp_path):
    async with cluster(1) as client, Server(on_cluster(client, HANDLERS)) as server:
        server.listen(0, "127.0.0.1")
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            call = remote.nap(seconds=60, told=str(tmp_path / "nap"))
            await until(lambda: running(client))
        with pytest.raises(OSError, match="closed"):
            await call
        await until(lambda: [*tmp_path.iterdir()])


async def test_a_client_that_was_closed_is_told_though_its_loop_still_runs():
    async with cluster(1) as client, serving(client) as remote:
        await client.close()
        with pytest.raises(RuntimeError, match="'add' runs as a task of a cluster, whose client is closed"):
            await remote.add(x=1, y=2)


async def test_what_the_cluster_cancels_is_told():
    async with cluster(1) as client, serving(client) as remote:
        call = remote.nap(seconds=60)
        await until(lambda: client.futures)
        await client.cancel([distributed.Future(key) for key in client.futures])
        with pytest.raises(RuntimeError, match="the task of 'nap' was cancelled by the cluster"):
            await call


async def test_a_worker_that_dies_has_its_tasks_run_elsewhere():
    async with cluster(2, processes=True, threads_per_worker=1) as client, serving(client) as remote:
        victim = await remote.process()
        calls = [remote.nap(seconds=1) for _ in range(4)]
        await until(lambda: len(client.cluster.scheduler.tasks) == 4)
        os.kill(victim, signal.SIGKILL)
        assert await asyncio.gather(*calls) == ["slept"] * 4


async def test_what_cannot_be_sent_is_told_before_anybody_calls():
    lock = threading.Lock()
    async with cluster(0) as client:
        with pytest.raises(TypeError, match="the handler 'hold' can't be sent to a worker"):
            on_cluster(client, {"hold": lambda stream: lock})


def test_a_client_of_another_loop_serves_as_well(tmp_path):
    async def main(client):
        async with serving(client) as remote:
            assert await asyncio.gather(*[remote.add(x=n, y=1) for n in range(50)]) == [*range(1, 51)]
            with pytest.raises(KeyError, match="nothing"):
                await remote.fails()
            call = remote.nap(seconds=60, told=str(tmp_path / "nap"))
            await asyncio.sleep(0.3)
            call.cancel()
            await until(lambda: [*tmp_path.iterdir()])

    with (
        distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as here,
        distributed.Client(here) as client,
    ):
        asyncio.run(main(client))
