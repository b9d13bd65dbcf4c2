"""What asyncio's Futures are made to do here."""

cimport cython
from cpython.object cimport PyObject, PyObject_Call

import asyncio
from weakref import ref

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *)
    bint PyGC_Disable()
    bint PyGC_Enable()

# Looked up once, and not for each message.
cdef type Future = asyncio.Future
cdef object set_result = Future.set_result

# A weak reference to what `futures_of` has made last.
cdef object newest = None


@cython.final
cdef class Futures:
    """Makes the Futures of one event loop, for all its channels: for each it would take memory."""

    cdef object new(self):
        return PyObject_Call(Future, (), self.options)

    cdef object done(self):
        """One that is done: the same as last time, if nobody has kept it.

        Making one costs more than sending a small message.
        """
        cdef object future = self.done_one
        # This name's, and the one that is kept.
        if future is None or Py_REFCNT(<PyObject *> future) > 2:
            future = self.new()
            set_result(future, None)
            self.done_one = future
        return future

    cdef object failed(self, object error):
        """One that is done, with an error that nobody has to look at."""
        cdef object future = self.new()
        future.set_exception(error)
        return unobserved(future)


cdef Futures futures_of(object loop):
    """What makes the Futures of a loop: mostly there is one loop, or one after the other."""
    global newest
    cdef Futures futures = None if newest is None else newest()
    if futures is None or futures.options["loop"] is not loop:
        futures = Futures()
        futures.options = {"loop": loop}
        newest = ref(futures)
    return futures


cpdef list callbacks_of(future):
    """Give the callbacks of a Future, each with its context, in a list of one's own.

    The collector waits meanwhile: whoever it finds may end the Future, and CPython up to 3.11 would go
    on with a callback that is gone, which crashes.
    """
    cdef bint collects = PyGC_Disable()
    try:
        # The Future in Python gives the list that it works with.
        return [*(future._callbacks or ())]
    finally:
        if collects:
            PyGC_Enable()


def set_result_now(future, result):
    """Set a Future's result and resume those who wait for it at once.

    A Future's own way is to resume them in the next turn of the loop; who is given up
    until then has lost the result. Only for the loop's callbacks: there, no task is
    running that could be interrupted.

    False if it was given up meanwhile: who is found by the collector in here may cancel it.
    """
    cdef list callbacks = callbacks_of(future)
    cdef list waiting = []
    cdef bint is_set = False
    cdef tuple waiter
    cdef Py_ssize_t times
    for waiter in callbacks:
        # Those that a cancel has taken will be resumed by the loop.
        times = future.remove_done_callback(waiter[0])
        for _ in range(times):
            waiting.append(waiter)
    if not future.done():
        future.set_result(result)
        is_set = True
    for waiter in waiting:
        callback, context = waiter
        try:
            context.run(callback, future)
        except Exception as error:
            future.get_loop().call_exception_handler(
                {"message": f"exception in callback {callback!r}", "exception": error, "future": future}
            )
    return is_set


def set_value(future, value):
    """Set a Future's result, if it isn't done.

    In compiled code no signal handler comes between the question and the answer.
    """
    if not future.done():
        future.set_result(value)


def set_error(future, error):
    """Set a Future's error, if it isn't done; nobody has to look at it."""
    if not future.done():
        future.set_exception(error)
        unobserved(future)


def is_busy(loop):
    """Whether more is to run in this turn of the loop, as far as it lets one see that.

    Then it is better to resume in the next one: a look at every socket serves many, and
    what they send leaves together.
    """
    return bool(getattr(loop, "_ready", None))


def given_up(future):
    """Whether nobody waits for a Future any more.

    ``gen.with_timeout`` doesn't cancel what it waited for. The one trace that it leaves
    is the callback that will log the error, should there be one.
    """
    cdef list callbacks
    if future.done():
        return True
    callbacks = callbacks_of(future)
    if not callbacks:
        return False
    # Whoever waits for it again has come after that.
    last = callbacks[len(callbacks) - 1][0]
    return getattr(last, "__qualname__", "") == "with_timeout.<locals>.error_callback"


def unobserved(future):
    """Keep the loop from logging an error that nobody looked at."""
    if not future.cancelled():
        future.exception()
    return future
