"""What documents show must run, and print what they say; what they tell of the code must be so."""

import ast
import asyncio
import dataclasses
import doctest
import importlib
import inspect
import re
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgpack
import pytest

import fastcore
from fastcore import MAX_BUFFER_SIZE, ConnectionPool, Limits, Server, _parts, rpc
from fastcore.client import connections
from fastcore.server import connection, held, turns
from fastcore.values.kinds import Code
from helpers.support import Program
from helpers.wire import SENTINEL, Stranger, frame, served, stranger_at

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: Where the installed wheel is tested, alone, there are none.
needs_sources = pytest.mark.skipif(not (ROOT / "fastcore").is_dir(), reason="the sources aren't here")
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
#: What makes a block a whole program, whichever loop it starts.
RUNS = re.compile(r"^(?:(?:asyncio|uvloop|trio)\.run\(|with ServerInThread\()", re.MULTILINE)
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMPILED = sorted(
    path.name.split(".")[0]
    for path in Path(fastcore.__path__[-1]).iterdir()
    if path.name.endswith(EXTENSION_SUFFIXES[0])
)


def blocks(path: Path) -> list[tuple[str, str]]:
    """The blocks of Python and of text in a document: what is what, and what stands there."""
    return BLOCK.findall(path.read_text())


def programs() -> list[Any]:
    """The whole programs in the documents, and what each prints: the text that follows it."""
    found = []
    for path in [ROOT / "README.md", *(DOCS / page for page in PAGES)]:
        here = blocks(path)
        for number, (language, program) in enumerate(here):
            if language == "python" and RUNS.search(program) and "fastcore_server" not in program:
                what, printed = here[number + 1]
                assert what == "text", f"what does this program of {path.name} print?\n{program}"
                found.append(pytest.param(program, printed, id=f"{path.stem}-{len(found)}"))
    return found


@pytest.mark.parametrize(("program", "printed"), programs())
def test_a_program_prints_what_the_document_says(program: str, printed: str):
    for loop in re.findall(r"^import (uvloop|trio)$", program, re.MULTILINE):
        pytest.importorskip(loop)
    with Program("-c", program) as running:
        assert running.rest() == printed.rstrip("\n")
        assert running.wait() == 0, running.errors
    if "except PermissionError" not in program:
        # Who is refused is named in the log; else a program says nothing besides. (In its dev mode, asyncio
        # names what took long on a busy machine.)
        assert [line for line in running.errors.splitlines() if not line.startswith("Executing <")] == []


def test_the_tests_on_the_page_of_testing_pass(tmp_path: Path):
    [tests] = [code for _, code in blocks(DOCS / "testing.md") if "fastcore_server" in code]
    (tmp_path / "test_it.py").write_text(tests)
    plugin = () if entry_points(group="pytest11", name="fastcore") else ("-p", "fastcore.testing")
    with Program("-m", "pytest", "-q", *plugin, "-p", "no:cacheprovider", ".", cwd=tmp_path) as running:
        assert running.rest().splitlines()[-1].startswith("3 passed")


@needs_sources
def test_the_page_on_migration_names_all_that_the_programs_of_2016_are_given_back():
    given_back = (ROOT / "tests" / "interop" / "today" / "sitecustomize.py").read_text()
    names = re.findall(r"^ *(?:\w+\.)+(\w+)(?:, \w+\.\w+)* = ", given_back, re.MULTILINE)
    names += re.findall(r'sys\.modules\["(\w+)"\]', given_back)
    page = words("migration.md")
    assert {"getargspec", "loads", "pkg_resources"} <= {*names}
    assert [name for name in names if name not in page] == []


def test_the_index_has_each_page_once():
    listed = re.findall(r"^(\w+)$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")


def test_the_readme_and_the_page_of_calls_have_programs():
    assert {program.id.partition("-")[0] for program in programs()} >= {"README", "calls"}


def test_all_that_the_page_of_calls_shows_is_run():
    """As a program, or as a doctest."""
    for language, code in blocks(DOCS / "calls.md"):
        assert language != "python" or "asyncio.run(" in code or ">>> " in code, code


@pytest.mark.parametrize("page", PAGES)
def test_the_doctests_of_a_page(page: str):
    """What a page shows is one session, from its beginning to its end."""
    shown = "\n".join(
        code for language, code in blocks(DOCS / page) if language == "python" and ">>> " in code
    )
    session = doctest.DocTestParser().get_doctest(shown, {}, page, str(DOCS / page), 0)
    assert doctest.DocTestRunner().run(session).failed == 0


NAMED = re.compile(r"`((?:fastcore|tests|docs|examples|bench)/[\w./]+|test_\w+\.py|[A-Z]+\.md)`")


@needs_sources
@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/wire.md"]
)
def test_the_files_that_a_document_names_are_there(document: str):
    named = {name for name in NAMED.findall((ROOT / document).read_text()) if "_build" not in name}
    links = set(re.findall(r"\]\(((?!http)[\w./]+)\)", (ROOT / document).read_text()))
    places = [ROOT, ROOT / "tests" / "transport", (ROOT / document).parent]
    pages = {page.removesuffix(".md") for page in PAGES}
    missing = {name for name in named | links - pages if not any((place / name).exists() for place in places)}
    assert not missing


# ---- the wire


def conversation(heading: str) -> list[tuple[str, dict[str, Any], str]]:
    """What is said in a section of docs/wire.md: by whom, the header, and the payload as it stands there."""
    section = (DOCS / "wire.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = "".join(text for language, text in BLOCK.findall(section) if language == "text").splitlines()
    found = []
    for line in lines:
        who, header, payload = re.fullmatch(r"(->|<-)  (\{.*?\}) +(.*)", line).groups()
        found.append((who, ast.literal_eval(header), payload))
    return found


async def hears(stranger: Stranger) -> tuple[dict[str, Any], Any]:
    data = await stranger.reader.readuntil(SENTINEL)
    size = int.from_bytes(data[:4], "little")
    header = msgpack.unpackb(data[4 : 4 + size]) if size else {}
    return header, msgpack.unpackb(data[4 + size : -len(SENTINEL)])


@pytest.mark.parametrize(
    ("heading", "options"), [("Numbered calls", {}), ("Showing a token", {"token": "correct horse"})]
)
async def test_a_server_says_what_the_conversations_on_the_wire_say(heading: str, options: dict[str, str]):
    def rows(stream, count):
        for number in range(count):
            yield f"row {number}"

    async def nap(stream):
        await asyncio.Event().wait()

    spoken = conversation(heading)
    assert {who for who, _, _ in spoken} == {"->", "<-"}
    async with served({"rows": rows, "nap": nap}, **options) as server, stranger_at(server) as stranger:
        for who, header, payload in spoken:
            if who == "->":
                stranger.say(frame(ast.literal_eval(payload), **header))
                continue
            heard_header, heard = await hears(stranger)
            assert heard_header == header
            if payload.endswith(", ...}"):
                shown = ast.literal_eval(payload.replace(", ...}", "}"))
                assert heard.items() >= shown.items()
            else:
                assert heard == ast.literal_eval(payload)


@needs_sources
def test_the_table_of_header_keys_is_whole():
    """Each key that the code writes down as MessagePack has it stands in the table, and none else."""
    source = (ROOT / "fastcore" / "_header.pyx").read_text()
    in_code = set(re.findall(r'^cdef bytes \w+ = b"\\xa\d([a-z]+)', source, re.MULTILINE)) | {"compression"}
    table = (DOCS / "wire.md").read_text().partition("## The header")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == in_code


def test_the_numbers_of_values_are_those_of_the_code():
    """And the text that says which are taken is true."""
    page = (DOCS / "values.md").read_text()
    table = page.partition("\n## On the wire\n")[2]
    told = {
        int(n)
        for numbers in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for n in numbers.split(", ")
    }
    assert told == {*Code}
    assert f"Numbers below {min(Code)}, and from {max(Code) + 1} on, are yours" in table


# ---- defaults


#: Defaults in a document that aren't written as Python has them.
IN_WORDS = {
    "half of the memory that there is": MAX_BUFFER_SIZE,
    "as `max_buffer_size`": None,
    "yes": True,
}
UNITS = {"KiB": 1024, "MiB": 1024**2, "s": 1}


def in_code(text: str) -> Any:
    """A default as the code has it, from how a document tells it."""
    if text in IN_WORDS:
        return IN_WORDS[text]
    number, _, unit = text.strip("`").partition(" ")
    value = ast.literal_eval(number.replace(",", ""))
    return value * UNITS[unit] if unit else value


def told_defaults(page: str, after: str) -> dict[str, Any]:
    """The defaults in the first table after a heading, by keyword."""
    section = (DOCS / page).read_text().partition(f"\n## {after}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    return {keyword: in_code(default) for keyword, default in rows}


def defaults(made: type) -> dict[str, Any]:
    """The defaults of a class's keywords."""
    keywords = inspect.signature(made.__init__).parameters.values()
    return {keyword.name: keyword.default for keyword in keywords if keyword.default is not keyword.empty}


def test_the_limits_of_the_page_on_security_are_those_of_the_code():
    of_limits = {field.name: field.default for field in dataclasses.fields(Limits)}
    of_server = defaults(Server)
    assert of_server["max_buffer_size"] == of_limits["max_buffer_size"]
    expected = of_limits | of_server
    # These limit nothing.
    for keyword in ("compression", "token", "authenticate", "middleware", "expose", "writable_values"):
        del expected[keyword]
    assert told_defaults("security.md", "Limits") == expected


@pytest.mark.parametrize("caller", [rpc, ConnectionPool])
def test_the_keywords_of_the_page_on_calls_have_the_defaults_of_the_code(caller: type):
    of_caller = defaults(caller)
    for address in ("arg", "stream", "ip", "port", "addr"):
        of_caller.pop(address, None)
    assert told_defaults("calls.md", "Keywords of a caller") == of_caller


def words(page: str) -> str:
    """A page in one line, however it is broken."""
    return " ".join((DOCS / page).read_text().split())


def test_the_numbers_on_the_page_of_calls_are_those_of_the_code():
    told = words("calls.md")
    assert f"the caller lets {_parts.FIRST_WINDOW} answers be on their way" in told
    assert f"some {_parts.BYTES_IN_WINDOW // 1024} KiB together" in told
    assert f"from {_parts.SMALLEST_WINDOW} to {_parts.LARGEST_WINDOW:,}" in told
    assert f"answer within {connections._FIRST_ANSWER_TIMEOUT * 1000:g} ms" in " ".join(told.split())
    assert connections._PROBE_TIMEOUT == 1.0
    assert f"After {turns.TURN_BUDGET / 1e6:g} ms" in told
    assert connection._BYTES_OF_ONE == 256 * 1024
    assert "counts once more for each 256 KiB" in told
    assert f"counts as {held._MIN_SIZE} bytes at least" in words("security.md")


def test_the_page_on_operations_tells_of_each_figure():
    figures = Server({}).stats()
    table = (DOCS / "operations.md").read_text().partition("\n## Figures\n")[2].partition("\n## ")[0]
    for name, value in figures.items():
        inner = sorted(value) if isinstance(value, dict) else []
        assert f"`{name}`" in table or f"`{name}." in table or name == "errors"
        for part in inner:
            assert f"`{name}.{part}`" in table or f"`.{part}`" in table


# ---- doctests of the code


def test_there_are_compiled_modules():
    assert "_framing" in COMPILED


@pytest.mark.parametrize("name", COMPILED)
def test_the_doctests_of_a_compiled_module(name: str):
    """Those of plain modules are collected by pytest itself."""
    module = importlib.import_module(f"fastcore.{name}")
    assert doctest.testmod(module).failed == 0
