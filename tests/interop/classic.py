"""Gets the genuine ``distributed`` 1.9.0 and lets it run, on this Python or on one of its own time."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

HERE = Path(__file__).parent

#: What its modules import, besides what fastcore needs. From 3.1.3 on cloudpickle forgets in which
#: file a function stood, and a test of 1.9.0 looks for the line in its traceback.
BESIDE_IT = ["dask==0.9.0", "toolz", "tblib<4", "cloudpickle<3.1.3", "click<8", "locket", "six", "requests"]
#: The same in releases of its time, for a Python of its time.
OF_ITS_TIME = ["tornado==4.3", "msgpack-python==0.4.8", "toolz==0.7.4", "cloudpickle==0.2.1"]


@dataclass(frozen=True)
class Classic:
    """A Python that runs programs of 2016: ``core`` says whose ``distributed.core`` they get."""

    python: str
    path: tuple[Path, ...]
    core: str

    @classmethod
    def today(cls, packages: Path, core: str) -> Self:
        return cls(sys.executable, (HERE / "today", packages), core)

    def command(self, *arguments: str) -> list[str]:
        return [self.python, "-u", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(map(str, self.path))
        return {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "CORE": self.core,
            # Where workers put their folders, and leave them when they are killed.
            "TMPDIR": str(self.path[-1].parent),
        }


def fetch(folder: Path) -> Path:
    """Put the genuine source, with its tests, and what it imports into ``folder``."""
    pip("download", "--no-deps", "--no-binary", "distributed", "--dest", str(folder), "distributed==1.9.0")
    with tarfile.open(folder / "distributed-1.9.0.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    packages = folder / "packages"
    pip("install", "--no-deps", "--only-binary", "dask", "--target", str(packages), *BESIDE_IT)
    shutil.move(folder / "distributed-1.9.0" / "distributed", packages / "distributed")
    # `async` has become a keyword, and can't be imported from any more.
    (packages / "dask" / "async.py").rename(packages / "dask" / "async_.py")
    for source in (packages / "dask").rglob("*.py"):
        text = source.read_text()
        if ".async import" in text:
            source.write_text(text.replace(".async import", ".async_ import"))
    return packages


def fetch_for(old_python: str, packages: Path, folder: Path) -> Classic:
    """Make an environment of 2016 for a Python that can have one."""
    environment = folder / "environment"
    execute([old_python, "-m", "venv", str(environment)])
    python = str(environment / "bin" / "python")
    for wanted in (["pip<22", "wheel<0.38"], [*OF_ITS_TIME, "dask==0.9.0", "tblib<2", "six"]):
        execute([python, "-m", "pip", "install", "--quiet", *wanted])
    only_distributed = folder / "packages"
    only_distributed.mkdir()
    (only_distributed / "distributed").symlink_to(packages / "distributed")
    return Classic(python, (only_distributed,), "classic")


def find_old_python() -> str | None:
    """A Python that Tornado 4.3 runs on."""
    installed = sorted(Path.home().glob(".pyenv/versions/3.[56].*/bin/python3"))
    for name in ("python3.6", "python3.5", *map(str, installed)):
        found = shutil.which(name)
        # A name alone may be a shim that leads nowhere.
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    return None


def pip(*arguments: str) -> None:
    execute([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def execute(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        pytest.skip(f"the genuine distributed 1.9.0 can't be had here: {lines[-1]}")
