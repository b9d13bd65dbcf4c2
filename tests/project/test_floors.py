"""Imports run one way, downwards: the floors of the house, and what each of them needs."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import fastcore
from helpers.support import Program

HOUSE = Path(fastcore.__file__).parent
#: From below to above. Within a floor there is no circle, and of two in one row neither knows the other.
FLOORS = [
    [
        "engine_errors errors limits addressing logs compressions remote_errors middleware tokens tracebacks "
        "protocols collision checkout"
    ],
    ["_memory _blocks _buffer _values _framing"],
    ["values _paths _standard _arrays"],
    ["bad_values", "_header"],
    ["_wire"],
    ["_socket"],
    ["_outbox"],
    ["_futures", "_turns", "_watchdog", "_latencies"],
    ["_iterating _parts", "contracts"],
    ["_channel"],
    ["transport"],
    ["client", "server"],
    ["background", "classic", "monitor"],
    ["surface"],
    ["dask"],
    ["command __main__", "telemetry", "testing", "__pyinstaller"],
]
PLACES = {
    room: (floor, side)
    for floor, sides in enumerate(FLOORS)
    for side, rooms in enumerate(sides)
    for room in rooms.split()
}
EXTRAS = (
    "cloudpickle dask distributed lz4 numpy opentelemetry prometheus_client psutil rich shtab snappy uvloop"
)


def imported_by(path: Path) -> set[str]:
    """The modules that a file names in its imports, wherever they stand in it."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        found = re.findall(
            r"^\s*from ([\w.]+) c?import \(?([\w, ]*)|^\s*c?import ([\w.]+)", text, re.MULTILINE
        )
        froms = [(module, names.replace(",", " ").split()) for module, names, _ in found if module]
        plain = {module for *_, module in found if module}
    else:
        nodes = [*ast.walk(ast.parse(text))]
        assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), path
        froms = [
            (node.module or "", [alias.name for alias in node.names])
            for node in nodes
            if isinstance(node, ast.ImportFrom)
        ]
        plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    # A name out of a package may be one of its modules.
    within = {f"{module}.{name}" for module, names in froms for name in names} & MODULES
    return plain | {module for module, _ in froms} | within


def module_of(path: Path) -> str:
    name = ".".join(["fastcore", *path.relative_to(HOUSE).with_suffix("").parts])
    return name.removesuffix(".__init__")


FILES = [path for path in sorted(HOUSE.rglob("*.p*")) if path.suffix in (".py", ".pyi", ".pyx", ".pxd")]
MODULES = {module_of(path) for path in FILES}
IMPORTS: dict[str, set[str]] = {}
for file in FILES:
    IMPORTS.setdefault(module_of(file), set()).update(imported_by(file))
WITHIN = {
    module: {name for name in names if name in MODULES and name != "fastcore" and name != module}
    for module, names in IMPORTS.items()
}


def place(module: str) -> tuple[int, int]:
    room = module.split(".")[1]
    assert room in PLACES, f"on which floor is {module}?"
    return PLACES[room]


@pytest.mark.parametrize("module", sorted(MODULES - {"fastcore"}))
def test_a_module_imports_nothing_from_above_nor_from_its_neighbours(module):
    floor, side = place(module)
    for name in WITHIN[module]:
        below, beside = place(name)
        assert below < floor or (below == floor and beside == side), f"{module} imports {name}"


def test_there_is_no_circle():
    graphlib.TopologicalSorter(WITHIN).prepare()


def test_the_package_itself_imports_nothing_of_it_but_for_those_who_read_types():
    tree = ast.parse((HOUSE / "__init__.py").read_text())
    conditions = {ast.unparse(node.test): node for node in tree.body if isinstance(node, ast.If)}
    types = conditions.pop("TYPE_CHECKING")
    assert [ast.unparse(node) for node in types.body] == ["from fastcore.surface import *"]
    # Where another package lies in the same folder, or this is a checkout.
    assert all("os.path.exists" in condition for condition in conditions)
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not {alias.name for node in top for alias in node.names} & MODULES - {"fastcore"}
    assert WITHIN["fastcore"] == {"fastcore.surface", "fastcore.collision", "fastcore.checkout"}


@pytest.mark.skipif(not [*HOUSE.glob("*.pyx")], reason="a wheel has no sources of the compiled modules")
def test_what_the_tests_of_these_imports_see_is_what_there_is():
    """As an import that no pattern finds would hold any floor."""
    assert {"fastcore._buffer", "fastcore._blocks", "fastcore.engine_errors"} <= WITHIN["fastcore._framing"]
    assert "fastcore.command.ping" in WITHIN["fastcore.command.cli"]
    assert "fastcore._channel" in WITHIN["fastcore.server.figures"]
    assert "asyncio" in IMPORTS["fastcore._channel"]


@pytest.mark.parametrize("module", ["_framing", "_values", "_header", "_wire", "_socket", "_outbox"])
def test_bytes_become_messages_without_tornado_and_without_an_event_loop(module):
    program = f"import sys, fastcore.{module}; print(*sorted({{'tornado', 'asyncio'}} & {{*sys.modules}}))"
    with Program("-c", program) as running:
        assert running.rest() == ""
        assert running.wait() == 0, running.errors


def test_what_only_some_servers_have_is_imported_by_those_alone():
    program = """if True:
    import sys
    from fastcore import Server
    rooms = "admission", "middleware"
    Server({})
    print(*[room for room in rooms if f"fastcore.server.{room}" in sys.modules])
    Server({}, token="correct horse", middleware=[lambda call: call])
    print(*[room for room in rooms if f"fastcore.server.{room}" in sys.modules])
    """
    with Program("-c", program) as running:
        assert running.rest().splitlines() == ["", "admission middleware"]
        assert running.wait() == 0, running.errors


def test_nothing_needs_an_extra():
    """Not even if it is there: neither is it imported, nor missed."""
    program = f"""if True:
    import asyncio, sys
    class Nothing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {EXTRAS.split()}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Nothing())
    from fastcore import *
    async def main():
        async with Server({{"echo": lambda stream, x: x}}, compression="zlib") as server:
            server.listen(0, "127.0.0.1")
            async with rpc(ip="127.0.0.1", port=server.port) as remote:
                print(len(await remote.echo(x=bytes(10_000))))
    asyncio.run(main())
    print(*{{name.partition(".")[0] for name in sys.modules}} & {{*{EXTRAS.split()}}})
    """
    with Program("-c", program) as running:
        assert running.rest() == "10000\n"
        assert running.wait() == 0, running.errors
