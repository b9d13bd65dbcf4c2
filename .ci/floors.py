"""Print the requirements that pin each dependency to the oldest version that pyproject.toml allows."""

import tomllib
from pathlib import Path

pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
for requirement in pyproject["project"]["dependencies"]:
    name, floor = requirement.split(">=")
    print(f"{name}=={floor}")
