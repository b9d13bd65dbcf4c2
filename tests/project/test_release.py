"""One version, told everywhere; and workflows that say what the project's other files say."""

import importlib.metadata
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import fastcore

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

pytestmark = pytest.mark.skipif(
    not WORKFLOWS, reason="these are tests of a checkout: there are no workflows here"
)

CHANGELOG = """
# Changelog

## [Unreleased]

## [1.2.0] - 2026-11-29

### Added

## [1.1.0]
"""


def supported() -> list[str]:
    matches = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in classifiers())
    return [match[1] for match in matches if match]


def classifiers() -> list[str]:
    return PROJECT["project"]["classifiers"]


def test_the_distribution_is_named_and_versioned_as_the_package_says() -> None:
    assert PROJECT["project"]["name"] == "fastcore-rpc"
    assert importlib.metadata.version("fastcore-rpc") == fastcore.__version__


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    release = runpy.run_path(str(ROOT / ".ci" / "check_release.py"))
    assert release["version_of"](Path(fastcore.__file__).read_text()) == fastcore.__version__


@pytest.mark.parametrize(
    ("version", "tag", "told"),
    [
        ("1.2.0", "v1.2.0", []),
        ("1.2.0", None, []),
        ("1.2.0", "v1.3.0", ["the tag is v1.3.0"]),
        ("1.3.0", "v1.3.0", ["no section [1.3.0]"]),
        ("1.1.0", "v1.1.0", ["[1.1.0] of CHANGELOG.md has no date"]),
    ],
)
def test_what_stands_in_the_way_of_a_release_is_told(version: str, tag: str | None, told: list[str]) -> None:
    release = runpy.run_path(str(ROOT / ".ci" / "check_release.py"))
    problems = release["problems"](version, CHANGELOG, tag)
    assert len(problems) == len(told)
    assert all(text in problem for text, problem in zip(told, problems, strict=True))


def test_the_changelog_has_the_form_that_tools_read() -> None:
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_wheels_are_built_and_tested_for_each_python_that_is_supported() -> None:
    built = re.findall(r"cp3(\d+)-", PROJECT["tool"]["cibuildwheel"]["build"])
    assert [f"3.{minor}" for minor in built] == supported()
    [tested] = re.findall(r"python: \[(.*)\]", (ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert tested.replace('"', "").split(", ") == supported()


def test_types_are_checked_for_the_oldest_python_and_for_the_newest() -> None:
    checked = re.findall(r"--python-version ([\d.]+)", (ROOT / "Makefile").read_text())
    assert checked == [supported()[0], supported()[-1]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_makes_what_can_be_made(workflow: Path) -> None:
    text = workflow.read_text()
    wanted = set(re.findall(r"run: make ([a-z-]+)", text))
    wanted |= {target for line in re.findall(r"target: \[(.*)\]", text) for target in line.split(", ")}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert wanted
    assert wanted <= targets


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint isn't on the PATH")
def test_actionlint_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)
