"""Print the requirements that pin what it builds with and what it uses to the oldest versions allowed."""

import itertools
import re
import tomllib
from pathlib import Path

pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
project = pyproject["project"]
for requirement in itertools.chain(
    pyproject["build-system"]["requires"],
    project["dependencies"],
    *project["optional-dependencies"].values(),
):
    if floor := re.match(r"([\w-]+)>=([\d.]+)", requirement):
        print(f"{floor[1]}=={floor[2]}")
