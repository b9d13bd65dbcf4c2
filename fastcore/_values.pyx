"""Large binary values of a message that arrives: received where they will stay.

A ``PayloadSink`` takes the payload of a frame whose length is known. It walks over
the MessagePack tokens as they arrive. A large binary value is received straight into
the ``bytes``, or ``bytearray``, that the program will get; what remains, the *skeleton*,
has a small extension token in that place:

    payload    82 a2 op a4 echo a4 data c6 04 00 00 00 <64 MiB>
    skeleton   82 a2 op a4 echo a4 data d4 7f 00            values = [<64 MiB>]

MessagePack decodes the skeleton and asks for each extension in the order in which
they stand. ``values`` is in that order too, with None for the extensions that the
peer sent itself, so no bytes that a peer can send are mistaken for a placeholder.

Of the extensions that stand for values (``docs/values.md``), the body of a large array is received
into a ``bytearray``, which becomes the array's memory: ``values`` has its number and that. The
others hold MessagePack. A large one is walked through like an array of one item, and its size in
the skeleton is that of what remains; ``values`` has LOOKED_INTO for it, before what is in it.

Costs: a walk looks at the head of each token once. A byte of a small value is
received in place; a byte of a large value that came together with what stood
before it is copied once more, at most LARGE of them for each value, and at the start
of a payload at most 4 KiB. Neither kind of object is cleared before it is received into.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memchr, memcpy, memmove

from fastcore._buffer cimport LARGEST_SIZE
from fastcore._memory cimport advise_huge_pages

from fastcore.limits import MAX_DEPTH

#: From this many bytes on, a value is received in place. Below it, a copy within the
#: processor's caches costs less than the calls that avoid it.
LARGE = 256 * 1024
#: From this many bytes on, a value that its receiver may write to is a ``bytearray``. It is
#: copied once in any case, so receiving it in place pays earlier.
WRITABLE = 64 * 1024

cdef Py_ssize_t LARGE_SIZE = LARGE
cdef Py_ssize_t WRITABLE_SIZE = WRITABLE
cdef Py_ssize_t DEEPEST = MAX_DEPTH
if DEEPEST != DEEPEST_SIZE:
    raise ImportError("MAX_DEPTH and the room for open containers differ")
# The first memory of the skeleton: most of them are no larger.
cdef Py_ssize_t FIRST_SIZE = 4096

#: In the place of an extension in whose body the walk has looked for values.
LOOKED_INTO = object()

cdef enum:
    # The types of the extensions that are known here: an array, and from here to there those that
    # hold one MessagePack value; and those of which some are slow to make.
    DECIMAL_TYPE = 104
    PATH_TYPE = 107
    ARRAY_TYPE = 108
    SCALAR_TYPE = 109
    FIRST_WITH_VALUE = 110
    REGISTERED_TYPE = 112
    LAST_WITH_VALUE = 113
    # Those inside each other in which it looks; the decoder goes no deeper.
    DEEPEST_INSIDE = 16
    EXT_32 = 0xc9

# A fixext 1 of type 0x7f: what stands in the skeleton for a large value.
cdef bytes PLACEHOLDER = b"\xd4\x7f\x00"


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
    writable : bool, optional
        Whether the large values are ``bytearray``, from WRITABLE bytes on, instead of
        ``bytes`` from LARGE bytes on.
    """
    cdef readonly Py_ssize_t length
    cdef readonly bint writable
    cdef readonly list values
    cdef Py_ssize_t large
    cdef Py_ssize_t received

    cdef unsigned char* block
    cdef Py_ssize_t capacity
    cdef Py_ssize_t filled
    # Where the next token's head stands; beyond filled while a small value arrives.
    cdef Py_ssize_t next_token
    # The skeleton's offset of each placeholder, to give the original bytes back.
    cdef list offsets

    # What stood before each large value, to give that back too; and each extension that was looked
    # into: its offset and its first size.
    cdef list heads
    cdef list looked_into
    # The offsets of those that aren't over.
    cdef Py_ssize_t open_ones[DEEPEST_INSIDE]
    cdef int depth

    # The large value that is arriving, its memory, and how much of it is filled.
    cdef object value
    cdef char* value_memory
    cdef Py_ssize_t value_size
    cdef Py_ssize_t value_filled

    cdef Py_ssize_t lent_size

    def __cinit__(self, Py_ssize_t length, bint writable=False):
        self.length = length
        self.writable = writable
        self.large = WRITABLE_SIZE if writable else LARGE_SIZE
        self.values = []
        self.offsets = []
        self.heads = []
        self.looked_into = []

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    def __getbuffer__(self, Py_buffer* view, int flags):
        # What is lent (the rest of the large value, or the skeleton's free end) to write
        # in; where nothing is, the skeleton to read.
        if not self.lent_size:
            PyBuffer_FillInfo(view, self, self.block, self.filled, True, flags)
        elif self.value is not None:
            PyBuffer_FillInfo(view, self, self.value_memory + self.value_filled, self.lent_size, False, flags)
        else:
            PyBuffer_FillInfo(view, self, self.block + self.filled, self.lent_size, False, flags)

    @property
    def skeleton(self):
        """The payload with a placeholder for each large value, as a view in place."""
        if self.lent_size:
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
        cdef Py_ssize_t missing = self.length - self.received
        if missing == 0:
            raise ValueError("the payload is complete")
        if self.value is not None:
            self.lent_size = self.value_size - self.value_filled
        else:
            # No more than the skeleton has already, and no more than a large value, since it
            # must be copied out of the skeleton again when one begins in it.
            self.lent_size = min(max(size, 1), missing, max(FIRST_SIZE, min(self.filled, self.large)))
            self.reserve(self.filled + self.lent_size)
        return memoryview(self)

    def commit(self, Py_ssize_t size, /):
        """Take the first ``size`` bytes of what was lent."""
        if not 0 <= size <= self.lent_size:
            raise ValueError(f"{size} bytes committed where {self.lent_size} were prepared")
        self.lent_size = 0
        self.received += size
        if self.value is not None:
            self.value_filled += size
            if self.value_filled == self.value_size:
                self.value = None
        else:
            self.filled += size
            self.walk()

    def take(self, payload, /):
        """Copy a whole payload in, for one that was received elsewhere."""
        cdef Py_ssize_t at = 0
        whole = memoryview(payload)
        while at < self.length:
            lent = self.prepare(self.length - at)
            lent[:] = whole[at:at + self.lent_size]
            at += self.lent_size
            self.commit(self.lent_size)

    def pieces(self):
        """All bytes that were received, as they came, in pieces.

        For a frame whose ``length`` turned out not to be true: its bytes are searched
        once more for the sentinel.
        """
        cdef list pieces = []
        cdef Py_ssize_t start = 0, offset
        skeleton = bytearray(PyBytes_FromStringAndSize(<char*> self.block, self.filled))
        for offset, size in self.looked_into:
            skeleton[offset + 1:offset + 5] = size.to_bytes(4, "big")
        values = [value for value in self.values if value is not None and value is not LOOKED_INTO]
        for offset, head, value in zip(self.offsets, self.heads, values):
            if type(value) is tuple:
                value = value[1]
            pieces.append(skeleton[start:offset])
            pieces.append(head)
            pieces.append(value if value is not self.value else memoryview(value)[:self.value_filled])
            start = offset + PyBytes_GET_SIZE(PLACEHOLDER)
        pieces.append(skeleton[start:])
        return pieces

    cdef int reserve(self, Py_ssize_t needed) except -1:
        cdef Py_ssize_t capacity
        cdef unsigned char* block
        if needed <= self.capacity:
            return 0
        capacity = min(max(needed, 2 * self.capacity), self.length)
        block = <unsigned char*> PyMem_RawRealloc(self.block, capacity)
        if block == NULL:
            raise MemoryError(f"no memory for a payload of {self.length:,} bytes")
        self.block = block
        self.capacity = capacity
        return 0

    cdef int walk(self) except -1:
        """Go from token to token until a large value begins or the bytes end."""
        cdef Py_ssize_t head, body
        cdef unsigned char* token
        while self.next_token < self.filled:
            token = self.block + self.next_token
            if self.filled - self.next_token < head_size(token[0]):
                return 0
            head = head_size(token[0])
            body = body_size(token)
            if body >= self.large and self.is_received_apart(token) and self.begin_value(head, body):
                if self.value is not None:
                    return 0
                continue
            if token[0] == EXT_32 and body >= self.large and holds_value(token) and self.look_into(body):
                self.next_token += head
                continue
            if is_extension(token):
                self.values.append(None)
            self.next_token += head + body
        return 0

    cdef bint is_received_apart(self, unsigned char* token):
        return token[0] == 0xc6 or token[0] == EXT_32 and token[5] == ARRAY_TYPE

    cdef bint look_into(self, Py_ssize_t size) except -1:
        """Go on inside of the extension at the next token; False if it is too deep, or can't be true."""
        self.leave_those_over()
        if self.depth == DEEPEST_INSIDE or size > self.room_left(6):
            return False
        self.open_ones[self.depth] = self.next_token
        self.depth += 1
        self.looked_into.append((self.next_token, size))
        self.values.append(LOOKED_INTO)
        return True

    cdef int leave_those_over(self) except -1:
        while self.depth and self.end_of(self.depth - 1) <= self.next_token:
            self.depth -= 1
        return 0

    cdef int shorten_open_ones(self, Py_ssize_t size) except -1:
        """Take so many bytes off the sizes of the extensions that they were in."""
        cdef Py_ssize_t left
        cdef unsigned char* token
        cdef int which, i
        for which in range(self.depth):
            token = self.block + self.open_ones[which]
            left = body_size(token) - size
            for i in range(4):
                token[4 - i] = left >> 8 * i & 0xff
        return 0

    cdef Py_ssize_t end_of(self, int which):
        """Where, in the skeleton, an extension ends that is looked into."""
        cdef unsigned char* token = self.block + self.open_ones[which]
        return self.open_ones[which] + head_size(token[0]) + body_size(token)

    cdef Py_ssize_t room_left(self, Py_ssize_t head):
        """Most bytes that can follow the head of the next token: up to the end of what it is in."""
        cdef Py_ssize_t left = self.length - self.received + self.filled
        if self.depth:
            left = min(left, self.end_of(self.depth - 1))
        return left - self.next_token - head

    cdef bint begin_value(self, Py_ssize_t head, Py_ssize_t size) except -1:
        """Give the large value at the next token memory of its own; False if it can't be true."""
        cdef Py_ssize_t start = self.next_token + head
        cdef Py_ssize_t here = self.filled - start
        cdef Py_ssize_t placeholder = PyBytes_GET_SIZE(PLACEHOLDER)
        cdef char* memory
        cdef bint is_array = self.block[self.next_token] == EXT_32
        self.leave_those_over()
        if size > self.room_left(head):
            return False
        if self.writable or is_array:
            value = PyByteArray_FromStringAndSize(NULL, size)
            memory = PyByteArray_AS_STRING(value)
        else:
            value = PyBytes_FromStringAndSize(NULL, size)
            memory = PyBytes_AS_STRING(value)
        advise_huge_pages(memory, size)
        here = min(here, size)
        memcpy(memory, self.block + start, here)
        self.values.append((ARRAY_TYPE, value) if is_array else value)
        self.offsets.append(self.next_token)
        self.heads.append(PyBytes_FromStringAndSize(<char*> self.block + self.next_token, head))
        self.shorten_open_ones(head + size - placeholder)
        memcpy(self.block + self.next_token, PyBytes_AS_STRING(PLACEHOLDER), placeholder)
        self.next_token += placeholder
        memmove(self.block + self.next_token, self.block + start + here,
                self.filled - start - here)
        self.filled -= head - placeholder + here
        if here < size:
            self.value = value
            self.value_memory = memory
            self.value_size = size
            self.value_filled = here
        return True


def is_deeper(payload, Py_ssize_t limit, /) -> bool:
    """Whether a payload nests its arrays and maps deeper than a limit, below the decoder's own.

    Bytes that are no MessagePack are left to the decoder: for them, any answer will do.

    Examples
    --------
    >>> is_deeper(b'\\x91\\x91\\x01', 2), is_deeper(b'\\x91\\x91\\x01', 1)
    (False, True)
    """
    return limit < DEEPEST and survey(payload, limit, LARGEST_SIZE) == DEEPER


cdef enum:
    # What `survey` finds.
    HARMLESS_FOUND
    DEEPER_FOUND
    TOO_MANY_FOUND
    CLAIMS_TOO_MUCH_FOUND
    # Large maps whose keys may have been chosen for their place in a table.
    CHOSEN_KEYS_FOUND
    # Values that take Python far longer than others of as few bytes.
    TOO_DENSE_FOUND
    # MAX_DEPTH, which is held against it below.
    DEEPEST_SIZE = 1_024
    # In a map of so many keys, it doesn't matter how badly they are chosen.
    FEW_KEYS = 64
    # The bytes of which there have to be so many for each value that is slow to make: the hash of a
    # Decimal with an exponent of three digits, or more; a path that is pathlib's to take apart, and its hash.
    FOR_EXPONENT_OF_3 = 12
    FOR_EXPONENT = 20
    FOR_STRANGE_PATH = 24
    FOR_STRANGE_PATH_HASHED = 80
    # As how many values one counts, by the memory that it takes: up to some 70 bytes for each. One of a set
    # is its list.
    OF_A_SET = 4
    OF_A_PATH_OR_ARRAY = 5
    OF_ANY_OTHER = 2


HARMLESS = HARMLESS_FOUND
DEEPER = DEEPER_FOUND
TOO_MANY = TOO_MANY_FOUND
CLAIMS_TOO_MUCH = CLAIMS_TOO_MUCH_FOUND
CHOSEN_KEYS = CHOSEN_KEYS_FOUND
TOO_DENSE = TOO_DENSE_FOUND


cdef struct Container:
    # How many values it still lacks; a key is one too.
    unsigned long long missing
    bint is_map
    # Whether it is one of many keys.
    bint is_large_map
    # Whether what is in it is hashed, since it is in a set or a key.
    bint is_hashed


def survey(payload, Py_ssize_t max_depth, Py_ssize_t max_values, /) -> int:
    """Look over a payload before it is decoded: what it will become, and at which cost.

    Bytes that are no MessagePack are left to the decoder, and are HARMLESS here.

    Parameters
    ----------
    payload : bytes-like
        MessagePack, or anything.
    max_depth, max_values : int
        Most containers inside each other, and most values in all.

    Returns
    -------
    int
        DEEPER, TOO_MANY, CLAIMS_TOO_MUCH (a container says that it holds more values than
        there are bytes, for which a decoder may reserve memory), CHOSEN_KEYS, TOO_DENSE (of values that
        are slow to make it holds more than its bytes deserve), or HARMLESS.

    Examples
    --------
    >>> survey(b'\\x93\\x01\\x02\\x03', 10, 3) == TOO_MANY
    True
    """
    cdef bint has_registered
    return look_over(payload, max_depth, max_values, &has_registered)


cdef int look_over(object payload, Py_ssize_t max_depth, Py_ssize_t max_values,
                   bint *has_registered) except -1:
    """As `survey`; and whether there are values that functions of the program's own will be called for."""
    cdef Container open_ones[DEEPEST_SIZE]
    cdef const unsigned char *start
    cdef Py_buffer view
    # The decoder itself goes no deeper.
    max_depth = min(max_depth, DEEPEST)
    if type(payload) is bytes:
        start = <const unsigned char *> PyBytes_AS_STRING(payload)
        return survey_in(start, start + PyBytes_GET_SIZE(payload), max_depth, max_values, open_ones,
                         has_registered)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    start = <const unsigned char *> view.buf
    try:
        return survey_in(start, start + view.len, max_depth, max_values, open_ones, has_registered)
    finally:
        PyBuffer_Release(&view)


cdef int survey_in(const unsigned char *token, const unsigned char *end, Py_ssize_t max_depth,
                   Py_ssize_t max_values, Container *open_ones, bint *has_registered) noexcept:
    cdef unsigned long long count, left
    # Values that all open containers together still lack.
    cdef unsigned long long lacking = 0
    cdef Py_ssize_t values = 0
    cdef Py_ssize_t depth = 0
    cdef int found = HARMLESS_FOUND
    cdef unsigned char first
    cdef bint is_hashed
    cdef Py_ssize_t size = distance(token, end)
    # Bytes that there have to be for the sake of slow values.
    cdef Py_ssize_t owed = 0
    has_registered[0] = False
    while token < end and distance(token, end) >= head_size(token[0]):
        first = token[0]
        values += 1
        if values > max_values:
            return TOO_MANY_FOUND
        if lacking:
            lacking -= 1
        is_hashed = False
        if depth:
            is_hashed = open_ones[depth - 1].is_hashed
            if open_ones[depth - 1].is_map and not open_ones[depth - 1].missing & 1:
                is_hashed = True
                if open_ones[depth - 1].is_large_map and not is_text_or_bytes(first):
                    found = CHOSEN_KEYS_FOUND
        if is_container(first):
            if depth == max_depth:
                return DEEPER_FOUND
            count = items(token)
            token += head_size(first)
            left = <unsigned long long> distance(token, end)
            if count > left or lacking + count > left:
                return CLAIMS_TOO_MUCH_FOUND
            if count:
                open_ones[depth].missing = count
                open_ones[depth].is_map = is_map(first)
                open_ones[depth].is_large_map = is_map(first) and count > <unsigned long long> 2 * FEW_KEYS
                open_ones[depth].is_hashed = is_hashed
                lacking += count
                depth += 1
                continue
        elif distance(token, end) < head_size(first) + body_size(token):
            return found
        elif holds_value(token):
            has_registered[0] |= token[head_size(first) - 1] == REGISTERED_TYPE
            if depth == max_depth:
                return DEEPER_FOUND
            open_ones[depth].missing = 1
            open_ones[depth].is_map = open_ones[depth].is_large_map = False
            open_ones[depth].is_hashed = is_hashed
            if token[head_size(first) - 1] < REGISTERED_TYPE:
                values += OF_A_SET - 2
                open_ones[depth].is_hashed = True
            token += head_size(first)
            lacking += 1
            depth += 1
            continue
        else:
            if is_extension(token):
                values += values_in_place_of(token[head_size(first) - 1]) - 1
                owed += owed_for(token, is_hashed)
                if values > max_values:
                    return TOO_MANY_FOUND
                if owed > size:
                    return TOO_DENSE_FOUND
            token += head_size(first) + body_size(token)
        while depth:
            open_ones[depth - 1].missing -= 1
            if open_ones[depth - 1].missing:
                break
            depth -= 1
        if not depth:
            # One value is one payload; what follows is the decoder's to refuse.
            return found
    return found


cdef inline int values_in_place_of(unsigned char kind) noexcept:
    return OF_A_PATH_OR_ARRAY if PATH_TYPE <= kind <= SCALAR_TYPE else OF_ANY_OTHER


cdef Py_ssize_t owed_for(const unsigned char *token, bint is_hashed) noexcept:
    """How many bytes there have to be for an extension that is slow to make; 0 for all others."""
    cdef Py_ssize_t head = head_size(token[0])
    cdef Py_ssize_t size = body_size(token)
    cdef const unsigned char *body = token + head
    cdef Py_ssize_t digits = 0
    if token[head - 1] == DECIMAL_TYPE and is_hashed:
        while digits < size and is_digit(body[size - 1 - digits]):
            digits += 1
        size -= digits
        if size and (body[size - 1] == c"-" or body[size - 1] == c"+"):
            size -= 1
        if digits < 3 or not size or body[size - 1] != c"E":
            return 0
        return FOR_EXPONENT_OF_3 if digits == 3 else FOR_EXPONENT
    if token[head - 1] == PATH_TYPE and size and body[0] == c"w" and is_strange_path(body + 1, size - 1):
        return FOR_STRANGE_PATH_HASHED if is_hashed else FOR_STRANGE_PATH
    return 0


cdef bint is_strange_path(const unsigned char *text, Py_ssize_t size) noexcept:
    """Whether a path of Windows may be one of those that ``_paths.pyx`` leaves to pathlib."""
    cdef Py_ssize_t i, server = 2
    if size < 2:
        return False
    if is_separator(text[0]) and is_separator(text[1]):
        if size > 5 and text[2] == c"?" and is_separator(text[3]):
            if is_letter(text[4]) and text[5] == c":":
                return size > 6 and not is_separator(text[6])
            if size > 8 and text[4] == c"U" and text[5] == c"N" and text[6] == c"C" and is_separator(text[7]):
                server = 8
        if size == server or text[server] in b"?./\\":
            return True
        # A server, and what it shares.
        for i in range(server + 1, size - 1):
            if is_separator(text[i]):
                return is_separator(text[i + 1])
        return True
    if text[1] == c":":
        return not is_letter(text[0])
    # A name whose second character is a colon, where it isn't after a drive.
    return (text[0] == c"." or text[0] >= 0x80) and memchr(text, c":", size) != NULL


cdef inline bint is_separator(unsigned char char) noexcept:
    return char == c"/" or char == c"\\"


cdef inline bint is_letter(unsigned char char) noexcept:
    return c"a" <= char | 0x20 <= c"z"


cdef inline bint is_digit(unsigned char char) noexcept:
    return c"0" <= char <= c"9"


def is_decimal(bytes body not None, /) -> bool:
    """Whether it is a number as ``str`` writes a Decimal.

    Examples
    --------
    >>> is_decimal(b'-1.50E-7'), is_decimal(b'sNaN12'), is_decimal(b' 1'), is_decimal(b'1_000')
    (True, True, False, False)
    """
    # At the end of bytes there is a zero, which is none of those.
    cdef const unsigned char *char = <const unsigned char *> PyBytes_AS_STRING(body)
    cdef const unsigned char *end = char + PyBytes_GET_SIZE(body)
    cdef const unsigned char *digits
    if char[0] == c"-":
        char += 1
    if is_digit(char[0]):
        char = after_digits(char)
        if char[0] == c".":
            char = after_digits(char + 1)
        if char[0] == c"E":
            char += 2 if char[1] == c"-" or char[1] == c"+" else 1
            digits = char
            char = after_digits(char)
            return char == end and 0 < distance(digits, char) <= 9
        return char == end
    if body.endswith(b"Infinity"):
        return distance(char, end) == 8
    if char[0] == c"s":
        char += 1
    return char[0] == c"N" and char[1] == c"a" and char[2] == c"N" and after_digits(char + 3) == end


cdef inline const unsigned char* after_digits(const unsigned char* char) noexcept:
    while is_digit(char[0]):
        char += 1
    return char


cdef bint is_one_value(bytes payload):
    """Whether a payload is one value and nothing more, as far as its tokens tell."""
    cdef const unsigned char *token = <const unsigned char *> PyBytes_AS_STRING(payload)
    cdef const unsigned char *end = token + PyBytes_GET_SIZE(payload)
    cdef unsigned long long lacking = 1
    while lacking and token < end and distance(token, end) >= head_size(token[0]):
        lacking -= 1
        if is_container(token[0]):
            lacking += items(token)
        token += head_size(token[0]) + body_size(token)
    return not lacking and token == end


def are_chosen(hashes, /) -> bool:
    """Whether keys of these hashes would take a dict far more steps than others do.

    It does what a dict does, with marks in the place of keys. (CPython's dictobject.c tells
    how it looks for a place.)

    Examples
    --------
    >>> are_chosen([number << 40 for number in range(1000)]), are_chosen(list(range(1000)))
    (False, False)
    >>> are_chosen([7] * 1000)
    True
    """
    cdef list given = hashes
    cdef Py_ssize_t count = len(given)
    cdef size_t size = 8
    cdef size_t place, rest
    cdef Py_ssize_t steps = 0
    cdef Py_hash_t one
    while size * 2 < <size_t> count * 3:
        size *= 2
    marks = bytearray(size)
    cdef unsigned char[::1] mark = marks
    for hashed in given:
        one = hashed
        place = <size_t> one & (size - 1)
        rest = <size_t> one
        while mark[place]:
            rest >>= 5
            place = (place * 5 + rest + 1) & (size - 1)
            steps += 1
            if steps > 16 * count:
                return True
        mark[place] = 1
    return False


cdef inline Py_ssize_t distance(const unsigned char* start, const unsigned char* end) noexcept:
    # As numbers: of pointers, Cython's check for overflow makes C that gcc 14 refuses.
    return <Py_ssize_t> end - <Py_ssize_t> start


cdef inline bint is_text_or_bytes(unsigned char first) noexcept:
    # Their hashes can't be foreseen.
    return 0xa0 <= first < 0xc0 or 0xc4 <= first < 0xc7 or 0xd9 <= first < 0xdc


cdef inline bint holds_value(const unsigned char* token) noexcept:
    """Whether it is an extension whose body is MessagePack."""
    cdef unsigned char first = token[0]
    if not (0xc7 <= first < 0xca or 0xd4 <= first < 0xd9):
        return False
    return FIRST_WITH_VALUE <= token[head_size(first) - 1] <= LAST_WITH_VALUE


cdef inline bint is_map(unsigned char first) noexcept:
    return first < 0x90 or first >= 0xde


cdef inline bint is_container(unsigned char first) noexcept:
    return 0x80 <= first < 0xa0 or 0xdc <= first < 0xe0


cdef inline unsigned long long items(const unsigned char* token) noexcept:
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


cdef inline Py_ssize_t head_size(unsigned char first) noexcept:
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


cdef inline Py_ssize_t body_size(const unsigned char* token) noexcept:
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


cdef inline bint is_extension(const unsigned char* token) noexcept:
    """Whether msgpack will ask for this extension; it keeps timestamps (-1) to itself."""
    cdef unsigned char first = token[0]
    if 0xd4 <= first < 0xd9:
        return token[1] != 0xff
    if 0xc7 <= first < 0xca:
        return token[head_size(first) - 1] != 0xff
    return False
