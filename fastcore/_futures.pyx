"""What asyncio's Futures are made to do here."""


def set_result_now(future, result):
    """Set a Future's result and resume the one who waits for it at once.

    A Future's own way is to resume them in the next turn of the loop: one more look at
    every socket, for each answer. Where more is about to run in this turn, that look
    serves many, and what they send leaves together. Only for the loop's callbacks: there,
    no task is running that could be interrupted.
    """
    callbacks = future._callbacks
    # What a loop has ready, as far as it lets one see it.
    if not callbacks or len(callbacks) > 1 or getattr(future.get_loop(), "_ready", None):
        future.set_result(result)
        return
    callback, context = callbacks[0]
    future.remove_done_callback(callback)
    future.set_result(result)
    try:
        context.run(callback, future)
    except Exception as error:
        future.get_loop().call_exception_handler(
            {"message": f"exception in callback {callback!r}", "exception": error, "future": future}
        )


def given_up(future):
    """Whether nobody waits for a Future any more.

    ``gen.with_timeout`` doesn't cancel what it waited for. The one trace that it leaves
    is the callback that will log the error, should there be one.
    """
    if future.done():
        return True
    for callback, _ in future._callbacks or ():
        if getattr(callback, "__qualname__", "") == "with_timeout.<locals>.error_callback":
            return True
    return False


def unobserved(future):
    """Keep the loop from logging an error that nobody looked at."""
    if not future.cancelled():
        future.exception()
    return future
