"""Standing in for ``distributed.core``."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def execute(program: str, *path: Path) -> str:
    """What a program prints whose imports begin at ``path``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def package(folder: Path, **modules: str) -> Path:
    """A folder with a package ``distributed`` in it."""
    for name, text in {"__init__": "", **modules}.items():
        file = folder / "distributed" / (name.replace("__in__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return folder


STAND_IN = """
    import fastcore
    fastcore.install_as_distributed_core()
    fastcore.install_as_distributed_core()
    import distributed.core
    from distributed.core import read, Server
    assert distributed.core is fastcore
    assert read is fastcore.read
    print("fastcore")
"""


def test_it_stands_in_where_no_distributed_is_installed(tmp_path):
    assert execute(STAND_IN, tmp_path) == "fastcore\n"


def test_it_stands_in_where_a_classic_distributed_is_installed(tmp_path):
    folder = package(
        tmp_path,
        __init__="from .scheduler import Scheduler",
        scheduler="from .core import Server\nclass Scheduler(Server): pass",
        core="raise ImportError('the genuine core')",
    )
    program = (
        STAND_IN
        + """
    import distributed
    assert issubclass(distributed.Scheduler, fastcore.Server)
    assert distributed.core is fastcore
    """
    )
    assert execute(program, folder) == "fastcore\n"


def test_it_stands_in_where_a_later_distributed_is_installed(tmp_path):
    folder = package(tmp_path, __init__="from .core import Status", core="Status = 1", comm__in____init__="")
    assert execute(STAND_IN, folder) == "fastcore\n"


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_it_stands_in_where_multiprocessing_runs_the_main_module_again(tmp_path, method):
    program = """
        import fastcore
        fastcore.install_as_distributed_core()
        import multiprocessing

        def show():
            import distributed.core
            print(distributed.core.__name__)

        if __name__ == "__main__":
            process = multiprocessing.get_context("METHOD").Process(target=show)
            process.start()
            process.join()
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program.replace("METHOD", method)))
    command = [sys.executable, "-W", "error", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("fastcore\n", "")


def test_it_refuses_after_a_real_core_was_imported(tmp_path):
    folder = package(tmp_path, core="")
    program = """
        import distributed.core
        import fastcore
        try:
            fastcore.install_as_distributed_core()
        except RuntimeError as error:
            print(error)
    """
    assert "already imported" in execute(program, folder)
