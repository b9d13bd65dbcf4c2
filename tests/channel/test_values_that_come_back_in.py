"""What is sent, and what is told, may have methods that come back in.

A type's ``pack``, a dict's ``items``, memory that is given back, a log handler: each runs in the middle of
sending or receiving a message, and may call anything of the same connection.
"""

import asyncio
import logging
import random
import sys
import weakref
from contextlib import contextmanager, suppress

import pytest

from fastcore import BadValue, ConnectionLost, Server, TooDeep, connect, read, register_type, rpc, write
from helpers.certificates import client_context, server_context
from helpers.support import until
from helpers.torture import TIMES, Somebody

KINDS = {"plain": (None, None), "TLS": (server_context(), client_context())}


class Everybody:
    """Who comes in, from wherever it may be; one at a time."""

    somebody = None

    def __call__(self, *_):
        if self.somebody is not None:
            self.somebody()

    @contextmanager
    def does(self, act, times=TIMES):
        self.somebody = Somebody(lambda chance: act(), 0, times)
        try:
            yield self.somebody
        finally:
            self.somebody = None


come_in = Everybody()


class Parcel:
    def __init__(self, content):
        self.content = content

    def __eq__(self, other):
        return type(other) is Parcel and self.content == other.content

    __hash__ = None

    def pack(self):
        come_in()
        return self.content

    @classmethod
    def unpack(cls, content):
        come_in()
        return cls(content)


register_type(Parcel, name="tests.Parcel", pack=Parcel.pack, unpack=Parcel.unpack)


class Items(dict):
    def items(self):
        come_in()
        return super().items()


class Entries(list):
    def __iter__(self):
        come_in()
        return super().__iter__()


class Op(str):
    __slots__ = ()

    def __hash__(self):
        come_in()
        return super().__hash__()

    def __eq__(self, other):
        come_in()
        return super().__eq__(other)


class Truth(int):
    def __bool__(self):
        come_in()
        return super().__bool__()


VALUES = {
    "a registered type": lambda: Parcel([1, "two"]),
    "large, in a registered type": lambda: Parcel([bytes(70_000)]),
    "a dict's items": lambda: Items(a=1),
    "a list's items": lambda: Entries([1, bytes(70_000)]),
    "a registered type as a key's value": lambda: {"x": {"y": Parcel(None)}},
}


def handlers():
    async def later(stream, x):
        await asyncio.sleep(0)
        return x

    return {Op("echo"): lambda stream, x: x, Op("later"): later}


async def served(**options):
    server = Server(handlers(), **options)
    server.listen(0, "127.0.0.1")
    return server


@pytest.mark.parametrize("op", ["echo", "later"])
@pytest.mark.parametrize("value", VALUES)
async def test_a_value_may_call_while_it_is_sent_and_received(value, op):
    server = await served()
    calls = []
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.echo(x=0)
        with come_in.does(lambda: calls.append(remote.later(x=len(calls)))) as somebody:
            for count in range(20):
                sent = [count, VALUES[value]()]
                assert await getattr(remote, op)(x=sent) == sent
        assert await asyncio.gather(*calls) == [*range(len(calls))]
        assert calls
        assert not somebody.errors
    await server.shutdown()


@pytest.mark.parametrize("value", VALUES)
async def test_a_call_whose_value_closes_the_connection_ends(value):
    server = await served()
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.echo(x=0)
        for _ in range(5):
            with come_in.does(remote.close_streams), suppress(ConnectionLost):
                # It may be over when the connection is closed, by reading its answer.
                assert await remote.echo(x=VALUES[value]()) == VALUES[value]()
        assert await remote.echo(x="still there") == "still there"
    await server.shutdown()


async def test_a_write_whose_value_closes_the_connection_says_so():
    server = await served()
    stream = await connect("127.0.0.1", server.port)
    with come_in.does(stream.close), pytest.raises(ConnectionLost, match="was closed"):
        await write(stream, {"op": "echo", "x": Parcel(1)})
    await server.shutdown()


async def test_what_is_asked_whether_it_is_true_may_call():
    server = await served()
    calls = []
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        with come_in.does(lambda: calls.append(remote.echo(x=len(calls)))):
            assert await remote.echo(x=1, reply=Truth(0)) is None
        assert await asyncio.gather(*calls) == [*range(len(calls))]
        assert calls
    await server.shutdown()


@pytest.mark.parametrize("size", [0, 70_000])
@pytest.mark.parametrize("change", [lambda value: value.append(5), lambda value: value.pop()])
async def test_a_list_that_changes_while_it_is_packed_is_not_sent(size, change):
    server = await served()
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.echo(x=0)
        for value in ([Parcel(1), 2, bytes(size)], {"in": [[Parcel(1), 2, 3], bytes(size)]}):
            changes = value if isinstance(value, list) else value["in"][0]
            with (
                come_in.does(lambda changes=changes: change(changes), times=1),
                pytest.raises(BadValue, match=r"call of 'echo'.* has changed its size while it was packed"),
            ):
                await remote.echo(x=value)
        assert await remote.echo(x="nothing was sent") == "nothing was sent"
    assert server.stats()["errors"] == {}
    await server.shutdown()


@pytest.mark.parametrize("error", [KeyError("weight"), AttributeError("no weight"), RuntimeError("boom")])
async def test_the_value_is_named_whatever_its_type_raises_when_it_is_packed(error):
    def fail():
        raise error

    server = await served()
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        text = rf"x\['parcels'\]\[1\] is of type .*Parcel, and can't be sent: {type(error).__name__}: "
        come_in.somebody = fail
        try:
            with pytest.raises(BadValue, match=text):
                await remote.echo(x={"parcels": [1, Parcel(1)]})
        finally:
            come_in.somebody = None
    await server.shutdown()


# ---- memory that is given back


class _Weakly(bytearray):
    pass


class _Deleted(bytearray):
    def __del__(self):
        come_in()


class _Buffer:
    def __init__(self, data):
        self.data = bytearray(data)

    def __buffer__(self, flags):
        come_in()
        return memoryview(self.data)

    def __release_buffer__(self, view):
        come_in()
        view.release()


def weakly_known(data):
    memory = _Weakly(data)
    weakref.finalize(memory, come_in).atexit = False
    return memoryview(memory)


MEMORY = {"__del__": _Deleted, "a weak reference": weakly_known}
if sys.version_info >= (3, 12):
    MEMORY["__release_buffer__"] = lambda data: memoryview(_Buffer(data))


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("kind", KINDS)
async def test_memory_that_is_given_back_may_write(kind, memory, closes):
    servers, clients = KINDS[kind]
    chance = random.Random(1)
    came = []
    written = {"outside": 0, "inside": 0}
    futures = []
    server = Server({"put": lambda stream, **message: came.append(message)}, ssl_options=servers)
    server.listen(0, "127.0.0.1")
    stream = await connect("127.0.0.1", server.port, ssl_options=clients)

    def put(who, *values):
        written[who] += 1
        message = {"op": "put", "reply": False, "who": who, "number": written[who], "values": values}
        futures.append(write(stream, message))

    def act():
        if closes and written["inside"] == 20:
            stream.close()
        else:
            put("inside", bytes(chance.choice([1, 1_000, 80_000, 300_000])))

    with come_in.does(act) as somebody:
        for number in range(60):
            sizes = chance.choices([10, 70_000, 300_000], k=2)
            put("outside", *[MEMORY[memory](bytes([number]) * size) for size in sizes])
            if chance.random() < 0.3:
                with suppress(ConnectionLost):
                    await futures[-1]
    ends = await asyncio.gather(*futures, return_exceptions=True)
    if not closes:
        await until(lambda: len(came) == sum(written.values()))
        assert ends == [None] * len(ends)
    for who, count in written.items():
        numbers = [message["number"] for message in came if message["who"] == who]
        assert numbers == [*range(1, 1 + (len(numbers) if closes else count))]
    for message in came:
        if message["who"] == "outside":
            assert all(value == bytes([message["number"] - 1]) * len(value) for value in message["values"])
    assert written["inside"]
    assert not somebody.errors
    stream.close()
    await server.shutdown()


# ---- log handlers


class Tells(logging.Handler):
    def emit(self, record):
        come_in()


@contextmanager
def told():
    handler = Tells()
    logging.getLogger("fastcore").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("fastcore").removeHandler(handler)


async def wrong(stream, x):
    raise ValueError(x)


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("does", ["write", "read", "call back", "close", "shut down"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_log_handler_may_use_the_connection_that_it_is_told_of(kind, does):
    servers, clients = KINDS[kind]
    streams = []
    begun = []

    def here(stream, x):
        streams[:] = [stream]
        return x

    server = Server({"here": here, "wrong": wrong}, ssl_options=servers, max_depth=30)
    server.listen(0, "127.0.0.1")

    def act():
        # What is refused is refused; what matters is what becomes of the calls.
        with suppress(RuntimeError, ConnectionLost):
            if does == "write":
                begun.append(write(streams[0], {"op": "nobody's"}))
            elif does == "read":
                begun.append(read(streams[0]))
                begun[-1].cancel()
            elif does == "call back":
                begun.append(rpc(stream=streams[0]).here(x="from the server"))
            elif does == "close":
                streams[0].close()
            elif not begun:
                begun.append(asyncio.ensure_future(server.shutdown(1)))

    ends = []
    async with rpc(ip="127.0.0.1", port=server.port, ssl_options=clients, share=1, timeout=0.5) as remote:
        await remote.here(x=0)
        with told(), come_in.does(act) as somebody:
            for number in range(3):
                calls = [
                    remote.here(x=number),
                    remote.wrong(x=f"wrong {number}"),
                    remote.here(x=deep(50)),
                    remote.unknown(x=1),
                    remote.here(y=1),
                    remote.here(x=number),
                ]
                ends.append(await asyncio.gather(*calls, return_exceptions=True))
                if does == "shut down":
                    break
        assert not somebody.errors
    for number, answers in enumerate(ends):
        expected = [number, f"wrong {number}", TooDeep, ValueError, TypeError, number]
        for answer, right in zip(answers, expected, strict=True):
            if isinstance(answer, ConnectionLost):
                assert does in ("close", "shut down")
            elif isinstance(right, type):
                assert type(answer) is right
            else:
                assert (str(answer) if isinstance(answer, ValueError) else answer) == right
    await asyncio.gather(*begun, return_exceptions=True)
    await server.shutdown()
