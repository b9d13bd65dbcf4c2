"""What the page on operations gives to other programs, as these programs read it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NAMED = re.compile(r"^```(?:ini|yaml)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the files whose names stand in their first lines."""
    for name, text in NAMED.findall(PAGE.read_text()):
        # There is no such program here; what is started isn't looked at.
        (tmp_path / name).write_text(text.replace("/opt/shop/bin/fastcore", sys.executable))
    return tmp_path


def said_by(*command: str, folder: Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


def test_systemd_takes_the_units(files: Path):
    said = said_by("systemd-analyze", "verify", "./shop.service", "./shop.socket", folder=files)
    assert "shop." not in said.replace("User=shop", ""), said


def test_prometheus_takes_the_configuration_and_the_rules(files: Path):
    assert "4 rules found" in said_by("promtool", "check", "config", "prometheus.yml", folder=files)
