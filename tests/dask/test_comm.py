"""``fastcore://`` keeps the contract of a comm of ``distributed``."""

import asyncio
import weakref
from contextlib import asynccontextmanager

import numpy as np
import pytest
from distributed.comm import CommClosedError, connect, get_address_host, listen, parse_address
from distributed.comm.core import FatalCommClosedError
from distributed.comm.registry import get_backend
from distributed.protocol import Serialized, to_serialize
from distributed.protocol.serialize import ToPickle

from fastcore.dask.comm import FastcoreComm
from helpers.certificates import THEIRS, client_context, server_context
from helpers.support import until
from helpers.wire import SENTINEL

TLS = {
    "fastcore": ({}, {}),
    "fastcores": ({"ssl_context": server_context()}, {"ssl_context": client_context()}),
}


async def echo(comm):
    try:
        while True:
            await comm.write(await comm.read())
    except CommClosedError:
        pass
    finally:
        comm.abort()


@asynccontextmanager
async def listening(handle=echo, scheme="fastcore", **options):
    listener = await listen(f"{scheme}://127.0.0.1:0", handle, **TLS[scheme][0], **options)
    try:
        yield listener
    finally:
        listener.stop()


@asynccontextmanager
async def pair(scheme="fastcore", **options):
    """Two ends of a comm; the first has connected."""
    accepted = asyncio.Queue()
    async with listening(accepted.put, scheme) as listener:
        comm = await connect(listener.contact_address, **TLS[scheme][1], **options)
        other = await accepted.get()
        try:
            yield comm, other
        finally:
            comm.abort()
            other.abort()


def memory_of(array):
    """The object that holds an array's memory."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


MESSAGES = [
    {"op": "ping", "key": ("x", 1), "data": b"\x00" * 10, "text": "ä"},
    {},
    None,
    {"data": to_serialize(np.arange(10)), "more": [to_serialize("text"), to_serialize(b"x" * 200_000)]},
    {"in a value": SENTINEL, "data": to_serialize(SENTINEL * 10_000)},
]


@pytest.mark.parametrize("scheme", TLS)
async def test_a_message_comes_back_as_it_was(scheme):
    async with listening(scheme=scheme) as listener:
        comm = await connect(listener.contact_address, **TLS[scheme][1])
        for message in MESSAGES:
            assert await comm.write(message) > 0
            np.testing.assert_equal(await comm.read(), plain(message))
        await comm.close()


def plain(message):
    """A message without the wrapping that says how parts of it are serialised."""
    if isinstance(message, dict):
        return {key: plain(value) for key, value in message.items()}
    if isinstance(message, list):
        return tuple(map(plain, message))
    return getattr(message, "data", message)


@pytest.mark.parametrize("wrap", [to_serialize, ToPickle])
@pytest.mark.parametrize("size", [0, 10, 65_535, 65_536, 300_000, 20_000_000])
async def test_an_array_can_be_written_to_whatever_its_size(wrap, size):
    async with pair() as (comm, other):
        await comm.write({"data": wrap(np.full(size, 7, "u1"))})
        array = (await other.read())["data"]
        assert array.flags.writeable
        array += 1
        assert array.size == size
        assert np.all(array == 8)


@pytest.mark.parametrize(
    "array",
    [np.arange(1_000_000, dtype="u1"), np.asfortranarray(np.arange(400_000.0).reshape(1000, 400))],
    ids=["plain", "Fortran's order"],
)
@pytest.mark.parametrize("count", [1, 2])
async def test_arrays_in_shards_arrive_each_in_its_own_memory_without_a_copy(array, count):
    async with pair() as (comm, other):
        comm.max_shard_size = 200_000
        await comm.write({"data": [to_serialize(array.copy("K")) for _ in range(count)]})
        received = (await other.read())["data"]
        for one in received:
            np.testing.assert_array_equal(one, array)
            assert type(memory_of(one)) is bytearray
            assert len(memory_of(one)) == array.nbytes
        assert len({id(memory_of(one)) for one in received}) == count


async def test_what_isnt_deserialised_is_passed_on_as_it_came():
    async with pair(deserialize=False) as (comm, other):
        array = np.arange(100_000)
        await other.write({"data": to_serialize(array)})
        passed = await comm.read()
        assert type(passed["data"]) is Serialized
        await comm.write(passed)
        np.testing.assert_array_equal((await other.read())["data"], array)


async def test_messages_of_many_arrays_and_of_many_frames():
    async with pair() as (comm, other):
        arrays = [np.full(size, number) for number, size in enumerate([10, 9_000, 30_000] * 70)]
        await comm.write({"data": [to_serialize(array) for array in arrays]})
        for sent, received in zip(arrays, (await other.read())["data"], strict=True):
            np.testing.assert_array_equal(sent, received)


# ---- its end


async def test_who_reads_hears_of_the_end():
    async with pair() as (comm, other):
        reading = asyncio.ensure_future(comm.read())
        await other.close()
        with pytest.raises(CommClosedError):
            await reading
        assert comm.closed()
        for use in (comm.read(), comm.write("x")):
            with pytest.raises(CommClosedError):
                await use


@pytest.mark.parametrize("scheme", TLS)
async def test_an_end_in_order_is_no_violation_of_anything(scheme):
    async with pair(scheme) as (comm, other):
        await other.close()
        with pytest.raises(CommClosedError, match=r"the connection to .* was closed$"):
            await comm.read()


async def test_it_is_closed_when_the_peer_is_gone_though_nobody_reads():
    async with pair() as (comm, other):
        assert not comm.closed()
        other.abort()
        await until(comm.closed)
        with pytest.raises(CommClosedError):
            await comm.write("x")


async def test_what_came_before_the_end_can_be_read():
    async with pair() as (comm, other):
        await other.write("one")
        await other.write("two")
        await other.close()
        await until(comm.closed)
        assert [await comm.read(), await comm.read()] == ["one", "two"]
        with pytest.raises(CommClosedError):
            await comm.read()


@pytest.mark.parametrize("scheme", TLS)
async def test_closing_waits_until_all_has_left(scheme):
    async with pair(scheme) as (comm, other):
        for number in range(3):
            await comm.write({"number": number, "data": to_serialize(bytes(20_000_000))})
        await comm.write("last")
        closing = asyncio.ensure_future(comm.close())
        assert [(await other.read())["number"] for _ in range(3)] == [0, 1, 2]
        assert await other.read() == "last"
        await closing
        with pytest.raises(CommClosedError):
            await other.read()


async def test_it_may_be_closed_twice_and_aborted_after_that():
    async with pair() as (comm, _):
        await asyncio.gather(comm.close(), comm.close())
        assert comm.closed()
        with pytest.raises(CommClosedError):
            await comm.write("x")
        comm.abort()
        await comm.close()


async def test_a_read_that_is_given_up_ends_it():
    """As that of tcp: who goes on reading could take one answer for another."""
    async with pair() as (comm, other):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(comm.read(), 0.01)
        assert comm.closed()
        with pytest.raises(CommClosedError):
            await other.read()


class Unserialisable:
    def __reduce__(self):
        raise TypeError("not this one")


async def test_what_cant_be_serialised_costs_its_writer_an_error_and_nothing_else():
    async with pair() as (comm, other):
        with pytest.raises(TypeError):
            await comm.write({"data": to_serialize(Unserialisable())}, on_error="raise")
        await comm.write("next")
        assert await other.read() == "next"


class Broken:
    """A channel in which something is interrupted."""

    def write(self, message):
        raise KeyboardInterrupt


async def test_a_write_that_is_interrupted_ends_it():
    """As that of tcp: nobody could tell what of the message has left."""
    async with pair() as (comm, other):
        comm._channel = Broken()
        with pytest.raises(KeyboardInterrupt):
            await comm.write("x")
        assert comm.closed()
        with pytest.raises(CommClosedError):
            await other.read()


async def test_a_comm_that_nobody_has_any_more_is_closed(caplog):
    accepted = asyncio.Queue()
    async with listening(accepted.put) as listener:
        comm = await connect(listener.contact_address)
        other = await accepted.get()
        gone = weakref.ref(comm)
        del comm
        with pytest.raises(CommClosedError):
            await other.read()
        assert gone() is None
        assert "dangling" in caplog.text


# ---- who it is


@pytest.mark.parametrize("scheme", TLS)
async def test_it_says_who_its_ends_are(scheme):
    async with pair(scheme) as (comm, other):
        assert comm.peer_address == other.local_address
        assert comm.local_address == other.peer_address
        assert parse_address(comm.peer_address)[0] == scheme
        assert get_address_host(comm.peer_address) == "127.0.0.1"
        assert comm.same_host
        assert ("cipher" in comm.extra_info) == (scheme == "fastcores")
        assert comm in {comm: 1}
        assert weakref.ref(comm)() is comm
        assert scheme in repr(comm)


async def test_a_listener_on_all_addresses_has_one_to_be_reached_at():
    async with listening() as listener:
        scheme, _, port = listener.listen_address.rpartition(":")
        assert scheme == "fastcore://127.0.0.1"
    listener = await listen("fastcore://:0", echo)
    assert parse_address(listener.contact_address)[1] != "0.0.0.0"
    listener.stop()
    backend = get_backend("fastcore")
    assert backend.resolve_address(f"localhost:{port}") == f"127.0.0.1:{port}"


async def test_nothing_that_fastcore_would_limit_is_limited():
    async with pair() as (comm, _):
        assert type(comm) is FastcoreComm
        limits = comm._channel.limits
        times = {"message_timeout", "write_timeout", "idle_timeout", "handshake_timeout", "peer_timeout"}
        assert {getattr(limits, name) for name in times} == {None}
        assert min(limits.max_buffer_size, limits.max_values) > 2**60


# ---- strangers, and encryption


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + SENTINEL,
        b"\x00\x00\x00\x00\x81\xa2op\xa8identity" + SENTINEL,
        b"\x00\x00\x00\x00\x91\xa4text" + SENTINEL,
    ],
    ids=["HTTP", "a request of fastcore's own", "a list of something else"],
)
async def test_a_stranger_is_sent_away(said):
    met = []
    async with listening(met.append) as listener:
        host, port = listener.get_host_port()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(said)
        await reader.read()
        writer.close()
        assert met == []


async def test_who_talks_tcp_to_it_and_to_whom_it_is_talked_hear_of_the_end():
    met = []
    async with listening(met.append) as listener:
        # What tcp makes of our first bytes is a size that no memory has.
        with pytest.raises((OSError, MemoryError, ValueError)):
            await connect(listener.contact_address.replace("fastcore://", "tcp://"))
    listener = await listen("tcp://127.0.0.1:0", met.append)
    with pytest.raises(CommClosedError):
        await connect(listener.contact_address.replace("tcp://", "fastcore://"))
    listener.stop()
    assert met == []


async def test_encryption_that_is_asked_for_isnt_forgotten():
    with pytest.raises(RuntimeError, match="encryption required"):
        await connect("fastcore://127.0.0.1:1", require_encryption=True)
    with pytest.raises(RuntimeError, match="encryption required"):
        await listen("fastcore://127.0.0.1:0", echo, require_encryption=True)
    with pytest.raises(TypeError, match="ssl_context"):
        await connect("fastcores://127.0.0.1:1")


async def test_a_certificate_that_nobody_trusts_is_refused_at_once():
    async with listening(scheme="fastcores") as listener:
        with pytest.raises(FatalCommClosedError):
            await connect(listener.contact_address, ssl_context=client_context(trusts=THEIRS))
