"""A channel: messages over a transport.

in     socket, receive, MessageBuffer, take: the Future of a read, or the owner
out    write or send, encode: the socket at once, or the Outbox until the turn ends

It is complete: whatever fulfils `Transport` carries messages. All of it is compiled because a
small message costs hardly more than the steps between its socket and its handler.

The states, all of whose changes are in this file:

    OPENING   the transport connects or shakes hands; messages to send wait
       |      opened()
    OPEN      messages come and go
       |      close_when_sent()                    farewell()
    CLOSING   it ends when all has left            LEAVING   what still comes is dropped
       |      ending(), ended(), from any of these, whoever closes it
    LOST      what arrived before can still be read; then every use raises ConnectionLost

Beside that it may be full (the socket takes no more), paused (too much arrived that nobody
reads), owned, lent, and listening (its owner is given the messages as they come).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.time cimport monotonic
from libc.string cimport memcpy

import asyncio
import sys
from collections import deque

import msgpack

from fastcore._framing cimport MessageBuffer
from fastcore._futures cimport futures_of
from fastcore._header cimport CallHeader, call_fields, call_header, read_call_header, whose
from fastcore._iterating cimport Source, waited_for
from fastcore._outbox cimport Outbox
from fastcore._socket cimport Socket
from fastcore._turns cimport turns_of
from fastcore._watchdog cimport Watchdog
from fastcore._wire cimport NO_SURVEY, Dialect, decode, encode, unpack_with_care

from fastcore._futures import callbacks_of, given_up, is_busy, set_error, set_result_now, set_value
from fastcore._header import read_header, read_header_to_write
from fastcore._values import PayloadSink
from fastcore._wire import bad_payload
from fastcore.contracts import Owner
from fastcore.engine_errors import BadFrame, BadMessage, BadValue, FrameTooLarge, TooDeep, TooManyValues
from fastcore.errors import ConnectionLost
from fastcore.limits import MAX_DEPTH

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)
    bint PyExceptionInstance_Check(object)

cdef extern from "_process.h":
    const int forks_so_far
    void count_forks()

cdef enum:
    # Small writes of one turn leave together, at the latest when there are this many bytes.
    ENOUGH_TO_SEND = 65_536
    # Messages that may be read, or written, without giving other connections a turn.
    MESSAGES_PER_TURN = 256
    # Of further ones than these, the clock is looked at after every so many.
    MESSAGES_UNTIMED = 4
    # How slow a connection is that takes long: once alone, the machine may have done something else.
    SLOW = 3
    SLOWEST = 8
    # Bytes of further small messages that are decoded together with the first one.
    AHEAD = 4_096
    # A message of which so much is still to come holds others up.
    HOLDS_UP = 65_536
    # A peer that takes no more than this much more is looked after.
    LITTLE_ROOM = 32_768
    # System calls by which what has come meanwhile is received, before the loop does it.
    RECEIVES_TO_CATCH_UP = 16
    # What every peer takes.
    FIRST_ROOM = 1_024

# Seconds of a turn of the loop that one connection may take, if it has more to say.
cdef double A_SHARE = 0.000_2

# Seconds of one turn after which others that take as long have theirs later.
cdef double TOO_LONG = 0.000_6

# Seconds that are longer than most turns of a loop.
cdef double A_TURN = 0.001

# Seconds after which a read that was given up is looked after again.
cdef double WAIT_AGAIN = 0.02

cdef long long ENDLESS = 1 << 62

# What `take` gives while no message is complete; None is a message.
cdef object NOTHING = object()
# Looked up once, and not for each message.
cdef object set_result = asyncio.Future.set_result
cdef object unpack = msgpack.unpackb
cdef bytes NOBODYS = call_fields(None)

count_forks()


@cython.final
cdef class Channel:
    """The messages of one connection.

    It belongs to the process, the loop and the thread that made it; used elsewhere it says
    so before anything is sent. Only closing may be asked for from anywhere, by way of the
    transport.

    Parameters
    ----------
    transport : Transport
        Carries its bytes.
    loop : asyncio.AbstractEventLoop
        Where it is used.
    limits : Limits
        What the peer may cost.
    compression : str, optional
        The compression of outgoing messages.
    peer : str
        Who is at the other end, for people.
    writable_values : bool
        Whether large binary values are received as ``bytearray``.
    """

    def __init__(self, transport, loop, limits, compression, str peer, bint writable_values=False):
        self.transport = transport
        self.loop = loop
        self.limits = limits
        self.compression = compression
        self.peer = peer
        self.state = OPENING
        self.forks = forks_so_far
        self.thread = PyThread_get_thread_ident()
        self.futures = futures_of(loop)
        self.turns = turns_of(loop)
        self.writable_values = writable_values
        self.buffer = MessageBuffer(
            read_header_to_write if writable_values else read_header,
            max_frame_size=limits.max_buffer_size,
            max_header_size=limits.max_header_size,
            limit_name="max_buffer_size",
        )
        self.outbox = Outbox()
        self.max_depth = limits.max_depth
        self.max_values = limits.max_values
        self.checks_all = limits.max_depth < MAX_DEPTH or limits.max_values <= NO_SURVEY
        self.max_decompressed_size = limits.max_decompressed_size or limits.max_buffer_size
        self.max_waiting = limits.max_waiting
        self.dialect = Dialect()

    def __repr__(self):
        state = ("opening", "open", "closing", "leaving", "lost")[self.state]
        return f"<Channel to {self.peer}: {state}, {self.outbox.unsent} bytes unsent>"

    # ---- figures

    @property
    def is_lost(self):
        """Whether the connection has ended."""
        return self.state == LOST

    @property
    def failure(self):
        """The error after which no further message can be read, if there was one."""
        return self.buffer.failure

    @property
    def is_hopeless(self):
        """Whether no message can be had any more, after one that was none.

        A peer whose very first message is none speaks another protocol. To go on at the next
        sentinel would let a web page call handlers: it can make a browser send any bytes,
        but has no say in the first ones.
        """
        return self.buffer.failure is not None or not self.is_understood

    @property
    def unread(self):
        """Bytes that have arrived, of messages that nobody took."""
        return self.buffer.pending + self.size_ahead + self.size_kept

    @property
    def unsent(self):
        """Bytes that wait to be sent."""
        return self.outbox.unsent

    @property
    def held(self):
        """Bytes of memory that hold what has arrived and what waits to be sent."""
        held = sys.getsizeof(self.buffer) if self.buffer else 0
        return held + self.size_ahead + self.size_kept + self.outbox.unsent

    @property
    def messages_in(self):
        """Messages that were taken, or decoded ahead, ever."""
        return self.buffer.taken

    @property
    def bytes_in(self):
        """Bytes received, ever."""
        return self.buffer.received

    @property
    def bytes_out(self):
        """Bytes sent, ever."""
        return self.outbox.sent

    @property
    def is_read(self):
        """Whether somebody reads, or waits for the next message."""
        return self.is_listening or self.waiting is not None

    @property
    def is_borrowed(self):
        """Whether the owner has the channel from another one, whom it falls back to."""
        return self.lender is not None

    @property
    def is_read_by_hand(self):
        """Whether a read waits for the next message."""
        return self.waiting is not None

    @property
    def is_open(self):
        """Whether it is neither lost nor about to be closed."""
        return self.state <= OPEN

    cpdef bint is_clear(self) except -1:
        """Whether a message can be sent from here at once, and no large one is in its way."""
        return (
            self.state == OPEN and not self.is_full and len(self.buffer) < HOLDS_UP
            and self.buffer.sink_missing < HOLDS_UP and self.is_here()
        )

    @property
    def in_step(self):
        """Whether nothing has arrived that nobody asked for."""
        return self.state <= OPEN and not self.ahead and not len(self.buffer)

    # ---- where it may be used

    @property
    def is_foreign(self):
        """Whether it was made before a fork, by another process, and is that one's."""
        return self.forks != forks_so_far

    cpdef bint is_here(self):
        """Whether this is the process, the loop and the thread that it belongs to."""
        try:
            self.check_here()
        except RuntimeError:
            return False
        return self.is_delivering or not self.loop.is_closed()

    cpdef int check_here(self) except -1:
        """Raise if this isn't the process, the loop or the thread that it belongs to.

        Costs no system call. A loop that isn't running yet may be used; it goes on later.
        """
        if self.forks != forks_so_far:
            raise RuntimeError(
                f"the connection to {self.peer} was made in another process, before a fork; "
                "connect anew in this one"
            )
        if self.thread != PyThread_get_thread_ident():
            self.check_loop()
            self.thread = PyThread_get_thread_ident()
        elif not (self.is_delivering or self.is_in_turn() or self.loop.is_running()):
            self.check_loop()
        return 0

    cdef bint is_in_turn(self):
        """Whether a turn of the loop is under way, as far as that can be told without asking it.

        A loop that has ended has dropped what it was to call, which then is only referred to here.
        """
        return self.is_turn_run and self.turn_ends is not None and Py_REFCNT(<PyObject *> self.turn_ends) > 1

    cdef int check_loop(self) except -1:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            if self.loop.is_closed():
                raise RuntimeError(
                    f"the connection to {self.peer} belongs to an event loop that has ended; "
                    "connect anew in the next"
                ) from None
            if not self.loop.is_running():
                # Tornado's programs make streams before they start the loop.
                return 0
            raise RuntimeError(
                f"the connection to {self.peer} is used from another thread than its loop's; "
                "have the loop do it: loop.call_soon_threadsafe(...)"
            ) from None
        if running is not self.loop:
            raise RuntimeError(
                f"the connection to {self.peer} belongs to another event loop than the one that runs here; "
                "connect anew in this one"
            )
        return 0

    # ---- who has it

    def own(self, owner):
        """Become the one who is given the messages.

        A channel that has an owner can only be had while that one lends it; then it falls
        back when the borrower disowns it.

        Raises
        ------
        RuntimeError
            If it has another owner, or somebody reads from it.
        ConnectionLost
            If the connection has ended.
        """
        if not isinstance(owner, Owner):
            raise TypeError(f"a channel is owned by an Owner, not by {owner!r}")
        self.check_here()
        if self.state == LOST:
            raise self.lost_error()
        if self.owner is not None and (
            (self.is_listening and not self.keeps)
            or not (self.is_lent or self.is_delivering and self.owner.lends)
        ):
            raise RuntimeError(
                f"the stream to {self.peer} belongs to {self.owner!r}: use that, or a connection of your own"
            )
        if self.is_waited_for():
            raise self.busy_error()
        self.lender = self.owner
        self.owner = owner
        self.is_lent = self.is_listening = self.keeps = False

    def disown(self, owner):
        """Give up what `own` gave."""
        if self.owner is owner:
            self.owner, self.lender = self.lender, None
            self.is_lent = self.owner is not None
            self.is_listening = False
        elif self.lender is owner:
            self.lender = None

    def take_back(self):
        """End a loan: who has borrowed the channel hears that it is lost to him."""
        cdef object borrower = self.owner
        self.is_lent = False
        if self.lender is not None:
            self.owner, self.lender = self.lender, None
            self.is_listening = False
            borrower.connection_lost()

    def listen(self):
        """Have the owner given the messages that are here, and those that come."""
        if self.is_waited_for() and not self.is_lent:
            self.close(self.busy_error())
            return
        self.is_listening = self.listens_again = True
        if not self.hands_out_later:
            self.deliver()

    def listen_soon(self):
        """As `listen`, for those that come, and in the next turn those that are here."""
        if self.is_listening:
            return
        self.is_listening = True
        if self.ahead or len(self.buffer) or self.state == LOST:
            self.hand_out_later()

    def stop_listening(self):
        """Have the owner given no messages; others may read then."""
        self.is_listening = False

    def add_end_callback(self, callback):
        """Have a callable called, without arguments, when the connection has ended."""
        if self.end_callbacks is None:
            self.end_callbacks = []
        self.end_callbacks.append(callback)

    def remove_end_callback(self, callback):
        """Have it called no more."""
        if self.end_callbacks and callback in self.end_callbacks:
            self.end_callbacks.remove(callback)

    def mark_as_nobodys(self):
        """Say in the header of each message to come that it answers no call, unless it does."""
        self.usual_fields = NOBODYS

    # ---- what the transport tells

    def opened(self, Socket socket not None, str peer=None, acknowledgements=None):
        """Exchange bytes from now on.

        Parameters
        ----------
        socket : Socket
            Receives and sends.
        peer : str, optional
            Who it is, if that is known better now.
        acknowledgements : optional
            What tells how much more the peer takes (``room``), whether its machine is alive while it
            takes nothing (``watch``, ``figure``), and how much has arrived there while some hasn't
            (``arrived``); see ``transport.keepalive``.
        """
        if self.state == LOST:
            return
        self.socket = socket
        self.acknowledgements = acknowledgements
        self.room_ends = FIRST_ROOM if acknowledgements is not None else ENDLESS
        if peer is not None:
            self.peer = peer
        if self.state == OPENING:
            self.state = OPEN
        if self.limits.idle_timeout is not None:
            self.watch()
        else:
            # It had an eye on the handshake.
            self.watch_less()
        if self.outbox.unsent:
            self.send_waiting()

    def receive(self):
        """Receive what one system call gives, and have it read; False if there was nothing."""
        cdef Py_ssize_t size
        # Held: who comes in between may end the connection, and let it go.
        cdef Socket socket = self.socket
        if socket is None or self.state >= LEAVING or self.forks != forks_so_far:
            return False
        # What waits for the end of its turn goes first: uvloop receives before that.
        self.sent_in_turn = self.turn_ends is not None
        self.read_in_turn = self.written_in_turn = 0
        # The memory for it is lent meanwhile, and a socket in Python may run anything.
        self.is_taking = True
        try:
            size = socket.receive(self.buffer)
        except Exception as error:
            if self.state != LOST and not isinstance(error, (OSError, MemoryError)):
                raise
            self.close(error)
            return False
        finally:
            self.is_taking = False
        if self.state == LOST:
            return False
        if size <= 0:
            if size == 0:
                self.end_of_input()
            return False
        if self.buffer.received == size and not self.first_size:
            self.keep_first(size)
        if self.is_number_unheard():
            self.is_listening = True
        if self.is_listening:
            if not self.hands_out_later:
                if self.is_rationed and (
                    self.turns.is_over or self.slowness >= SLOW and self.turns.is_crowded()
                ):
                    self.hand_out_later()
                else:
                    self.deliver()
            if (self.hands_out_later or self.has_kept_enough()) and (
                len(self.buffer) >= self.max_waiting and not self.is_paused
            ):
                # They come faster than their owner takes them in its share of a turn, or at all.
                self.is_paused = True
                self.pause()
        elif self.waiting is not None:
            if self.buffer.sink_missing:
                # There is nothing to give yet, and no end to look for behind it.
                return True
            if socket.is_at_end():
                # The end came with the last bytes, and who reads by hand looks for it then.
                self.end_of_input()
            if is_busy(self.loop):
                # Taken by then only, so that a read given up until then loses nothing.
                self.hand_out_later()
            else:
                self.resolve()
                if self.buffer.sink_missing and size == self.buffer.lent_size and self.waiting is not None:
                    # The rest of it is most likely here.
                    return self.receive()
        elif len(self.buffer) >= self.max_waiting:
            self.is_paused = True
            self.pause()
        return True

    cpdef bint catch_up(self) except -1:
        """Receive what came while the loop had no turn; False if that was the end.

        Before a connection is used that nobody used for a while: what its peer said last may be that
        it has gone. Messages are handed out later, so nothing else runs in here. It costs a system
        call, unless something was sent just now, to a peer that isn't of those that close at any time.
        """
        cdef Py_ssize_t size = 1
        cdef Socket socket = self.socket
        if self.has_numbers:
            self.looked_at = monotonic()
            if self.looked_at - self.sent_at < A_TURN:
                return self.state <= OPEN
        if socket is None or self.is_paused or self.is_taking or not socket.has_something():
            return self.state <= OPEN
        self.is_taking = True
        try:
            for _ in range(RECEIVES_TO_CATCH_UP):
                size = socket.receive(self.buffer)
                if size <= 0:
                    break
                self.hand_out_later()
        except (OSError, MemoryError) as error:
            self.close(error)
        finally:
            self.is_taking = False
        if size == 0:
            self.close()
        return self.state <= OPEN

    def is_ready(self):
        """Whether it `is_clear`, and wasn't ended meanwhile: see `catch_up`."""
        return self.is_clear() and self.catch_up()

    cdef int pause(self) except -1:
        """Receive no more; unless somebody who comes in between has read what there was."""
        if self.transport is not None:
            self.transport.pause()
        if not (self.is_paused or self.is_at_end):
            self.resume()
        return 0

    cdef int resume(self) except -1:
        if self.transport is not None:
            self.transport.resume()
        return 0

    cdef int end_of_input(self) except -1:
        """The peer has closed its side; it may still wait for answers."""
        cdef object owner = self.owner
        if self.is_at_end:
            return 0
        if owner is not None and owner.owes():
            self.is_at_end = True
            self.pause()
            owner.half_closed()
            # What is here already goes on; a handler that reads by hand has nothing more to wait for.
            self.hand_out_later()
        else:
            self.close()
        return 0

    cdef int keep_first(self, Py_ssize_t size) except -1:
        """Remember how the connection begins, to tell who it is if that makes no sense."""
        cdef Py_ssize_t held = len(self.buffer)
        self.first_size = <int> min(size, held, <Py_ssize_t> sizeof(self.first))
        if self.first_size:
            memcpy(self.first, self.buffer.block.data + self.buffer.head, self.first_size)
        return 0

    @property
    def first_bytes(self):
        """The first bytes that came, up to 8 of them; a transport with a handshake says which."""
        return PyBytes_FromStringAndSize(self.first, self.first_size)

    @first_bytes.setter
    def first_bytes(self, bytes first not None):
        self.first_size = <int> min(PyBytes_GET_SIZE(first), <Py_ssize_t> sizeof(self.first))
        memcpy(self.first, PyBytes_AS_STRING(first), self.first_size)

    def writable(self):
        """Send what waits, as far as the socket takes it."""
        if self.socket is not None:
            self.send_waiting()

    def hold_back(self):
        """Send nothing until `writable` is called: other bytes go first."""
        if self.socket is not None:
            self.set_full(True)

    def ending(self, error):
        """The transport is about to close: send what its writers were told is on its way.

        Parameters
        ----------
        error : BaseException or None
            Why, where there is a reason to send no more.

        Returns
        -------
        int
            How many bytes could not be sent.
        """
        cdef Socket socket = self.socket
        if socket is None:
            return 0
        if error is None and self.outbox.unsent and not self.is_foreign:
            try:
                self.outbox.flush(socket)
            except OSError:
                pass
        self.socket = None
        return self.outbox.unsent

    def ended(self, str reason, error):
        """The transport has closed: tell everybody who waits.

        Parameters
        ----------
        reason : str
            Why, in words; empty where there is nothing to say.
        error : BaseException or None
            The error that ended it.
        """
        if self.state == LOST:
            return
        self.state = LOST
        self.socket = None
        # What holds each other would be freed by the collector alone.
        self.transport = None
        self.end_reason = f"the connection to {self.peer} was closed{': ' if reason else ''}{reason}"
        self.end_error = error
        watchdog, self.watchdog = self.watchdog, None
        if watchdog is not None:
            watchdog.stop()
        self.outbox.clear()
        self.is_full = False
        writers, self.writers = self.writers, None
        for owner in (self.owner, self.lender):
            if owner is not None:
                owner.connection_lost()
        callbacks, self.end_callbacks = self.end_callbacks, None
        for callback in callbacks or ():
            callback()
        if self.loop.is_closed() or self.forks != forks_so_far:
            return
        for _, future in writers or ():
            set_error(future, self.lost_error())
        self.hand_out_later()
        if self.owner is not None:
            self.loop.call_soon(self.owner.writable)

    # ---- its end, asked for by those who use it

    def close(self, error=None):
        """Close the connection: because of an error, or because nobody needs it any more."""
        if self.transport is not None:
            self.transport.close(error)

    def close_when_sent(self):
        """Close the connection as soon as all messages have left."""
        if self.state <= OPEN:
            self.state = CLOSING
        if self.state == CLOSING and not self.outbox.unsent:
            self.close_sent()

    def close_when_arrived(self):
        """As `close_when_sent`, but while some of it is on its way to the peer, as after a farewell."""
        self.sees_off = True
        self.close_when_sent()

    cdef int close_sent(self) except -1:
        """Close, as all has left."""
        cdef object arrived = None
        if self.sees_off and self.acknowledgements is not None:
            arrived = self.acknowledgements.arrived()
        if self.state != CLOSING:
            # By somebody who came in between.
            return 0
        if arrived is None:
            self.close()
            return 0
        self.state = LEAVING
        self.is_listening = False
        self.transport.linger()
        return 0

    def farewell(self, message, bytes fields=None):
        """Send a last message, and close when the peer has read it, or after a moment.

        To close a socket while its peer still sends resets the connection, and the last
        message could be lost with it: so what still comes is received and dropped.
        """
        if self.state == LOST:
            return
        if self.forks != forks_so_far:
            # A child that ends its parent's server; what is said there is the parent's to say.
            self.close()
            return
        try:
            self.put(message, fields if fields is not None else self.usual_fields)
        except ConnectionLost:
            return
        if self.state < LEAVING:
            self.state = LEAVING
            self.is_listening = False
            if not self.outbox.unsent:
                self.transport.linger()

    def lost_error(self, when=""):
        """Make the error for somebody who needed the connection after it ended."""
        reason = self.end_reason or f"{self.peer} has closed its side of the connection"
        return ConnectionLost(f"{reason}{when}", self.end_error)

    def busy_error(self):
        """Make the error for somebody who would read beside the one reader."""
        return RuntimeError(f"two readers at once: messages from {self.peer} are being read")

    # ---- time

    cpdef bint is_watched(self):
        """Whether somebody has an eye on the time that the peer takes."""
        return self.watchdog is not None and self.watchdog.is_awake

    cpdef int watch(self) except -1:
        """Have an eye on the time: the peer has begun what it must not leave unfinished."""
        # Held: who comes in between may end the connection, and let it go.
        cdef Watchdog watchdog = self.watchdog
        if watchdog is None:
            watchdog = Watchdog(self.loop, self.limits, self.figures, self.over_limit)
            if self.state == LOST:
                return 0
            if self.watchdog is None:
                self.watchdog = watchdog
            else:
                watchdog = self.watchdog
        watchdog.wake()
        if self.state == LOST:
            watchdog.stop()
        return 0

    cdef int watch_less(self) except -1:
        """Have an eye on the time no longer if nothing is unfinished."""
        cdef Watchdog watchdog = self.watchdog
        if watchdog is not None and watchdog.is_awake:
            watchdog.doze()
        return 0

    def figures(self):
        """Give what should move while it isn't finished; see Watchdog."""
        return (
            self.buffer.taken if self.unread and self.is_read else None,
            self.outbox.sent if self.is_full else None,
            (self.buffer.received, self.outbox.sent) if self.owner is None or self.owner.is_idle() else None,
            self.state if self.socket is None else None,
            self.acknowledged() if self.may_stall else None,
        )

    cdef int look_for_room(self) except -1:
        """See how much more the peer takes, before something has to wait because it takes no more."""
        cdef long long room
        if self.state == LOST:
            # By somebody who came in between.
            return 0
        room = self.acknowledgements.room()
        # What TLS adds counts for the peer too.
        self.room_ends = self.outbox.sent + max(room // 2, LITTLE_ROOM // 2)
        if room < LITTLE_ROOM and not self.may_stall:
            self.may_stall = True
            self.acknowledgements.watch()
            self.watch()
        return 0

    cdef object acknowledged(self):
        figure = self.acknowledgements.figure()
        if figure is None:
            self.may_stall = False
            self.room_ends = self.outbox.sent
        return figure

    def over_limit(self, error):
        """Have the owner decide; without one, close."""
        if self.owner is not None:
            self.owner.over_limit(error)
        else:
            self.close(error)

    # ---- in

    def hand_out(self):
        """Give the one who reads what is here: messages, or the end."""
        self.hands_out_later = False
        if self.is_listening:
            self.deliver()
        elif self.waiting is not None:
            self.resolve()

    cdef int hand_out_later(self) except -1:
        if not self.hands_out_later:
            self.hands_out_later = True
            self.turns.wait(self, self.slowness >= SLOW)
        return 0

    cdef int deliver(self) except -1:
        """Give the owner its messages, as long as it listens and they are here.

        An owner that comes back in here changes who listens; the one loop goes on with that.
        """
        cdef int count
        cdef object owner
        cdef CallHeader header
        cdef double begun, took
        cdef bint is_rationed, has_given = False
        if self.is_delivering:
            return 0
        self.is_delivering = True
        is_rationed = self.is_rationed and self.lender is None
        self.to_come = 0
        # Without a ration, one message alone needs no clock.
        begun = self.looked_at = monotonic() if is_rationed else 0
        try:
            for count in range(MESSAGES_PER_TURN):
                if count == 1 and not is_rationed:
                    begun = monotonic()
                if count and (count % MESSAGES_UNTIMED == 0 or is_rationed and count < MESSAGES_UNTIMED) and (
                    monotonic() - begun + self.to_come > A_SHARE
                ):
                    break
                owner = self.owner
                if not self.is_listening or owner is None or self.has_kept_enough():
                    return 0
                try:
                    message = self.take_kept() if self.kept and not self.keeps else self.take()
                except Exception as error:
                    if self.is_lent and self.call_header is None and self.is_waited_for():
                        future, self.waiting = self.waiting, None
                        self.fail(future, error)
                        if self.state != LOST or not isinstance(error, ConnectionLost):
                            continue
                    elif self.keeps and self.call_header is None and not (
                        isinstance(error, ConnectionLost) or self.is_hopeless
                    ):
                        self.keep(error)
                        continue
                    # As for a message: by what has a number, nothing is lent.
                    self.is_listening = self.call_header is not None
                    self.listens_again = False
                    goes_on = owner.on_error(error, self.call_header)
                    if isinstance(error, ConnectionLost):
                        # Nothing follows, whatever the owner thinks; who reads beside it hears that too.
                        if self.waiting is not None:
                            self.hand_out_later()
                        return 0
                else:
                    if message is NOTHING:
                        return 0
                    has_given = True
                    header = self.call_header
                    if header is None and self.is_lent and self.is_waited_for():
                        # A handler reads by hand what comes without a number.
                        future, self.waiting = self.waiting, None
                        if future.done():
                            self.put_back(message, self.call_header)
                        else:
                            set_result(future, message)
                        continue
                    if header is None and self.keeps:
                        self.keep(message)
                        continue
                    # What has no number may be followed by others that are read by hand.
                    self.is_listening = header is not None
                    self.listens_again = False
                    goes_on = owner.on_message(message, header)
                if goes_on and self.lender is owner:
                    self.take_back()
                if self.owner is not owner:
                    continue
                if goes_on or self.is_number_unheard():
                    self.is_listening = True
                elif not self.listens_again:
                    self.is_listening = False
                if self.is_listening and not self.is_lent and self.is_waited_for():
                    # It has left a read of its own, which would take what comes next.
                    self.close(self.busy_error())
                    return 0
                if not (
                    self.ahead or self.kept or len(self.buffer) or self.is_paused or self.is_at_end
                    or self.state == LOST
                ):
                    # After the last message of a peer that has gone, or says no more, comes the end.
                    return 0
        finally:
            self.is_delivering = False
            self.looked_at = 0
            if is_rationed:
                took = monotonic() - begun
                if took > TOO_LONG:
                    self.slowness = min(self.slowness + 2, SLOWEST)
                    self.turns.took_long(self, took)
                elif has_given and self.slowness:
                    self.slowness -= 1
        self.hand_out_later()
        return 0

    def expect(self, double seconds):
        """Count so much more of this turn as taken: by what the owner was given, but later."""
        self.to_come += seconds

    def set_max_size(self, Py_ssize_t size):
        """Set the most bytes that a message may have, from the next one on."""
        self.buffer.max_frame_size = size

    cdef object take(self):
        """The next message, or NOTHING.

        Raises
        ------
        BadFrame, BadMessage
            Its bytes are no message. The next call gives the next message, unless the
            buffer has failed: then there will be none.
        ConnectionLost
            The connection has ended and all its messages were taken.
        """
        if self.is_taking:
            # Decoding makes objects, which may wake the collector, and that anybody.
            self.hand_out_later()
            return NOTHING
        self.is_taking = True
        try:
            return self.take_next()
        except (BadFrame, BadMessage) as error:
            # One with the number of a call was a message, and so was one that is only too much.
            if self.call_header is not None or isinstance(error, (TooDeep, TooManyValues)) or (
                isinstance(error, FrameTooLarge) and error.what != "header"
            ):
                self.is_understood = True
            raise
        finally:
            self.is_taking = False

    cdef bint is_number_unheard(self) except -1:
        """Whether the first message with a number is next, behind one without that is still handled.

        As far as that can be told without taking it. Who has heard one listens by itself.
        """
        if not self.keeps or self.is_listening or self.usual_fields is not None:
            return False
        if self.ahead:
            return self.headers_ahead[PyList_GET_SIZE(self.ahead) - 1] is not None
        header = self.buffer.next_header()
        if not header:
            return False
        try:
            return call_header(header) is not None
        except BadMessage:
            return False

    cdef bint has_kept_enough(self):
        return self.keeps and self.size_kept >= self.max_waiting

    cdef int keep(self, object message) except -1:
        """Keep what has no number for who may read it by hand."""
        if self.kept is None:
            self.kept = deque()
        self.kept.append((message, self.last_size))
        self.size_kept += self.last_size
        return 0

    cdef object take_kept(self):
        """The first one that is kept."""
        if self.has_kept_enough():
            # From now on there is room.
            self.hand_out_later()
        self.call_header = None
        message, self.last_size = self.kept.popleft()
        self.size_kept -= self.last_size
        if PyExceptionInstance_Check(message):
            raise message
        return message

    cpdef int put_back(self, object message, CallHeader header) except -1:
        """Have the message that was taken last taken once more, by somebody else."""
        if self.ahead is None:
            self.ahead, self.headers_ahead = [], []
        self.ahead.append(message)
        self.headers_ahead.append(header)
        self.size_ahead += self.last_size
        return 0

    cdef object take_next(self):
        if not self.ahead:
            self.call_header = None
            parts = self.next_parts()
            if parts is None:
                return NOTHING
            self.last_size = size_of_payload(parts)
            message = self.message_of(parts)
            self.is_understood = True
            if len(self.buffer):
                self.decode_ahead()
            return message
        self.last_size = self.size_ahead // PyList_GET_SIZE(self.ahead)
        self.size_ahead -= self.last_size
        message = self.ahead.pop()
        self.call_header = self.headers_ahead.pop()
        if type(message) is tuple:
            return self.message_of(message)
        if PyExceptionInstance_Check(message):
            raise message
        return message

    cdef int decode_ahead(self) except -1:
        """Decode some of the small messages that are here.

        One after the other, without what their readers do in between, each takes a
        quarter less: the processor has at hand what decoding needs. A large one waits for
        its turn, as it may become much larger yet.
        """
        cdef Py_ssize_t held = len(self.buffer)
        cdef CallHeader header = self.call_header
        cdef list ahead = []
        cdef list headers = []
        if held > self.buffer.max_frame_size:
            # The buffer could fail, and what is ahead of that would be lost.
            return 0
        self.is_ahead = True
        while len(self.buffer) > max(held - AHEAD, 0) and self.buffer.is_simple():
            self.call_header = None
            message = None
            try:
                message = self.buffer.next_message()
                if message is None:
                    break
                if type((<tuple> message)[1]) is bytes:
                    message = self.message_of(message)
            except Exception as error:
                if message is None:
                    self.call_header = self.whose_was_wrong()
                message = error
            ahead.append(message)
            headers.append(self.call_header)
        self.is_ahead = False
        self.call_header = header
        if ahead:
            ahead.reverse()
            headers.reverse()
            self.ahead = ahead
            self.headers_ahead = headers
            self.size_ahead = held - len(self.buffer)
        return 0

    cdef tuple next_parts(self):
        """Header and payload of the next message, or None while it isn't complete."""
        try:
            parts = self.buffer.next_message()
        except Exception:
            self.call_header = self.whose_was_wrong()
            raise
        if parts is not None:
            if not len(self.buffer):
                self.watch_less()
            return parts
        if self.is_at_end:
            if self.buffer.pending and self.has_numbers:
                # Who ends in the middle of a message doesn't wait for answers.
                self.close()
            elif self.owner is None or not self.owner.owes():
                # What it was owed has been said, but may not have left.
                self.close_when_sent()
        if self.state == LOST or self.is_at_end and not (self.is_delivering and not self.is_waited_for()):
            # To what is said no more, an answer can still be given.
            raise self.lost_error(", in the middle of a message" if self.buffer.pending else "")
        if self.is_paused:
            self.is_paused = False
            self.resume()
        if self.buffer.pending and not self.is_watched():
            self.watch()
        return None

    cdef CallHeader whose_was_wrong(self):
        """Whose the message was that the buffer has refused just now; None if nobody can tell."""
        return whose(self.buffer.bad_header) if self.buffer.bad_header else None

    cdef object message_of(self, tuple parts):
        cdef bint is_compressed = False
        header, payload = parts
        if header:
            try:
                self.call_header = read_call_header(header, &is_compressed)
            except BadMessage:
                self.call_header = whose(header)
                raise
            if self.call_header is not None:
                self.has_numbers = True
            if is_compressed and self.is_ahead:
                # It may become much larger: that waits for its turn.
                return parts
        # Small payloads are bytes.
        if is_compressed or type(payload) is not bytes and (
            self.writable_values or type(payload) is PayloadSink
        ):
            return decode(
                header, payload, self.max_decompressed_size, self.max_depth, self.max_values,
                self.writable_values, self.dialect,
            )
        try:
            if self.checks_all or not (
                type(payload) is bytes and PyBytes_GET_SIZE(payload) <= NO_SURVEY
            ):
                return unpack_with_care(payload, self.max_depth, self.max_values, self.dialect)
            return unpack(payload, strict_map_key=False, ext_hook=self.dialect)
        except BadMessage:
            raise
        except Exception as error:
            raise bad_payload(error) from error

    def read(self):
        """Give a Future of the next message."""
        cdef object future
        self.check_reader()
        future = self.futures.new()
        try:
            message = self.read_at_once()
        except Exception as error:
            self.fail(future, error)
            return future
        if message is NOTHING:
            self.wait(future)
        else:
            set_result(future, message)
        return future

    cdef int check_reader(self) except -1:
        """As `check_here`, once a turn."""
        if self.read_in_turn == 0 or self.forks != forks_so_far or self.thread != PyThread_get_thread_ident():
            self.check_here()
        return 0

    cdef object read_at_once(self):
        """The next message; NOTHING if there is none yet, or it is others' turn.

        Then it stays where it is until the Future that is waited for gets it, so a read
        given up loses nothing.
        """
        if self.is_waited_for() or (self.is_listening and not self.is_lent):
            raise self.busy_error()
        if self.kept:
            return self.take_kept()
        if self.is_listening or (self.is_delivering and self.owner is not None and self.owner.lends):
            # The owner takes what has a number, so it hands out the rest too; and a handler that is
            # still in its first step may be one beside which it takes that.
            self.hand_out_later()
        elif self.read_in_turn < MESSAGES_PER_TURN:
            self.read_in_turn += 1
            return self.take()
        else:
            self.read_in_turn = 0
            self.hand_out_later()
        return NOTHING

    cdef int wait(self, object future) except -1:
        """Have a Future get the next message when it is there."""
        # A message that is here may be had anywhere; who waits must do so where it comes.
        self.check_here()
        if self.is_waited_for():
            # By somebody who came in between.
            self.fail(future, self.busy_error())
            return 0
        self.waiting = future
        if self.buffer.pending and not self.is_watched():
            # Only now there is somebody for whom its rest is late.
            self.watch()
        return 0

    cdef int resolve(self) except -1:
        """Give the read that waits its message, if there is one."""
        if not self.is_waited_for():
            # Nobody reads any more: what comes now counts as waiting.
            return 0
        future = self.waiting
        try:
            message = self.take()
        except Exception as error:
            self.waits_no_more(future)
            self.fail(future, error)
            return 0
        if message is NOTHING:
            return 0
        self.waits_no_more(future)
        if not set_result_now(future, message):
            self.put_back(message, self.call_header)
            self.hand_out_later()
        return 0

    cdef void waits_no_more(self, object future) noexcept:
        """Forget a read, unless it was given up meanwhile, and another one waits in its place."""
        if self.waiting is future:
            self.waiting = None

    cdef bint is_waited_for(self) except -1:
        """Whether a read waits that hasn't been given up.

        One that was given up without being cancelled may be waited for again, by whoever
        still has its Future. That wakes nobody here, so it is looked after now and then.
        """
        cdef object waiting
        cdef bint is_given_up
        while self.waiting is not None:
            waiting = self.waiting
            is_given_up = given_up(waiting)
            if self.waiting is not waiting:
                # Whoever came in between reads now.
                continue
            if not is_given_up:
                return True
            if waiting.done() or Py_REFCNT(<PyObject *> waiting) == 2:
                self.waiting = None
            elif not self.waits_again and not self.loop.is_closed():
                self.waits_again = True
                # By a turn of the loop: this may be in the middle of setting another timer.
                self.loop.call_soon(self.loop.call_later, WAIT_AGAIN, self.wait_again)
                continue
            break
        return False

    def wait_again(self):
        """See whether a read that was given up is waited for again."""
        self.waits_again = False
        if not self.is_listening:
            self.hand_out()

    cdef int fail(self, object future, object error) except -1:
        set_error(future, error)
        if isinstance(error, (BadFrame, BadMessage)) and self.is_hopeless:
            self.close(error)
        return 0

    # ---- out

    def write(self, message, bytes fields=None):
        """Send a message; give a Future that is done when it is safe to go on.

        It is done at once unless the connection is full, or isn't open yet; then it is
        done when the message has left. It holds the error, where there is one.

        Parameters
        ----------
        message : object
            What is sent.
        fields : bytes, optional
            What its header says of calls, as `call_fields` makes it.
        """
        cdef object future
        cdef bint is_large
        self.check_here()
        try:
            is_large = self.put(message, fields if fields is not None else self.usual_fields)
            if self.state == LOST:
                raise self.lost_error()
        except BadValue as error:
            return self.futures.failed(error.of(f"a message to {self.peer}", "message"))
        except Exception as error:
            return self.futures.failed(error)
        self.written_in_turn += 1
        if self.is_full or self.socket is None or (is_large and self.outbox.unsent):
            future = self.when_sent()
            if self.state == LOST:
                # Since that was asked: making the two may have woken the collector.
                set_error(future, self.lost_error())
            elif is_large:
                future.add_done_callback(self.own_if_given_up)
        elif self.written_in_turn > MESSAGES_PER_TURN:
            self.written_in_turn = 0
            future = self.futures.new()
            self.loop.call_soon(set_value, future, None)
        else:
            future = self.futures.done()
        return future

    def own_if_given_up(self, future):
        """Copy what waits, where a Future was given up that would have said when it may change."""
        if future.cancelled():
            self.outbox.own_all()

    def send(self, message, bytes fields=None):
        """Send a message without waiting until it has left.

        The first one of a turn leaves at once; what follows in the same turn leaves
        together at its end. True as long as the socket takes more.

        Who gets no Future can't tell when the memory of large values may be changed again:
        what the socket doesn't take now is copied, unless it can't change.
        """
        self.check_here()
        if self.put(message, fields if fields is not None else self.usual_fields) and self.outbox.unsent:
            self.outbox.own_all()
        return not self.is_full

    def flushed(self):
        """Give a Future that is done when all that was written until now has left."""
        self.check_here()
        if self.socket is not None and not self.is_full:
            self.send_waiting()
        if self.state == LOST:
            return self.futures.failed(self.lost_error())
        if not self.outbox.unsent:
            return self.futures.done()
        return self.when_sent()

    cdef object when_sent(self):
        """A Future that is done when all that waits now has left."""
        cdef object future = self.futures.new()
        if self.writers is None:
            self.writers = []
        self.writers.append((self.outbox.sent + self.outbox.unsent, future))
        return future

    cdef bint put(self, object message, bytes fields) except -1:
        """Send a message, or have it wait; whether it has pieces, which may be its sender's own memory."""
        cdef bint is_large
        if self.state >= LEAVING:
            raise self.unsent_error()
        frame = encode(message, self.compression, fields, self.dialect.speaks)
        # Encoding may run anything, and that close the connection.
        if self.state >= LEAVING:
            raise self.unsent_error()
        self.messages_out += 1
        is_large = type(frame) is list
        if self.is_full or self.outbox.unsent or self.outbox.is_sending or self.socket is None or (
            self.has_sent_in_turn()
        ):
            self.outbox.put(frame)
            if self.turn_ends is None or self.outbox.unsent >= ENOUGH_TO_SEND:
                self.send_later()
            return is_large
        self.sent_in_turn = True
        self.sent_at = self.looked_at or monotonic()
        self.looked_at = 0
        if not self.socket.takes(frame):
            self.outbox.put(frame)
            self.send_waiting()
            return is_large
        # What costs the least: nothing waits, and the socket takes it all.
        try:
            if not self.outbox.send_now(frame, self.socket):
                self.set_full(True)
        except BaseException as error:
            self.not_sent(error)
            return is_large
        if self.outbox.sent > self.room_ends:
            self.look_for_room()
        return is_large

    cdef object unsent_error(self):
        """The error for somebody whose message comes too late."""
        if self.state == LOST:
            return self.lost_error()
        return ConnectionLost(f"the connection to {self.peer} is being closed, after its last message")

    cdef int not_sent(self, object error) except -1:
        """Close: nobody knows how much of a message has left."""
        if self.state == LOST:
            # By somebody who came in between. A socket that is closed raises whatever it likes.
            return 0
        if isinstance(error, OSError):
            self.close_unsendable(error)
        else:
            self.close(error)
            raise error
        return 0

    cdef bint has_sent_in_turn(self):
        """Whether a message has left in this turn of the loop.

        What ends a turn tells nobody, unless it was asked to. One that sent a while ago
        counts as over: otherwise its next message would come later than those that
        other connections send in the same turn.
        """
        return self.turn_ends is not None or self.sent_in_turn and monotonic() - self.sent_at < A_TURN

    cdef int send_later(self) except -1:
        if self.is_full or self.socket is None:
            return 0
        if self.outbox.unsent >= ENOUGH_TO_SEND and not self.outbox.is_sending:
            self.send_waiting()
        elif self.turn_ends is None:
            self.is_turn_run = self.loop.is_running()
            self.turn_ends = self.loop.call_soon(self.end_turn)
        return 0

    def end_turn(self):
        """Send what was written in this turn of the loop."""
        self.turn_ends = None
        self.sent_in_turn = False
        self.written_in_turn = 0
        if self.socket is not None and not self.is_full:
            self.send_waiting()

    cdef int send_waiting(self) except -1:
        if self.forks != forks_so_far:
            # A child that goes on with its parent's loop; all of this is the parent's to send.
            return 0
        try:
            self.outbox.flush(self.socket)
        except BaseException as error:
            self.not_sent(error)
            return 0
        if self.outbox.sent > self.room_ends:
            self.look_for_room()
        if self.writers:
            self.answer_writers()
        self.set_full(self.outbox.unsent > 0)
        return 0

    cdef int close_unsendable(self, error) except -1:
        """Close, as the peer takes nothing more. What it said before that counts, and may say why."""
        cdef Socket socket = self.socket
        if not self.is_taking:
            try:
                while self.socket is socket and socket.receive(self.buffer) > 0:
                    pass
            except OSError as reason:
                error = reason
            except Exception:
                # The buffer has no use for it.
                pass
        self.close(error)
        return 0

    cdef int answer_writers(self) except -1:
        cdef list left = []
        cdef list done = []
        for writer in self.writers:
            (done if (<tuple> writer)[0] <= self.outbox.sent else left).append(writer)
        self.writers = left
        for _, future in done:
            set_value(future, None)
        return 0

    cdef int set_full(self, bint full) except -1:
        if self.state == LOST:
            return 0
        cdef bint changed = full is not self.is_full
        if changed:
            self.is_full = full
            self.transport.want_write()
            if full:
                self.watch()
            else:
                self.watch_less()
        if full or self.state == LOST:
            return 0
        if self.state == CLOSING:
            self.close_sent()
        elif self.state == LEAVING:
            self.transport.linger()
        elif changed and self.owner is not None:
            self.owner.writable()
        return 0


@cython.final
cdef class Messages(Source):
    """The messages of a channel, for one iteration that ends with the connection.

    Parameters
    ----------
    channel : Channel
        Whose messages.
    """

    def __init__(self, Channel channel not None):
        self.channel = channel

    cdef object next_one(self, bint *is_here):
        cdef Channel channel = self.channel
        cdef object message
        if channel is None:
            raise StopAsyncIteration
        if self.waiting is not None:
            if not self.waiting.done():
                if callbacks_of(self.waiting):
                    raise channel.busy_error()
                # Who waited for it was ended in the middle of that.
                is_here[0] = False
                return waited_for(self.waiting)
            future, self.waiting = self.waiting, None
            if not future.cancelled():
                return self.result_of(future)
        channel.check_reader()
        try:
            message = channel.read_at_once()
        except Exception as error:
            if channel.buffer.failure is not None:
                channel.close(error)
            return self.end(error)
        if message is not NOTHING:
            return message
        self.waiting = channel.futures.new()
        channel.wait(self.waiting)
        is_here[0] = False
        return waited_for(self.waiting)

    cdef bint has_failed(self, object error) except -1:
        cdef object future = self.waiting
        return (
            future is not None and future.done() and not future.cancelled() and future.exception() is error
        )

    cdef object result_of(self, object future):
        try:
            return future.result()
        except Exception as error:
            return self.end(error)

    cdef object end(self, object error):
        """Raise the error that ends the iteration, unless it tells of an ordinary end."""
        cdef Channel channel = self.channel
        self.channel = None
        if isinstance(error, ConnectionLost) and error.real_error is None and not channel.unread:
            raise StopAsyncIteration from None
        raise error

    def stop(self):
        """Give no further message."""
        self.channel = None


cdef Py_ssize_t size_of_payload(tuple parts) except -1:
    payload = parts[1]
    if type(payload) is bytes:
        return PyBytes_GET_SIZE(payload)
    return payload.length if type(payload) is PayloadSink else len(payload)
