"""Whose a connection is: one owner at a time, in one place; everything else is a clear error at once."""

import asyncio
import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tornado.iostream import IOStream

from fastcore import (
    BadMessage,
    ConnectionLost,
    ConnectionPool,
    coerce_to_rpc,
    connect,
    read,
    rpc,
    send_recv,
    write,
)
from fastcore.contracts import Owner, Transport
from fastcore.transport.tornado import channel_of
from helpers.support import Program, in_a_thread, until
from helpers.wire import frame, raw_frame, served, stranger_at


class Somebody(Owner):
    """An owner that notes what it is told."""

    def __init__(self, goes_on=True, lends=False):
        self.goes_on = goes_on
        self.lends = lends
        self.told = []

    def on_message(self, message, header):
        self.told.append(message)
        return self.goes_on

    def on_error(self, error, header):
        self.told.append(type(error))
        return self.goes_on

    def writable(self):
        pass

    def connection_lost(self):
        self.told.append("lost")

    def over_limit(self, error):
        self.told.append(error)

    def owes(self):
        return False

    def half_closed(self):
        pass

    def is_idle(self):
        return True


def pair() -> tuple[IOStream, IOStream]:
    one, another = socket.socketpair()
    return IOStream(one), IOStream(another)


def close_both(*streams):
    for stream in streams:
        stream.close()


# ---- what an owner and a transport must have

METHODS = {
    Transport: ["pause", "resume", "want_write", "close", "linger"],
    Owner: [
        "on_message",
        "on_error",
        "writable",
        "connection_lost",
        "over_limit",
        "owes",
        "half_closed",
        "is_idle",
    ],
}


@pytest.mark.parametrize(
    ("declared", "method"), [(kind, method) for kind, methods in METHODS.items() for method in methods]
)
def test_who_lacks_a_method_cannot_be_made(declared, method):
    methods = {name: lambda *_: None for name in METHODS[declared]}
    assert type("Complete", (declared,), methods)()
    del methods[method]
    with pytest.raises(TypeError, match=rf"Halfling lacks {method}\(\).* see {declared.__name__}"):
        type("Halfling", (declared,), methods)


async def test_an_owner_is_an_owner():
    one, another = pair()
    with pytest.raises(TypeError, match="owned by an Owner, not by 'somebody'"):
        channel_of(one).own("somebody")
    close_both(one, another)


# ---- owned, given up, lent, taken back


async def test_an_owner_that_listens_is_given_the_messages_and_the_end():
    one, another = pair()
    somebody = Somebody()
    channel = channel_of(another)
    channel.own(somebody)
    for number in range(3):
        write(one, number)
    one.close()
    channel.listen()
    await until(lambda: ConnectionLost in somebody.told)
    assert [told for told in somebody.told if told != "lost"] == [0, 1, 2, ConnectionLost]
    assert somebody.told.count("lost") == 1


async def test_an_owner_that_has_enough_is_given_no_more():
    one, another = pair()
    somebody = Somebody(goes_on=False)
    channel = channel_of(another)
    channel.own(somebody)
    channel.listen()
    for number in range(3):
        write(one, number)
    await until(lambda: somebody.told)
    assert somebody.told == [0]
    channel.disown(somebody)
    assert [await read(another) for _ in range(2)] == [1, 2]
    close_both(one, another)


async def test_a_second_owner_is_refused_at_once_and_told_whose_it_is():
    one, another = pair()
    channel = channel_of(one)
    first = Somebody()
    channel.own(first)
    with pytest.raises(RuntimeError, match=r"belongs to .*Somebody.* a connection of your own"):
        channel.own(Somebody())
    assert channel.owner is first
    channel.disown(first)
    assert channel.owner is None
    second = Somebody()
    channel.own(second)
    # Who doesn't have it can't give it up.
    channel.disown(first)
    assert channel.owner is second
    close_both(one, another)


async def test_what_is_lent_falls_back_to_whom_it_belongs():
    one, another = pair()
    channel = channel_of(another)
    lender, borrower = Somebody(lends=True), Somebody()
    channel.own(lender)
    channel.is_lent = True
    channel.own(borrower)
    assert channel.owner is borrower
    assert channel.is_borrowed
    # It isn't the borrower's to lend.
    with pytest.raises(RuntimeError, match="belongs to"):
        channel.own(Somebody())
    channel.listen()
    write(one, "for the borrower")
    await until(lambda: borrower.told)
    channel.disown(borrower)
    assert channel.owner is lender
    assert channel.is_lent
    channel.take_back()
    assert not channel.is_lent
    channel.listen()
    write(one, "for the lender")
    await until(lambda: lender.told)
    assert (borrower.told, lender.told) == (["for the borrower"], ["for the lender"])
    close_both(one, another)


async def test_what_is_taken_back_is_lost_to_the_borrower_alone():
    one, another = pair()
    channel = channel_of(another)
    lender, borrower = Somebody(lends=True), Somebody()
    channel.own(lender)
    channel.is_lent = True
    channel.own(borrower)
    channel.take_back()
    assert (borrower.told, lender.told) == (["lost"], [])
    assert channel.owner is lender
    channel.disown(borrower)
    assert channel.owner is lender
    close_both(one, another)


async def test_when_a_lent_connection_ends_both_hear_of_it_once():
    one, another = pair()
    channel = channel_of(another)
    lender, borrower = Somebody(lends=True), Somebody()
    channel.own(lender)
    channel.is_lent = True
    channel.own(borrower)
    close_both(one, another)
    assert (borrower.told, lender.told) == (["lost"], ["lost"])


async def test_a_lender_that_gives_up_what_it_lent_is_not_given_it_back():
    one, another = pair()
    channel = channel_of(one)
    lender, borrower = Somebody(lends=True), Somebody()
    channel.own(lender)
    channel.is_lent = True
    channel.own(borrower)
    channel.disown(lender)
    channel.disown(borrower)
    assert channel.owner is None
    close_both(one, another)


async def test_what_somebody_reads_from_has_no_owner_and_the_other_way_round():
    one, another = pair()
    channel = channel_of(one)
    reading = read(one)
    with pytest.raises(RuntimeError, match="two readers"):
        channel.own(Somebody())
    write(another, "for the reader")
    assert await reading == "for the reader"
    channel.own(Somebody())
    channel.listen()
    with pytest.raises(RuntimeError, match="two readers"):
        await read(one)
    close_both(one, another)


async def test_what_has_ended_is_owned_by_nobody():
    one, another = pair()
    channel = channel_of(one)
    close_both(one, another)
    with pytest.raises(ConnectionLost):
        channel.own(Somebody())


async def test_whoever_wants_to_know_of_the_end_alone_needs_not_own_it():
    one, another = pair()
    channel = channel_of(one)
    told = []
    callbacks = [lambda n=n: told.append(n) for n in range(3)]
    for callback in callbacks:
        channel.add_end_callback(callback)
    channel.remove_end_callback(callbacks[1])
    channel.remove_end_callback(callbacks[1])
    close_both(one, another)
    assert told == [0, 2]


# ---- a handler that calls back over its own stream


class CallsBack:
    """Handlers that ask the client something over the stream that they were given."""

    def __init__(self):
        self.kept = []

    async def with_block(self, stream):
        async with rpc(stream=stream) as remote:
            return ["heard", await remote.ask(number=1)]

    async def kept_by_the_handler(self, stream):
        self.kept.append(rpc(stream=stream))
        return ["heard", await self.kept[-1].ask(number=1)]

    async def by_send_recv(self, stream):
        return ["heard", await send_recv(stream=stream, op="ask", number=1)]

    async def two_after_each_other(self, stream):
        async with rpc(stream=stream) as remote:
            await remote.ask(number=0)
        return ["heard", await send_recv(stream=stream, op="ask", number=1)]

    @property
    def handlers(self):
        return {name: getattr(self, name) for name in WAYS}


WAYS = ["with_block", "kept_by_the_handler", "by_send_recv", "two_after_each_other"]


async def is_at_rest(server):
    await until(lambda: server.stats()["connections"]["open"] == 0)
    async with asyncio.timeout(1):
        await server.shutdown(deadline=20)
    assert server.stats()["running"] == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_may_call_back_in_a_request_without_a_number_and_the_stream_falls_back(way):
    async with served(CallsBack().handlers) as server:
        async with stranger_at(server) as stranger:
            for _ in range(3):
                stranger.say(frame({"op": way}))
                while isinstance(question := await stranger.hears(), dict):
                    assert question["op"] == "ask"
                    stranger.say(frame(f"answer {question['number']}"))
                assert question == ["heard", "answer 1"]
                assert await stranger.is_served()
            assert server.stats()["connections"] == {"open": 1, "ever": 1}
        await is_at_rest(server)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_while_it_is_asked_is_not_counted_any_more(way):
    async with served(CallsBack().handlers) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": way}))
            assert (await stranger.hears())["op"] == "ask"
        await is_at_rest(server)


@pytest.mark.parametrize("way", WAYS)
async def test_in_a_numbered_request_to_call_back_is_a_clear_error_and_disturbs_nobody(way):
    async with served(CallsBack().handlers) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(RuntimeError, match=r"belongs to .*connection of a server.*your own"):
                await getattr(remote, way)()
            assert await remote.add(x=1, y=2) == 3
        await is_at_rest(server)


async def test_who_reads_by_hand_beside_numbered_requests_gets_what_has_no_number():
    async def never(stream):
        await asyncio.sleep(3600)

    async with served({"never": never, "reads": read}) as server, stranger_at(server) as stranger:
        # All at once; it is while the first one runs that the stream is lent.
        requests = [{"op": "never"}, {"op": "reads"}, {"op": "add", "x": 1, "y": 2}]
        numbered = [frame(request, call=number) for number, request in enumerate(requests)]
        stranger.say(*numbered, frame("by hand"))
        assert [await stranger.hears(), await stranger.hears()] == [3, "by hand"]


async def test_who_reads_by_hand_beside_numbered_requests_hears_what_is_no_message_and_the_end():
    heard = []

    async def reads(stream):
        while True:
            try:
                await read(stream)
            except Exception as error:
                heard.append(type(error))
                if isinstance(error, ConnectionLost):
                    raise

    async with served({"reads": reads}, cancel_handlers=False) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "reads"}, call=0))
            await until(lambda: server.stats()["running"])
            stranger.say(raw_frame(b"\xc1"), frame({"op": "add", "x": 1, "y": 2}, call=1))
            assert await stranger.hears() == 3
            assert heard == [BadMessage]
        await until(lambda: heard == [BadMessage, ConnectionLost])
        await is_at_rest(server)


async def test_a_plain_function_may_take_its_stream_and_give_it_back():
    kept = []

    def takes(stream):
        kept.append(rpc(stream=stream))
        return "taken"

    async with served({"takes": takes}) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "takes"}))
            assert await stranger.hears() == "taken"
            assert await stranger.is_served()
        await is_at_rest(server)


async def test_an_answer_that_comes_after_the_handler_is_over_is_taken_for_no_request():
    remotes, calls = [], []

    async def asks(stream):
        remotes.append(rpc(stream=stream))
        calls.append(remotes[-1].ask())
        return "over"

    async with served({"asks": asks}) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "asks"}))
            assert (await stranger.hears())["op"] == "ask"
            with pytest.raises(ConnectionLost, match="handler that lent"):
                await calls[0]
            stranger.say(frame({"op": "add", "x": 1, "y": 2}))
            assert b"\x03" not in await stranger.hears_the_end()
        await is_at_rest(server)


# ---- two that would have the same stream


async def test_a_second_rpc_on_a_stream_is_refused_and_the_first_goes_on():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        async with rpc(stream=stream) as first:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"belongs to .*calls to"):
                    rpc(stream=stream)
                assert await first.add(x=1, y=2) == 3
            stream.close()
            # Over a connection of its own.
            assert await first.add(x=1, y=2) == 3
            assert len(first.streams) == 1
            assert stream not in first.streams
        gc.collect()


async def test_coerce_to_rpc_twice_is_refused_for_a_stream_and_nothing_for_an_rpc():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        first = coerce_to_rpc(stream)
        with pytest.raises(RuntimeError, match="belongs to"):
            coerce_to_rpc(stream)
        assert coerce_to_rpc(first) is first
        assert await first.add(x=1, y=2) == 3
        first.close_rpc()
        assert stream.closed()


async def test_a_pool_and_send_recv_may_use_one_stream_and_two_pools_may_not():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        address = ("127.0.0.1", server.port)
        pool, another = ConnectionPool(2), ConnectionPool(2)
        pool.add(address, stream)
        # Whether the server numbers its answers isn't known before the first one.
        first = pool(address).add(x=1, y=2)
        with pytest.raises(RuntimeError, match="two readers"):
            await send_recv(stream=stream, op="add", x=1, y=2)
        assert await first == 3
        calls = [pool(address).add(x=n, y=0) for n in range(10)]
        calls += [send_recv(stream=stream, op="add", x=n, y=100) for n in range(10)]
        assert await asyncio.gather(*calls) == [*range(10), *range(100, 110)]
        with pytest.raises(RuntimeError, match="belongs to"):
            another.add(address, stream)
        assert (another.open, pool.active) == (0, 0)
        assert stream in pool.available[address]
        pool.close()
        # A second connection may have been on its way.
        await until(lambda: not pool.open)


async def test_a_stream_whose_call_is_under_way_is_taken_into_a_pool_afterwards():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        pool = ConnectionPool(2)
        call = send_recv(stream=stream, op="add", x=1, y=2)
        with pytest.raises(RuntimeError, match="1 open"):
            pool.add(("127.0.0.1", server.port), stream)
        assert await call == 3
        pool.add(("127.0.0.1", server.port), stream)
        assert pool.open == 1
        assert await pool(ip="127.0.0.1", port=server.port).add(x=1, y=2) == 3
        pool.close()


async def test_a_stream_that_an_rpc_calls_over_is_not_read_by_hand():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        async with rpc(stream=stream) as remote:
            assert await remote.add(x=1, y=2) == 3
            with pytest.raises(RuntimeError, match="two readers"):
                await read(stream)
            assert await remote.add(x=1, y=2) == 3


async def test_a_stream_that_is_read_by_hand_is_nothing_to_call_over():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        reading = read(stream)
        with pytest.raises(RuntimeError, match="two readers"):
            rpc(stream=stream)
        with pytest.raises(RuntimeError, match="two readers"):
            await send_recv(stream=stream, op="add", x=1, y=2)
        write(stream, {"op": "add", "x": 3, "y": 4})
        assert await reading == 7
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        stream.close()


# ---- where it may be used

USES = {
    "write": lambda stream: write(stream, {"op": "note"}),
    "read": read,
    "send_recv": lambda stream: send_recv(stream=stream, op="note"),
    "rpc": lambda stream: rpc(stream=stream),
}


def refused(use, stream, words):
    with pytest.raises(RuntimeError, match=words):
        USES[use](stream)


@pytest.mark.parametrize("use", USES)
async def test_another_thread_is_told_so_before_anything_is_sent(use):
    noted = []
    async with served({"note": lambda stream: noted.append(1)}) as server:
        stream = await connect("127.0.0.1", server.port)
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        await in_a_thread(
            lambda: refused(use, stream, "another thread than its loop's.*call_soon_threadsafe")
        )

        async def there():
            refused(use, stream, "another event loop than the one that runs here; connect anew")

        await in_a_thread(lambda: asyncio.run(there()))
        # It serves on where it belongs, and nothing came in between.
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        assert not noted
        stream.close()


async def test_another_thread_is_not_given_what_has_arrived_either():
    one, another = pair()
    for number in range(3):
        write(one, number)
    await until(lambda: channel_of(another).unread)
    for expected in range(3):
        await in_a_thread(lambda: refused("read", another, "another thread than its loop's"))
        assert await read(another) == expected
    close_both(one, another)


async def test_an_rpc_called_in_another_thread_says_so_or_has_a_connection_of_its_own_there():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert await remote.add(x=1, y=2) == 3

        def without_a_loop():
            with pytest.raises(RuntimeError, match=r"another thread than its own.*call_soon_threadsafe"):
                remote.add(x=0, y=0)

        async def with_one():
            answers = [await remote.add(x=n, y=0) for n in range(3)]
            remote.close_streams()
            return answers

        await in_a_thread(without_a_loop)
        assert await in_a_thread(lambda: asyncio.run(with_one())) == [0, 1, 2]
        assert await remote.add(x=1, y=2) == 3
        assert server.stats()["connections"]["ever"] >= 2


class ServedElsewhere:
    """A server in a thread and a loop of its own."""

    def __enter__(self):
        self.ready, self.port = threading.Event(), 0
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))
        self.thread.start()
        assert self.ready.wait(30)
        return self

    async def serve(self):
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        async with served({"never": self.never}) as self.server:
            self.port = self.server.port
            self.ready.set()
            await self.over.wait()

    async def never(self, stream):
        await asyncio.sleep(3600)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(30)


@pytest.mark.parametrize("use", USES)
def test_after_its_loop_has_ended_it_says_so_before_anything_is_sent(use):
    async def make():
        stream = await connect("127.0.0.1", server.port)
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        return stream

    async def afterwards():
        refused(use, stream, "another event loop than the one that runs here")

    with ServedElsewhere() as server:
        stream = asyncio.run(make())
        refused(use, stream, "an event loop that has ended; connect anew")
        asyncio.run(afterwards())
        assert server.server.stats()["messages"]["in"] == 1
        stream.close()


def test_a_read_that_has_to_wait_is_refused_in_another_loop_whatever_was_read_before():
    async def make():
        stream = await connect("127.0.0.1", server.port)
        for n in range(3):
            write(stream, {"op": "add", "x": n, "y": 0})
        # All three are here now, and the last read takes what was.
        return stream, [await read(stream) for n in range(3)]

    async def afterwards(stream):
        with pytest.raises(RuntimeError, match="another event loop"):
            read(stream)

    with ServedElsewhere() as server:
        stream, answers = asyncio.run(make())
        assert answers == [0, 1, 2]
        asyncio.run(afterwards(stream))
        stream.close()


def test_a_call_that_its_loop_left_running_is_in_nobodys_way_in_the_next():
    async def leave():
        calls = remote.never(), remote.add(x=1, y=2)
        await until(lambda: server.server.stats()["running"])
        assert not any(call.done() for call in calls)

    async def call():
        return await remote.add(x=1, y=2)

    with ServedElsewhere() as server:
        remote = rpc(ip="127.0.0.1", port=server.port, limit=1)
        for _ in range(3):
            asyncio.run(leave())
            assert asyncio.run(call()) == 3
        remote.close_rpc()


AFTER_A_FORK = """if True:
    import asyncio, os, sys
    from fastcore import *

    def refused(use):
        try:
            use()
        except RuntimeError as error:
            return "another process" in str(error)

    async def child(stream, remote, port):
        uses = [
            lambda: write(stream, {"op": "add", "x": 0, "y": 0}),
            lambda: read(stream),
            lambda: send_recv(stream=stream, op="add", x=0, y=0),
            lambda: rpc(stream=stream),
        ]
        assert all(map(refused, uses))
        for n in range(10):
            assert await remote.add(x=n, y=1000) == n + 1000
        # Closing it here leaves it open there.
        stream.close()
        remote.close_rpc()

    async def connected(port):
        stream = await connect("127.0.0.1", port)
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        remote = rpc(ip="127.0.0.1", port=port)
        assert await remote.add(x=1, y=2) == 3
        return stream, remote

    async def parent(stream, remote, port):
        for n in range(100):
            assert await remote.add(x=n, y=0) == n
            assert await send_recv(stream=stream, op="add", x=n, y=0) == n
        stream.close()
        remote.close_rpc()

    port = int(sys.argv[1])
    loop = asyncio.new_event_loop()
    stream, remote = loop.run_until_complete(connected(port))
    pid = os.fork()
    if not pid:
        asyncio.run(child(stream, remote, port))
        os._exit(0)
    loop.run_until_complete(parent(stream, remote, port))
    loop.close()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_after_a_fork_it_is_the_parents_and_the_child_connects_anew():
    async with served() as server:
        with Program("-W", "ignore::ResourceWarning", "-c", AFTER_A_FORK, str(server.port)) as program:
            await until(lambda: program.process.poll() is not None)
            assert program.rest() == "0", program.errors
            assert program.wait() == 0


FORKED_WHILE_OPENING = """if True:
    import asyncio, os, sys
    from fastcore import connect, read, rpc, write

    async def child(port):
        async with rpc(ip='127.0.0.1', port=port) as remote:
            return await remote.add(x=1, y=2)

    async def main(port, turns):
        async with rpc(ip='127.0.0.1', port=port) as remote:
            call = asyncio.ensure_future(remote.add(x=1, y=2))
            opening = asyncio.ensure_future(connect('127.0.0.1', port))
            for _ in range(turns):
                await asyncio.sleep(0)
            pid = os.fork()
            if not pid:
                asyncio._set_running_loop(None)
                os._exit(asyncio.run(child(port)))
            # Whatever the child closes, and forgets, comes first.
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            stream = await opening
            await write(stream, {'op': 'add', 'x': 4, 'y': 5})
            print(code, await call, await read(stream), await remote.add(x=7, y=8))
            stream.close()

    for turns in range(6):
        asyncio.run(main(int(sys.argv[1]), turns))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_fork_while_a_connection_is_opened_harms_neither_side():
    async with served() as server:
        with Program("-W", "ignore", "-c", FORKED_WHILE_OPENING, str(server.port)) as program:
            await until(lambda: program.process.poll() is not None)
            assert program.rest().split() == ["3", "3", "9", "15"] * 6, program.errors


LEFT_BY_A_CHILD = """if True:
    import asyncio, gc, os, sys
    from fastcore import Server, connect, read, rpc, write
    from helpers.certificates import client_context, server_context

    async def later(stream, x):
        await asyncio.sleep(0.3)
        return x

    async def main(how):
        ours, theirs = (server_context(), client_context()) if how == 'TLS' else (None, None)
        server = Server({'later': later}, ssl_options=ours)
        server.listen(0, '127.0.0.1')
        remote = rpc(ip='127.0.0.1', port=server.port, ssl_options=theirs)
        stream = await connect('127.0.0.1', server.port, ssl_options=theirs)
        await remote.later(x=1)
        await write(stream, {'op': 'later', 'x': 3})
        pid = os.fork()
        if not pid:
            # It forgets what isn't its own, and asyncio goes on with the parent's loop to end that.
            del remote, stream
            sys.exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, await remote.later(x=2), await read(stream), server.stats()['connections']['ever'])
        stream.close()
        remote.close_rpc()
        await server.shutdown()

    asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("how", ["plain", "TLS"])
async def test_a_child_that_leaves_says_nothing_over_the_connections_of_its_parent(how, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with Program("-W", "ignore", "-c", LEFT_BY_A_CHILD, how) as program:
        await until(lambda: program.process.poll() is not None)
        assert program.rest().split() == ["7", "2", "3", "2"], program.errors


# ---- what the check costs

CALLS = """if True:
    import asyncio, sys
    from fastcore import *
    async def main(count):
        async with Server({"add": lambda stream, x, y: x + y}) as server:
            server.listen(0, "127.0.0.1")
            stream = await connect("127.0.0.1", server.port)
            for number in range(count):
                await write(stream, {"op": "add", "x": number, "y": 1})
                assert await read(stream) == number + 1
            async with rpc(stream=stream) as remote:
                for number in range(count):
                    assert await remote.add(x=number, y=1) == number + 1
    asyncio.run(main(int(sys.argv[1])))
"""


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="strace can't trace here")
def test_to_know_where_it_is_costs_no_system_call(tmp_path):
    """Six for a call, at both ends together; one more, if the peer has had the time to go meanwhile.

    Who reads by hand looks for that each time, who calls only where a call took long, as all do here.
    """

    def counted(calls):
        program = [sys.executable, "-c", CALLS, str(calls)]
        trace = tmp_path / "trace"
        subprocess.run(["strace", "-f", "-c", "-o", str(trace), *program], check=True, timeout=100)
        lines = re.findall(
            r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", trace.read_text(), re.MULTILINE
        )
        return {name: int(count) for count, name in lines if name != "total"}

    few, many = counted(100), counted(600)
    per_call = {name: (count - few.get(name, 0)) / 1000 for name, count in many.items()}
    theirs = {name: round(count, 1) for name, count in per_call.items() if count > 0.1}
    assert {*theirs} <= {"sendto", "recvfrom", "epoll_wait", "epoll_pwait", "epoll_pwait2"}
    assert sum(theirs.values()) < 7.5


@pytest.mark.parametrize("ends", ["closed", "stopped before it ran"])
def test_what_a_loop_had_still_to_send_when_it_ended_lets_no_other_loop_write(ends):
    streams = []

    async def makes_one():
        streams.extend(pair())
        write(streams[0], "leaves at once")
        await read(streams[1])

    def writes():
        # The second one waits for the end of a turn that doesn't come.
        write(streams[0], "leaves at once")
        write(streams[0], "waits")

    async def writes_in_another_loop():
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            write(streams[0], "anything")

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(makes_one())
    if ends == "closed":
        # As loops end: with what is still to be done in this turn.
        loop.call_soon(writes)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    else:
        writes()
    asyncio.run(writes_in_another_loop())
    asyncio.set_event_loop(None)
    if ends != "closed":
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.wait_for(read(streams[1]), 10))
        assert loop.run_until_complete(asyncio.wait_for(read(streams[1]), 10)) == "waits"
        close_both(*streams)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        asyncio.set_event_loop(None)
    else:
        close_both(*streams)
