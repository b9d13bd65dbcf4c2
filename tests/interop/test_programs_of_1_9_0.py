"""The programs of ``distributed`` 1.9.0 with fastcore as their core, unaware of it, and their own tests."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from interop.classic import HERE, Classic
from support import Program

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


#: Tests of 1.9.0 that fail on its own core, too, and why.
FAIL_ANYWAY = {
    "test_upload_egg": "the egg isn't in the source distribution",
}

TESTS = {
    "core": "tests/test_core.py",
    "center": "tests/test_center.py",
    "client": "tests/test_client.py",
    "scheduler": "tests/test_scheduler.py",
    "worker": "tests/test_worker.py",
    "nanny": "tests/test_nanny.py",
    "progress": "diagnostics/tests/test_progress.py",
    "plugin": "diagnostics/tests/test_plugin.py",
    "cluster": "tests/test_utils_test.py",
}


@pytest.mark.parametrize("part", TESTS)
def test_the_tests_of_1_9_0_pass_on_fastcore(on_fastcore: Classic, part: str) -> None:
    packages = on_fastcore.path[-1]
    arguments = [
        "-m",
        "pytest",
        "-q",
        "--tb=native",
        "-p",
        "old_pytest",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "60",
    ]
    skipped = " and ".join(f"not {name}" for name in FAIL_ANYWAY)
    tests = str(packages / "distributed" / TESTS[part])
    done = subprocess.run(
        on_fastcore.command(*arguments, "--rootdir", str(packages), "-k", skipped, tests),
        env=on_fastcore.environment,
        cwd=packages,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
