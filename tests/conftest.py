"""An ``async def`` test just runs: in a fresh loop, with a deadline."""

import gc
import importlib.util
import inspect
from collections.abc import Iterator

import pytest

from helpers.support import DEADLINE, run

# Programs of their own, which a search for doctests would run.
collect_ignore_glob = ["fuzz/*", "load/*", "engine/programs/*"]
# Not every Python and system can have the extra that it is for.
collect_ignore = [] if importlib.util.find_spec("distributed") else ["helpers/cluster.py"]


def pytest_collection_finish() -> None:
    """Spare the collector what lives as long as the tests: they have it run at each end of one."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    marker = pyfuncitem.get_closest_marker("deadline")

    async def and_nothing_unheard() -> None:
        await test(**arguments)
        # Futures that failed with nobody looking complain when they are collected.
        gc.collect()

    run(and_nothing_unheard(), marker.args[0] if marker else DEADLINE)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Let what a test leaks be told of in that test, and not in whichever runs when it is collected."""
    result = yield
    gc.collect(1)
    return result
