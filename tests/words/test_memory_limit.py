"""What a process may have in a container, or as a service: the least of what its control groups say."""

import pytest

from fastcore.limits import _memory_limit

UNLIMITED = 2**63 - 4096


def machine(folder, told, **limits):
    """Give the two places where a system tells that."""
    for path, limit in limits.items():
        file = folder / "groups" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    if told is not None:
        (folder / "told").write_text(told)
    return str(folder / "told"), str(folder / "groups")


@pytest.mark.parametrize(
    ("told", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": 1000}, 1000),
        ("0::/\n", {"memory.max": "max"}, None),
        (None, {"memory.max": 1000}, 1000),
        (None, {}, None),
        ("0::/system.slice/shop.service\n", {"system.slice/shop.service/memory.max": 500}, 500),
        (
            "0::/pods/one/main\n",
            {"pods/one/main/memory.max": "max", "pods/one/memory.max": 700, "pods/memory.max": 9000},
            700,
        ),
        # As seen from outside of what the container has as the outermost one.
        ("4:memory:/docker/8e10\n0::/\n", {"memory/memory.limit_in_bytes": 2000}, 2000),
        (
            "9:cpu,memory:/docker/8e10\n",
            {"memory/docker/8e10/memory.limit_in_bytes": 300, "memory/memory.limit_in_bytes": UNLIMITED},
            300,
        ),
        ("0::/../../elsewhere\n", {"memory.max": 1000}, 1000),
        ("4:cpu:/tight\n", {"memory/tight/memory.limit_in_bytes": 1}, None),
        ("no such line\n", {"memory.max": "none"}, None),
    ],
)
def test_the_least_of_all_groups_around_it_counts(tmp_path, told, limits, expected):
    assert _memory_limit(*machine(tmp_path, told, **limits)) == expected
