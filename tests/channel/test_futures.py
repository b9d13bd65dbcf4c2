"""What asyncio's Futures are made to do: resume at once, be given up, stay quiet."""

import asyncio
import contextvars
import datetime
import gc
import platform

import pytest
from tornado import gen

from fastcore._futures import callbacks_of, given_up, is_busy, set_result_now, unobserved


def test_this_python_has_the_private_names_that_futures_and_loops_are_asked_for():
    """The one test to look at when a new Python takes them away: it says which, and where they are used."""
    loop = asyncio.SelectorEventLoop()
    try:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        for future in (asyncio.Future(loop=loop), asyncio.futures._PyFuture(loop=loop)):
            kind = type(future).__module__
            where = f"is not what it was in {kind} of {python}: see fastcore/_futures.pyx"
            assert not future._callbacks, f"Future._callbacks of one for which nobody waits {where}"
            for callback in (print, repr):
                future.add_done_callback(callback)
            pairs = [(callback, type(context)) for callback, context in future._callbacks]
            assert pairs == [(print, contextvars.Context), (repr, contextvars.Context)], (
                f"Future._callbacks {where}"
            )
        loop.call_soon(print)
        assert len(loop._ready) == 1, f"the _ready of a loop is not what it was in {python}: see is_busy"
    finally:
        loop.close()


async def resumed_in(callback_of):
    """Have a task wait for a Future; tell what it had got when the loop's callback was over."""
    loop = asyncio.get_running_loop()
    future, over, got = loop.create_future(), loop.create_future(), []

    async def wait():
        got.append(await future)

    task = loop.create_task(wait())
    await asyncio.sleep(0)

    def callback():
        callback_of(future)
        over.set_result(list(got))

    loop.call_later(0.001, callback)
    at_once = await over
    await task
    return at_once, got


async def test_a_waiting_task_goes_on_at_once():
    assert await resumed_in(lambda future: set_result_now(future, 7)) == ([7], [7])


async def test_a_loop_is_busy_while_more_is_to_run_in_this_turn():
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    loop.call_soon(lambda: told.set_result(is_busy(loop)))
    loop.call_soon(lambda: None)
    assert await told is hasattr(loop, "_ready")


async def test_a_future_that_nobody_waits_for_keeps_its_result():
    future = asyncio.get_running_loop().create_future()
    set_result_now(future, 7)
    assert await future == 7


async def test_all_that_wait_go_on():
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.gather(*(asyncio.shield(future) for _ in range(3)))
    asyncio.get_running_loop().call_soon(set_result_now, future, 7)
    assert await waiting == [7, 7, 7]


async def test_a_task_goes_on_in_its_own_context():
    variable = contextvars.ContextVar("variable", default="outside")
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    async def wait():
        variable.set("inside")
        await future
        return variable.get()

    task = loop.create_task(wait())
    await asyncio.sleep(0)
    loop.call_soon(set_result_now, future, None)
    assert await task == "inside"
    assert variable.get() == "outside"


async def test_a_callback_that_fails_is_told_of_as_any_other():
    loop = asyncio.get_running_loop()
    told = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    future, over = loop.create_future(), loop.create_future()
    future.add_done_callback(lambda _: 1 / 0)
    loop.call_later(0.001, lambda: (set_result_now(future, None), over.set_result(None)))
    await over
    loop.set_exception_handler(handler)
    assert [type(error) for error in told] == [ZeroDivisionError]


@pytest.mark.parametrize("look", [callbacks_of, given_up, lambda future: set_result_now(future, 7)])
async def test_a_future_may_be_given_up_by_whoever_the_collector_finds_meanwhile(look):
    def give_up(phase, info):
        future.cancel()

    # What Python keeps for the next small list or tuple: memory for these is asked for, and that is
    # when the collector runs.
    held = [[[] for _ in range(200)], [(number, number) for number in range(4_000)]]
    threshold = gc.get_threshold()
    gc.callbacks.append(give_up)
    try:
        for allocations in range(1, 30):
            gc.disable()
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(id)
            gc.set_threshold(allocations, 0, 0)
            gc.enable()
            look(future)
    finally:
        gc.callbacks.remove(give_up)
        gc.set_threshold(*threshold)
        gc.enable()
        held.clear()


@pytest.mark.parametrize(
    "finish",
    [
        lambda future: future.cancel(),
        lambda future: future.set_result(1),
        lambda future: future.set_exception(ValueError()),
    ],
    ids=["cancelled", "result", "error"],
)
async def test_a_future_that_is_done_is_given_up(finish):
    future = asyncio.get_running_loop().create_future()
    assert not given_up(future)
    finish(future)
    assert given_up(future)
    unobserved(future)


async def test_a_future_that_with_timeout_left_behind_is_given_up():
    future = asyncio.get_running_loop().create_future()
    waiting = gen.with_timeout(datetime.timedelta(seconds=0.01), future)
    assert not given_up(future)
    with pytest.raises(gen.TimeoutError):
        await waiting
    assert not future.done()
    assert given_up(future)


async def test_an_error_that_nobody_looked_at_is_not_logged():
    # The test's loop fails it otherwise, when the Future is collected.
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("nobody looks"))
    assert unobserved(future) is future


async def test_a_cancelled_future_is_left_as_it_is():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    assert unobserved(future).cancelled()


async def test_a_future_in_python_whose_list_of_callbacks_is_the_live_one_is_resumed_too():
    # What nest_asyncio puts in the place of the compiled ones.
    future = asyncio.futures._PyFuture(loop=asyncio.get_running_loop())
    waiters = [asyncio.ensure_future(wait_for_it(future)) for _ in range(3)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(set_result_now, future, 7)
    assert await asyncio.gather(*waiters) == [7, 7, 7]


async def wait_for_it(future):
    return await future
