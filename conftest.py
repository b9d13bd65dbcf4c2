"""Two options for the whole tree: ``--benchmark`` and ``--uvloop``."""

import asyncio
import warnings

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastcore")
    group.addoption(
        "--benchmark", action="store_true", help="run the benchmarks of bench/ instead of the tests"
    )
    group.addoption("--uvloop", action="store_true", help="run on uvloop's event loop")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark"):
        if not config.pluginmanager.hasplugin("benchmark"):
            raise pytest.UsageError("--benchmark needs pytest-benchmark: pip install --group bench")
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(config.rootpath / "bench")]
        config.option.doctestmodules = False
    if config.getoption("--uvloop"):
        import uvloop

        with warnings.catch_warnings():
            # Policies are on their way out of Python, but only they reach the loops that Tornado makes.
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
