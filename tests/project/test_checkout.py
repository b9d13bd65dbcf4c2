"""A checkout whose compiled modules are elsewhere, or nowhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastcore

SOURCES = Path(fastcore.__path__[0])
BUILT = Path(fastcore.__path__[-1])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(SOURCES, folder / "fastcore", ignore=ignored)
    (folder / "pyproject.toml").touch()
    return folder


def run(folder: Path, program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    # Tornado and msgpack are needed too; a fastcore that was installed for all is not.
    others = [entry for entry in sys.path if entry and not (Path(entry) / "fastcore").exists()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *others])}
    command = [sys.executable, "-S", "-c", program]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_takes_the_compiled_modules_that_are_installed(checkout: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    shutil.copytree(BUILT, installed / "fastcore", ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import fastcore._framing as f, fastcore.engine_errors as e; print(f.__file__); print(e.__file__)"
    )
    done = run(checkout, program, installed)
    assert done.stderr == ""
    framing, errors = done.stdout.splitlines()
    assert Path(framing).is_relative_to(installed)
    assert Path(errors).is_relative_to(checkout)


@pytest.mark.parametrize(
    "program", ["import fastcore", "from fastcore import rpc", "import fastcore._framing"]
)
def test_where_there_are_none_one_line_says_what_to_do(checkout: Path, program: str) -> None:
    done = run(checkout, program)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ImportError: the compiled modules of fastcore are not built for this Python; in ")
    assert line.endswith("-m pip install -e .")
