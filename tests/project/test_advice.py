"""What errors advise exists: each ``keyword=`` that they name is one of some public call."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastcore
from fastcore import ConnectionPool, Limits, Server, SyncClient, register_type, rpc

HOUSE = Path(fastcore.__file__).parent
CALLS = (Server, rpc, ConnectionPool, SyncClient, Limits, register_type)
#: `ip` and `port` are named where they are lacking, `io_loop` where it is ignored; calls have `reply`.
PUBLIC = {"ssl_options", "io_loop", "reply"}.union(*(inspect.signature(call).parameters for call in CALLS))
NAMED = re.compile(r"\b([a-z][a-z_]+)=(?![={\w.(])")
LIMITS = re.compile(r'(?:FrameTooLarge|LimitReached)\([^)]*?"((?:max_|\w+_timeout)\w*)"')
FILES = [path for path in sorted(HOUSE.rglob("*.py*")) if path.suffix in (".py", ".pyx")]


def told(node: ast.AST) -> Iterator[str]:
    """The texts of a program, but for its documents and its reprs."""
    if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from told(child)


def texts(path: Path) -> list[str]:
    if path.suffix == ".py":
        return [*told(ast.parse(path.read_text()))]
    code = re.sub(r'"""(?s:.)*?"""', "", path.read_text())
    code = re.sub(r"    def __repr__\(self\):\n(        .*\n)+", "", code)
    return re.findall(r'"((?:[^"\\\n]|\\.)*)"', code)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_keyword_that_an_error_names_exists(path):
    for text in texts(path):
        assert {*NAMED.findall(text)} <= PUBLIC, text


def test_a_limit_that_an_error_is_given_to_name_exists():
    named = {name for path in FILES for name in LIMITS.findall(path.read_text())}
    assert {"max_decompressed_size", "max_connections", "handshake_timeout"} <= named <= PUBLIC


@pytest.mark.skipif(not [*HOUSE.glob("*.pyx")], reason="a wheel has no sources of the compiled modules")
def test_what_is_read_here_is_what_there_is():
    found = {name for path in FILES for text in texts(path) for name in NAMED.findall(text)}
    assert {"max_depth", "max_values", "ssl_options"} <= found
