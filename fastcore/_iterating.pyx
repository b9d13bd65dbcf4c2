"""`async for` over values most of which are here before somebody asks for them.

An async generator that awaits a Future makes three objects for each value, and asking them costs
more than decoding a small message. Here nothing is made: an iterator gives the same awaitable
again and again, and that gives the value at once, or the Future that has to be waited for.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)

cdef extern from *:
    """
    typedef PySendResult (*fastcore_send)(PyObject *, PyObject *, PyObject **);

    /* Cython knows no name for this slot. Without it each value would travel as an exception. */
    static void give_send(PyTypeObject *type, fastcore_send send)
    {
        type->tp_as_async->am_send = (sendfunc) send;
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*fastcore_send)(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR
    void give_send(type kind, fastcore_send send)


cdef class Source:
    """Where the values come from. A subclass has `next_one`."""

    cdef object next_one(self, bint *is_here):
        """The next value, if it is here; else a Future, through `waited_for`, after which to look again.

        Raises
        ------
        StopAsyncIteration
            After the last one.
        """
        raise NotImplementedError

    cdef bint has_failed(self, object error) except -1:
        """Whether that is the error of the Future that was waited for: then `next_one` says what it means."""
        return False


@cython.final
cdef class Next:
    """The next value, to be awaited."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef bint is_here = True
        value = self.source.next_one(&is_here)
        if is_here:
            raise StopIteration(value)
        return value

    def send(self, value):
        """Do what an awaited coroutine does when its task is resumed."""
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        """Do what it does when its task is cancelled: nothing was taken, so nothing is lost.

        A task throws the error of a Future that it waited for, too.
        """
        error = kind
        if isinstance(kind, type):
            error = value if isinstance(value, BaseException) else kind() if value is None else kind(value)
        if self.source.has_failed(error):
            return next(self)
        raise error if traceback is None else error.with_traceback(traceback)

    def close(self):
        """Do what it does when it is given up."""


cdef PySendResult send(PyObject *self, PyObject *nothing, PyObject **result) except PYGEN_ERROR:
    """As `__next__`, the way the interpreter prefers."""
    cdef bint is_here = True
    cdef object value = (<Next> self).source.next_one(&is_here)
    Py_INCREF(value)
    result[0] = <PyObject *> value
    return PYGEN_RETURN if is_here else PYGEN_NEXT


give_send(Next, send)


cdef object waited_for(object future):
    """Mark a Future as one that a task shall wait for: as its own iterator does."""
    future._asyncio_future_blocking = True
    return future


cdef Next next_of(Source source):
    cdef Next made = Next.__new__(Next)
    made.source = source
    return made


cdef class Values:
    """Iterates over what a source gives.

    Parameters
    ----------
    source : Source
        Nobody else's.
    """

    def __init__(self, Source source not None):
        self.source = source
        self.next = next_of(source)

    def __aiter__(self):
        return self

    def __anext__(self):
        if Py_REFCNT(<PyObject *> self.next) > 1:
            # Somebody has kept it, and asks for one more.
            return next_of(self.source)
        return self.next
