"""What documents show must run, and print what they say."""

import doctest
import importlib
import re
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fastcore
from helpers.support import Program

ROOT = Path(__file__).parents[2]
COMPILED = sorted(
    path.name.split(".")[0]
    for path in Path(fastcore.__path__[-1]).iterdir()
    if path.name.endswith(EXTENSION_SUFFIXES[0])
)


def test_the_first_program_of_the_readme_prints_what_it_says():
    readme = (ROOT / "README.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    [printed] = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    with Program("-c", program) as running:
        assert running.rest() == printed.strip()
        assert running.wait() == 0, running.errors


def test_there_are_compiled_modules():
    assert "_framing" in COMPILED


@pytest.mark.parametrize("name", COMPILED)
def test_the_doctests_of_a_compiled_module(name: str):
    """Those of plain modules are collected by pytest itself."""
    module = importlib.import_module(f"fastcore.{name}")
    assert doctest.testmod(module).failed == 0
