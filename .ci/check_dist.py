"""Check that the sdist and the wheel in dist/ hold what they must, and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
tracked = set(
    subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
)
package = {name for name in tracked if name.startswith("fastcore/")}
modules = {name.removesuffix(".pyx") for name in package if name.endswith(".pyx")}


def check(what: str, missing: set[str], unwanted: set[str]) -> None:
    for problem, names in (("lacks", missing), ("should not hold", unwanted)):
        if names:
            sys.exit(f"{what} {problem} {', '.join(sorted(names))}")
    print(f"{what} holds what it must")


def compiled(name: str) -> str:
    """The module's name, for a file that is one."""
    return name.split(".")[0] if name.endswith((".so", ".pyd")) else ""


[sdist] = ROOT.glob("dist/*.tar.gz")
with tarfile.open(sdist) as archive:
    held = {member.name.partition("/")[2] for member in archive if member.isfile()}
check(
    sdist.name,
    missing=tracked - held - {".gitignore"},
    unwanted={name for name in held if name.endswith((".c", ".so", ".pyd", ".pyc"))},
)

[wheel] = ROOT.glob("dist/*.whl")
with zipfile.ZipFile(wheel) as archive:
    held = {name for name in archive.namelist() if ".dist-info/" not in name}
    licences = {name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")}
wanted = {name for name in package if name.endswith((".py", ".pyi", "py.typed")) or "/static/" in name}
wanted.add("fastcore-rpc.pth")
check(
    wheel.name,
    missing=(wanted - held) | (modules - set(map(compiled, held))) | (set() if licences else {"LICENSE"}),
    unwanted={name for name in held - wanted if compiled(name) not in modules},
)
