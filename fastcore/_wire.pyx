"""Messages to bytes and back: header, MessagePack, compression.

Knows no socket and no event loop. A message on the wire is

    header_length (4 bytes, little-endian)  header  payload  SENTINEL

where the payload is one MessagePack value and the header a MessagePack map, left out when
it has no keys. The keys, here and nowhere else:

length       bytes in the payload, so that it may hold any and needn't be searched
compression  the algorithm of a compressed payload
call         whose message this is: the number of a call, or nil: nobody's
part         one of many answers; the last one of a call doesn't have it
error        the payload tells of an error
window       how many parts may be on their way
grant        so many more may
cancel       nobody waits for that call any more

A small message is one piece of bytes. A binary value of IN_PLACE bytes or more is never
copied: it is sent from the caller's own memory, between what was packed before it and
what was packed after it:

    header, packed up to the value  |  the value  |  packed after it, sentinel

Costs: each container on the way to such a value is looked through once for each container
around it, and packed item by item; whatever else a message holds is packed by msgpack at
once. The headers that fastcore itself sends are written and read without MessagePack.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_Check
from libc.string cimport memcmp, memcpy, memset

import msgpack

from fastcore._buffer cimport LARGEST_SIZE
from fastcore._framing cimport LENGTH_SIZE, frame
from fastcore._values cimport look_over

from fastcore._framing import SENTINEL
from fastcore._values import (
    CHOSEN_KEYS, CLAIMS_TOO_MUCH, DEEPER, HARMLESS, LARGE, TOO_MANY, WRITABLE, PayloadSink, are_chosen
)
from fastcore.compressions import compressions
from fastcore.engine_errors import BadMessage, FrameTooLarge, TooDeep, TooManyValues
from fastcore.limits import MAX_DEPTH

Piece = bytes | memoryview

#: From this many bytes on, a value isn't copied. It is no less than what leaves at once,
#: so that the value may change as soon as its writer is told to go on.
IN_PLACE = 64 * 1024

cdef enum:
    IN_PLACE_SIZE = 65_536
    # A payload from this many bytes on says its length: reading one more header then
    # costs less than searching the payload.
    TELL_LENGTH = 8_192
    # A payload below this many bytes isn't worth compressing.
    COMPRESS = 1_000
    # A Packer never gives its memory back, so it goes after a payload of more bytes.
    FORGET = 1_048_576
    # Parts that are packed one by one are put together, at the latest, when there are so many.
    MANY = 1_000

cdef object ExtType = msgpack.ExtType
cdef object unpack = msgpack.unpackb
cdef Py_ssize_t MAX_BIN = 0xffff_ffff
cdef bytes SENTINEL_BYTES = SENTINEL
cdef Py_ssize_t LARGE_SIZE = LARGE
cdef Py_ssize_t WRITABLE_SIZE = WRITABLE
cdef int DEEPEST = MAX_DEPTH
cdef int HARMLESS_CODE = HARMLESS

# Making a Packer costs more than packing a small message, so one is kept for all.
cdef object pack_value = msgpack.Packer(use_bin_type=True).pack
cdef bint packing = False
# Another one, as that may be at work when these are called.
heads = msgpack.Packer()
cdef object pack_map_header = heads.pack_map_header
cdef object pack_array_header = heads.pack_array_header


# ---- headers

cdef enum:
    UINT_8 = 0xcc
    NIL = 0xc0
    YES = 0xc3
    # The largest map that has its size in its first byte.
    FIXMAP = 0x80
    LARGEST_FIXMAP = 0x8f

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
        What else the header says: a map of less than 15 keys.

    Examples
    --------
    >>> length_header(5_000)
    b'\x0b\x00\x00\x00\x81\xa6length\xcd\x13\x88'
    """
    cdef Py_ssize_t before = 1 if fields is None else PyBytes_GET_SIZE(fields)
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


cdef bint get_key(const unsigned char **at, const unsigned char *end, const char *key,
                  Py_ssize_t size) noexcept:
    if end - at[0] < size or memcmp(at[0], key, size):
        return False
    at[0] += size
    return True


cdef bint read_fields(bytes header, Fields *fields) noexcept:
    """Read a header as fastcore itself writes it; False for any other, whatever it says."""
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
            raise BadMessage(f"the header's length is {length!r:.100}, not a number of bytes")
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
        raise BadMessage(f"the header's {key} is {number!r:.100}, not a number from 0 on")
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
        raise BadMessage(f"the header of a message can't be decoded: {error!r}") from error
    if not isinstance(keys, dict):
        raise BadMessage(f"the header of a message is a {type(keys).__name__}, not a map")
    return keys


# ---- out

cpdef object encode(object message, object compression=None, bytes fields=None):
    r"""Turn a message into the bytes that stand for it on the wire.

    Parameters
    ----------
    message : object
        Anything that MessagePack can express. A tuple arrives as a list.
    compression : str, optional
        A key of :data:`fastcore.compressions.compressions`. Used where it makes the
        payload smaller.
    fields : bytes, optional
        What the header says beside the length and the compression, as
        :func:`call_fields` makes it.

    Returns
    -------
    bytes, or list of bytes and memoryview
        One frame; a large one in pieces, to be sent one after the other. Binary values
        of 64 KiB and more are the caller's own, or views of them: they must not change
        until they are sent.

    Raises
    ------
    TypeError, ValueError, OverflowError
        If MessagePack can't express the message.

    Examples
    --------
    >>> encode(b'pong')
    b'\x00\x00\x00\x00\xc4\x04pong7d629535c4f3a6963f566af7d3e3a2d2'
    >>> [len(piece) for piece in encode({'op': 'put', 'data': bytes(IN_PLACE), 'n': 1})]
    [35, 65536, 35]
    """
    cdef bytes payload
    cdef Py_ssize_t size
    if compression is not None:
        return compressed(pack(message), compression, fields)
    if find_in_place(message, DEEPEST) == FOUND:
        return in_pieces(message, fields)
    payload = pack(message)
    size = PyBytes_GET_SIZE(payload)
    if size < TELL_LENGTH:
        whole = frame(payload, fields)
        if whole is not None:
            return whole
    if size < IN_PLACE_SIZE:
        return b"".join((length_header(size, fields), payload, SENTINEL_BYTES))
    return [length_header(size, fields), payload, SENTINEL_BYTES]


cdef bytes pack(object message):
    global pack_value, packing
    cdef bytes payload
    if packing:
        # What is being packed has methods of its own, and those led here or to another thread.
        return msgpack.packb(message, use_bin_type=True)
    packing = True
    try:
        payload = pack_value(message)
    finally:
        packing = False
    if PyBytes_GET_SIZE(payload) > FORGET:
        pack_value = msgpack.Packer(use_bin_type=True).pack
    return payload


cdef list compressed(bytes payload, object compression, bytes fields):
    cdef dict header = {} if fields is None else unpack_header(fields)
    if PyBytes_GET_SIZE(payload) >= COMPRESS:
        shorter = compressions[compression].compress(payload)
        if len(shorter) < len(payload):
            header["compression"] = compression
            payload = shorter
    header["length"] = len(payload)
    packed = pack(header)
    return [len(packed).to_bytes(LENGTH_SIZE, "little") + packed, payload, SENTINEL_BYTES]


# ---- values that are sent from where they lie

cdef enum Search:
    MISSING
    FOUND
    # The message can't be packed; where it holds itself, the search would have no end.
    TOO_DEEP


cdef Search find_in_place(object value, int depth) except? MISSING:
    """Whether a value is, or holds, one that isn't copied."""
    cdef object item
    cdef Search found
    if isinstance(value, (str, int, float)) or value is None:
        return MISSING
    if isinstance(value, bytes):
        return FOUND if PyBytes_GET_SIZE(value) >= IN_PLACE_SIZE else MISSING
    if isinstance(value, bytearray):
        return FOUND if PyByteArray_GET_SIZE(value) >= IN_PLACE_SIZE else MISSING
    if PyMemoryView_Check(value):
        return FOUND if value.nbytes >= IN_PLACE_SIZE else MISSING
    if depth == 0:
        return TOO_DEEP
    if isinstance(value, dict):
        for item in (<dict> value).values():
            found = find_in_place(item, depth - 1)
            if found != MISSING:
                return found
    elif isinstance(value, list):
        for item in <list> value:
            found = find_in_place(item, depth - 1)
            if found != MISSING:
                return found
    elif isinstance(value, tuple) and not isinstance(value, ExtType):
        for item in <tuple> value:
            found = find_in_place(item, depth - 1)
            if found != MISSING:
                return found
    return MISSING


cdef list in_pieces(object message, bytes fields):
    cdef list pieces = []
    # What comes after the last piece, in parts.
    cdef list parts = []
    pack_around(message, parts, pieces, DEEPEST)
    parts.append(SENTINEL_BYTES)
    pieces.append(b"".join(parts))
    pieces[0] = length_header(size_of(pieces) - PyBytes_GET_SIZE(SENTINEL_BYTES), fields) + <bytes> pieces[0]
    return pieces


cdef Py_ssize_t size_of(list pieces) except -1:
    """All bytes of a frame."""
    cdef Py_ssize_t size = 0
    for piece in pieces:
        size += len(piece)
    return size


cdef int pack_around(object value, list parts, list pieces, int depth) except -1:
    """Pack a value, but put the values in it that aren't copied into pieces as they are."""
    cdef object key, item
    cdef Search found = find_in_place(value, depth)
    if found == TOO_DEEP:
        raise ValueError("recursion limit exceeded: a message is nested too deep, or holds itself")
    if PyList_GET_SIZE(parts) >= MANY:
        end_piece(parts, pieces)
    if found == MISSING:
        parts.append(pack(value))
    elif isinstance(value, dict):
        parts.append(pack_map_header(len(value)))
        # A kind of dict may have items of its own; msgpack asks for them too.
        for key, item in value.items():
            parts.append(pack(key))
            pack_around(item, parts, pieces, depth - 1)
    elif isinstance(value, (list, tuple)):
        parts.append(pack_array_header(len(value)))
        for item in value:
            pack_around(item, parts, pieces, depth - 1)
    else:
        piece = value if type(value) is bytes else memoryview(value).cast("B")
        parts.append(bin_head(len(piece)))
        end_piece(parts, pieces)
        pieces.append(piece)
    return 0


cdef int end_piece(list parts, list pieces) except -1:
    pieces.append(b"".join(parts))
    parts.clear()
    return 0


cdef bytes bin_head(Py_ssize_t size):
    """What stands before the bytes of a large value: the token bin 32."""
    cdef unsigned char head[5]
    cdef int i
    if size > MAX_BIN:
        raise ValueError(
            f"a binary value of {size:,} bytes can't be sent: MessagePack holds up to "
            f"{MAX_BIN:,} bytes in one value; send it in parts"
        )
    head[0] = 0xc6
    for i in range(4):
        head[4 - i] = size >> 8 * i & 0xff
    return PyBytes_FromStringAndSize(<char *> head, 5)


# ---- in

cpdef object decode(bytes header, object payload, Py_ssize_t max_decompressed_size=LARGEST_SIZE,
                    Py_ssize_t max_depth=DEEPEST, Py_ssize_t max_values=LARGEST_SIZE,
                    bint writable_values=False):
    r"""Turn the parts of a frame back into the message.

    Parameters
    ----------
    header, payload
        As :meth:`fastcore._framing.MessageBuffer.next_message` gives them.
    max_decompressed_size : int
        Most bytes that a compressed payload may turn into.
    max_depth : int
        Most arrays and maps inside each other.
    max_values : int
        Most values in the message.
    writable_values : bool
        Whether binary values of WRITABLE bytes or more are ``bytearray``; of a payload
        that came in a sink, that one has decided it.

    Returns
    -------
    object
        The message.

    Raises
    ------
    BadMessage
        If the payload can't be decoded, or was compressed in a way that isn't known here.
    FrameTooLarge
        If it would be larger than ``max_decompressed_size``, or deeper than ``max_depth``.

    Examples
    --------
    >>> decode(b'', b'\xc4\x04pong')
    b'pong'
    """
    try:
        if isinstance(payload, PayloadSink):
            return decode_skeleton(payload, max_depth, max_values)
        algorithm = compression_of(header)
        if algorithm is not None:
            payload = decompress(algorithm, payload, max_decompressed_size)
        if writable_values and len(payload) >= WRITABLE_SIZE:
            sink = PayloadSink(len(payload), True)
            sink.take(payload)
            return decode_skeleton(sink, max_depth, max_values)
        return unpack_with_care(payload, max_depth, max_values, None)
    except (BadMessage, FrameTooLarge):
        raise
    except Exception as error:
        raise bad_payload(error) from error


cdef object unpack_with_care(object payload, Py_ssize_t max_depth, Py_ssize_t max_values, object ext_hook,
                             object object_pairs_hook=None):
    """Unpack what may cost far more than its bytes, if it doesn't.

    A small one can't, so it isn't looked over unless a limit is lower.
    """
    cdef int found = HARMLESS_CODE
    if len(payload) > NO_SURVEY or max_depth < DEEPEST or max_values <= NO_SURVEY:
        found = look_over(payload, max_depth, max_values)
    if found == HARMLESS_CODE and ext_hook is None:
        return unpack(payload, strict_map_key=False)
    if found == DEEPER and max_depth < DEEPEST:
        # Else the decoder refuses it, and says so.
        raise TooDeep(max_depth)
    if found == TOO_MANY:
        raise TooManyValues(max_values)
    if found == CLAIMS_TOO_MUCH:
        raise BadMessage("a message claims to hold more values than it has bytes")
    options = {"strict_map_key": False}
    if found == CHOSEN_KEYS:
        object_pairs_hook = object_pairs_hook or careful_dict
    if object_pairs_hook is not None:
        options["object_pairs_hook"] = object_pairs_hook
    if ext_hook is not None:
        options["ext_hook"] = ext_hook
    return unpack(payload, **options)


def careful_dict(pairs):
    """Make a dict, unless its keys were chosen to make that slow."""
    if are_chosen([hash(key) for key, _ in pairs]):
        raise BadMessage(f"a map of {len(pairs):,} keys that were chosen to collide")
    return dict(pairs)


def dict_of_hashable(pairs):
    """Make a dict whose keys are ``bytes`` where they were received as ``bytearray``."""
    return careful_dict([(bytes(key) if type(key) is bytearray else key, value) for key, value in pairs])


def bad_payload(error):
    """Make the error for a payload that MessagePack refuses."""
    return BadMessage(f"the payload of a message can't be decoded: {error!r}")


cdef object decompress(object algorithm, object payload, Py_ssize_t limit):
    try:
        known = compressions[algorithm].decompress
    except (KeyError, TypeError):
        raise BadMessage(
            f"a message is compressed with {algorithm!r:.100}; known here: {', '.join(compressions)}"
        ) from None
    return known(payload, limit)


cdef object decode_skeleton(object sink, Py_ssize_t max_depth, Py_ssize_t max_values):
    values = iter(sink.values)

    def fill_in(code, data):
        value = next(values)
        return ExtType(code, data) if value is None else value

    try:
        return unpack_with_care(sink.skeleton, max_depth, max_values, fill_in)
    except TypeError:
        if not sink.writable:
            raise
    # A large value may be the key of a map, and what can be written to can't be.
    values = iter(sink.values)
    return unpack_with_care(sink.skeleton, max_depth, max_values, fill_in, dict_of_hashable)
