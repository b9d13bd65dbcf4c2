"""Whose a connection is: one owner at a time, in one place; everything else is a clear error at once."""

import asyncio
import gc

import pytest

from fastcore import ConnectionLost, ConnectionPool, coerce_to_rpc, connect, read, rpc, send_recv, write
from fastcore.contracts import Owner, Transport
from fastcore.transport.tornado import channel_of
from helpers.owners import Bystander
from helpers.streams import close_both, stream_pair
from helpers.support import until
from helpers.wire import served


class Somebody(Bystander):
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

    def connection_lost(self):
        self.told.append("lost")

    def over_limit(self, error):
        self.told.append(error)


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
    one, another = stream_pair()
    with pytest.raises(TypeError, match="owned by an Owner, not by 'somebody'"):
        channel_of(one).own("somebody")
    close_both(one, another)


# ---- owned, given up, lent, taken back


async def test_an_owner_that_listens_is_given_the_messages_and_the_end():
    one, another = stream_pair()
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
    one, another = stream_pair()
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
    one, another = stream_pair()
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
    one, another = stream_pair()
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
    one, another = stream_pair()
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
    one, another = stream_pair()
    channel = channel_of(another)
    lender, borrower = Somebody(lends=True), Somebody()
    channel.own(lender)
    channel.is_lent = True
    channel.own(borrower)
    close_both(one, another)
    assert (borrower.told, lender.told) == (["lost"], ["lost"])


async def test_a_lender_that_gives_up_what_it_lent_is_not_given_it_back():
    one, another = stream_pair()
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
    one, another = stream_pair()
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
    one, another = stream_pair()
    channel = channel_of(one)
    close_both(one, another)
    with pytest.raises(ConnectionLost):
        channel.own(Somebody())


async def test_whoever_wants_to_know_of_the_end_alone_needs_not_own_it():
    one, another = stream_pair()
    channel = channel_of(one)
    told = []
    callbacks = [lambda n=n: told.append(n) for n in range(3)]
    for callback in callbacks:
        channel.add_end_callback(callback)
    channel.remove_end_callback(callbacks[1])
    channel.remove_end_callback(callbacks[1])
    close_both(one, another)
    assert told == [0, 2]


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
