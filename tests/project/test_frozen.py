"""Programs that others freeze: all that runs is found by who reads imports, without options."""

import importlib.util
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

import fastcore

#: A checkout may have its compiled modules elsewhere: then what is installed is read.
PACKAGE = Path(fastcore.__path__[-1])

#: Uses a bit of everything; compressions and TLS come by imports of their own.
PROGRAM = """
import asyncio
from fastcore import Monitor, Server, rpc
from tornado.httpclient import AsyncHTTPClient

async def main():
    server = Server({"echo": lambda stream, x: x})
    server.listen(0, "127.0.0.1")
    async with Monitor(server) as monitor:
        monitor.listen(0)
        page = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{monitor.port}/page.js")
        print(page.headers["Content-Type"])
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        print(await remote.echo(x="small"), len(await remote.echo(x=bytes(3_000_000))))
    await server.shutdown(1)

asyncio.run(main())
"""


PRINTED = ["text/javascript; charset=utf-8", "small 3000000"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frozen") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def found(program: Path) -> set[str]:
    """The modules that are found by reading imports, from the program on."""
    finder = Finder([str(PACKAGE.parent), *sys.path])
    finder.run_script(str(program))
    return set(finder.modules)


class Finder(ModuleFinder):
    """Passes over namespace packages, at which a ModuleFinder stumbles: those of others have some."""

    def find_module(self, name, path, parent=None):
        try:
            return super().find_module(name, path, parent)
        except AttributeError as error:
            raise ImportError(name) from error


def modules(names: set[str]) -> set[str]:
    ours = {name for name in names if name.partition(".")[0] in ("fastcore", "msgpack", "tornado")}
    # Another name of the package itself, which it sets when it is imported.
    return ours - {"fastcore.core"}


def test_whoever_reads_imports_finds_all_that_runs(program: Path, found: set[str]) -> None:
    tell = "import sys; exec(open(sys.argv[1]).read()); print(*sys.modules)"
    command = [sys.executable, "-c", tell, str(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert ran[:2] == PRINTED
    assert modules(set(ran[2].split())) - found == set()


def test_each_compiled_module_is_found(found: set[str]) -> None:
    compiled = {path.name.split(".")[0] for path in PACKAGE.glob(f"*{EXTENSION_SUFFIXES[0]}")}
    assert compiled
    assert {f"fastcore.{name}" for name in compiled} - found == set()


@pytest.mark.skipif(
    importlib.util.find_spec("PyInstaller") is None,
    reason="PyInstaller isn't installed: pip install --group frozen",
)
def test_pyinstaller_needs_no_options(program: Path, tmp_path: Path) -> None:
    where = ["--distpath", "dist", "--workpath", "work", "--specpath", "work"]
    command = [sys.executable, "-m", "PyInstaller", "--log-level", "WARN", *where, str(program)]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    frozen = tmp_path / "dist" / "program" / "program"
    done = subprocess.run([frozen], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (PRINTED, "")
