"""`async for` over values most of which are here before somebody asks for them.

An async generator that awaits a Future makes three objects for each value, and asking them costs
more than decoding a small message. Here nothing is made: an iterator gives the same awaitable
every time, and that gives the value at once, or the Future that has to be waited for.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

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


cdef class Next:
    """The next value, to be awaited; the same for all of them.

    A subclass has `look`.
    """

    cdef object look(self, bint *is_here):
        """The next value, if it is here; else a Future, through `waited_for`, after which to look again.

        Raises
        ------
        StopAsyncIteration
            After the last one.
        """
        raise NotImplementedError

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef bint is_here = True
        value = self.look(&is_here)
        if is_here:
            raise StopIteration(value)
        return value


cdef PySendResult send(PyObject *self, PyObject *nothing, PyObject **result) except PYGEN_ERROR:
    """As `__next__`, the way the interpreter prefers."""
    cdef bint is_here = True
    cdef object value = (<Next> self).look(&is_here)
    Py_INCREF(value)
    result[0] = <PyObject *> value
    return PYGEN_RETURN if is_here else PYGEN_NEXT


give_send(Next, send)


cdef object waited_for(object future):
    """Mark a Future as one that a task shall wait for: as its own iterator does."""
    future._asyncio_future_blocking = True
    return future


cdef class Values:
    """Iterates over what a `Next` gives."""

    def __init__(self, Next next not None):
        self.next = next

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.next
