"""The programs of ``distributed`` 1.9.0 with fastcore as their core, unaware of it, and their own tests."""

import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from helpers.support import Program
from interop.classic import HERE, Classic

#: Run by `make test-classic`: minutes of clusters that start and end, on timers of 2016.
pytestmark = pytest.mark.classic_programs

CLUSTER = str(HERE / "programs" / "cluster.py")

WHAT_AN_EXECUTOR_SEES = ["-190", "ZeroDivisionError(", "10000000", "2 2"]


@contextmanager
def process(run_by: Classic, role: str, *ports: str) -> Iterator[str]:
    """A process of the cluster, and its port."""
    command = run_by.command(CLUSTER, role, *ports)
    with Program(command=command, env=run_by.environment) as program:
        yield program.line()


def compute(run_by: Classic, port: str) -> list[str]:
    command = run_by.command(CLUSTER, "executor", port)
    with Program(command=command, env=run_by.environment) as program:
        return [program.line() for _ in WHAT_AN_EXECUTOR_SEES]


@pytest.mark.parametrize("parts", ["ffff", "fccc", "cfff", "cfcf", "ccff", "fcfc"])
def test_a_cluster_computes_whoever_of_it_runs_on_fastcore(
    classic: Classic, on_fastcore: Classic, parts: str
) -> None:
    """Scheduler, two workers and executor, in this order: f on fastcore, c on the genuine core."""
    scheduler, one, another, executor = ({"f": on_fastcore, "c": classic}[part] for part in parts)
    with ExitStack() as stack:
        port = stack.enter_context(process(scheduler, "scheduler"))
        stack.enter_context(process(one, "worker", port))
        stack.enter_context(process(another, "worker", port))
        seen = compute(executor, port)
    for line, expected in zip(seen, WHAT_AN_EXECUTOR_SEES, strict=True):
        assert line.startswith(expected)


TESTS = {
    "core": "tests/test_core.py",
    "protocol": "tests/test_protocol.py",
    "utils": "tests/test_utils.py",
    "center": "tests/test_center.py",
    "client": "tests/test_client.py",
    "scheduler": "tests/test_scheduler.py",
    "worker": "tests/test_worker.py",
    "nanny": "tests/test_nanny.py",
    "executor": "tests/test_executor.py",
    "progress": "diagnostics/tests/test_progress.py",
    "progressbar": "diagnostics/tests/test_progressbar.py",
    "plugin": "diagnostics/tests/test_plugin.py",
    "scheduler_http": "http/tests/test_scheduler_http.py",
    "worker_http": "http/tests/test_worker_http.py",
    "cluster": "tests/test_utils_test.py",
}

#: Tests of 1.9.0 that fail on its own core, too, and why.
FAIL_ANYWAY = {
    "test_upload_egg": "the egg isn't in the source distribution",
    "test_persist": "the graphs of dask's arrays are another release's",
    "test__persist": "the graphs of dask's arrays are another release's",
    "test_missing_worker": "a KeyError in the scheduler; it is marked as slow, and wasn't run",
    "test_gather_then_submit_after_failed_workers": "takes a method for a dict; the same",
    "test_long_traceback": "a traceback is longer than it was in Python 3.4",
    "test_traceback_sync": "a task is sent before its Future is made: now and then the answer is faster",
}


@pytest.mark.parametrize("part", TESTS)
def test_the_tests_of_1_9_0_pass_on_fastcore(on_fastcore: Classic, part: str, tmp_path: Path) -> None:
    packages = on_fastcore.path[-1]
    left_out = " and ".join(f"not {name}" for name in FAIL_ANYWAY)
    arguments = [
        *("-m", "pytest", "-q", "--tb=native", "--rootdir", str(packages)),
        *("-p", "old_pytest", "-p", "pytest_timeout", "--timeout", "60"),
        *("-o", f"cache_dir={tmp_path / 'cache'}"),
        *("-k", left_out, str(packages / "distributed" / TESTS[part])),
    ]
    with one_at_a_time():
        failed, told = run_to_the_end(on_fastcore, arguments, packages)
        if failed:
            # Their timers are short for a machine that has more to do: what fails must fail again.
            failed, told = run_to_the_end(on_fastcore, [*arguments, "--last-failed"], packages)
    assert not failed, told


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Their ports are fixed: who tests beside us has to wait."""
    with open(Path(tempfile.gettempdir()) / "tests-of-distributed-1.9.0.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_to_the_end(run_by: Classic, arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a program, and end the processes that it leaves behind; give its exit code and output."""
    environment = {**run_by.environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # No pipe: it would have no end while there are such processes.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            run_by.command(*arguments),
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=140)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read()[-7000:]
