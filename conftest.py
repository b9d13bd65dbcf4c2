"""Options for the whole tree: ``--benchmark``, ``--loop`` or ``--uvloop``, and ``--eager``."""

import asyncio
import importlib.util
from collections.abc import Callable

import pytest

# Where its extra isn't installed, this room can't be imported, nor searched for doctests.
collect_ignore = [] if importlib.util.find_spec("distributed") else ["fastcore/dask"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastcore")
    group.addoption(
        "--benchmark", action="store_true", help="run the benchmarks of bench/ instead of the tests"
    )
    group.addoption("--loop", metavar="MODULE", help="run on the event loop of uvloop, rloop or winloop")
    group.addoption("--uvloop", action="store_const", dest="loop", const="uvloop", help="--loop uvloop")
    group.addoption("--eager", action="store_true", help="have tasks begin at once (Python 3.12)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark"):
        if not config.pluginmanager.hasplugin("benchmark"):
            raise pytest.UsageError("--benchmark needs pytest-benchmark: pip install --group bench")
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(config.rootpath / "bench")]
        config.option.doctestmodules = False
    if module := config.getoption("loop"):
        have_loops_made_by(importlib.import_module(module).new_event_loop)
    if config.getoption("eager"):
        new_event_loop = asyncio.new_event_loop

        def new_eager_loop() -> asyncio.AbstractEventLoop:
            loop = new_event_loop()
            loop.set_task_factory(asyncio.eager_task_factory)
            return loop

        have_loops_made_by(new_eager_loop)


def have_loops_made_by(new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    # Where asyncio.run and Tornado look for it. A policy would reach them too, but those are on
    # their way out of Python.
    asyncio.new_event_loop = asyncio.events.new_event_loop = new_event_loop
