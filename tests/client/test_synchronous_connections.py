"""The connections of the client that blocks: how they end, who shares them, and what they go over."""

import asyncio
import functools
import os
import socket
import threading
import time
from typing import Any

import pytest

import fastcore
from fastcore import ConnectionLost, SyncClient, rpc
from helpers.certificates import THEIRS, client_context, server_context
from helpers.support import Program, in_a_thread, until
from helpers.synchronous import Handlers, client
from helpers.wire import fake_server, frame, served

# ---- connections that end


async def test_a_connection_that_the_server_has_closed_meanwhile_is_replaced():
    def use(server, seconds):
        with client(server) as remote:
            for _ in range(3):
                assert remote.add(x=1, y=2) == 3
                time.sleep(seconds)

    async with served(idle_timeout=0.1) as server:
        await in_a_thread(lambda: use(server, 0.4))


async def test_a_server_that_dies_during_a_call_is_an_error_that_names_the_op():
    def use(port):
        with SyncClient(ip="127.0.0.1", port=port) as remote, pytest.raises(ConnectionLost, match="'add'"):
            remote.add(x=1, y=2)

    async with fake_server() as server:
        call = in_a_thread(lambda: use(server.port))
        stranger = await server.next()
        await stranger.hears()
        stranger.leave()
        await call


async def test_an_answer_that_is_none_costs_its_call_and_what_nobody_asked_for_is_dropped(caplog):
    def use(port):
        with SyncClient(ip="127.0.0.1", port=port) as remote:
            assert remote.add(x=1, y=2) == 3
            with pytest.raises(fastcore.BadMessage):
                remote.add(x=3, y=4)
            assert remote.add(x=5, y=6) == 11

    async with fake_server() as server:
        call = in_a_thread(lambda: use(server.port))
        stranger = await server.next()
        numbers = []
        for answer in (3, None, 11):
            _, header = await stranger.hears_all()
            numbers.append(header["call"])
            stranger.say(frame("beside", call=None), frame(0, call=1000))
            if answer is None:
                stranger.say(
                    b"\x07\0\0\0\x81\xa4call" + bytes([header["call"]]) + b"\xc1" + fastcore.SENTINEL
                )
            else:
                stranger.say(frame(answer, call=header["call"]))
        await call
        assert len(set(numbers)) == 3
    assert "dropped what" in caplog.text


async def test_what_a_server_says_between_calls_without_a_number_ends_its_connection():
    def use(port, said):
        with SyncClient(ip="127.0.0.1", port=port) as remote:
            assert remote.add(x=1, y=2) == 3
            said.wait(10)
            time.sleep(0.05)
            return remote.add(x=1, y=3)

    async with fake_server() as server:
        said = threading.Event()
        call = in_a_thread(lambda: use(server.port, said))
        first = await server.next()
        await first.hears()
        first.say(frame(3))
        await asyncio.sleep(0.05)
        first.say(frame("unasked"))
        said.set()
        second = await server.next()
        await second.hears()
        second.say(frame(4))
        assert await call == 4


async def test_a_request_that_has_the_server_close_the_connection_is_the_last_one_on_it():
    def use(server):
        with client(server) as remote:
            assert remote.add(x=1, y=2, close=True) == 3
            assert remote.close() == "OK"
            assert remote.add(x=1, y=2) == 3
            assert remote.add(x=1, y=2, reply=False) is None
            assert remote.add(x=1, y=2) == 3

    async with served() as server:
        await in_a_thread(lambda: use(server))


async def test_closing_wakes_those_who_wait_in_other_threads():
    async with served(Handlers().all) as server:
        remote = client(server)
        calls = [in_a_thread(lambda: remote.nap(seconds=60)) for _ in range(3)]
        await until(lambda: len(remote._calls.open) == 3)
        await asyncio.sleep(0.05)
        remote.close_streams()
        for call in calls:
            with pytest.raises(ConnectionLost):
                await call
        assert await in_a_thread(lambda: remote.add(x=1, y=2)) == 3
        remote.close_rpc()


async def test_connections_end_with_the_client_that_nobody_keeps():
    async with served() as server:
        remote = client(server)
        assert await in_a_thread(functools.partial(remote.add, x=1, y=2)) == 3
        await until(lambda: open_connections(server) == 1)
        del remote
        await until(lambda: open_connections(server) == 0)


def open_connections(server: Any) -> int:
    return server.stats()["connections"]["open"]


# ---- threads, loops, forks


async def test_many_threads_share_a_client_beside_one_that_awaits():
    def use(remote, thread):
        for n in range(200):
            assert remote.echo(x=[thread, n]) == [thread, n]
        return sum(row["n"] for row in remote.rows.each(count=100))

    async def use_rpc(remote, thread):
        for n in range(200):
            assert await remote.echo(x=[thread, n]) == [thread, n]

    async with (
        served(Handlers().all) as server,
        rpc(ip="127.0.0.1", port=server.port) as awaited,
    ):
        with client(server) as remote:
            sums = await asyncio.gather(
                *[in_a_thread(lambda t=thread: use(remote, t)) for thread in range(8)],
                *[use_rpc(awaited, -thread) for thread in range(4)],
            )
            assert sums[:8] == [4950] * 8
            assert len(remote._calls.open) <= 8


NOTEBOOK = """if True:
    import asyncio, sys
    import fastcore
    from fastcore import SyncClient, send_recv_sync
    port = int(sys.argv[1])
    async def cell():  # what a notebook does: it runs cells inside of its loop
        with SyncClient(ip="127.0.0.1", port=port) as remote:
            print(remote.add(x=1, y=2), *[row["n"] for row in remote.rows.each(count=3)])
        print(send_recv_sync(ip="127.0.0.1", port=port, op="add", x=2, y=2))
        async with fastcore.rpc(ip="127.0.0.1", port=port) as awaited:
            print(await awaited.add(x=2, y=3))
    asyncio.run(cell())
    print(send_recv_sync(ip="127.0.0.1", port=port, op="add", x=3, y=3))
"""


async def test_a_running_loop_is_left_alone():
    def use(server):
        with Program("-c", NOTEBOOK, str(server.port)) as program:
            assert program.rest().splitlines() == ["3 0 1 2", "4", "5", "6"]
            assert program.wait() == 0, program.errors

    async with served(Handlers().all) as server:
        await in_a_thread(lambda: use(server))


NOTEBOOK_WITH_KERNEL = """if True:
    import sys, nbclient, nbformat
    cells = [
        "import fastcore; remote = fastcore.SyncClient(ip='127.0.0.1', port={port})",
        "print(remote.add(x=1, y=2))",
        "print(await fastcore.rpc(ip='127.0.0.1', port={port}).add(x=2, y=2))",
        "print(fastcore.send_recv_sync(ip='127.0.0.1', port={port}, op='add', x=2, y=3))",
        "remote.close_rpc()",
    ]
    cells = [nbformat.v4.new_code_cell(cell.format(port=sys.argv[1])) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=25, kernel_name="python3").execute()
    print(*[output["text"].strip() for cell in notebook.cells for output in cell.outputs])
"""


async def test_the_kernel_of_a_notebook_calls():
    for lacking in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(lacking)

    def use(server):
        with Program("-W", "ignore", "-c", NOTEBOOK_WITH_KERNEL, str(server.port)) as program:
            assert program.rest() == "3 4 5", program.errors

    async with served() as server:
        await in_a_thread(lambda: use(server))


FORKED = """if True:
    import os, sys
    from fastcore import SyncClient
    remote = SyncClient(ip="127.0.0.1", port=int(sys.argv[1]))
    answers = remote.rows.each(count=1000)
    next(answers)
    remote.echo(x=1)
    child = os.fork()
    who = "parent" if child else "child"
    if not child:
        try:
            [*answers]
        except RuntimeError as error:
            assert "before a fork" in str(error), error
        else:
            os._exit(3)
    for n in range(200):
        assert remote.echo(x=[who, n]) == [who, n]
    if not child:
        os._exit(0)
    assert [row["n"] for row in answers] == [*range(1, 1000)]
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    remote.close_rpc()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_after_a_fork_both_go_on_and_the_child_has_connections_of_its_own():
    def use(server):
        with Program("-W", "ignore::DeprecationWarning", "-c", FORKED, str(server.port)) as program:
            assert program.rest() == "0", program.errors

    async with served(Handlers().all) as server:
        await in_a_thread(lambda: use(server))


# ---- other ways to a server


async def test_over_tls():
    def use(server):
        with client(server, ssl_options=client_context()) as remote:
            assert remote.add(x=1, y=2) == 3
            assert remote.echo(x=bytes(2_000_000)) == bytes(2_000_000)
            with pytest.raises(TimeoutError):
                remote.nap(seconds=60, timeout=0.05)
            time.sleep(0.05)
            assert sum(row["n"] for row in remote.rows.each(count=100)) == 4950
        with pytest.raises(ConnectionLost, match="certificate"):
            client(server, ssl_options=client_context(trusts=THEIRS), timeout=1).add()
        with pytest.raises(Exception, match=r"TLS|lost"):
            client(server, timeout=1).add(timeout=2)

    async with served(Handlers().all, ssl_options=server_context()) as server:
        await in_a_thread(lambda: use(server))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")
async def test_over_a_unix_socket(tmp_path):
    address = f"unix:{tmp_path}/here.sock"

    def use():
        with SyncClient(address) as remote:
            assert remote.add(x=1, y=2) == 3
        with pytest.raises(ConnectionLost, match="nobody"):
            SyncClient(f"unix:{tmp_path}/nobody.sock", timeout=0.1).add()

    async with served() as server:
        server.listen(address)
        await in_a_thread(use)


@pytest.mark.parametrize("compression", ["zlib", None])
async def test_with_options(compression):
    def use(server):
        with client(server, compression=compression, writable_values=True, max_buffer_size=10**7) as remote:
            assert remote.echo(x="x" * 100_000) == "x" * 100_000
            assert type(remote.echo(x=bytes(500_000))) is bytearray
            with pytest.raises(fastcore.FrameTooLarge):
                remote.echo(x=bytes(20_000_000))
            assert remote.add(x=1, y=2) == 3

    async with served(Handlers().all) as server:
        await in_a_thread(lambda: use(server))


async def test_a_large_request_is_not_stuck_behind_answers_that_nobody_reads():
    def use(server):
        with client(server, call_timeout=20) as remote:
            assert remote.add(x=1, y=2) == 3
            answers = remote.rows.each(count=100, size=200_000)
            next(answers)
            answers.close()
            assert remote.echo(x=bytes(30_000_000)) == bytes(30_000_000)

    async with served(Handlers().all) as server:
        await in_a_thread(lambda: use(server))
