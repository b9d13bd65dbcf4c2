"""The header of a message: what it says beside its payload.

A MessagePack map, left out when it has no keys. Those that fastcore itself sends are written and
read without MessagePack, in few steps: each small message may have one. The keys, here and nowhere
else:

length       bytes in the payload, so that it may hold any and needn't be searched
compression  the algorithm of a compressed payload
call         whose message this is: the number of a call, or nil: nobody's
part         one of many answers; the last one of a call doesn't have it
error        the payload tells of an error
window       how many parts may be on their way
grant        so many more may
cancel       nobody waits for that call any more
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memset

import msgpack

from fastcore._buffer cimport LARGEST_SIZE
from fastcore._framing cimport LENGTH_SIZE

from fastcore._values import LARGE, WRITABLE, PayloadSink
from fastcore.engine_errors import BadMessage
from fastcore.logs import shown

cdef object unpack = msgpack.unpackb
cdef Py_ssize_t LARGE_SIZE = LARGE
cdef Py_ssize_t WRITABLE_SIZE = WRITABLE

cdef enum:
    UINT_8 = 0xcc
    NIL = 0xc0
    # The largest map that has its size in its first byte.
    FIXMAP = 0x80
    LARGEST_FIXMAP = 0x8f
    # A header whose own length is one byte has room for the length of the payload, too.
    SHORT = 200

KNOWN_KEYS = frozenset({"length", "compression", "call", "part", "error", "window", "grant", "cancel"})

# Each key as MessagePack has it.
cdef bytes LENGTH_KEY = b"\xa6length"
cdef bytes CALL_KEY = b"\xa4call"
cdef bytes CANCEL_KEY = b"\xa6cancel"
cdef bytes WINDOW_KEY = b"\xa6window"
cdef bytes GRANT_KEY = b"\xa5grant"
cdef bytes PART_FIELD = b"\xa4part\xc3"
cdef bytes ERROR_FIELD = b"\xa5error\xc3"


PART_FLAG = PART
ERROR_FLAG = ERROR


cdef struct Fields:
    # -1 is what the header doesn't say; `call` has -2 too, for nil.
    long long length, call, window, grant, cancel
    bint part, error


# One for each message, and nothing in it holds anything.
@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class CallHeader:
    """What a header says of calls.

    Attributes
    ----------
    call : int or None
        The number of the call; None where the message is nobody's.
    part, error : bool
        One of many answers; the payload tells of an error.
    window, cancel, grant : int or None
        None where the header doesn't say.
    extra : dict or None
        The keys that mean nothing to fastcore, such as ``traceparent``.
    """

    def __repr__(self):
        return (
            f"<CallHeader call={self.call} part={self.part} error={self.error} "
            f"window={self.window} cancel={self.cancel} grant={self.grant}>"
        )


cdef Py_ssize_t put_number(char *out, unsigned long long number) noexcept:
    """Write a number as the shortest token; the bytes it took."""
    cdef int kind = UINT_8, width = 1, i
    if number < 0x80:
        out[0] = <char> number
        return 1
    while width < 8 and number >> 8 * width:
        kind += 1
        width *= 2
    out[0] = <char> kind
    for i in range(width):
        out[width - i] = <char> (number >> 8 * i & 0xff)
    return 1 + width


cpdef bytes call_fields(object number, int flags=0, long long window=-1, long long grant=-1,
                        object cancel=None):
    r"""Make the header that says whose a message is, without its own length.

    Parameters
    ----------
    number : int or None
        Of the call; None for nobody's.
    flags : int
        1 for ``part``, 2 for ``error``.
    window, grant : int
        How many parts may be on their way, or more of them; left out below 0.
    cancel : int, optional
        The number of a call that is given up; no ``call`` is said then.

    Examples
    --------
    >>> call_fields(7), call_fields(None, 2)
    (b'\x81\xa4call\x07', b'\x82\xa4call\xc0\xa5error\xc3')
    """
    cdef char out[64]
    cdef Py_ssize_t size = 1
    out[0] = <char> (FIXMAP + 1)
    if cancel is not None:
        return PyBytes_FromStringAndSize(out, put_field(out, size, CANCEL_KEY, cancel))
    if number is None:
        memcpy(out + size, PyBytes_AS_STRING(CALL_KEY), 5)
        out[6] = <char> NIL
        size = 7
    else:
        size = put_field(out, size, CALL_KEY, number)
    if flags & PART:
        out[0] += 1
        memcpy(out + size, PyBytes_AS_STRING(PART_FIELD), 6)
        size += 6
    if flags & ERROR:
        out[0] += 1
        memcpy(out + size, PyBytes_AS_STRING(ERROR_FIELD), 7)
        size += 7
    if window >= 0:
        out[0] += 1
        size = put_field(out, size, WINDOW_KEY, window)
    if grant >= 0:
        out[0] += 1
        size = put_field(out, size, GRANT_KEY, grant)
    return PyBytes_FromStringAndSize(out, size)


def answer_fields(number):
    """`call_fields` of a whole answer, by the one argument that costs the least."""
    return call_fields(number)


def request_fields(number):
    """`call_fields` of a request, whose first parts may come without being asked for."""
    return call_fields(number, 0, WINDOW)


cdef Py_ssize_t put_field(char *out, Py_ssize_t at, bytes key, unsigned long long number) noexcept:
    """Write a key and its number; where they end."""
    memcpy(out + at, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    at += PyBytes_GET_SIZE(key)
    return at + put_number(out + at, number)


cpdef bytes length_header(unsigned long long length, bytes fields=None):
    r"""Make the header of a payload of so many bytes, with the four of its own length.

    Parameters
    ----------
    length : int
        In bytes.
    fields : bytes, optional
        What else the header says.

    Examples
    --------
    >>> length_header(5_000)
    b'\x0b\x00\x00\x00\x81\xa6length\xcd\x13\x88'
    """
    cdef Py_ssize_t before = 1 if fields is None else PyBytes_GET_SIZE(fields)
    if before > SHORT or before > 1 and <unsigned char> PyBytes_AS_STRING(fields)[0] >= LARGEST_FIXMAP:
        return whole_header({**unpack_header(fields), "length": length})
    cdef char number[9]
    cdef Py_ssize_t width = put_number(number, length)
    cdef Py_ssize_t size = before + 7 + width
    made = PyBytes_FromStringAndSize(NULL, LENGTH_SIZE + size)
    cdef char *out = PyBytes_AS_STRING(made)
    memset(out, 0, LENGTH_SIZE)
    out[0] = <char> size
    out += LENGTH_SIZE
    if fields is None:
        out[0] = <char> FIXMAP
    else:
        memcpy(out, PyBytes_AS_STRING(fields), before)
    out[0] += 1
    memcpy(out + before, PyBytes_AS_STRING(LENGTH_KEY), 7)
    memcpy(out + before + 7, number, width)
    return made


cdef bytes whole_header(dict keys):
    """A header of any keys, with the four bytes of its own length."""
    packed = msgpack.packb(keys)
    return len(packed).to_bytes(LENGTH_SIZE, "little") + packed


# A debug build's check would take the difference of two pointers for one of numbers, with a warning.
@cython.overflowcheck(False)
cdef bint get_number(const unsigned char **at, const unsigned char *end, long long *number) noexcept:
    """Read an unsigned number; False if it is something else, or too large for this way."""
    cdef const unsigned char *data = at[0]
    cdef Py_ssize_t width, i
    cdef unsigned long long value = 0
    if data == end:
        return False
    if data[0] < 0x80:
        number[0] = data[0]
        at[0] = data + 1
        return True
    if not UINT_8 <= data[0] < UINT_8 + 4:
        return False
    width = 1 << data[0] - UINT_8
    if end - data <= width:
        return False
    for i in range(width):
        value = value << 8 | data[1 + i]
    if value > <unsigned long long> LARGEST_SIZE:
        return False
    number[0] = <long long> value
    at[0] = data + 1 + width
    return True


@cython.overflowcheck(False)
cdef bint get_key(const unsigned char **at, const unsigned char *end, const char *key,
                  Py_ssize_t size) noexcept:
    if end - at[0] < size or memcmp(at[0], key, size):
        return False
    at[0] += size
    return True


# The header that was read last, and what it says; whether it is as fastcore itself writes it.
cdef bytes last_header = b""
cdef Fields last_fields
cdef bint is_last_ours = False


cdef bint read_fields(bytes header, Fields *fields) noexcept:
    """Read a header as fastcore itself writes it; False for any other, whatever it says.

    Of a small message it is asked for twice in a row: for the length by the engine, and right
    after that for the rest.
    """
    global last_header, is_last_ours
    if header is not last_header:
        is_last_ours = parse_fields(header, &last_fields)
        last_header = header
    fields[0] = last_fields
    return is_last_ours


cdef bint parse_fields(bytes header, Fields *fields) noexcept:
    cdef const unsigned char *at = <const unsigned char *> PyBytes_AS_STRING(header)
    cdef const unsigned char *end = at + PyBytes_GET_SIZE(header)
    cdef int count
    fields.length = fields.call = fields.window = fields.grant = fields.cancel = -1
    fields.part = fields.error = False
    if at == end or not FIXMAP <= at[0] <= LARGEST_FIXMAP:
        return False
    count = at[0] - FIXMAP
    at += 1
    while count:
        count -= 1
        if get_key(&at, end, b"\xa4call", 5):
            if at < end and at[0] == NIL:
                fields.call = -2
                at += 1
            elif not get_number(&at, end, &fields.call):
                return False
        elif get_key(&at, end, b"\xa6length", 7):
            if not get_number(&at, end, &fields.length):
                return False
        elif get_key(&at, end, b"\xa4part\xc3", 6):
            fields.part = True
        elif get_key(&at, end, b"\xa5error\xc3", 7):
            fields.error = True
        elif get_key(&at, end, b"\xa6window", 7):
            if not get_number(&at, end, &fields.window):
                return False
        elif get_key(&at, end, b"\xa5grant", 6):
            if not get_number(&at, end, &fields.grant):
                return False
        elif get_key(&at, end, b"\xa6cancel", 7):
            if not get_number(&at, end, &fields.cancel):
                return False
        else:
            return False
    return at == end


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
    return payload_end(header, False)


def read_header_to_write(bytes header):
    """As `read_header`, for a receiver that may write to the large values that it is given."""
    return payload_end(header, True)


cdef object payload_end(bytes header, bint writable):
    cdef Fields fields
    cdef object length
    if header is None:
        raise TypeError("a header is bytes, not None")
    if read_fields(header, &fields):
        if fields.length < 0:
            return None
        length = fields.length
    else:
        keys = unpack_header(header)
        length = keys.get("length")
        if length is None:
            return None
        if type(length) is not int or not 0 <= length < 2**63:
            raise BadMessage(f"the header's length is {shown(length)}, not a number of bytes")
        if "compression" in keys:
            return length
    return PayloadSink(length, writable) if length >= (WRITABLE_SIZE if writable else LARGE_SIZE) else length


cpdef CallHeader call_header(bytes header):
    """Read what a header says of calls; None where it says nothing of them.

    Parameters
    ----------
    header : bytes
        The header of a message, without its length.

    Raises
    ------
    BadMessage
        If the bytes are no header, or what should be a number is none.

    Examples
    --------
    >>> call_header(call_fields(7))
    <CallHeader call=7 part=False error=False window=None cancel=None grant=None>
    """
    cdef bint is_compressed
    return read_call_header(header, &is_compressed)


cdef CallHeader read_call_header(bytes header, bint *is_compressed):
    """As `call_header`; and whether the payload is compressed, in whichever way."""
    cdef Fields fields
    cdef CallHeader made
    is_compressed[0] = False
    if not read_fields(header, &fields):
        keys = unpack_header(header)
        is_compressed[0] = keys.get("compression") is not None
        return uncommon_call_header(keys)
    if fields.call == -1 and fields.cancel == -1:
        return None
    made = CallHeader.__new__(CallHeader)
    if fields.call >= 0:
        made.call = fields.call
    made.part = fields.part
    made.error = fields.error
    if fields.window >= 0:
        made.window = fields.window
    if fields.grant >= 0:
        made.grant = fields.grant
    if fields.cancel >= 0:
        made.cancel = fields.cancel
    return made


cdef CallHeader uncommon_call_header(dict keys):
    cdef CallHeader made
    if "call" not in keys and "cancel" not in keys:
        return None
    made = CallHeader.__new__(CallHeader)
    made.call = number_in(keys, "call")
    made.part = keys.get("part") is True
    made.error = keys.get("error") is True
    made.window = number_in(keys, "window")
    made.grant = number_in(keys, "grant")
    made.cancel = number_in(keys, "cancel")
    extra = {key: value for key, value in keys.items() if key not in KNOWN_KEYS}
    if extra:
        made.extra = extra
    return made


cdef CallHeader whose(bytes header):
    """Whose a message is, of whose header something else is wrong; None where that is."""
    cdef CallHeader made
    try:
        keys = unpack_header(header)
        number = number_in(keys, "call")
    except BadMessage:
        return None
    if "call" not in keys:
        return None
    made = CallHeader.__new__(CallHeader)
    made.call = number
    return made


cdef object number_in(dict keys, str key):
    number = keys.get(key)
    if number is not None and (type(number) is not int or number < 0):
        raise BadMessage(f"the header's {key} is {shown(number)}, not a number from 0 on")
    return number


cdef object compression_of(bytes header):
    """What a header names as its payload's compression, known or not; None for none."""
    cdef Fields fields
    if not header or read_fields(header, &fields):
        return None
    return unpack_header(header).get("compression")


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
        keys = unpack(header)
    except Exception as error:
        raise BadMessage(f"the header of a message can't be decoded: {shown(error, 300)}") from error
    if not isinstance(keys, dict):
        raise BadMessage(f"the header of a message is a {type(keys).__name__}, not a map")
    return keys
