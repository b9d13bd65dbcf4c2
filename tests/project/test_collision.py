"""Where the other project's ``fastcore`` shares our folder, one clear error says so, whichever won."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import msgpack
import pytest
import tornado

import fastcore
from fastcore import collision

ROOT = Path(__file__).parents[2]
#: A checkout may have its compiled modules elsewhere.
OURS = [Path(folder) for folder in fastcore.__path__]
#: What they have in the files that we have too, and one that only they have.
THEIRS = {
    "__init__.py": '__version__ = "2.2.41"\n',
    "basics.py": "answer = 42\n",
    "all.py": "from fastcore import basics\nfrom fastcore.basics import *\n",
}


class Environment:
    """A virtual environment in which both were installed, in some order."""

    def __init__(self, folder: Path) -> None:
        builder = venv.EnvBuilder(symlinks=os.name != "nt")
        builder.create(folder)
        self.python = builder.ensure_directories(folder).env_exe
        run = [self.python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]
        self.site = Path(
            subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        )

    def install_ours(self) -> None:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyx", "*.pxd", "*.h")
        for folder in OURS:
            shutil.copytree(folder, self.site / "fastcore", dirs_exist_ok=True, ignore=ignored)
        shutil.copy(ROOT / "fastcore-rpc.pth", self.site)
        # Not the folder that they are in: we may be there too, and be found instead.
        for other in (tornado, msgpack):
            shutil.copytree(other.__path__[0], self.site / other.__name__, dirs_exist_ok=True)

    def install_theirs(self) -> None:
        (self.site / "fastcore").mkdir(exist_ok=True)
        for name, text in THEIRS.items():
            (self.site / "fastcore" / name).write_text(text)

    def uninstall_theirs(self) -> None:
        for name in THEIRS:
            (self.site / "fastcore" / name).unlink()

    def run(self, program: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [self.python, "-c", program]
        return subprocess.run(
            command, cwd=self.site, env=environment, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "env")


def told(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """The one error: its last line says what and what to do."""
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert f"two packages share the folder {folder} and overwrite and remove each other's files" in line
    assert "pip uninstall -y fastcore fastcore-rpc && pip install fastcore-rpc" in line
    return line


def test_ours_alone_works_and_nothing_is_said(environment: Environment) -> None:
    environment.install_ours()
    done = environment.run("import fastcore, sys; print(fastcore.Server.__name__, 'runpy' in sys.modules)")
    assert (done.stdout, done.stderr) == ("Server False\n", "")


@pytest.mark.parametrize(
    "program", ["import fastcore", "from fastcore import rpc", "import fastcore.classic"]
)
def test_where_ours_came_last_the_import_fails_and_says_why(environment: Environment, program: str) -> None:
    environment.install_theirs()
    environment.install_ours()
    assert told(environment.run(program), environment.site / "fastcore").startswith(
        "ImportError: two packages"
    )


@pytest.mark.parametrize(
    "program",
    [
        "import fastcore as core; core.read",
        "import fastcore.core; fastcore.core",
        "from fastcore import rpc",
        "from fastcore.core import connect",
    ],
)
def test_where_theirs_came_last_the_first_of_our_names_says_why(
    environment: Environment, program: str
) -> None:
    environment.install_ours()
    environment.install_theirs()
    line = told(environment.run(program), environment.site / "fastcore")
    assert line.startswith(f"ImportError: no {program.split()[-1].rpartition('.')[2]!r} here: ")


@pytest.mark.parametrize("last", ["install_ours", "install_theirs"])
@pytest.mark.parametrize(
    "program", ["from fastcore import rpc", "import fastcore; fastcore.Server", "import fastcore.command.cli"]
)
def test_where_theirs_was_uninstalled_the_first_of_our_names_says_why(
    environment: Environment, program: str, last: str
) -> None:
    environment.install_ours()
    environment.install_theirs()
    getattr(environment, last)()
    environment.uninstall_theirs()
    told(environment.run(program), environment.site / "fastcore")


def test_where_theirs_came_last_it_works_as_ever(environment: Environment) -> None:
    environment.install_ours()
    environment.install_theirs()
    program = "import fastcore; from fastcore.all import *; print(fastcore.__version__, answer)"
    done = environment.run(program + "; print(hasattr(fastcore, '__wrapped__'), hasattr(fastcore, 'L'))")
    assert (done.stdout, done.stderr) == ("2.2.41 42\nFalse False\n", "")


def test_each_of_our_names_is_known_there() -> None:
    found = collision._ours(str(OURS[0]))
    assert found == set(fastcore.__all__)


def test_we_have_no_module_by_which_they_are_told() -> None:
    assert not any((folder / "basics.py").exists() for folder in OURS)
