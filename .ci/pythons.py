"""Print an interpreter for each version of Python that pyproject.toml names, as .ci/wheel_alone takes it.

What this machine has comes from the PATH and from pyenv; the rest from Debian's packages, where
that goes. Which there are and which not is told on stderr. With PYTHONS, only those of them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUPPORTED = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
WANTED = os.environ.get("PYTHONS", "").split() or SUPPORTED
IMPORTS = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


def answers(python: str, version: str) -> bool:
    """Whether it is there, and can make an environment: a name on the PATH may lead nowhere."""
    try:
        done = subprocess.run([python, "-c", IMPORTS], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def on_this_machine(version: str) -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [f"python{version}", *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))]
    return next((python for python in candidates if answers(python, version)), None)


def from_debian(versions: list[str]) -> dict[str, str]:
    """Get them, if it goes: no root or no network is told by the script itself."""
    try:
        done = subprocess.run(
            [ROOT / ".ci" / "debian", "pythons", *versions], stdout=subprocess.PIPE, text=True
        )
    except OSError:
        return {}
    return {name.removeprefix("python"): f"debian:{name}" for name in done.stdout.split()}


found = {version: on_this_machine(version) for version in WANTED}
# At once: whoever reads them has something to do until Debian's are here.
print(*filter(None, found.values()), sep="\n", flush=True)
if missing := [version for version in WANTED if not found[version]]:
    debians = from_debian(missing)
    print(*debians.values(), sep="\n")
    found |= debians
for version, python in found.items():
    print(f"Python {version}: {python or 'not to be had here, not tested'}", file=sys.stderr)
