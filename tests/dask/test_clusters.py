"""Whole clusters over ``fastcore://``: scheduler, nannies, workers and clients in their processes."""

import os
import signal
import sys
from contextlib import asynccontextmanager

import numpy as np
import pytest
from distributed import Client, LocalCluster, Scheduler, Security, Worker
from distributed.comm import get_address_host, parse_address

from helpers.certificates import OURS
from helpers.support import Program, in_a_thread, until

pytestmark = pytest.mark.deadline(120)


@asynccontextmanager
async def cluster(protocol="fastcore", **options):
    """Two workers with their nannies, and a client."""
    async with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            protocol=protocol,
            dashboard_address=":0",
            asynchronous=True,
            **options,
        ) as made,
        Client(made, asynchronous=True) as client,
    ):
        yield client


async def schemes(client):
    """Those of all addresses in a cluster."""
    info = await client.scheduler.identity()
    addresses = [info["address"], *info["workers"], *(each["nanny"] for each in info["workers"].values())]
    return {parse_address(address)[0] for address in addresses if address}


def squares(count):
    return np.arange(count) ** 2


async def test_work_is_done_and_moves_between_workers():
    async with cluster() as client:
        assert await schemes(client) == {"fastcore"}
        first, second = (await client.scheduler.identity())["workers"]
        large = client.submit(squares, 500_000, workers=[first])
        total = client.submit(np.sum, large, workers=[second])
        assert await total == np.sum(squares(500_000))
        assert (await large).flags.writeable
        assert await client.gather(client.map(lambda x: x + 1, range(200))) == [*range(1, 201)]


async def test_a_worker_that_is_killed_is_replaced_and_its_work_done_again():
    async with cluster() as client:
        pids = await client.run(os.getpid)
        futures = client.map(lambda x: x**2, range(50))
        await client.gather(futures)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        assert await client.gather(client.map(lambda x: x**3, range(50))) == [x**3 for x in range(50)]
        assert await client.gather(futures) == [x**2 for x in range(50)]
        await client.wait_for_workers(2)
        assert set((await client.run(os.getpid)).values()) != set(pids.values())


async def test_a_cluster_is_restarted():
    async with cluster() as client:
        before = await client.run(os.getpid)
        await client.restart()
        after = await client.run(os.getpid)
        assert not {*before.values()} & {*after.values()}
        assert await client.submit(sum, [1, 2]) == 3


@pytest.fixture
def security(tmp_path):
    """Certificates for all roles, as Dask takes them: by their files."""
    authority, certificate = tmp_path / "ca.pem", tmp_path / "all.pem"
    OURS.cert_pem.write_to_path(str(authority))
    OURS.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    files = {f"tls_{role}_cert": str(certificate) for role in ("client", "scheduler", "worker")}
    return Security(tls_ca_file=str(authority), require_encryption=True, **files)


async def test_a_cluster_with_tls(security):
    async with cluster("fastcores", security=security) as client:
        assert await schemes(client) == {"fastcores"}
        assert np.sum(await client.submit(squares, 100_000)) == np.sum(squares(100_000))


# What a scheduler that can't start leaves behind is Dask's.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_encryption_that_is_asked_for_isnt_forgotten(security):
    with pytest.raises(RuntimeError) as caught:
        await Scheduler(
            protocol="fastcore", port=0, security=security, dashboard=False, dashboard_address=":0"
        )
    assert "encryption required" in str(caught.value.__cause__)


async def test_both_schemes_in_one_cluster():
    """As it is while a cluster migrates: who comes by one talks with who came by the other."""
    async with Scheduler(
        protocol=["fastcore", "tcp"], port=[0, 0], host="127.0.0.1", dashboard=False, dashboard_address=":0"
    ) as scheduler:
        by_scheme = {
            parse_address(listener.contact_address)[0]: listener.contact_address
            for listener in scheduler.listeners
        }
        assert set(by_scheme) == {"fastcore", "tcp"}
        async with (
            Worker(by_scheme["fastcore"], name="new", dashboard=False) as new,
            Worker(by_scheme["tcp"], name="old", dashboard=False) as old,
        ):
            assert [parse_address(worker.address)[0] for worker in (new, old)] == ["fastcore", "tcp"]
            for address in by_scheme.values():
                async with Client(address, asynchronous=True) as client:
                    for here, there in ((new, old), (old, new)):
                        made = client.submit(squares, 200_000, workers=[here.address], pure=False)
                        moved = client.submit(np.sum, made, workers=[there.address], pure=False)
                        assert await moved == np.sum(squares(200_000))


@pytest.mark.parametrize("scheme", ["fastcore", "tcp"])
async def test_a_worker_on_every_interface_is_reached_where_it_reaches_the_scheduler(scheme):
    """And not at its machine's address in some other network."""
    async with (
        Scheduler(
            protocol=scheme, port=0, host="127.0.0.1", dashboard=False, dashboard_address=":0"
        ) as scheduler,
        Worker(scheduler.address, dashboard=False) as worker,
    ):
        assert parse_address(worker.listen_address)[1].startswith("0.0.0.0:")
        assert get_address_host(worker.address) == "127.0.0.1"


async def test_the_commands_of_dask(tmp_path):
    """``dask scheduler --protocol fastcore`` and ``dask worker fastcore://…``, each a process."""
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--protocol", "fastcore", "--host", "127.0.0.1", "--port", "0"]
    with Program(command=[*scheduler, "--dashboard-address", ":0", "--scheduler-file", str(file)]) as first:
        await until(lambda: file.exists() or first.process.poll() is not None)
        async with Client(scheduler_file=str(file), asynchronous=True) as client:
            assert await schemes(client) == {"fastcore"}
            address = client.scheduler.address
            worker = [*dask, "worker", address, "--no-dashboard", "--nthreads", "1", "--nanny"]
            with Program(command=[*worker, "--local-directory", str(tmp_path)]) as second:
                await client.wait_for_workers(1)
                assert await schemes(client) == {"fastcore"}
                assert await client.submit(sum, [1, 2, 3]) == 6
                second.process.terminate()
                await in_a_thread(second.wait)


async def test_a_client_without_a_loop_of_its_own():
    async with cluster() as client:

        def ask(address):
            with Client(address) as blocking:
                return blocking.submit(sum, [1, 2, 3]).result()

        assert await in_a_thread(lambda: ask(client.scheduler.address)) == 6
