"""Headers: what a message says of its payload.

A header is a MessagePack map. Two keys are known: ``length`` says how many bytes the
payload has, so that it may hold any bytes and needn't be searched, and ``compression``
names the algorithm of a compressed one. Most headers say the length and nothing else;
those are written and read here without MessagePack.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memset

import msgpack

from fastcore._buffer cimport LARGEST_SIZE

from fastcore._values import LARGE, PayloadSink
from fastcore.engine_errors import BadMessage

cdef Py_ssize_t _LARGE = LARGE

# Up to the number, which is one of the tokens uint 8, 16, 32, 64.
cdef bytes _BEFORE_LENGTH = b"\x81\xa6length"
cdef enum:
    _BEFORE = 8
    _UINT_8 = 0xcc


cpdef bytes length_header(unsigned long long length):
    """Make the header of a payload of so many bytes, with the four of its own length.

    Examples
    --------
    >>> length_header(5_000)
    b'\\x0b\\x00\\x00\\x00\\x81\\xa6length\\xcd\\x13\\x88'
    """
    cdef int kind = _UINT_8, width = 1, i
    while width < 8 and length >> 8 * width:
        kind += 1
        width *= 2
    header = PyBytes_FromStringAndSize(NULL, 4 + _BEFORE + 1 + width)
    cdef char *out = PyBytes_AS_STRING(header)
    memset(out, 0, 4)
    out[0] = <char> (_BEFORE + 1 + width)
    memcpy(out + 4, PyBytes_AS_STRING(_BEFORE_LENGTH), _BEFORE)
    out += 4 + _BEFORE
    out[0] = <char> kind
    for i in range(width):
        out[width - i] = <char> (length >> 8 * i & 0xff)
    return header


cpdef Py_ssize_t length_of(bytes header):
    """Read what `length_header` wrote, without its first four bytes; -1 if it is another header.

    Examples
    --------
    >>> length_of(length_header(5_000)[4:])
    5000
    """
    if header is None:
        raise TypeError("a header is bytes, not None")
    cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(header)
    cdef Py_ssize_t width = PyBytes_GET_SIZE(header) - _BEFORE - 1
    cdef unsigned long long length = 0
    cdef Py_ssize_t i
    if width < 1 or width > 8 or memcmp(data, PyBytes_AS_STRING(_BEFORE_LENGTH), _BEFORE):
        return -1
    data += _BEFORE
    if not _UINT_8 <= data[0] < _UINT_8 + 4 or width != 1 << data[0] - _UINT_8:
        return -1
    for i in range(width):
        length = length << 8 | data[1 + i]
    return <Py_ssize_t> length if length <= <unsigned long long> LARGEST_SIZE else -1


def read_header(bytes header):
    """Tell the framing engine how long a payload is, if its header says so.

    Parameters
    ----------
    header : bytes
        The header of a message, without its length.

    Returns
    -------
    int, Sink or None
        The payload's length in bytes; or, for a long one, the sink that receives it;
        None if the payload ends at the first sentinel.

    Raises
    ------
    BadMessage
        If the bytes are no header.

    Examples
    --------
    >>> import msgpack
    >>> read_header(msgpack.packb({'length': 1000}))
    1000
    """
    cdef object length = length_of(header)
    if length < 0:
        fields = unpack_header(header)
        length = fields.get("length")
        if length is None:
            return None
        if type(length) is not int or not 0 <= length < 2**63:
            raise BadMessage(f"the header's length is {length!r}, not a number of bytes")
        if "compression" in fields:
            return length
    return PayloadSink(length) if length >= _LARGE else length


def unpack_header(bytes header):
    """Read all that a header says.

    Parameters
    ----------
    header : bytes
        As for :func:`read_header`.

    Returns
    -------
    dict

    Raises
    ------
    BadMessage
        If the bytes are no header.
    """
    try:
        fields = msgpack.unpackb(header)
    except Exception as error:
        raise BadMessage(f"the header of a message can't be decoded: {error!r}") from error
    if not isinstance(fields, dict):
        raise BadMessage(f"the header of a message is a {type(fields).__name__}, not a map")
    return fields
