"""The channel; see the module."""

from fastcore._framing cimport MessageBuffer
from fastcore._futures cimport Futures
from fastcore._iterating cimport Source
from fastcore._outbox cimport Outbox
from fastcore._socket cimport Socket
from fastcore._turns cimport Turns
from fastcore._watchdog cimport Watchdog
from fastcore._header cimport CallHeader
from fastcore._wire cimport Dialect


cdef enum State:
    OPENING
    OPEN
    CLOSING
    LEAVING
    LOST


cdef class Channel:
    cdef readonly object loop
    cdef readonly object limits
    cdef readonly object compression
    # Who the peer is, for people.
    cdef public str peer
    cdef State state
    # None once the connection has ended.
    cdef readonly object transport
    # None while it may not be used: not open yet, or over.
    cdef readonly Socket socket
    cdef readonly MessageBuffer buffer
    cdef readonly Outbox outbox
    cdef Watchdog watchdog
    # Tells how much more the peer takes; None where nobody needs to know.
    cdef object acknowledgements
    # Whether it stays, when all has left, until that has arrived.
    cdef bint sees_off
    # How much may have been sent in all before that is asked.
    cdef long long room_ends
    # Whether something waits for a peer that takes no more, or will soon.
    cdef bint may_stall
    # Why the connection has ended, in words, and the error where there was one.
    cdef readonly str end_reason
    cdef readonly object end_error
    cdef object __weakref__

    # Where it was made: only there it may be used.
    cdef int forks
    cdef unsigned long thread

    # Who is given the messages, and who lent the channel to that one.
    cdef readonly object owner
    cdef object lender
    # Whether the owner lets others read, or become the owner for a while.
    cdef public bint is_lent
    # Whether somebody may read by hand what has no number: it is kept for him while the owner listens.
    cdef public bint keeps
    # What is kept, each with about how many bytes it had, the first one first; an error stands for
    # itself. None until there is any. And all their bytes.
    cdef object kept
    cdef readonly Py_ssize_t size_kept
    # Whether the owner takes messages as they come.
    cdef readonly bint is_listening
    # Whether it said so while it was given one.
    cdef bint listens_again
    # Who the peer has shown to be, where that was asked.
    cdef public object caller
    # Whether strangers beside it have a claim to their turn, however long its messages take.
    cdef public bint is_rationed
    # Called once when the connection has ended; None until there is one.
    cdef list end_callbacks

    # Makes those of reads and writes.
    cdef Futures futures
    # Say when it is its turn.
    cdef Turns turns
    # Whether the socket takes no more for now.
    cdef readonly bint is_full
    # Whether too much has arrived; it goes on when `take` finds no more.
    cdef readonly bint is_paused
    # Messages sent, ever.
    cdef readonly long long messages_out
    # Whether the peer has said in a header whose a message is.
    cdef readonly bint has_numbers
    # What the header of a message says of calls unless its sender does.
    cdef bytes usual_fields
    # Which values the peer reads.
    cdef readonly Dialect dialect

    # Whether large binary values can be written to by whoever gets them.
    cdef readonly bint writable_values
    # Whether even small messages are looked over before they are decoded.
    cdef bint checks_all
    cdef Py_ssize_t max_depth
    cdef Py_ssize_t max_values
    cdef Py_ssize_t max_decompressed_size
    cdef Py_ssize_t max_waiting
    # Messages that nobody has taken yet, decoded already; the next one is the last here.
    # What MessagePack never gives stands for itself: the parts of a large one, an error. None until
    # there is any.
    cdef list ahead
    # What the headers of those say of calls, in the same order.
    cdef list headers_ahead
    # How many bytes those were.
    cdef readonly Py_ssize_t size_ahead
    # What the header of the message taken last says of calls.
    cdef CallHeader call_header
    # And about how many bytes its payload had.
    cdef readonly Py_ssize_t last_size
    # Whether the peer has closed its side, and is still answered.
    cdef readonly bint is_at_end
    # How the connection began.
    cdef char first[16]
    cdef int first_size
    # Whether the peer has sent a message that could be read.
    cdef bint is_understood
    # Whether `wait_again` will be called.
    cdef bint waits_again
    # Whether a message is being received or taken, in which anything may run and come back here.
    cdef bint is_taking
    # Whether that is a message whose turn hasn't come yet.
    cdef bint is_ahead
    cdef bint is_delivering
    # The Future of the read that waits.
    cdef object waiting
    # Pairs: how many bytes must have been sent in all, and the Future that waits for that; or None.
    cdef list writers
    # What was done in this turn of the loop.
    cdef int read_in_turn
    cdef int written_in_turn
    cdef bint sent_in_turn
    cdef double sent_at
    # A reading of the clock that will do for the next message, as its reader is about to send it; 0 for none.
    # Where it turns out to be old, no more is done than a look too many.
    cdef double looked_at
    # What the loop will call `end_turn` by, if it will; and whether it ran when it was asked to.
    cdef object turn_ends
    cdef bint is_turn_run
    # Whether `hand_out` will be called, for messages that are here already.
    cdef bint hands_out_later
    # Seconds of this turn that what was given away in it takes later.
    cdef double to_come
    # How often its messages took too long lately: each such turn counts for two others.
    cdef int slowness

    cpdef bint is_clear(self) except -1
    cpdef bint is_here(self)
    cpdef int check_here(self) except -1
    cdef bint is_in_turn(self)
    cdef int check_loop(self) except -1
    cpdef bint is_watched(self)
    cpdef int watch(self) except -1
    cdef int watch_less(self) except -1
    cpdef bint catch_up(self) except -1
    cdef int look_for_room(self) except -1
    cdef object acknowledged(self)
    cdef int hand_out_later(self) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int end_of_input(self) except -1
    cdef int keep_first(self, Py_ssize_t size) except -1
    cdef int deliver(self) except -1
    cdef object take(self)
    cdef bint is_number_unheard(self) except -1
    cdef bint has_kept_enough(self)
    cdef int keep(self, object message) except -1
    cdef object take_kept(self)
    cpdef int put_back(self, object message, CallHeader header) except -1
    cdef object take_next(self)
    cdef int decode_ahead(self) except -1
    cdef tuple next_parts(self)
    cdef CallHeader whose_was_wrong(self)
    cdef object message_of(self, tuple parts)
    cdef int check_reader(self) except -1
    cdef object read_at_once(self)
    cdef int wait(self, object future) except -1
    cdef int resolve(self) except -1
    cdef int fail(self, object future, object error) except -1
    cdef void waits_no_more(self, object future) noexcept
    cdef bint is_waited_for(self) except -1
    cdef object when_sent(self)
    cdef bint put(self, object message, bytes fields) except -1
    cdef object unsent_error(self)
    cdef int not_sent(self, object error) except -1
    cdef bint has_sent_in_turn(self)
    cdef int send_later(self) except -1
    cdef int send_waiting(self) except -1
    cdef int close_sent(self) except -1
    cdef int close_unsendable(self, object error) except -1
    cdef int answer_writers(self) except -1
    cdef int set_full(self, bint full) except -1


cdef class Messages(Source):
    # None once the iteration is over.
    cdef Channel channel
    # The Future of the message that was waited for last, as long as nobody has taken that.
    cdef object waiting

    cdef object result_of(self, object future)
    cdef object end(self, object error)
