"""Messages to bytes and back: header, MessagePack, compression.

Knows no socket and no event loop. A message on the wire is

    header_length (4 bytes, little-endian)  header  payload  SENTINEL

where the payload is one MessagePack value.

A small message is one piece of bytes. A binary value of IN_PLACE bytes or more is never
copied: it is sent from the caller's own memory, between what was packed before it and
what was packed after it:

    header, packed up to the value  |  the value  |  packed after it, sentinel

Costs: each container is looked through twice at most, and packed item by item where it is on
the way to such a value; whatever else a message holds is packed by msgpack at once.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_Check

from functools import partial

import msgpack

cdef extern from "Python.h":
    bint PyGC_Disable()
    bint PyGC_Enable()

from fastcore._buffer cimport LARGEST_SIZE
from fastcore._framing cimport frame
from fastcore._header cimport compression_of, length_header, whole_header
from fastcore._values cimport is_one_value, look_over

from fastcore._framing import SENTINEL
from fastcore._header import KNOWN_KEYS, unpack_header
from fastcore._values import (
    CHOSEN_KEYS, CLAIMS_TOO_MUCH, DEEPER, HARMLESS, LOOKED_INTO, TOO_MANY, WRITABLE, PayloadSink, are_chosen
)
from fastcore.bad_values import find_bad_value
from fastcore.compressions import compressions
from fastcore.engine_errors import BadMessage, BadValue, FrameTooLarge, TooDeep, TooManyValues
from fastcore.limits import MAX_DEPTH
from fastcore.logs import shown
from fastcore.values.kinds import Code
from fastcore.values.registry import kind_of, kind_of_ext, known_exts, to_ext, to_plain

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
cdef object extension_of = ExtType._make
cdef object unpack = msgpack.unpackb
cdef Py_ssize_t MAX_BIN = 0xffff_ffff
cdef bytes SENTINEL_BYTES = SENTINEL
cdef Py_ssize_t WRITABLE_SIZE = WRITABLE
cdef int DEEPEST = MAX_DEPTH
cdef int HARMLESS_CODE = HARMLESS

heads = msgpack.Packer()
cdef object pack_map_header = heads.pack_map_header
cdef object pack_array_header = heads.pack_array_header


# ---- out

cpdef object encode(object message, object compression=None, bytes fields=None, int dialect=VALUES):
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
        :func:`fastcore._header.call_fields` makes it.
    dialect : int
        ``VALUES`` for a peer that reads extension types, ``PLAIN`` for one that doesn't, ``ASK``
        where nobody knows.

    Returns
    -------
    bytes, or list of bytes and memoryview
        One frame; a large one in pieces, to be sent one after the other. Binary values
        of 64 KiB and more are the caller's own, or views of them: they must not change
        until they are sent.

    Raises
    ------
    BadValue
        If the message holds a value that can't be sent; it names the value.
    DialectUnknown
        If it holds what only some peers read, and this one has to be asked first.

    Examples
    --------
    >>> encode(b'pong')
    b'\x00\x00\x00\x00\xc4\x04pong7d629535c4f3a6963f566af7d3e3a2d2'
    >>> [len(piece) for piece in encode({'op': 'put', 'data': bytes(IN_PLACE), 'n': 1})]
    [35, 65536, 35]
    """
    try:
        return encoded(message, compression, fields, dialect)
    except (BadValue, DialectUnknown, MemoryError):
        raise
    except Exception as error:
        try_it = partial(encode_alone, PLAIN if dialect == PLAIN else VALUES)
        raise find_bad_value(message, try_it, error) from None


cdef object encoded(object message, object compression, bytes fields, int dialect):
    cdef bytes payload
    cdef Py_ssize_t size
    cdef bint strictly = False
    cdef Search found = find_in_place(message, DEEPEST, &strictly, None, NULL)
    if found == TOO_DEEP:
        # MessagePack would come as far, with all that there is on each level.
        raise ValueError(NESTED)
    if compression is None and found == FOUND:
        return in_pieces(message, fields, dialect)
    if found == FOUND:
        payload = b"".join(packed_around(message, dialect))
    else:
        payload = pack(message, dialect, strictly)
    if compression is not None:
        return compressed(payload, compression, fields)
    size = PyBytes_GET_SIZE(payload)
    if size < TELL_LENGTH:
        whole = frame(payload, fields)
        if whole is not None:
            return whole
    if size < IN_PLACE_SIZE:
        return b"".join((length_header(size, fields), payload, SENTINEL_BYTES))
    return [length_header(size, fields), payload, SENTINEL_BYTES]


cdef bytes pack(object message, int dialect, bint strictly):
    if dialect == PLAIN:
        return PLAIN_PACKER.pack(message)
    if dialect == ASK:
        return (STRICTLY_ASKING if strictly else ASKING).pack(message)
    return FIRST.packer(strictly, False).pack(message)


# How often it was asked what to pack in the place of a value. That may run anything, and change a list
# in the middle of its items; msgpack would go on.
cdef unsigned long long asked = 0


@cython.final
cdef class Packer:
    """A msgpack.Packer that is kept: making one costs more than packing a small message.

    Parameters
    ----------
    default : callable
        Gives what stands for a value that MessagePack has no form for.
    strictly : bool
        Whether it is asked for subclasses of MessagePack's types, and tuples, too.
    """
    cdef object options
    cdef object pack_value
    cdef bint is_packing

    def __init__(self, default, strictly=False):
        self.options = {"use_bin_type": True, "default": default, "strict_types": strictly}

    cdef bytes pack(self, object message):
        cdef bytes payload
        cdef unsigned long long asked_before = asked
        if self.is_packing:
            # What is being packed has methods of its own, and those led here or to another thread.
            payload = msgpack.packb(message, **self.options)
        else:
            if self.pack_value is None:
                self.pack_value = msgpack.Packer(**self.options).pack
            self.is_packing = True
            try:
                payload = self.pack_value(message)
            finally:
                self.is_packing = False
            if PyBytes_GET_SIZE(payload) > FORGET:
                self.pack_value = None
        if asked != asked_before and not is_one_value(payload):
            raise changed_error()
        return payload


cdef void count_question() noexcept:
    global asked
    asked += 1


cdef object changed_error():
    """The error for a list of which more, or fewer, items were packed than it had."""
    return RuntimeError("a list or dict has changed its size while it was packed")


def encode_alone(int dialect, value):
    """As `encode`, for who looks for a value that can't be sent: a large one isn't copied."""
    return encoded(value, None, None, dialect)


def with_extra(bytes fields, dict extra):
    r"""Add keys that mean nothing to fastcore to the header that `call_fields` made.

    Parameters
    ----------
    fields : bytes
        Of a call.
    extra : dict
        What is added; its keys are strings, and none of fastcore's own.

    Raises
    ------
    ValueError
        If a key has a meaning already, or is no string.

    Examples
    --------
    >>> from fastcore._header import call_fields
    >>> with_extra(call_fields(7), {'a': 1})
    b'\x82\xa4call\x07\xa1a\x01'
    """
    cdef dict keys = unpack_header(fields)
    for key, value in extra.items():
        if key in KNOWN_KEYS or not isinstance(key, str):
            raise ValueError(f"{shown(key)} can't be a further key of a header")
        keys[key] = value
    packed = pack(keys, PLAIN, False)
    if SENTINEL_BYTES in packed:
        raise ValueError("the sentinel can't stand in a header")
    return packed


cdef list compressed(bytes payload, object compression, bytes fields):
    cdef dict header = {} if fields is None else unpack_header(fields)
    if PyBytes_GET_SIZE(payload) >= COMPRESS:
        shorter = compressions[compression].compress(payload)
        if len(shorter) < len(payload):
            header["compression"] = compression
            payload = shorter
    header["length"] = len(payload)
    return [whole_header(header), payload, SENTINEL_BYTES]


# ---- values that are sent from where they lie

cdef enum Search:
    MISSING
    FOUND
    # The message can't be packed; where it holds itself, the search would have no end.
    TOO_DEEP

cdef str NESTED = "a message is nested too deep, or holds itself"
# Stands for a value among those on the way to one that isn't copied, while it is packed.
cdef object BEING_PACKED = object()


# A value that is being looked through, and the one that holds it.
cdef struct Around:
    void *value
    Around *outer


cdef Search find_in_place(object value, int depth, bint *strictly, dict holders,
                          Around *outer) except? MISSING:
    """Whether a value is, or holds, one that isn't copied.

    On the way it sees whether there is one of a type that travels by itself though MessagePack
    would take it for something else: a named tuple for a list, say.

    Of those on the way to the one that is found, each is put into ``holders``, by its id.
    """
    cdef object item, key
    cdef Search found = MISSING
    if is_scalar(value):
        return MISSING
    kind = type(value)
    if kind is bytes:
        return FOUND if PyBytes_GET_SIZE(value) >= IN_PLACE_SIZE else MISSING
    if isinstance(value, bytearray):
        return FOUND if PyByteArray_GET_SIZE(value) >= IN_PLACE_SIZE else MISSING
    if PyMemoryView_Check(value):
        return FOUND if value.nbytes >= IN_PLACE_SIZE else MISSING
    cdef Around around = Around(<void *> value, outer)
    if depth <= 0 or is_inside_itself(&around, DEEPEST - depth):
        return TOO_DEEP
    if kind is not dict and kind is not list and kind is not tuple and kind is not ExtType:
        if kind is Packed:
            return FOUND
        how = kind_of(kind)
        if how is not None:
            strictly[0] |= is_hidden(value)
            if how.in_place is not None:
                return FOUND if value.nbytes >= IN_PLACE_SIZE else MISSING
            if how.held is None:
                return MISSING
            found = find_in_place(how.held(value), depth - 1, strictly, holders, &around)
            if found == FOUND and holders is not None:
                holders[<Py_ssize_t> <void *> value] = value
            return found
        if isinstance(value, bytes):
            return FOUND if PyBytes_GET_SIZE(value) >= IN_PLACE_SIZE else MISSING
    if isinstance(value, dict):
        for key, item in (<dict> value).items():
            if type(key) is not str and type(key) is not int and is_hidden(key):
                check_key(key, strictly)
            if is_scalar(item):
                # Most are, and a call for each would cost as much as all else here.
                continue
            found = find_in_place(item, depth - 1, strictly, holders, &around)
            if found != MISSING:
                break
    elif isinstance(value, list):
        for item in <list> value:
            found = find_in_place(item, depth - 1, strictly, holders, &around)
            if found != MISSING:
                break
    elif isinstance(value, tuple) and not isinstance(value, ExtType):
        for item in <tuple> value:
            found = find_in_place(item, depth - 1, strictly, holders, &around)
            if found != MISSING:
                break
    if found == FOUND and holders is not None:
        # With the value itself: the id of one that is gone would be somebody else's.
        holders[<Py_ssize_t> <void *> value] = value
    return found


cdef int check_key(object key, bint *strictly) except -1:
    """Look at a key of which MessagePack may make something that can be none."""
    if kind_of(type(key)) is not None:
        strictly[0] = True
    elif isinstance(key, (tuple, list, dict)) and not isinstance(key, ExtType):
        raise ValueError("a tuple arrives as a list, and that can be no key")
    return 0


cdef bint is_inside_itself(Around *around, int level) noexcept:
    """Whether what is looked through holds itself; looked for now and then, when it is that deep.

    Otherwise one that does would be gone through as often as there may be levels.
    """
    cdef void *value = around.value
    if level < 16 or level & (level - 1):
        return False
    while around.outer != NULL:
        around = around.outer
        if around.value == value:
            return True
    return False


cdef inline bint is_scalar(object value) noexcept:
    """Whether a value holds no other one and is small, as nearly all are."""
    kind = type(value)
    return kind is str or kind is int or kind is float or kind is bool or value is None


cdef bint is_hidden(object value):
    """Whether MessagePack takes a value for one of its own types."""
    return isinstance(value, (str, int, float, bytes, dict, list, tuple))


cdef object in_pieces(object message, bytes fields, int dialect):
    cdef list pieces = packed_around(message, dialect)
    cdef Py_ssize_t last = PyList_GET_SIZE(pieces) - 1
    pieces[0] = length_header(size_of(pieces), fields) + <bytes> pieces[0]
    pieces[last] = <bytes> pieces[last] + SENTINEL_BYTES
    # Among what was packed before there may be nothing large.
    return pieces if last else pieces[0]


cdef list packed_around(object message, int dialect):
    """Pack a message around what isn't copied. The first piece and the last one are bytes."""
    cdef list pieces = []
    # What comes after the last piece, in parts.
    cdef list parts = []
    pack_around(message, parts, pieces, DEEPEST, dialect, FIRST, {})
    end_piece(parts, pieces)
    return pieces


cdef Py_ssize_t size_of(list pieces) except -1:
    """All bytes of a frame."""
    cdef Py_ssize_t size = 0
    for piece in pieces:
        size += len(piece)
    return size


cdef int pack_around(object value, list parts, list pieces, int depth, int dialect,
                     Inside inside, dict holders) except -1:
    """Pack a value, but put the values in it that aren't copied into pieces as they are.

    What an earlier search has gone through on its way isn't searched again.
    """
    cdef object key, item
    cdef Py_ssize_t lacking = 0
    cdef bint strictly = False
    cdef Search found = FOUND
    if type(value) is Packed:
        (<Packed> value).put(parts, pieces, dialect)
        return 0
    if <Py_ssize_t> <void *> value not in holders:
        found = find_in_place(value, depth, &strictly, holders, NULL)
    elif depth <= 0 or holders[<Py_ssize_t> <void *> value] is BEING_PACKED:
        found = TOO_DEEP
    if found == TOO_DEEP:
        raise ValueError(NESTED)
    if PyList_GET_SIZE(parts) >= MANY:
        end_piece(parts, pieces)
    if found == MISSING:
        parts.append(pack_at(value, dialect, strictly, inside))
        return 0
    if isinstance(value, (bytes, bytearray, memoryview)):
        piece = value if type(value) is bytes else memoryview(value).cast("B")
        parts.append(token_head(0xc6, len(piece)))
        end_piece(parts, pieces)
        pieces.append(piece)
        return 0
    holders[<Py_ssize_t> <void *> value] = BEING_PACKED
    how = None if type(value) in (dict, list, tuple) else kind_of(type(value))
    if how is not None and dialect != VALUES:
        parts.append(pack_at(value, dialect, True, inside))
    elif how is not None and how.in_place is not None:
        before, piece = how.in_place(value)
        parts.append(token_head(0xc9, len(before) + len(piece)))
        parts.append(bytes((how.code,)) + before)
        end_piece(parts, pieces)
        pieces.append(piece)
    elif how is not None:
        pack_body_around(how.code, how.content(value), parts, pieces, depth - 1, inside.deeper(), holders)
    elif isinstance(value, dict):
        lacking = len(value)
        parts.append(pack_map_header(lacking))
        # A kind of dict may have items of its own; msgpack asks for them too.
        for key, item in value.items():
            lacking -= 1
            if type(key) is not str:
                check_key(key, &strictly)
            parts.append(pack_at(key, dialect, type(key) is not str, inside))
            pack_around(item, parts, pieces, depth - 1, dialect, inside, holders)
    elif isinstance(value, tuple) and inside.depth:
        pack_body_around(TUPLE_CODE, [*value], parts, pieces, depth - 1, inside.deeper(), holders)
    else:
        lacking = len(value)
        parts.append(pack_array_header(lacking))
        for item in value:
            lacking -= 1
            pack_around(item, parts, pieces, depth - 1, dialect, inside, holders)
    if lacking:
        raise changed_error()
    holders[<Py_ssize_t> <void *> value] = value
    return 0


cdef bytes pack_at(object value, int dialect, bint strictly, Inside inside):
    return pack(value, dialect, strictly) if inside.depth == 0 else inside.pack(value, True)


cdef int pack_body_around(int code, list content, list parts, list pieces, int depth,
                          Inside inside, dict holders) except -1:
    """Pack a value whose body is MessagePack, and holds what isn't copied."""
    cdef list inner_parts = []
    cdef list inner_pieces = []
    pack_around(content, inner_parts, inner_pieces, depth, VALUES, inside, holders)
    end_piece(inner_parts, inner_pieces)
    parts.append(token_head(0xc9, size_of(inner_pieces)))
    parts.append(bytes((code,)))
    end_piece(parts, pieces)
    pieces.extend(inner_pieces)
    return 0


cdef int end_piece(list parts, list pieces) except -1:
    pieces.append(b"".join(parts))
    parts.clear()
    return 0


cdef bytes token_head(unsigned char first, Py_ssize_t size):
    """What stands before the bytes of a large value: the token bin 32, or ext 32 up to its type."""
    cdef unsigned char head[5]
    cdef int i
    if size > MAX_BIN:
        raise ValueError(
            f"a binary value of {size:,} bytes can't be sent: MessagePack holds up to "
            f"{MAX_BIN:,} bytes in one value; send it in parts"
        )
    head[0] = first
    for i in range(4):
        head[4 - i] = size >> 8 * i & 0xff
    return PyBytes_FromStringAndSize(<char *> head, 5)


# ---- values as they were

@cython.final
cdef class Packed:
    """A value as it was when this was made. It stands for that value in a message which is sent later.

    Which values the peer reads needn't be known before that.

    Parameters
    ----------
    value : object
        Binary values of IN_PLACE bytes or more in it stay where they lie.
    message : object
        What it belongs to, for the error that names a value which only some peers read.
    """
    cdef list pieces
    # For peers that read no extension types; and why there is no such form.
    cdef list plainly
    cdef object error

    def __init__(self, value, message):
        try:
            self.pieces = self.plainly = packed_around(value, ASK)
            return
        except DialectUnknown:
            self.pieces = packed_around(value, VALUES)
        try:
            self.plainly = packed_around(value, PLAIN)
        except Exception as error:
            self.error = find_bad_value(message, partial(encode_alone, PLAIN), error)

    cdef int put(self, list parts, list pieces, int dialect) except -1:
        """Have it come next in a message."""
        if dialect == ASK and self.plainly is not self.pieces:
            raise DialectUnknown
        if dialect == PLAIN and self.error is not None:
            raise self.error
        for piece in self.plainly if dialect == PLAIN else self.pieces:
            if type(piece) is bytes:
                parts.append(piece)
            else:
                end_piece(parts, pieces)
                pieces.append(piece)
        return 0

    cdef int own(self) except -1:
        """Copy what still lies where somebody may change it."""
        for pieces in (self.pieces, self.plainly):
            if pieces is not None:
                pieces[:] = [piece if type(piece) is bytes else bytes(piece) for piece in pieces]
        return 0


cdef inline bint is_fixed(object value) noexcept:
    """Whether a value can't change."""
    return is_scalar(value) or type(value) is bytes or type(value) is Packed


def frozen(value):
    """Give what says in a message, sent at any time, what a value is now; nobody has to leave it alone."""
    cdef Packed packed
    if is_fixed(value):
        return value
    try:
        packed = Packed(value, value)
    except MemoryError:
        raise
    except Exception as error:
        raise find_bad_value(value, partial(encode_alone, VALUES), error) from None
    packed.own()
    return packed


# What both sides ask whether it is true, or look up.
cdef frozenset WORDS = frozenset({"op", "reply", "close"})


def frozen_call(dict message not None):
    """As `frozen`, for the keywords of a call. What isn't copied is left alone until its Future is done.

    The call's own words remain as they are.

    Raises
    ------
    BadValue
        If the message holds a value that can't be sent; it names the value.
    """
    try:
        return {
            key: value if is_fixed(value) or key in WORDS else Packed(value, message)
            for key, value in message.items()
        }
    except MemoryError:
        raise
    except Exception as error:
        raise find_bad_value(message, partial(encode_alone, VALUES), error) from None


# ---- in

cpdef object decode(bytes header, object payload, Py_ssize_t max_decompressed_size=LARGEST_SIZE,
                    Py_ssize_t max_depth=DEEPEST, Py_ssize_t max_values=LARGEST_SIZE,
                    bint writable_values=False, object ext_hook=None):
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
    ext_hook : callable, optional
        Makes the values of extension types.

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
    ext_hook = FIRST if ext_hook is None else ext_hook
    try:
        if isinstance(payload, PayloadSink):
            return decode_skeleton(payload, max_depth, max_values, ext_hook)
        algorithm = compression_of(header)
        if algorithm is not None:
            payload = decompress(algorithm, payload, max_decompressed_size)
        if writable_values and len(payload) >= WRITABLE_SIZE:
            sink = PayloadSink(len(payload), True)
            sink.take(payload)
            return decode_skeleton(sink, max_depth, max_values, ext_hook)
        return unpack_with_care(payload, max_depth, max_values, ext_hook)
    except (BadMessage, FrameTooLarge):
        raise
    except Exception as error:
        raise bad_payload(error) from error


cdef object unpack_with_care(object payload, Py_ssize_t max_depth, Py_ssize_t max_values, object ext_hook,
                             object object_pairs_hook=None, bint tuples=False):
    """Unpack what may cost far more than its bytes, if it doesn't.

    A small one can't, so it isn't looked over unless a limit is lower.
    """
    cdef int found = HARMLESS_CODE
    cdef bint has_registered = False
    if len(payload) > NO_SURVEY or max_depth < DEEPEST or max_values <= NO_SURVEY:
        found = look_over(payload, max_depth, max_values, &has_registered)
    if found != HARMLESS_CODE and found != CHOSEN_KEYS:
        raise refusal(found, max_depth, max_values)
    if found == CHOSEN_KEYS and object_pairs_hook is None:
        object_pairs_hook = careful_dict
    # The collector would look at many values again and again, as there are more and more. It isn't kept from
    # that where a function of the program's own is called, which may be anything, and take long.
    cdef bint collects = len(payload) > NO_SURVEY and not has_registered and PyGC_Disable()
    try:
        return unpack(
            payload,
            strict_map_key=False,
            use_list=not tuples,
            ext_hook=ext_hook,
            object_pairs_hook=object_pairs_hook,
        )
    finally:
        if collects:
            PyGC_Enable()


cdef object refusal(int found, Py_ssize_t max_depth, Py_ssize_t max_values):
    """Make the error for what isn't decoded, as it would cost too much."""
    if found == DEEPER:
        # The decoder would come as far, at a hundred times the cost.
        return TooDeep(max_depth) if max_depth < DEEPEST else bad_payload(msgpack.StackError())
    if found == TOO_MANY:
        return TooManyValues(max_values)
    if found == CLAIMS_TOO_MUCH:
        return BadMessage("a message claims to hold more values than it has bytes")
    return BadMessage(
        "a message is mostly of values that take far too long to read for so few bytes: Decimals with "
        "exponents beyond 100 as keys or in sets, or paths such as \\\\.\\device"
    )


def careful_dict(pairs):
    """Make a dict, unless its keys were chosen to make that slow."""
    cdef dict made = {}
    if are_chosen([hash(key) for key, _ in <list> pairs]):
        raise BadMessage(f"a map of {len(pairs):,} keys that were chosen to collide")
    for key, value in <list> pairs:
        made[key] = value
    return made


def dict_of_hashable(pairs):
    """Make a dict whose keys are ``bytes`` where they were received as ``bytearray``."""
    return careful_dict([(bytes(key) if type(key) is bytearray else key, value) for key, value in pairs])


def bad_payload(error):
    """Make the error for a payload that MessagePack refuses."""
    if isinstance(error, msgpack.StackError):
        why = f"it nests deeper than {DEEPEST:,} levels"
    elif isinstance(error, TypeError) and "unhashable" in str(error):
        why = "a map has a list or a map as a key, and a tuple arrives as a list"
    else:
        why = shown(error, 300)
    return BadMessage(f"the payload of a message can't be decoded: {why}")


cdef object decompress(object algorithm, object payload, Py_ssize_t limit):
    try:
        known = compressions[algorithm].decompress
    except (KeyError, TypeError):
        raise BadMessage(
            f"a message is compressed with {shown(algorithm)}; known here: {', '.join(compressions)}"
        ) from None
    return known(payload, limit)


cdef object decode_skeleton(object sink, Py_ssize_t max_depth, Py_ssize_t max_values, object ext_hook):
    try:
        return unpack_with_care(sink.skeleton, max_depth, max_values, place_of(sink, ext_hook))
    except TypeError:
        if not sink.writable:
            raise
    # A large value may be the key of a map, and what can be written to can't be.
    return unpack_with_care(
        sink.skeleton, max_depth, max_values, place_of(sink, ext_hook), dict_of_hashable
    )


cdef Inside place_of(object sink, object ext_hook):
    cdef Inside place = Inside()
    place.received = iter(sink.values)
    place.told = ext_hook
    return place


# ---- values that MessagePack has no form for

# Inside each other. Each has the decoder begin anew, with 40 KB of the stack.
cdef enum:
    DEEPEST_INSIDE = 16
    FIRST_CODE = 100
    TUPLE_CODE = 113

if (FIRST_CODE, TUPLE_CODE) != (min(Code), Code.TUPLE):
    raise ImportError("the numbers of values differ")

cdef dict kinds = known_exts

SPEAKS_VALUES = VALUES
SPEAKS_PLAINLY = PLAIN
HAS_TO_BE_ASKED = ASK


class DialectUnknown(Exception):
    """A message holds what only some peers read, and nobody knows whether this one does."""


@cython.final
cdef class Inside:
    """Packs and unpacks what is inside of a value that is inside of so many others.

    Called with an extension's type and body, as MessagePack's decoder does, it gives the value.
    """
    cdef int depth
    cdef Packer usual
    # Asks for subclasses too; and keeps tuples besides.
    cdef Packer strict
    cdef Packer exact
    cdef Inside within
    # What a sink has received, in the order in which it is asked for; and who was to be asked otherwise.
    cdef object received
    cdef object told

    def __init__(self, depth=0):
        self.depth = depth

    def __call__(self, code, body):
        return self.value_of(code, body)

    cdef object value_of(self, int code, object body):
        if self.received is not None:
            value = next(self.received)
            if value is None:
                # Nothing in it was received apart.
                return self.told(code, body)
            if type(value) is tuple:
                return self.told(*value)
            if value is not LOOKED_INTO:
                return value
            if type(self.told) is Dialect:
                (<Dialect> self.told).speaks = VALUES
        if code == TUPLE_CODE and self.depth:
            return tuple(self.deeper().unpack(body))
        kind = kinds.get(code) or kind_of_ext(code)
        if kind is None:
            return as_it_came(code, body)
        try:
            return kind.from_body(body, self.deeper())
        except BadMessage:
            raise
        except Exception as error:
            raise BadMessage(f"a message holds a {kind.name} that can't be read: {error}") from error

    cdef Inside deeper(self):
        if self.depth == DEEPEST_INSIDE:
            raise ValueError(f"more than {DEEPEST_INSIDE} sets and registered values inside each other")
        if self.within is None:
            self.within = Inside(self.depth + 1)
            if self.received is not None:
                self.within.received = self.received
                self.within.told = FIRST.at(self.depth + 1)
        return self.within

    cdef Inside at(self, int depth):
        return self if self.depth == depth else self.deeper().at(depth)

    cdef Packer packer(self, bint strictly, bint tuples):
        if self.usual is None:
            self.usual = Packer(self.stand_in)
            self.strict = Packer(self.stand_in, True)
            self.exact = Packer(self.stand_in_for_tuples, True)
        return self.exact if tuples else self.strict if strictly else self.usual

    def pack(self, content, bint tuples=False):
        """Give the MessagePack of what is inside; with `tuples`, one remains a tuple."""
        cdef bint strictly = False
        if not tuples:
            if find_in_place(content, DEEPEST, &strictly, None, NULL) == TOO_DEEP:
                raise ValueError(NESTED)
        return self.packer(strictly, tuples).pack(content)

    def unpack(self, body, bint tuples=False):
        """Read it; with `tuples`, all that is a list there was a tuple."""
        return unpack_with_care(body, DEEPEST, LARGEST_SIZE, self, None, tuples)

    def stand_in(self, value):
        """Give what MessagePack is to pack in the place of a value."""
        count_question()
        kind = type(value)
        return to_ext(value, self.deeper()) if kind_of(kind) is not None else less(value, kind)

    def stand_in_for_tuples(self, value):
        """As `stand_in`, where a tuple remains one."""
        count_question()
        kind = type(value)
        if isinstance(value, tuple) and kind_of(kind) is None:
            return ExtType(TUPLE_CODE, self.deeper().pack([*value], True))
        return self.stand_in(value)


@cython.final
cdef class Dialect:
    """Which values a peer reads, as far as that is known.

    Called with an extension's type and body, as MessagePack's decoder does, it gives the value:
    who sends such a value reads them, too.

    Attributes
    ----------
    speaks : int
        ``VALUES``, ``PLAIN`` or ``ASK``.
    """

    def __call__(self, int code, body):
        if FIRST_CODE <= code <= TUPLE_CODE:
            self.speaks = VALUES
        return FIRST.value_of(code, body)


cdef object as_it_came(int code, object body):
    """What stands for a value of which nothing is known here."""
    if code < 0:
        raise BadMessage(f"a message holds an extension of type {code}: MessagePack has those for itself")
    # A third of the price of its constructor, which looks at the same.
    return extension_of((code, bytes(body)))


cdef object less(object value, object kind):
    """What a value of a subclass is for MessagePack."""
    if kind is int:
        raise OverflowError("Integer value out of range")
    if isinstance(value, (list, tuple)):
        return [*value]
    if isinstance(value, dict):
        return dict(value.items())
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(memoryview(value))
    return to_ext(value, None)


def ask(value):
    """Refuse what only some peers read, where nobody knows whether this one does."""
    count_question()
    kind = type(value)
    if kind_of(kind) is not None:
        raise DialectUnknown
    return less(value, kind)


def plainly(value):
    """Give what every peer reads in the place of a value."""
    count_question()
    if type(value) is int:
        return less(value, int)
    value = to_plain(value)
    # What a value consists of may be another one.
    return plainly(value) if not is_hidden(value) and kind_of(type(value)) is not None else value


cdef Inside FIRST = Inside()
cdef Packer PLAIN_PACKER = Packer(plainly)
cdef Packer ASKING = Packer(ask)
cdef Packer STRICTLY_ASKING = Packer(ask, True)
