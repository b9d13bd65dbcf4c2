"""Headers: what a message says of its payload."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from fastcore._header import length_header, length_of


@given(st.integers(0, 2**60))
def test_the_header_of_a_length_is_what_msgpack_reads(length):
    header = length_header(length)
    assert int.from_bytes(header[:4], "little") == len(header) - 4
    assert msgpack.unpackb(header[4:]) == {"length": length}
    assert length_of(header[4:]) == length


@given(st.binary(max_size=20) | st.binary(max_size=12).map(lambda rest: b"\x81\xa6length" + rest))
def test_a_header_is_read_as_msgpack_reads_it_or_left_to_it(header):
    length = length_of(header)
    assert length == -1 or msgpack.unpackb(header) == {"length": length}
