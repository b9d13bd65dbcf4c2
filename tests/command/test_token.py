"""The command and tokens: from a file or the environment, never among its arguments."""

from pathlib import Path

import pytest

from helpers.commands import fastcore, served_at

pytest.importorskip("pty", reason="there are signals in it")

SHOP = """
from fastcore import Server, caller_of

handlers = {"add": lambda stream, x, y: x + y}

class Known(Server):
    def __init__(self, token=None):
        super().__init__({"whoami": caller_of}, token=token)

class Closed(Server):
    def __init__(self):
        super().__init__({})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "token").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("wrong\n")
    (tmp_path / "empty").write_text("\n")
    return tmp_path


def output_of(folder: Path, *arguments: str) -> tuple[str, str]:
    """What it prints, and what it says on stderr."""
    with fastcore(*arguments, cwd=folder) as program:
        output = program.rest()
        program.wait()
        return output, program.errors.strip()


def test_serve_asks_for_the_token_and_call_and_ping_show_it(folder: Path):
    with served_at(folder, "--token-file", "token") as address:
        with_token = ("--token-file", "token")
        assert output_of(folder, "call", address, "add", "x=1", "y=2", *with_token) == ("3", "")
        assert "10 round trips" in output_of(folder, "ping", address, "-n", "10", *with_token)[0]


def test_the_environment_has_it_too(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with served_at(folder, "--token-file", "token") as address:
        monkeypatch.setenv("FASTCORE_TOKEN", "correct horse")
        assert output_of(folder, "call", address, "add", "x=1", "y=2") == ("3", "")


def test_without_it_or_with_another_one_there_is_one_line_that_says_so(folder: Path):
    with served_at(folder, "--token-file", "token") as address:
        call = ("call", address, "add", "x=1", "y=2")
        refused = "none of the server's tokens"
        assert refused in output_of(folder, *call, "--token-file", "wrong")[1]
        output, errors = output_of(folder, *call)
        assert output == ""
        assert len(errors.splitlines()) == 1
        assert "this server asks for a token" in errors


@pytest.mark.parametrize("file", ["nowhere", "empty"])
def test_a_file_without_a_token_is_told(folder: Path, file: str):
    output, errors = output_of(folder, "serve", "shop:handlers", "--token-file", file)
    assert output == ""
    assert errors.startswith(f"fastcore: can't take the token of {file}: ")


def test_a_server_subclass_is_made_with_the_token(folder: Path):
    with served_at(folder, "--token-file", "token", target="shop:Known") as address:
        assert output_of(folder, "call", address, "whoami", "--token-file", "token") == ("token", "")


def test_one_that_takes_no_token_is_not_served_without(folder: Path):
    output, errors = output_of(folder, "serve", "shop:Closed", "--token-file", "token")
    assert output == ""
    assert errors == (
        "fastcore: 'shop:Closed' got an unexpected keyword argument 'token'; "
        "let its __init__ take **kwargs, and give them to that of Server"
    )
