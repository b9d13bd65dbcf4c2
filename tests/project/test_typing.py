"""Type checkers take what is right, and refuse what is wrong, in programs and in the examples."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "programs" / "typed_remotes.py"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: Seconds; it may have to make itself at home first.
PATIENCE = 120


def run(*command: str, **environment: str) -> str:
    """What a checker prints, whatever it finds."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **environment}
    )
    if done.returncode not in (0, 1):
        raise OSError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def mypy(*paths: Path) -> dict[tuple[str, int], str]:
    """What mypy says, by file and line."""
    pytest.importorskip("mypy")
    # Its own settings, from nowhere else; the stubs of untyped dependencies aren't of interest.
    said = run(
        *(
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--untyped-calls-exclude=distributed",
            "--config-file=",
            "--no-error-summary",
            # Not every Python can have all that the examples import.
            "--disable-error-code=import-not-found",
        ),
        *("--follow-imports=silent", "--hide-error-context", *map(str, paths)),
        MYPYPATH="",
    )
    found = {}
    for line in said.splitlines():
        file, number, kind, text = re.fullmatch(r"(.+?):(\d+): (\w+): (.*)", line).groups()
        if kind == "error":
            found[Path(file).name, int(number)] = text
    return found


@cache
def pyrights_command() -> str:
    """Pyright, where it is and can run: what pip installs fetches the rest when it is first called."""
    command = shutil.which("pyright", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    try:
        found = command is not None and run(command, "--version")
    except (OSError, subprocess.SubprocessError):
        found = False
    if not found:
        pytest.skip("there is no pyright, or it can't fetch what it needs")
    return command


def pyright(*paths: Path, project: Path | None = None) -> dict[tuple[str, int], str]:
    """What pyright says, by file and line."""
    options = ["--outputjson", "--pythonpath", sys.executable]
    if project is not None:
        options += ["--project", str(project)]
    said = json.loads(run(pyrights_command(), *options, *map(str, paths)))
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
        for each in said["generalDiagnostics"]
        if each["severity"] == "error" and each.get("rule") != "reportMissingImports"
    }


CHECKERS = pytest.mark.parametrize("checker", [mypy, pyright])


@CHECKERS
def test_they_take_right_calls_and_refuse_wrong_ones(checker):
    lines = PROGRAM.read_text().splitlines()
    wrong = {(PROGRAM.name, n) for n, line in enumerate(lines, 1) if line.endswith("# refused")}
    found = checker(PROGRAM)
    assert len(wrong) > 15
    assert {place: text for place, text in found.items() if place not in wrong} == {}
    assert wrong - found.keys() == set()


@pytest.mark.skipif(not EXAMPLES, reason="there are no examples here")
@CHECKERS
def test_they_take_the_examples(checker):
    assert checker(*EXAMPLES) == {}


@pytest.mark.skipif(not (ROOT / "fastcore").exists(), reason="only the sources have settings for it")
@pytest.mark.skipif(find_spec("distributed") is None, reason="of what isn't installed, the types are unknown")
def test_pyright_takes_the_package():
    assert pyright(project=ROOT) == {}
