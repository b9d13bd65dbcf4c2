"""The client that blocks: scripts, threads, notebooks, and whatever ends a call in the middle."""

import asyncio
import contextlib
import functools
import gc
import os
import socket
import threading
import time
import weakref
from types import FrameType
from typing import Any

import pytest

import fastcore
from fastcore import ConnectionLost, RPCClosed, SyncClient, rpc
from fastcore.client.blocking import BlockingCall
from helpers.certificates import THEIRS, client_context, server_context
from helpers.classic_server import classic_server
from helpers.kinds import Order
from helpers.support import Program, in_a_thread, left_to_the_collector, until
from helpers.wire import fake_server, frame, served


def client(server: Any, **options: Any) -> SyncClient:
    return SyncClient(ip="127.0.0.1", port=server.port, **options)


class Handlers:
    """What is called, and what became of it."""

    def __init__(self) -> None:
        self.ended = 0
        self.given = 0

    def boom(self, stream):
        raise KeyError("x")

    def rows(self, stream, count, size=0):
        try:
            for number in range(count):
                self.given += 1
                yield {"n": number, "padding": b"p" * size}
        finally:
            self.ended += 1

    async def nap(self, stream, seconds):
        try:
            await asyncio.sleep(seconds)
            return "slept"
        finally:
            self.ended += 1

    def echo(self, stream, x):
        return x

    @property
    def all(self):
        return {name: getattr(self, name) for name in ("boom", "rows", "nap", "echo")}


async def test_a_call_gives_its_answer_over_one_connection_that_is_kept():
    def use(server):
        with client(server) as remote:
            assert [remote.add(x=n, y=1) for n in range(100)] == [*range(1, 101)]
            assert remote.echo(x=[bytes(3_000_000), Order("tea")]) == [bytes(3_000_000), Order("tea")]
            assert remote.identity()["type"] == "Server"
            return remote, len(server.connections) if hasattr(server, "connections") else None

    async with served(Handlers().all) as server:
        remote, _ = await in_a_thread(lambda: use(server))
        assert remote.address == f"127.0.0.1:{server.port}"
        assert remote.status == "closed"
        with pytest.raises(RPCClosed):
            remote.add(x=1, y=2)


async def test_errors_are_those_of_rpc():
    def use(server):
        told = {}
        with client(server) as remote:
            for op, keywords in (("boom", {}), ("nothing", {}), ("add", {"x": 1}), ("echo", {"x": object()})):
                with pytest.raises((KeyError, ValueError, TypeError)) as caught:
                    getattr(remote, op)(**keywords)
                told[op] = caught.value
            assert remote.add(x=1, y=2) == 3
        return told

    async with served(Handlers().all) as server:
        told = await in_a_thread(lambda: use(server))
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            for op, keywords in (("boom", {}), ("nothing", {}), ("add", {"x": 1}), ("echo", {"x": object()})):
                with pytest.raises(type(told[op])) as caught:
                    await getattr(remote, op)(**keywords)
                if op != "echo":
                    assert str(caught.value) == str(told[op])
                    assert caught.value.__notes__[0].split(";")[0] == told[op].__notes__[0].split(";")[0]


def test_arguments_have_keywords_and_private_names_are_no_calls():
    remote = SyncClient("127.0.0.1:1")
    with pytest.raises(TypeError, match="by keyword"):
        remote.add(1, 2)
    with pytest.raises(TypeError, match="by keyword"):
        remote.add.each(1, 2)
    with pytest.raises(TypeError, match="reply="):
        remote.add.each(reply=False)
    with pytest.raises(AttributeError):
        remote._add  # noqa: B018
    with pytest.raises(TypeError):
        SyncClient("127.0.0.1:1", max_depht=1)
    with pytest.raises(ValueError, match="timeout"):
        SyncClient("127.0.0.1:1", timeout=-1)


def test_a_port_where_nobody_listens_is_an_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(ConnectionLost, match=rf"127\.0\.0\.1:{port}, not within 0\.2 s"):
            SyncClient(ip="127.0.0.1", port=port, timeout=0.2).add()
        assert time.monotonic() - begun < 5
        with pytest.raises(TimeoutError, match="within 0"):
            SyncClient(ip="127.0.0.1", port=port).add(timeout=0.05)


async def test_whatever_prevents_a_connection_is_told_also_to_a_call_that_has_a_timeout():
    def use(server):
        with pytest.raises(ConnectionLost, match="certificate verify failed"):
            client(server, ssl_options=client_context(trusts=THEIRS)).add(timeout=2)

    async with served(ssl_options=server_context()) as server:
        await in_a_thread(lambda: use(server))


async def test_an_error_keeps_nothing_of_whoever_it_was_told_to():
    class OfTheCaller:
        pass

    def fails(call):
        mine = OfTheCaller()
        kept.append(weakref.ref(mine))
        call()

    def use(server):
        with client(server) as remote:
            for call in (remote.boom, lambda: [*remote.boom.each()]):
                with contextlib.suppress(KeyError):
                    fails(call)

    kept: list[weakref.ref[OfTheCaller]] = []
    gc.disable()
    try:
        async with served(Handlers().all) as server:
            await in_a_thread(lambda: use(server))
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


async def test_a_server_that_begins_to_listen_a_little_later_is_found():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    call = in_a_thread(lambda: SyncClient(ip="127.0.0.1", port=port).add(x=1, y=2))
    await asyncio.sleep(0.1)
    async with served() as server:
        server.listen(port, "127.0.0.1")
        assert await call == 3


# ---- many answers


async def test_answers_come_one_by_one_or_as_a_list():
    handlers = Handlers()

    def use(server):
        with client(server) as remote:
            assert [row["n"] for row in remote.rows.each(count=5_000)] == [*range(5_000)]
            assert len(remote.rows(count=3_000)) == 3_000
            assert [*remote.rows.each(count=0)] == remote.rows(count=0) == []
            assert [*remote.echo.each(x=[1, 2])] == [1, 2]
            with pytest.raises(TypeError, match="no stream"):
                next(remote.echo.each(x=1))
            with pytest.raises(KeyError):
                next(remote.boom.each())
            assert remote.add(x=1, y=2) == 3
            assert repr(remote).endswith("1 free connections>")

    async with served(handlers.all) as server:
        await in_a_thread(lambda: use(server))


async def test_a_slow_reader_stops_the_generator_and_leaving_the_loop_ends_it():
    handlers = Handlers()

    def use(server):
        with client(server) as remote:
            answers = remote.rows.each(count=10_000, size=10_000)
            next(answers)
            assert remote.add(x=1, y=2) == 3  # over another connection
            time.sleep(0.2)
            given = handlers.given
            answers.close()
            assert [*answers] == []
            for row in remote.rows.each(count=10_000):
                if row["n"] == 3:
                    break
            with remote.rows.each(count=10_000) as rows:
                next(rows)
            return given, [remote.add(x=n, y=0) for n in range(10)]

    async with served(handlers.all) as server:
        given, answers = await in_a_thread(lambda: use(server))
        assert given < 500
        assert answers == [*range(10)]
        await until(lambda: handlers.ended == 3)


# ---- given up


async def test_a_call_that_takes_too_long_ends_and_the_next_one_gets_its_own_answer():
    handlers = Handlers()

    def use(server):
        with client(server, call_timeout=0.05) as remote:
            for _ in range(3):
                with pytest.raises(
                    TimeoutError, match=r"no answer to 'nap' from 127\.0\.0\.1:\d+ within 0\.05 s"
                ):
                    remote.nap(seconds=60)
                assert remote.add(x=1, y=2, timeout=10) == 3
            with pytest.raises(TimeoutError, match="'nap'"):
                next(remote.nap.each(seconds=60))
            assert remote.nap(seconds=0.1, timeout=10) == "slept"
            assert remote.echo(x=bytes(1_000_000), timeout=10) == bytes(1_000_000)

    async with served(handlers.all) as server:
        await in_a_thread(lambda: use(server))
        await until(lambda: handlers.ended == 5)


async def test_a_call_to_a_classic_server_that_takes_too_long_costs_its_connection():
    async def nap(seconds):
        await asyncio.sleep(seconds)
        return "slept"

    def use(server):
        with client(server) as remote:
            for first in (True, False):
                with pytest.raises(TimeoutError):
                    remote.nap(seconds=0.3, timeout=0.05)
                assert remote.add(x=1, y=2) == 3, first
            assert [*remote.echo.each(x=[1, 2])] == [1, 2]
            assert remote.echo(x={1}) == [1]
            remote.echo(x=1, reply=False)
            assert remote.add(x=1, y=3) == 4

    async with classic_server(nap=nap, add=lambda x, y: x + y, echo=lambda x: x) as server:
        await in_a_thread(lambda: use(server))


INTERRUPTED = """if True:
    import builtins, random, signal, sys, time
    from fastcore import SyncClient
    port, kind = int(sys.argv[1]), getattr(builtins, sys.argv[2])
    chance = random.Random(7)

    def call(remote, number):
        if number % 3:
            timeout = 60 if number % 2 else None
            got = remote.echo(x=[number, bytes(number % 7 * 30_000)], timeout=timeout)
            assert got == [number, bytes(number % 7 * 30_000)], (got[0], number)
        else:
            rows = [row["n"] for row in remote.rows.each(count=number % 50)]
            assert rows == [*range(number % 50)], number

    # How long a call takes here that has to connect, as it does after an interrupt at a classic server.
    began = time.monotonic()
    for number in range(20):
        with SyncClient(ip="127.0.0.1", port=port) as remote:
            call(remote, number)
    usual = (time.monotonic() - began) / 20

    def handler(*_):
        raise kind("by a signal")

    # By a timer, which comes once for each call, and never to who counts.
    signal.signal(signal.SIGALRM, handler)
    interrupted = right = number = 0
    remote = SyncClient(ip="127.0.0.1", port=port)
    while interrupted < 300:
        number += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + chance.random() * 2 * usual)
            call(remote, number)
            signal.setitimer(signal.ITIMER_REAL, 0)
            right += 1
        except kind as error:
            assert "by a signal" in str(error)
            interrupted += 1
    print("right", right > 0, remote.echo(x=number) == number)
    remote.close_rpc()
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no timer that sends signals")
@pytest.mark.parametrize("peer", ["today's", "classic"])
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "TimeoutError", "InterruptedError"])
async def test_what_a_signal_raises_at_any_moment_gives_nobody_somebody_elses_answer(peer, error):
    """What Ctrl-C raises, and what looks like something that happened to the connection."""

    def rows(count):
        return [{"n": n} for n in range(count)]

    def use(server):
        with Program("-W", "ignore::ResourceWarning", "-c", INTERRUPTED, str(server.port), error) as program:
            assert program.rest() == "right True True", program.errors

    if peer == "classic":
        async with classic_server(echo=lambda x: x, rows=rows) as server:
            await in_a_thread(lambda: use(server))
    else:
        async with served(Handlers().all) as server:
            await in_a_thread(lambda: use(server))


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


async def test_calls_that_are_over_leave_nothing_to_the_collector():
    def each(remote):
        assert len(list(remote.rows.each(count=3))) == len(remote.rows(count=3)) == 3
        for _ in remote.rows.each(count=3):
            break

    def wrong(remote):
        for call in (remote.boom, remote.boom.each):
            with contextlib.suppress(KeyError):
                list(call())
        with contextlib.suppress(TypeError):
            remote.rows.each(reply=False)

    def nowhere(remote):
        with socket.socket() as silent, contextlib.suppress(ConnectionLost):
            silent.bind(("127.0.0.1", 0))
            SyncClient(ip="127.0.0.1", port=silent.getsockname()[1], timeout=0.05).rows()

    def left_by(does):
        with client(server) as remote:
            does(remote)
            gc.collect()
            gc.disable()
            does(remote)
            left = left_to_the_collector(BaseException, FrameType, BlockingCall)
            gc.enable()
            return left

    async with served(Handlers().all) as server:
        for does in (each, wrong, nowhere):
            assert not await in_a_thread(functools.partial(left_by, does)), does
