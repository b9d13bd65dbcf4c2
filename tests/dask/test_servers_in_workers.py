"""A plugin starts a server in each worker of a Dask cluster, and ends it with the worker."""

import asyncio
import functools
import gc
import socket
import sys
import threading
import weakref

import distributed
import pytest

import fastcore.dask
from fastcore import ConnectionLost, Server, connect, rpc
from fastcore.dask import ServerPlugin, addresses
from helpers.cluster import PROTOCOLS, SECURE_PROTOCOLS, Broken, Counter, add, cluster, eventually, nap, where
from helpers.support import until

# Processes take their time to start, where others are at work.
pytestmark = pytest.mark.deadline(120)


async def is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        (await connect(host, int(port), timeout=0.05)).close()
    except ConnectionLost:
        return False
    return True


async def test_each_worker_has_a_server_of_its_own():
    async with cluster(3) as client:
        await client.register_plugin(ServerPlugin({"where": where}))
        found = await addresses(client)
        assert found.keys() == (await client.nthreads()).keys()
        assert len({*found.values()}) == 3
        for worker, address in found.items():
            async with rpc(address) as remote:
                assert await remote.where() == worker


async def test_a_worker_that_comes_later_gets_one_and_takes_it_along_when_it_leaves():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin({"where": where}))
        [first] = await addresses(client)
        client.cluster.scale(2)
        await eventually(lambda: addresses(client), lambda found: len(found) == 2)
        [second] = {*await addresses(client)} - {first}
        address = (await addresses(client))[second]
        await client.retire_workers([second])
        await eventually(lambda: addresses(client), lambda found: list(found) == [first])
        await eventually(lambda: is_open(address), lambda is_there: not is_there)


async def test_the_scheduler_keeps_nothing_of_workers_that_are_gone():
    async with cluster(1) as client:
        scheduler = client.cluster.scheduler
        for name in ("one", "two"):
            await client.register_plugin(ServerPlugin({"where": where}), name=name)
        [first] = await addresses(client, "one")

        def known():
            return {
                worker for entries in scheduler.get_metadata(["fastcore.dask"]).values() for worker in entries
            }

        for _ in range(3):
            async with distributed.Worker(scheduler.address, dashboard=False) as worker:
                assert known() == {first, worker.address}
            await until(lambda: known() == {first})
        # What it said before may come after that.
        scheduler.set_metadata(["fastcore.dask", "two", worker.address], {})
        async with distributed.Worker(scheduler.address, dashboard=False):
            pass
        await until(lambda: known() == {first})


@PROTOCOLS
async def test_the_servers_follow_workers_that_are_restarted(protocol):
    async with cluster(2, protocol=protocol, processes=True, threads_per_worker=1) as client:
        await client.register_plugin(ServerPlugin({"where": where}))
        before = await addresses(client)
        await client.restart()
        await eventually(lambda: addresses(client), lambda found: len(found) == 2)
        after = await addresses(client)
        assert not {*before.values()} & {*after.values()}
        for worker, address in after.items():
            async with rpc(address) as remote:
                assert await remote.where() == worker


async def test_unregistering_leaves_nothing_in_the_workers():
    servers = weakref.WeakSet()

    class Seen(Server):
        def __init__(self) -> None:
            super().__init__({})
            servers.add(self)

    async with cluster(2) as client:
        threads = threading.active_count()
        await client.register_plugin(ServerPlugin(Seen))
        found = await addresses(client)
        async with rpc(next(iter(found.values()))) as remote:
            await remote.identity()
            await client.unregister_worker_plugin("fastcore")
            assert await addresses(client) == {}
            assert not any([await is_open(address) for address in found.values()])
            await eventually(client.nthreads, lambda _: not remote.streams)
        for worker in client.cluster.workers.values():
            assert "fastcore" not in worker.plugins
        assert not [task for task in asyncio.all_tasks() if "/fastcore/" in str(task.get_coro())]
        assert threading.active_count() == threads
        del worker
        await eventually(client.nthreads, lambda _: gc.collect() >= 0 and not servers)


async def test_the_servers_end_with_the_cluster():
    async with cluster(2) as client:
        await client.register_plugin(ServerPlugin({}))
        found = await addresses(client)
    assert not any([await is_open(address) for address in found.values()])


async def test_to_register_again_replaces_the_servers():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin({"which": lambda stream: "old"}))
        [old] = (await addresses(client)).values()
        await client.register_plugin(ServerPlugin({"which": lambda stream: "new"}))
        [new] = (await addresses(client)).values()
        assert not await is_open(old)
        async with rpc(new) as remote:
            assert await remote.which() == "new"


async def test_two_plugins_have_servers_side_by_side():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin({"which": lambda stream: "one"}, name="one"))
        # Whoever registers it has the last word.
        await client.register_plugin(ServerPlugin({"which": lambda stream: "two"}, name="one"), name="two")
        for name in ("one", "two"):
            [address] = (await addresses(client, name)).values()
            async with rpc(address) as remote:
                assert await remote.which() == name
        assert await addresses(client) == {}
        await client.unregister_worker_plugin("one")
        assert (len(await addresses(client, "one")), len(await addresses(client, "two"))) == (0, 1)


@pytest.mark.parametrize(
    "plugin",
    [
        functools.partial(ServerPlugin, Counter, start=10),
        functools.partial(ServerPlugin, functools.partial(Counter, 10)),
        functools.partial(ServerPlugin, lambda: Counter(10)),
    ],
)
async def test_a_server_with_a_state_is_made_in_each_worker(plugin):
    async with cluster(2) as client:
        await client.register_plugin(plugin())
        for address in (await addresses(client)).values():
            async with rpc(address) as remote:
                assert [await remote.increment(), await remote.increment()] == [11, 12]


async def test_a_plugin_given_to_workers_by_hand_may_be_one_for_all_of_them():
    async with distributed.Scheduler(port=0, dashboard_address=":0", protocol="tcp://") as scheduler:
        plugin = ServerPlugin({"where": where})
        options = {"plugins": [plugin], "dashboard_address": ":0"}
        async with (
            distributed.Worker(scheduler.address, **options),
            distributed.Worker(scheduler.address, **options),
            distributed.Client(scheduler.address, asynchronous=True) as client,
        ):
            found = await addresses(client)
            assert len({*found.values()}) == 2
            for worker, address in found.items():
                async with rpc(address) as remote:
                    assert await remote.where() == worker


async def test_a_handler_that_runs_when_it_ends_is_given_a_moment():
    async with cluster(1) as client:
        await client.register_plugin(ServerPlugin({"nap": nap}, deadline=0.1))
        [address] = (await addresses(client)).values()
        async with rpc(address) as remote:
            short, long = remote.nap(seconds=0.05), remote.nap(seconds=60)
            await remote.identity()
            await client.unregister_worker_plugin("fastcore")
            assert await short == "slept"
            with pytest.raises(ConnectionLost):
                await long


# ---- where


async def test_it_listens_where_its_worker_does():
    async with cluster(1, processes=False, protocol="tcp://", host="127.0.0.2") as client:
        await client.register_plugin(ServerPlugin({}))
        [address] = (await addresses(client)).values()
        assert address.startswith("127.0.0.2:")
        assert not await is_open(address.replace("127.0.0.2", "127.0.0.1"))


async def test_a_host_of_its_own_may_be_every_interface():
    async with cluster(1, protocol="tcp://", host="127.0.0.2") as client:
        await client.register_plugin(ServerPlugin({}, host="0.0.0.0"))
        [address] = (await addresses(client)).values()
        # Reached by what the worker is reached by.
        assert address.startswith("127.0.0.2:")
        assert await is_open(address.replace("127.0.0.2", "127.0.0.1"))


# Tornado leaves the socket that it couldn't bind to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_of_some_ports_each_takes_the_first_that_is_free():
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        first.listen()
        taken, free = first.getsockname()[1], second.getsockname()[1]
        second.close()
        async with cluster(1) as client:
            await client.register_plugin(ServerPlugin({}, port=(taken, free)))
            assert [*(await addresses(client)).values()] == [f"127.0.0.1:{free}"]
            with pytest.raises(OSError, match="in use"):
                await client.register_plugin(ServerPlugin({}, port=taken, name="another"))
    with pytest.raises(ValueError, match="needs a port to listen on"):
        ServerPlugin({}, port=())


@SECURE_PROTOCOLS
async def test_the_servers_of_a_cluster_with_tls_are_reached_with_its_certificates_only(protocol):
    pytest.importorskip("cryptography", reason="it makes the certificates")
    security = distributed.Security.temporary()
    async with cluster(1, protocol=protocol, security=security) as client:
        await client.register_plugin(ServerPlugin({"add": add}))
        [address] = (await addresses(client)).values()
        async with fastcore.dask.rpc(client) as remote:
            assert await remote.add(x=1, y=2) == 3
        context = security.get_connection_args("client")["ssl_context"]
        async with rpc(address, ssl_options=context) as remote:
            assert await remote.add(x=1, y=2) == 3
        async with rpc(address) as remote:
            with pytest.raises(ConnectionRefusedError, match="speaks TLS"):
                await remote.add(x=1, y=2)
        # Who wants it without says so.
        await client.register_plugin(ServerPlugin({"add": add}, ssl_options=None))
        async with fastcore.dask.rpc(client) as remote:
            assert await remote.add(x=1, y=2) == 3


# ---- errors


async def test_an_error_of_its_start_reaches_who_registers_it_and_names_the_worker():
    async with cluster(1) as client:
        with pytest.raises(FileNotFoundError, match="no model here") as caught:
            await client.register_plugin(ServerPlugin(Broken))
        [worker] = await client.nthreads()
        assert f"in worker {worker}" in "".join(caught.value.__notes__)
        assert await addresses(client) == {}
        await client.unregister_worker_plugin("fastcore")


async def test_what_makes_no_server_is_refused():
    with pytest.raises(TypeError, match="a dict of handlers, or what makes a Server"):
        ServerPlugin("shop:handlers")
    async with cluster(1) as client:
        with pytest.raises(TypeError, match=r"was to make a fastcore\.Server, and made \[\]"):
            await client.register_plugin(ServerPlugin(list))
        with pytest.raises(TypeError, match="no keyword 'max_runing': did you mean 'max_running'"):
            await client.register_plugin(ServerPlugin({}, max_runing=3))


async def test_what_cannot_be_sent_to_a_worker_is_told_by_the_name_of_the_plugin(caplog):
    lock = threading.Lock()
    async with cluster(1) as client:
        with pytest.raises(TypeError, match=r"'shop' serves can't be sent .* in its __init__"):
            await client.register_plugin(ServerPlugin({"hold": lambda stream: lock}, name="shop"))
        assert await addresses(client, "shop") == {}


async def test_a_module_that_the_workers_lack_is_named_and_harms_no_worker(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def answer(stream):\n    return 42\n")
    async with cluster(1, processes=True) as client:
        with monkeypatch.context() as here:
            here.syspath_prepend(str(tmp_path))
            import only_here

        plugin = ServerPlugin({"answer": only_here.answer})
        with pytest.raises(ImportError, match=r"lacks what the handlers .*'only_here'.*upload_file"):
            await client.register_plugin(plugin)
        # One that comes later works all the same.
        client.cluster.scale(2)
        await client.wait_for_workers(2)
        assert await client.submit(sum, [1, 2]) == 3
        assert await addresses(client) == {}
        await client.upload_file(str(tmp_path / "only_here.py"))
        await client.register_plugin(plugin)
        async with fastcore.dask.rpc(client) as remote:
            assert {*(await remote.on_all.answer()).values()} == {42}
    sys.modules.pop("only_here")
