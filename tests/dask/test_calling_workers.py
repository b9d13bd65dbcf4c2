"""One object calls the servers of all workers: whichever is free, or each; and outlives them."""

import asyncio
import gc
import os
import signal
import threading

import distributed
import pytest

import fastcore.dask
from fastcore import ConnectionLost, RPCClosed, Server
from fastcore import rpc as rpc_of_one
from fastcore.dask import ServerPlugin, WorkerLost, addresses, rpc
from helpers.cluster import (
    PROTOCOLS,
    Broken,
    Counter,
    add,
    cluster,
    eventually,
    fails,
    leaves,
    nap,
    process,
    rows,
    ticks,
    where,
)
from helpers.support import in_a_thread, until

# Processes take their time to start, where others are at work.
pytestmark = pytest.mark.deadline(120)

HANDLERS = {
    "add": add,
    "fails": fails,
    "leaves": leaves,
    "nap": nap,
    "process": process,
    "rows": rows,
    "ticks": ticks,
    "where": where,
}


async def test_calls_go_to_the_worker_that_has_the_fewest():
    async with cluster(4) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            await remote.on_all.where()
            # One after the other goes round; three that stay leave one that is free.
            assert len({await remote.where() for _ in range(4)}) == 4
            busy = [remote.nap(seconds=60) for _ in range(3)]
            assert len({await remote.where() for _ in range(8)}) == 1
            for call in busy:
                call.cancel()
            await asyncio.wait(busy)
            assert len({await remote.where() for _ in range(4)}) == 4


async def test_all_are_called_and_answer_by_their_names():
    async with cluster(3) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            answers = await remote.on_all.where()
            assert answers == {worker: worker for worker in await client.nthreads()}
            assert {*(await remote.on_all.add(x=1, y=2)).values()} == {3}


async def test_an_error_among_all_is_raised_when_all_are_over_and_names_its_worker():
    def picky(stream, worker):
        if distributed.get_worker().address == worker:
            raise LookupError("not here")
        return "fine"

    async with cluster(3) as client:
        await client.register_plugin(ServerPlugin({"picky": picky}))
        worker, *_ = await client.nthreads()
        async with rpc(client) as remote:
            with pytest.raises(LookupError, match="not here") as caught:
                await remote.on_all.picky(worker=worker)
        assert f"from worker {worker}; 2 of 3 workers have answered" in caught.value.__notes__


async def test_answers_errors_streams_and_giving_up_are_as_with_one_server(tmp_path):
    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client, call_timeout=30) as remote:
            assert await remote.rows(count=3) == [0, 1, 2]
            assert [number async for number in remote.ticks(count=100)] == [*range(100)]
            async for number in remote.ticks(count=10**9):
                if number == 3:
                    break
            with pytest.raises(KeyError, match="nothing") as caught:
                await remote.fails()
            assert "raised by op 'fails' at 127.0.0.1" in caught.value.__notes__[0]
            with pytest.raises(TypeError, match="by keyword"):
                remote.add(1, 2)
            call = remote.nap(seconds=60, told=str(tmp_path / "cancelled"))
            await remote.add(x=1, y=2)
            call.cancel()
            with pytest.raises(
                TimeoutError, match=r"no answer to 'nap' from the servers 'fastcore' within 0\.05 s"
            ):
                await remote.nap(seconds=60, told=str(tmp_path / "late"), timeout=0.05)
            await until(lambda: len([*tmp_path.iterdir()]) == 2)
            assert {path.read_text() for path in tmp_path.iterdir()} == {"cancelled"}


async def test_beyond_the_limit_of_each_worker_calls_wait_here_for_the_first_that_is_free():
    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client, per_worker=2) as remote:
            await remote.on_all.where()
            long = [remote.nap(seconds=60) for _ in range(3)]
            short = remote.nap(seconds=0.05)
            waiting = [remote.where() for _ in range(10)]
            given_up = remote.where()
            given_up.cancel()
            assert await short == "slept"
            # All of them by the one that had the short one.
            assert len({*await asyncio.gather(*waiting)}) == 1
            running = [call.cancel() for call in long]
            assert all(running)


async def test_many_calls_are_spread_evenly():
    async with cluster(4) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            await remote.on_all.where()
            answers = await asyncio.gather(*[remote.where() for _ in range(1000)])
            shares = [answers.count(worker) for worker in {*answers}]
            assert (sum(shares), len(shares)) == (1000, 4)
            assert min(shares) > 200


# ---- workers come and go


async def test_a_call_waits_for_a_worker_to_come():
    async with cluster(0) as client, rpc(client) as remote:
        waiting = asyncio.ensure_future(remote.where())
        await client.register_plugin(ServerPlugin(HANDLERS))
        client.cluster.scale(1)
        [worker] = [await waiting]
        assert [worker] == [*await client.nthreads()]


async def test_workers_that_come_later_are_called_too_and_those_that_leave_no_more():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            first = await remote.where()
            client.cluster.scale(3)
            await eventually(remote.where, lambda worker: worker != first)
            while len({await remote.where() for _ in range(10)}) < 3:
                await asyncio.sleep(0.02)
            await client.retire_workers([first])
            # Not one of these fails, and in the end only the others answer.
            while first in {await remote.where() for _ in range(10)}:
                await asyncio.sleep(0.02)


async def test_without_any_server_the_error_says_what_is_lacking():
    async with cluster(1) as client:
        async with rpc(client, timeout=0.2) as remote:
            with pytest.raises(
                ConnectionLost, match=r"no worker has a server 'fastcore' .*ServerPlugin\(\.\.\.\)\) starts"
            ):
                await remote.add(x=1, y=2)
            with pytest.raises(ConnectionLost, match="no worker has a server 'fastcore'"):
                await remote.on_all.add(x=1, y=2)
        with pytest.raises(FileNotFoundError):
            await client.register_plugin(ServerPlugin(Broken))
        async with rpc(client, timeout=0.2) as remote:
            with pytest.raises(ConnectionLost, match="FileNotFoundError: no model here"):
                await remote.add(x=1, y=2)


async def test_a_call_that_no_worker_got_yet_goes_to_another():
    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin(Counter))
        async with rpc(client, timeout=0.3) as remote:
            # From now on it knows both, and has a connection for calls to this one.
            called = await remote.where()
            [deaf] = [address for worker, address in (await addresses(client)).items() if worker != called]
            async with rpc_of_one(deaf) as one:
                await one.deafen()
            assert {await remote.where() for _ in range(20)} == {called}


async def test_a_server_that_handles_one_request_at_a_time_does():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS, max_running=1))
        async with rpc(client) as remote, rpc(client) as another:
            calls = [each.nap(seconds=0.01) for each in (remote, another) for _ in range(5)]
            assert await asyncio.gather(*calls) == ["slept"] * 10


async def test_why_a_server_takes_no_connection_is_told():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS, max_connections=2))
        async with rpc(client, share=1) as remote, rpc(client, timeout=0.3) as another:
            await remote.add(x=1, y=2)
            with pytest.raises(OSError, match="has 2 connections, and takes no more"):
                await another.add(x=1, y=2)


class Slamming(Server):
    """A server that takes each connection, and closes it."""

    def handle_stream(self, stream, address):
        stream.close()
        return asyncio.sleep(0)


async def test_a_server_that_is_lost_as_soon_as_it_is_found_keeps_nobody_waiting():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(Slamming, handlers={}))
        async with rpc(client, timeout=0.3) as remote:
            with pytest.raises(ConnectionLost):
                await remote.add(x=1, y=2)


async def test_no_call_is_lost_when_a_server_ends_in_order():
    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            ending = False

            async def calls():
                while not ending:
                    await remote.add(x=1, y=2)

            callers = [asyncio.ensure_future(calls()) for _ in range(20)]
            for _ in range(5):
                # Both of them, one after the other, and while new ones start.
                await client.register_plugin(ServerPlugin(HANDLERS))
                await asyncio.sleep(0.05)
            ending = True
            await asyncio.gather(*callers)


async def test_a_call_under_way_is_over_before_a_server_ends_in_order():
    async with cluster(3) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            await remote.on_all.where()
            calls = [remote.nap(seconds=0.7) for _ in range(6)]
            await remote.where()
            worker, *_ = await client.nthreads()
            await client.retire_workers([worker])
            await client.unregister_worker_plugin("fastcore")
            assert await asyncio.gather(*calls) == ["slept"] * 6


async def test_a_worker_that_the_scheduler_has_given_up_fails_its_calls_after_a_while(monkeypatch):
    monkeypatch.setattr("fastcore.dask.dispatcher._GRACE_PERIOD", 0.1)
    monkeypatch.setattr("fastcore.dask.dispatcher._POLL_INTERVAL", 0.05)
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            call = remote.nap(seconds=60)
            await remote.where()

            async def finds_none(*args):
                return {}

            monkeypatch.setattr("fastcore.dask.dispatcher.lookup", finds_none)
            with pytest.raises(WorkerLost, match="while 'nap' was under way"):
                await call


@PROTOCOLS
async def test_a_worker_that_is_killed_costs_the_calls_under_way_in_it_and_no_others(protocol):
    async with cluster(2, protocol=protocol, processes=True, threads_per_worker=1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client, per_worker=2) as remote:
            processes = await remote.on_all.process()
            calls = [remote.nap(seconds=1) for _ in range(4)]
            waiting = [remote.process() for _ in range(20)]
            victim = next(iter(processes))
            await asyncio.sleep(0.1)
            os.kill(processes[victim], signal.SIGKILL)
            ended = await asyncio.gather(*calls, return_exceptions=True)
            lost = [error for error in ended if isinstance(error, WorkerLost)]
            assert len(lost) == 2
            assert ended.count("slept") == 2
            assert {error.worker for error in lost} == {victim}
            assert f"worker {victim} was lost while 'nap' was under way there" in str(lost[0])
            assert isinstance(lost[0], ConnectionLost)
            assert {*await asyncio.gather(*waiting)} == {*processes.values()} - {processes[victim]}
            # The nanny brings another one, which is called as well.
            while len(now := await remote.on_all.process()) < 2:
                await asyncio.sleep(0.05)
            assert victim not in now
            await eventually(remote.process, lambda answer: answer not in processes.values())


async def test_of_all_the_error_of_one_that_is_lost_says_so():
    def leaves_if(stream, worker):
        if distributed.get_worker().address == worker:
            os._exit(1)
        return "stays"

    async with cluster(2, processes=True, threads_per_worker=1) as client:
        await client.register_plugin(ServerPlugin({"leaves_if": leaves_if}))
        worker, *_ = await client.nthreads()
        async with rpc(client) as remote:
            with pytest.raises(WorkerLost) as caught:
                await remote.on_all.leaves_if(worker=worker)
            assert caught.value.worker == worker
            assert "1 of 2 workers have answered" in caught.value.__notes__[0]

            async def who_stays():
                try:
                    return await remote.on_all.leaves_if(worker="none")
                except WorkerLost:
                    # A process that ends takes connections until the last of it is gone.
                    return {}

            await eventually(who_stays, lambda answers: "stays" in answers.values())


async def test_calls_go_on_while_the_scheduler_is_silent(monkeypatch):
    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client, timeout=0.1) as remote:
            await remote.on_all.where()

            async def silence(*args):
                await asyncio.Event().wait()

            monkeypatch.setattr("fastcore.dask.dispatcher.lookup", silence)
            monkeypatch.setattr("fastcore.dask.dispatcher._POLL_INTERVAL", 0.0)
            for _ in range(5):
                assert await remote.add(x=1, y=2) == 3
                await asyncio.sleep(0.05)


async def test_without_a_scheduler_a_call_says_so():
    async with cluster(1) as client:
        remote = rpc(client, timeout=0.5)
        await client.register_plugin(ServerPlugin(HANDLERS))
        await remote.add(x=1, y=2)
    with pytest.raises(
        ConnectionLost,
        match=r"no worker has a server 'fastcore' .* the scheduler can't be asked: .*the client is closed",
    ):
        await remote.add(x=1, y=2)
    remote.close_rpc()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await addresses(client)


# ---- its end


async def test_a_closed_one_says_so_and_leaves_no_connection():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        worker = client.cluster.workers[0]
        server = worker.plugins["fastcore"]._running[worker].server
        remote = rpc(client)
        waiting = remote.nap(seconds=60)
        await remote.add(x=1, y=2)
        remote.close_rpc()
        remote.close_rpc()
        with pytest.raises(ConnectionLost):
            await waiting
        with pytest.raises(RPCClosed, match="closed"):
            await remote.add(x=1, y=2)
        with pytest.raises(RPCClosed, match="closed"):
            await remote.on_all.add(x=1, y=2)
        assert remote.status == "closed"
        assert "closed" in repr(remote)
        await until(lambda: server.stats()["connections"]["open"] == 0)
        assert not [task for task in asyncio.all_tasks() if "/fastcore/dask/" in str(task.get_coro())]


async def test_one_that_nobody_keeps_ends_with_its_last_call():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        worker = client.cluster.workers[0]
        server = worker.plugins["fastcore"]._running[worker].server
        assert await rpc(client).nap(seconds=0.05) == "slept"
        assert len(await rpc(client).on_all.where()) == 1
        operation = rpc(client).add
        gc.collect()
        await asyncio.sleep(0)
        assert await operation(x=1, y=2) == 3
        del operation
        gc.collect()
        await until(lambda: server.stats()["connections"]["open"] == 0)


async def test_it_looks_at_the_cluster_only_while_it_is_used(monkeypatch):
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        monkeypatch.setattr("fastcore.dask.dispatcher._POLL_INTERVAL", 0.05)
        async with rpc(client) as remote:
            await remote.add(x=1, y=2)
            await until(lambda: not [task for task in asyncio.all_tasks() if "_look" in str(task.get_coro())])
            # And looks again with the next call.
            assert await remote.add(x=1, y=2) == 3


async def test_it_is_no_sequence_and_no_mapping_of_operations():
    async with cluster(1) as client, rpc(client) as remote:
        with pytest.raises(AttributeError, match="no remote call"):
            remote._repr_html_()
        with pytest.raises(AttributeError, match="no remote call"):
            remote.on_all._repr_html_()
        with pytest.raises(TypeError):
            rpc(client, sslopt=None)
        with pytest.raises(ValueError, match="per_worker"):
            rpc(client, per_worker=0)
    assert "closed" in repr(remote)


# ---- from programs that don't await


def test_where_the_client_waits_so_does_this():
    with (
        distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as here,
        distributed.Client(here) as client,
    ):
        client.register_plugin(ServerPlugin(HANDLERS))
        assert addresses(client).keys() == client.nthreads().keys()
        with rpc(client) as remote:
            assert remote.add(x=1, y=2) == 3
            assert remote.rows(count=3) == [0, 1, 2]
            assert len(remote.on_all.where()) == 2
            with pytest.raises(KeyError):
                remote.fails()
            with pytest.raises(TimeoutError):
                remote.nap(seconds=60, timeout=0.05)
            found = []
            threads = [threading.Thread(target=lambda: found.append(remote.where())) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 8
        with pytest.raises(RPCClosed):
            remote.add(x=1, y=2)
        assert rpc(client).add(x=1, y=2) == 3
        assert len(rpc(client).on_all.where()) == 2
        kept = rpc(client)
        assert kept.add(x=1, y=2) == 3
    # Also after the client and its loop have ended.
    kept.close_rpc()


async def test_a_task_calls_the_servers_beside_it():
    def task(x):
        with fastcore.dask.rpc(distributed.get_client()) as remote:
            return remote.add(x=x, y=1)

    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        assert await client.gather(client.map(task, range(4))) == [1, 2, 3, 4]


async def test_another_thread_than_that_of_the_loop_waits():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin(HANDLERS))
        async with rpc(client) as remote:
            assert await in_a_thread(lambda: remote.add(x=1, y=2)) == 3
