"""The genuine ``distributed`` 1.9.0, once for all tests that talk to it."""

from pathlib import Path

import pytest

from interop.classic import Classic, fetch, fetch_for, find_old_python

# For the genuine programs, not for pytest.
collect_ignore_glob = ["programs/*", "today/*"]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the genuine source, and what it imports."""
    return fetch(tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="session")
def classic(packages: Path) -> Classic:
    """The genuine core, on this Python."""
    return Classic.today(packages, core="classic")


@pytest.fixture(scope="session")
def on_fastcore(packages: Path) -> Classic:
    """The genuine programs with fastcore as their core, on this Python."""
    return Classic.today(packages, core="fastcore")


@pytest.fixture(scope="session")
def installed_nowhere(packages: Path) -> Classic:
    """The genuine programs as they are, on this Python: whoever starts them gives them a core."""
    return Classic.today(packages, core="whatever is found")


@pytest.fixture(scope="session")
def of_2016(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Classic:
    """The genuine core, on a Python, a Tornado and a msgpack of its own time."""
    old_python = find_old_python()
    if old_python is None:
        pytest.skip("there is no Python 3.5 or 3.6 here, and Tornado 4.3 runs on no later one")
    return fetch_for(old_python, packages, tmp_path_factory.mktemp("of_2016"))


@pytest.fixture(scope="session", params=["classic", "of_2016"])
def genuine(request: pytest.FixtureRequest) -> Classic:
    """The genuine core, on either Python."""
    chosen: Classic = request.getfixturevalue(request.param)
    return chosen
