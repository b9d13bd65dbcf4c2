"""The tests' own tools must not let anything pass."""

import asyncio
import signal

import pytest

from helpers.support import Program, run


async def test_an_async_test_has_a_running_loop():
    assert asyncio.get_running_loop().is_running()


@pytest.mark.deadline(60)
async def test_a_fixture_reaches_an_async_test(tmp_path):
    assert tmp_path.exists()


def test_a_coroutine_that_takes_too_long_fails():
    with pytest.raises(TimeoutError):
        run(asyncio.sleep(60), seconds=0.01)


def test_an_error_that_nobody_looked_at_fails():
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(main())


def test_a_program_that_ends_early_shows_its_errors():
    with Program("-c", "import sys; sys.exit('no port')") as program:
        with pytest.raises(AssertionError, match="no port"):
            program.line()
        assert program.wait() == 1


def test_a_program_can_be_interrupted():
    with Program("-c", "import time; print('up'); time.sleep(60)") as program:
        assert program.line() == "up"
        program.send(signal.SIGTERM)
        assert program.wait() == -signal.SIGTERM


def test_a_program_that_is_slow_has_no_errors():
    slow = "import asyncio, time\nasync def main():\n    time.sleep(0.2)\nasyncio.run(main())"
    with Program("-c", slow) as program:
        assert program.wait() == 0
        assert program.errors == ""
