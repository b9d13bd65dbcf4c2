"""Print one interpreter for each minor version of Python that fastcore supports and this machine has."""

import os
import subprocess
from pathlib import Path

OLDEST = (3, 11)

pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
candidates = [f"python3.{minor}" for minor in range(OLDEST[1], 20)]
candidates += sorted(map(str, pyenv.glob("versions/3.*/bin/python")))
found = {}
for candidate in candidates:
    try:
        # A name on the PATH may be a shim for a Python that isn't there.
        answer = subprocess.run(
            [candidate, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        continue
    version = tuple(map(int, answer.split()))
    if version >= OLDEST:
        found.setdefault(version, candidate)
print(*(found[version] for version in sorted(found)), sep="\n")
