"""Arrays and scalars of numpy."""

import contextlib
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from values.test_values import arrived, of_body

from fastcore import BadMessage, rpc
from fastcore._framing import MessageBuffer
from fastcore._header import read_header
from fastcore._wire import SPEAKS_PLAINLY, decode, encode
from fastcore.values.kinds import Code
from helpers.classic_server import classic_server
from helpers.kinds import Order
from helpers.support import Program
from helpers.wire import served

numpy = pytest.importorskip("numpy")


from helpers.arrays import dtypes, is_same  # noqa: E402

LARGE = numpy.arange(100_000.0)


@settings(deadline=None)
@given(
    dtypes.flatmap(lambda dtype: of_numpy.arrays(dtype, of_numpy.array_shapes(min_dims=0, min_side=0))),
    st.data(),
)
def test_any_array_arrives_as_it_was_sent(array, data):
    way = data.draw(st.sampled_from(["as it is", "turned", "every other", "in Fortran's order", "a scalar"]))
    if way == "turned":
        array = array.T
    elif way == "every other" and array.ndim:
        array = array[::-2]
    elif way == "in Fortran's order":
        array = numpy.asfortranarray(array)
    elif way == "a scalar":
        array = array.reshape(-1)[0] if array.size else array
    got = arrived([array])[0]
    if isinstance(array, numpy.ndarray):
        assert numpy.array_equal(got, array) or got.tobytes() == array.tobytes()
        assert (got.dtype, got.shape, got.flags.writeable) == (array.dtype, array.shape, True)
        if array.flags.f_contiguous or array.flags.c_contiguous:
            assert got.flags.f_contiguous == array.flags.f_contiguous
    else:
        assert is_same(got, array) or got.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "scalar", [numpy.float64(1.5), numpy.str_("x"), numpy.bytes_(b"x"), numpy.bool_(True)]
)
def test_a_scalar_stays_one_where_python_takes_it_for_its_own(scalar):
    assert is_same(arrived({"x": [scalar]})["x"][0], scalar)
    ((key, _),) = arrived({scalar: 1}).items()
    assert is_same(key, scalar)


@pytest.mark.parametrize("piece", [1000, 65_537, 10**7])
def test_large_arrays_arrive_wherever_they_stand(piece):
    turned = numpy.arange(90_000).reshape(300, 300).T
    message = {"a": LARGE, "b": [Order(LARGE, ({"c": turned}, bytes(300_000), Order(LARGE[::2])))], "d": {1}}
    got = arrived(message, piece)
    order = got["b"][0]
    assert is_same(got["a"], LARGE)
    assert is_same(order.item, LARGE)
    assert is_same(order.tags[0]["c"], turned)
    assert order.tags[0]["c"].flags.f_contiguous
    assert order.tags[1] == bytes(300_000)
    assert is_same(order.tags[2].item, LARGE[::2])
    assert got["d"] == {1}
    for each in (got["a"], order.item, order.tags[0]["c"]):
        each[...] = 0


def test_a_large_array_is_not_copied_at_either_side():
    """Counted: what is asked for beside the memory of the array itself is less than a tenth of that."""
    array = numpy.zeros(4_000_000, "u1")
    for message in (array, {"x": [array]}, Order(array)):
        tracemalloc.start()
        try:
            pieces = encode(message)
            assert tracemalloc.get_traced_memory()[1] < len(array) // 10
            buffer = MessageBuffer(read_header)
            data = b"".join(pieces)
            del pieces
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            view = memoryview(data)
            while len(view):
                lent = buffer.prepare(65_536)
                size = min(len(lent), len(view))
                lent[:size] = view[:size]
                del lent
                buffer.commit(size)
                view = view[size:]
            got = decode(*buffer.next_message())
            assert tracemalloc.get_traced_memory()[1] - before < len(array) * 1.1
            assert got is not None
        finally:
            tracemalloc.stop()


def test_a_length_that_is_not_true_gives_the_bytes_back_as_they_came():
    """The next message is found behind an array that was being received, and what it was in."""
    frame = b"".join(encode(Order(LARGE, (LARGE, 1))))
    buffer = MessageBuffer(read_header)
    buffer.feed(frame[:-32] + b"?" * 32)
    buffer.feed(frame)
    with pytest.raises(ValueError, match="no sentinel"):
        buffer.next_message()
    # Up to the first sentinel all of it belongs to the message that was wrong.
    assert buffer.next_message() is None
    buffer.feed(frame)
    assert is_same(decode(*buffer.next_message()).item, LARGE)


@pytest.mark.parametrize(
    "array",
    [
        numpy.array([object()]),
        numpy.array([("x", object())], [("a", "U1"), ("b", object)]),
        numpy.zeros(3, numpy.dtype([])),
        numpy.zeros(3, numpy.dtypes.StringDType())
        if hasattr(numpy.dtypes, "StringDType")
        else numpy.array([{}]),
    ],
)
def test_what_is_no_plain_memory_is_refused(array):
    with pytest.raises(ValueError, match=r"plain memory|no bytes"):
        encode(array)


def test_what_lies_between_the_fields_of_a_structure_is_nobodys_business():
    """A copy is made in memory that was somebody else's before."""
    dtype = numpy.dtype([("a", "u1"), ("b", "u8")], align=True)
    array = numpy.zeros(2_000, dtype)
    array.view("u1")[:] = 0xAA
    got = arrived(array[::2])
    assert numpy.array_equal(got, array[::2])
    # Some versions of numpy copy what lies between, too: the array's own.
    assert {*got.view("u1").reshape(-1, 16)[:, 1:8].ravel().tolist()} <= {0, 0xAA}


def body(described: Any, data: bytes) -> bytes:
    head = msgpack.packb(described)
    before = len(head).to_bytes(2, "big") + head
    return before + bytes(-len(before) % 16) + data


BAD = {
    "nothing": b"",
    "a head that isn't there": b"\xff\xff",
    "no head": b"\0\x01\xc1" + bytes(13),
    "objects": body(["|O8", [1], "C"], bytes(8)),
    "objects in a structure": body([[["a"], ["|O8"], [0], 8], [1], "C"], bytes(8)),
    "a comma": body(["<f4,<f4", [1], "C"], bytes(8)),
    "no bytes": body(["<U0", [2**40], "C"], b""),
    "a structure of nothing": body([[[], [], [], 0], [2**40], "C"], b""),
    "fewer bytes than it says": body(["<f8", [2], "C"], bytes(8)),
    "more bytes than it says": body(["<f8", [1], "C"], bytes(16)),
    "a negative shape": body(["<f8", [-1, -1], "C"], bytes(8)),
    "a shape beyond all bounds": body(["|u1", [2**62, 2**62], "C"], bytes(8)),
    "very many dimensions": body(["|u1", [1] * 1000, "C"], bytes(1)),
    "another order": body(["|u1", [1], "K"], bytes(1)),
    "fields beyond its end": body([[["a"], ["<f8"], [100], 8], [1], "C"], bytes(8)),
    "fields before its beginning": body([[["a"], ["<f8"], [-8], 8], [1], "C"], bytes(8)),
    "two fields of one name": body([[["a", "a"], ["<f4", "<f4"], [0, 4], 8], [1], "C"], bytes(8)),
    "a dtype that is a tower": body(
        [[[[[[[[[[["<f8", [1]], [1]], [1]], [1]], [1]], [1]], [1]], [1]], [1]], [1]], [1], "C"], bytes(8)
    ),
    "a map": body({"dtype": "<f8"}, bytes(8)),
    "a unit that there isn't": body(["<M8[xy]", [1], "C"], bytes(8)),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("code", [Code.ARRAY, Code.SCALAR])
def test_a_body_that_is_no_array_is_an_error(code, what):
    with pytest.raises(BadMessage, match="a message holds a numpy"):
        of_body(code, BAD[what])


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_head_is_an_array_or_an_error(head, data):
    whole = len(head).to_bytes(2, "big") + head
    with contextlib.suppress(BadMessage):
        of_body(Code.ARRAY, whole + bytes(-len(whole) % 16) + data)


def test_an_array_is_none_of_its_receivers_business_if_it_has_no_numpy():
    """It isn't imported for a stranger's sake, and what came goes on as it is."""
    program = f"""if True:
        import sys, msgpack
        from fastcore._wire import decode, encode
        got = decode(b"", {msgpack.packb(msgpack.ExtType(Code.ARRAY, body(["<f8", [1], "C"], bytes(8))))!r})
        print(type(got).__name__, got.code, "numpy" in sys.modules, len(encode([got])) > 0)
    """
    with Program("-c", program) as running:
        assert running.rest() == "ExtType 108 False True"


async def test_arrays_go_there_and_back():
    async with (
        served({"echo": lambda stream, x: x}) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        for array in (LARGE, LARGE.reshape(1000, -1).T, LARGE[:10], LARGE[0]):
            assert is_same(await remote.echo(x=array), array)


async def test_a_classic_server_gets_lists():
    asked: list[Any] = []
    async with (
        classic_server(keep=lambda **message: asked.append(message)) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        await remote.keep(
            x=numpy.arange(4).reshape(2, 2), y=numpy.float32(0.5), z=numpy.array(["2024-01-01"], "M8[D]")
        )
        with pytest.raises((ValueError, TypeError), match="tobytes"):
            await remote.keep(x=numpy.zeros(1_000_000))
    assert asked == [{"x": [[0, 1], [2, 3]], "y": 0.5, "z": ["2024-01-01"]}]
    assert encode(numpy.arange(2), None, None, SPEAKS_PLAINLY)[4:-32] == b"\x92\0\x01"
