"""The client that blocks: answers, errors, streams of answers, and whatever ends a call in the middle."""

import asyncio
import contextlib
import functools
import gc
import os
import socket
import time
import weakref
from types import FrameType

import pytest

from fastcore import ConnectionLost, RPCClosed, SyncClient, rpc
from fastcore.client.blocking import BlockingCall
from helpers.certificates import THEIRS, client_context, server_context
from helpers.classic_server import classic_server
from helpers.kinds import Order
from helpers.support import Program, in_a_thread, left_to_the_collector, until
from helpers.synchronous import Handlers, client
from helpers.wire import served


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
