"""The Pythons that are tested: which there are and which not is told, and what can't be had is no failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Debian's packages are had on Linux"),
    pytest.mark.skipif(not CI.exists(), reason="these are tests of a checkout: there is no .ci here"),
]


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment with no interpreter on the PATH, no pyenv, and a debootstrap whose mirror is away."""
    fake = tmp_path / "bin" / "debootstrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho the mirror is away\nexit 1\n")
    fake.chmod(0o755)
    path = os.pathsep.join([str(fake.parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    return {
        "PATH": path,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYENV_ROOT": str(tmp_path),
    }


def execute(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_where_debian_is_not_to_be_had_it_says_so_and_fails_not(nowhere: dict[str, str]) -> None:
    done = execute(nowhere, str(CI / "debian"), "pythons", "3.98", "3.99")
    assert (done.stdout, done.returncode) == ("", 0)
    assert "debian: no Debian to take Python 3.98 3.99 from" in done.stderr


def test_each_supported_python_is_accounted_for(nowhere: dict[str, str]) -> None:
    done = execute(nowhere, sys.executable, str(CI / "pythons.py"))
    assert done.returncode == 0
    told = [line for line in done.stderr.splitlines() if line.startswith("Python 3.")]
    assert [line.partition(":")[0] for line in told] == [f"Python 3.{minor}" for minor in range(11, 16)]
    missing = [line for line in told if line.endswith("not to be had here, not tested")]
    assert len(missing) + len(done.stdout.split()) == len(told)


def test_a_package_that_cannot_be_had_is_a_failure(nowhere: dict[str, str]) -> None:
    done = execute(nowhere, str(CI / "debian"), "packages", "gcc-99")
    assert done.returncode != 0


def test_the_script_tells_how_it_is_used(nowhere: dict[str, str]) -> None:
    done = execute(nowhere, str(CI / "debian"))
    assert done.returncode == 2
    assert "debian pythons 3.14 3.15" in done.stdout
