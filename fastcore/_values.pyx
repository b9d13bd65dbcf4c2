"""Large binary values of a message that arrives: received where they will stay.

A ``PayloadSink`` takes the payload of a frame whose length is known. It walks over
the MessagePack tokens as they arrive. A large binary value is received straight into
the ``bytes`` object that the program will get; what remains, the *skeleton*, has a
small extension token in that place:

    payload    82 a2 op a4 echo a4 data c6 04 00 00 00 <64 MiB>
    skeleton   82 a2 op a4 echo a4 data d4 7f 00            values = [<64 MiB>]

MessagePack decodes the skeleton and asks for each extension in the order in which
they stand. ``values`` is in that order too, with None for the extensions that the
peer sent itself, so no bytes that a peer can send are mistaken for a placeholder.

Costs: a walk looks at the head of each token once. A byte of a small value is
received in place; a byte of a large value that came together with what stood
before it is copied once more, at most LARGE of them for each value, and at the start
of a payload at most 4 KiB.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memcpy, memmove

from fastcore._memory cimport advise_huge_pages

#: From this many bytes on, a value is received in place. Below it, a copy within the
#: processor's caches costs less than the calls that avoid it.
LARGE = 256 * 1024

cdef Py_ssize_t _LARGE = LARGE
# The first memory of the skeleton: most of them are no larger.
cdef Py_ssize_t _FIRST = 4096

# msgpack refuses to unpack deeper than this.
cdef enum:
    _DEEPEST = 1024

# A fixext 1 of type 0x7f: what stands in the skeleton for a large value.
cdef bytes _PLACEHOLDER = b"\xd4\x7f\x00"


@cython.final
cdef class PayloadSink:
    """Receives a payload of known length, large values straight into their own memory.

    It has the receiving half of a buffer: ``prepare`` lends the memory that the next
    bytes belong in, ``commit`` takes what arrived there. The lent memory belongs to
    the sink, and the view keeps the sink alive.

    Parameters
    ----------
    length : int
        Bytes in the payload.
    """
    cdef readonly Py_ssize_t length
    cdef readonly list values
    cdef Py_ssize_t _received

    cdef unsigned char* _skeleton
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _filled
    # Where the next token's head stands; beyond _filled while a small value arrives.
    cdef Py_ssize_t _next_token
    # The skeleton's offset of each placeholder, to give the original bytes back.
    cdef list _offsets

    # The large value that is arriving, and how much of it has.
    cdef bytes _value
    cdef Py_ssize_t _value_filled

    cdef Py_ssize_t _lent

    def __cinit__(self, Py_ssize_t length):
        self.length = length
        self.values = []
        self._offsets = []

    def __dealloc__(self):
        PyMem_RawFree(self._skeleton)

    def __getbuffer__(self, Py_buffer* view, int flags):
        # What is lent (the rest of the large value, or the skeleton's free end) to write
        # in; where nothing is, the skeleton to read.
        if not self._lent:
            PyBuffer_FillInfo(view, self, self._skeleton, self._filled, True, flags)
        elif self._value is not None:
            PyBuffer_FillInfo(view, self, PyBytes_AS_STRING(self._value) + self._value_filled,
                              self._lent, False, flags)
        else:
            PyBuffer_FillInfo(view, self, self._skeleton + self._filled, self._lent, False, flags)

    @property
    def skeleton(self):
        """The payload with a placeholder for each large value, as a view in place."""
        if self._lent:
            raise ValueError("memory is lent for receiving")
        return memoryview(self)

    def prepare(self, Py_ssize_t size, /):
        """Lend memory for the next bytes of the payload.

        Parameters
        ----------
        size : int
            How many bytes the caller would like to receive.

        Returns
        -------
        memoryview
            Writable; never longer than what the payload still lacks.
        """
        cdef Py_ssize_t missing = self.length - self._received
        if missing == 0:
            raise ValueError("the payload is complete")
        if self._value is not None:
            self._lent = PyBytes_GET_SIZE(self._value) - self._value_filled
        else:
            # No more than the skeleton has already, and no more than LARGE, since it must
            # be copied out of the skeleton again when a large value begins in it.
            self._lent = min(max(size, 1), missing, max(_FIRST, min(self._filled, _LARGE)))
            self._reserve(self._filled + self._lent)
        return memoryview(self)

    def commit(self, Py_ssize_t size, /):
        """Take the first ``size`` bytes of what was lent."""
        if not 0 <= size <= self._lent:
            raise ValueError(f"{size} bytes committed where {self._lent} were prepared")
        self._lent = 0
        self._received += size
        if self._value is not None:
            self._value_filled += size
            if self._value_filled == PyBytes_GET_SIZE(self._value):
                self._value = None
        else:
            self._filled += size
            self._walk()

    def pieces(self):
        """All bytes that were received, as they came, in pieces.

        For a frame whose ``length`` turned out not to be true: its bytes are searched
        once more for the sentinel.
        """
        cdef list pieces = []
        cdef Py_ssize_t start = 0, offset
        cdef bytes value
        skeleton = PyBytes_FromStringAndSize(<char*> self._skeleton, self._filled)
        values = [value for value in self.values if value is not None]
        for offset, value in zip(self._offsets, values):
            pieces.append(skeleton[start:offset])
            pieces.append(b"\xc6" + PyBytes_GET_SIZE(value).to_bytes(4, "big"))
            pieces.append(value if value is not self._value else value[:self._value_filled])
            start = offset + PyBytes_GET_SIZE(_PLACEHOLDER)
        pieces.append(skeleton[start:])
        return pieces

    cdef int _reserve(self, Py_ssize_t needed) except -1:
        cdef Py_ssize_t capacity
        cdef unsigned char* block
        if needed <= self._capacity:
            return 0
        capacity = min(max(needed, 2 * self._capacity), self.length)
        block = <unsigned char*> PyMem_RawRealloc(self._skeleton, capacity)
        if block == NULL:
            raise MemoryError(f"no memory for a payload of {self.length:,} bytes")
        self._skeleton = block
        self._capacity = capacity
        return 0

    cdef int _walk(self) except -1:
        """Go from token to token until a large value begins or the bytes end."""
        cdef Py_ssize_t head, body
        cdef unsigned char* token
        while self._next_token < self._filled:
            token = self._skeleton + self._next_token
            if self._filled - self._next_token < _head_size(token[0]):
                return 0
            head = _head_size(token[0])
            body = _body_size(token)
            if token[0] == 0xc6 and body >= _LARGE and self._begin_value(head, body):
                if self._value is not None:
                    return 0
                continue
            if _is_extension(token):
                self.values.append(None)
            self._next_token += head + body
        return 0

    cdef bint _begin_value(self, Py_ssize_t head, Py_ssize_t size) except -1:
        """Give the large value at the next token memory of its own; False if it can't be true."""
        cdef Py_ssize_t start = self._next_token + head
        cdef Py_ssize_t here = self._filled - start
        cdef Py_ssize_t placeholder = PyBytes_GET_SIZE(_PLACEHOLDER)
        if size > self.length - self._received + here:
            return False
        value = PyBytes_FromStringAndSize(NULL, size)
        advise_huge_pages(PyBytes_AS_STRING(value), size)
        here = min(here, size)
        memcpy(PyBytes_AS_STRING(value), self._skeleton + start, here)
        self.values.append(value)
        self._offsets.append(self._next_token)
        memcpy(self._skeleton + self._next_token, PyBytes_AS_STRING(_PLACEHOLDER), placeholder)
        self._next_token += placeholder
        memmove(self._skeleton + self._next_token, self._skeleton + start + here,
                self._filled - start - here)
        self._filled -= head - placeholder + here
        if here < size:
            self._value = value
            self._value_filled = here
        return True


def is_deeper(payload, Py_ssize_t limit, /) -> bool:
    """Whether a payload nests its arrays and maps deeper than a limit, up to 1,024.

    Bytes that are no MessagePack are left to the decoder: for them, any answer will do.

    Examples
    --------
    >>> is_deeper(b'\\x91\\x91\\x01', 2), is_deeper(b'\\x91\\x91\\x01', 1)
    (False, True)
    """
    # How many values are still missing in each of the containers that are open.
    cdef unsigned long long missing[_DEEPEST]
    cdef unsigned long long count
    cdef Py_ssize_t depth = 0
    cdef const unsigned char* token
    cdef const unsigned char* end
    cdef const unsigned char[::1] view = payload
    if limit >= _DEEPEST or view.shape[0] <= limit:
        return False
    token = &view[0]
    end = token + view.shape[0]
    while token < end and _distance(token, end) >= _head_size(token[0]):
        if _is_container(token[0]):
            if depth == limit:
                return True
            count = _items(token)
            token += _head_size(token[0])
            if count:
                missing[depth] = count
                depth += 1
                continue
        elif _distance(token, end) < _head_size(token[0]) + _body_size(token):
            return False
        else:
            token += _head_size(token[0]) + _body_size(token)
        while depth:
            missing[depth - 1] -= 1
            if missing[depth - 1]:
                break
            depth -= 1
    return False


cdef inline Py_ssize_t _distance(const unsigned char* start, const unsigned char* end) noexcept:
    # As numbers: of pointers, Cython's check for overflow makes C that gcc 14 refuses.
    return <Py_ssize_t> end - <Py_ssize_t> start


cdef inline bint _is_container(unsigned char first) noexcept:
    return 0x80 <= first < 0xa0 or 0xdc <= first < 0xe0


cdef inline unsigned long long _items(const unsigned char* token) noexcept:
    """How many values an array or map holds; a key is one too."""
    cdef unsigned char first = token[0]
    cdef unsigned long long count
    if first < 0x90:
        return 2 * (first & 0x0f)
    if first < 0xa0:
        return first & 0x0f
    if first == 0xdc or first == 0xde:
        count = (token[1] << 8) | token[2]
    else:
        count = ((<unsigned long long> token[1]) << 24) | (token[2] << 16) | (token[3] << 8) | token[4]
    return 2 * count if first >= 0xde else count


cdef inline Py_ssize_t _head_size(unsigned char first) noexcept:
    """Bytes of a token before its body: the type, and the size where it has one."""
    if first < 0xc4 or first >= 0xe0:
        return 1
    if first < 0xc7:                      # bin 8, 16, 32
        return 2 if first == 0xc4 else 3 if first == 0xc5 else 5
    if first < 0xca:                      # ext 8, 16, 32: size, then type
        return 3 if first == 0xc7 else 4 if first == 0xc8 else 6
    if first < 0xd4:                      # float 32, 64, uint 8..64, int 8..64
        return 1
    if first < 0xd9:                      # fixext 1, 2, 4, 8, 16: type
        return 2
    if first < 0xdc:                      # str 8, 16, 32
        return 2 if first == 0xd9 else 3 if first == 0xda else 5
    return 3 if first == 0xdc or first == 0xde else 5   # array, map 16, 32


cdef inline Py_ssize_t _body_size(const unsigned char* token) noexcept:
    """Bytes after a token's head that hold no tokens."""
    cdef unsigned char first = token[0]
    if 0xa0 <= first < 0xc0:              # fixstr
        return first & 0x1f
    if first == 0xc4 or first == 0xc7 or first == 0xd9:
        return token[1]
    if first == 0xc5 or first == 0xc8 or first == 0xda:
        return (token[1] << 8) | token[2]
    if first == 0xc6 or first == 0xc9 or first == 0xdb:
        return ((<Py_ssize_t> token[1]) << 24) | (token[2] << 16) | (token[3] << 8) | token[4]
    if first == 0xca:
        return 4
    if first == 0xcb:
        return 8
    if 0xcc <= first < 0xd0:
        return 1 << (first - 0xcc)
    if 0xd0 <= first < 0xd4:
        return 1 << (first - 0xd0)
    if 0xd4 <= first < 0xd9:
        return 1 << (first - 0xd4)
    return 0                              # fixint, fixmap, fixarray, nil, bool, array, map


cdef inline bint _is_extension(const unsigned char* token) noexcept:
    """Whether msgpack will ask for this extension; it keeps timestamps (-1) to itself."""
    cdef unsigned char first = token[0]
    if 0xd4 <= first < 0xd9:
        return token[1] != 0xff
    if 0xc7 <= first < 0xca:
        return token[_head_size(first) - 1] != 0xff
    return False
