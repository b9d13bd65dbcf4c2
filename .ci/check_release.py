"""check_release.py [TAG]: is the version that would be released told everywhere, and dated?

It stands in fastcore/__init__.py; CHANGELOG.md has a section for it, with a date, and the tag is v and it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECTION = r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$"


def problems(version: str, changelog: str, tag: str | None) -> list[str]:
    """What stands in the way, in words."""
    found = []
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag is {tag}, and the version in fastcore/__init__.py {version}")
    sections = {match["version"]: match["date"] for match in re.finditer(SECTION, changelog, re.MULTILINE)}
    if version not in sections:
        found.append(f"CHANGELOG.md has no section [{version}]")
    elif sections[version] is None:
        found.append(f"the section [{version}] of CHANGELOG.md has no date")
    return found


def version_of(source: str) -> str:
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


if __name__ == "__main__":
    version = version_of((ROOT / "fastcore" / "__init__.py").read_text())
    if found := problems(version, (ROOT / "CHANGELOG.md").read_text(), *sys.argv[1:] or [None]):
        sys.exit("\n".join(found))
    print(f"{version} can be released")
