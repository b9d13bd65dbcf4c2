"""Print the requirements that pin each dependency to the oldest version that pyproject.toml allows."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
# What of the extras has two versions that differ in what is used of it is tested with both.
for requirement in [*project["dependencies"], *project["optional-dependencies"]["dask"]]:
    name, _, floor = requirement.partition(">=")
    if floor:
        print(f"{name}=={floor}")
