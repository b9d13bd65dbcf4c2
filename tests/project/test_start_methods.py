"""Programs of 2016 fork, on a Python that doesn't, too; whoever chooses a start method has it."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system can't fork"
)

#: Runs a program by `run-classic` where the usual method is another one, as it is since Python 3.14.
RUN_CLASSIC = """
import multiprocessing, sys
multiprocessing.get_all_start_methods = lambda: ["forkserver", "fork", "spawn"]
from fastcore.command.cli import main
{before}
sys.exit(main(["run-classic", "program.py"]))
"""


def run_classic(folder: Path, program: str, before: str = "") -> str:
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", RUN_CLASSIC.format(before=before)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


TELL = "import multiprocessing\nprint(multiprocessing.get_start_method())"


def test_run_classic_forks_where_nobody_chose(tmp_path: Path) -> None:
    assert run_classic(tmp_path, TELL) == "fork"


def test_run_classic_leaves_a_choice_alone(tmp_path: Path) -> None:
    assert run_classic(tmp_path, TELL, before="multiprocessing.set_start_method('spawn')") == "spawn"


def test_a_program_under_run_classic_may_choose(tmp_path: Path) -> None:
    chooses = "import multiprocessing\nmultiprocessing.set_start_method('spawn')\n"
    assert run_classic(tmp_path, chooses + TELL) == "spawn"
