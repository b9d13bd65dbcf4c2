"""The command, as a user runs it: arguments in; output, one line of error and an exit code out."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fastcore import Server
from fastcore.command import call, cli, demo
from fastcore.command.usage import CommandError, in_one_line
from fastcore.remote_errors import remote_exception
from helpers.commands import fastcore, served_at
from helpers.support import DEADLINE, Program

pty = pytest.importorskip("pty", reason="there are signals, terminals and unix sockets in it")

SHOP = """
import datetime

from fastcore import Server

def echo(stream, **keywords):
    return keywords

def fail(stream):
    raise KeyError("no such\\nthing")

async def never(stream):
    import asyncio
    import pathlib
    pathlib.Path(__file__).with_name("called").touch()
    await asyncio.Event().wait()

def clear_screen(stream, fail=False):
    text = "\\x1b[2J\\x07wiped"
    if fail:
        raise KeyError(text)
    return text

def binary(stream):
    return [b"raw", {"key": b"\\xff"}]

def dated(stream):
    return {"day": datetime.date(2024, 2, 29), "ids": {1}}

def rows(stream, count, then=None):
    for n in range(count):
        yield {"row": n}
    if then == "fail":
        raise KeyError("no more")

async def drip(stream):
    import asyncio
    import pathlib
    try:
        yield "first"
        await asyncio.Event().wait()
    finally:
        pathlib.Path(__file__).with_name("over").touch()

def endless(stream):
    while True:
        yield "again"

handlers = {
    "echo": echo, "fail": fail, "never": never, "binary": binary,
    "clear_screen": clear_screen, "rows": rows, "drip": drip, "endless": endless,
    "dated": dated,
}

class Counter(Server):
    def __init__(self):
        self.count = 0
        super().__init__({"increment": self.increment})

    def increment(self, stream, by=1):
        self.count += by
        return self.count

wrong = {"add": lambda stream, x, y: x * y}
not_handlers = 12
"""


class Outcome(NamedTuple):
    output: str
    errors: str
    code: int


def outcome(*arguments: str, **options: object) -> Outcome:
    with fastcore(*arguments, **options) as program:
        return outcome_of(program)


def outcome_of(program: Program) -> Outcome:
    output = program.rest()
    code = program.wait()
    return Outcome(output, program.errors, code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one server for all that leave nothing behind in it."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    with served_at(folder) as address:
        yield address


def assert_told(result: Outcome, *words: str, code: int = 1) -> None:
    """One line on stderr, no output."""
    assert result.code == code
    assert result.output == ""
    assert len(result.errors.splitlines()) == 1, result.errors
    for word in words:
        assert word in result.errors


# -- demo


def test_demo_shows_what_is_said_and_how_fast():
    result = outcome("demo")
    assert result.code == 0, result.errors
    assert "->  {'op': 'add', 'x': 1, 'y': 2}\n    <-  3" in result.output
    assert "<-  1\n    <-  2\n    <-  3" in result.output
    assert "->  remote.add(x=1, y=2)\n    <-  3" in result.output
    assert "calls/s" in result.output.splitlines()[-1]
    assert "messages/s" in result.output.splitlines()[-1]


def test_demo_tells_that_its_server_does_not_start(monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "fastcore: the server ended with exit code 1\n"


def test_demo_tells_of_a_wrong_answer(folder: Path, monkeypatch, capsys):
    with served_at(folder, target="shop:wrong") as address:

        @asynccontextmanager
        async def wrong_server() -> AsyncIterator[int]:
            yield int(address.rpartition(":")[2])

        monkeypatch.setattr(demo, "_server_process", wrong_server)
        assert cli.main(["demo"]) == 1
        assert capsys.readouterr().err == "fastcore: the server answered 2 where 3 is right\n"


# -- serve


def test_serve_takes_a_dict_of_handlers(shop: str):
    assert outcome("call", shop, "echo", "x=1").output == "{'x': 1}"


def test_serve_takes_a_server_subclass_that_keeps_its_state(folder: Path):
    with served_at(folder, target="shop:Counter") as address:
        assert outcome("call", address, "increment").output == "1"
        assert outcome("call", address, "increment", "by=10").output == "11"


def test_serve_is_reachable_from_this_machine_only_unless_told_otherwise(shop: str):
    assert shop.startswith("127.0.0.1:")


def test_serve_ends_quietly_on_ctrl_c(folder: Path):
    with fastcore("serve", "shop:handlers", cwd=folder) as server:
        server.line()
        server.send(signal.SIGINT)
        assert server.wait() == 0
        assert server.errors == ""


def test_serve_says_that_a_port_is_taken(folder: Path):
    with served_at(folder) as address:
        port = address.rpartition(":")[2]
        # Tornado leaves the socket that it could not bind to the garbage collector.
        silent = ("-W", "ignore::ResourceWarning", "-m", "fastcore")
        with Program(*silent, "serve", "shop:handlers", "--port", port, cwd=folder) as second:
            result = outcome_of(second)
    assert_told(result, "127.0.0.1", port, "in use")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere:handlers", ["nowhere"]),
        ("shop:missing", ["missing"]),
        ("shop:not_handlers", ["int", "dict of handlers"]),
    ],
)
def test_serve_says_what_is_wrong_with_a_target(folder: Path, target: str, words: list[str]):
    assert_told(outcome("serve", target, cwd=folder), *words)


# -- call


def test_call_takes_json_values_and_other_strings(shop: str):
    keywords = ["number=1.5", "items=[1, null]", "word=plain", 'quoted="1"', "empty=", "equation=a=b"]
    result = outcome("call", shop, "echo", *keywords, "--json")
    assert json.loads(result.output) == {
        "number": 1.5,
        "items": [1, None],
        "word": "plain",
        "quoted": "1",
        "empty": "",
        "equation": "a=b",
    }


def test_call_sends_any_keyword_even_those_that_python_callers_use_otherwise(shop: str):
    result = outcome("call", shop, "echo", "timeout=1", "ip=2", "addr=3")
    assert result.output == "{'timeout': 1, 'ip': 2, 'addr': 3}"


def test_call_shows_bytes_as_text_in_json(shop: str):
    assert json.loads(outcome("call", shop, "binary", "--json").output) == ["raw", {"key": "\\xff"}]


def test_call_shows_a_value_in_json_as_programs_of_2016_would_see_it(shop: str):
    assert json.loads(outcome("call", shop, "dated", "--json").output) == {
        "day": "2024-02-29",
        "ids": [1],
    }
    assert "datetime.date(2024, 2, 29)" in outcome("call", shop, "dated").output


def test_call_prints_each_answer_of_a_generator_on_a_line_of_its_own(shop: str):
    assert outcome("call", shop, "rows", "count=3").output == "{'row': 0}\n{'row': 1}\n{'row': 2}"
    lines = outcome("call", shop, "rows", "count=3", "--json").output.splitlines()
    assert [json.loads(line) for line in lines] == [{"row": 0}, {"row": 1}, {"row": 2}]


def test_call_prints_a_list_that_is_one_answer_on_one_line(shop: str):
    assert outcome("call", shop, "echo", "a=[1, 2]").output == "{'a': [1, 2]}"
    assert outcome("call", shop, "rows", "count=0").output == "[]"
    assert outcome("call", shop, "binary").output == str([b"raw", {"key": b"\xff"}])


def test_call_prints_answers_as_they_come_and_ends_the_handler_when_it_is_ended(folder: Path):
    with served_at(folder) as address:
        with fastcore("call", address, "drip") as call:
            assert call.line() == "first"
            assert not (folder / "over").exists()
            call.send(signal.SIGINT)
            assert call.wait() == 130
            assert call.errors == ""
        deadline = time.monotonic() + 30
        while not (folder / "over").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_call_prints_the_answers_before_an_error(shop: str):
    result = outcome("call", shop, "rows", "count=1", "then=fail")
    assert result.output == "{'row': 0}"
    assert result.code == 1
    # On a slow machine there is a line before it that says that it still tries to connect.
    assert "KeyError" in result.errors.splitlines()[-1]


async def test_call_prints_answers_also_where_an_error_comes_together_with_them(capsys):
    def rows(stream):
        yield "first"
        raise KeyError("no more")

    server = Server({"rows": rows})
    server.listen(0, "127.0.0.1")
    # In one loop: the server has said all before the client is back at its socket.
    with pytest.raises(CommandError, match="no more"):
        await call.run(cli.parser().parse_args(["call", f"127.0.0.1:{server.port}", "rows"]))
    assert capsys.readouterr().out == "first\n"
    await server.shutdown()


def test_call_tells_that_a_further_answer_takes_too_long(shop: str):
    result = outcome("call", shop, "drip", "--timeout", "0.5")
    assert (result.output, result.code) == ("first", 1)
    assert "no further answer to 'drip'" in result.errors


def test_call_ends_quietly_when_nobody_reads_its_output_any_more(shop: str):
    command = [sys.executable, "-m", "fastcore", "call", shop, "endless"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as call:
        assert call.stdout is not None
        assert call.stdout.readline() == "again\n"
        call.stdout.close()
        assert call.wait(DEADLINE) == 1
        assert call.stderr is not None
        assert call.stderr.read() == ""


def test_what_a_server_says_gives_no_orders_to_the_terminal(shop: str):
    assert outcome("call", shop, "clear_screen").output == r"\x1b[2J\x07wiped"
    assert "\x1b" not in outcome("call", shop, "clear_screen", "fail=true").errors


def test_call_without_a_reply_ends_at_once(shop: str):
    assert outcome("call", shop, "echo", "reply=false") == ("", "", 0)


def test_call_tells_the_error_of_the_handler(shop: str):
    assert_told(outcome("call", shop, "fail"), "'fail'", shop, "KeyError", "no such")


def test_call_tells_of_an_unknown_op(shop: str):
    assert_told(outcome("call", shop, "nothing"), "nothing", "echo")


def test_call_tells_that_an_answer_takes_too_long(shop: str):
    assert_told(outcome("call", shop, "never", "--timeout", "0.2"), "never", shop, "0.2 s")


def test_call_tells_that_nobody_listens():
    assert_told(outcome("call", "127.0.0.1:1", "echo", "--timeout", "0.2"), "127.0.0.1:1", "0.2 s")


def test_ctrl_c_is_quiet(folder: Path):
    with served_at(folder) as address, fastcore("call", address, "never") as call:
        deadline = time.monotonic() + 30
        while not (folder / "called").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        call.send(signal.SIGINT)
        assert call.wait() == 130
        assert call.errors == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["call"],
        ["call", "no-port", "op"],
        ["call", "127.0.0.1:99999", "op"],
        ["call", "127.0.0.1:8888", "op", "not-a-keyword"],
        ["call", "127.0.0.1:8888", "add", "op=sub"],
        ["ping", "127.0.0.1:8888", "-n", "0"],
        ["ping", "127.0.0.1:8888", "--timeout", "soon"],
        ["serve", "shop"],
        ["serve", "shop:handlers", "--port", "99999"],
        ["serve", "shop:handlers", "--workers", "0"],
        ["serve", "shop:handlers", "--limit", "max_connections"],
        ["serve", "shop:handlers", "--limit", "max_conections=1"],
        ["serve", "shop:handlers", "--limit", "max_connections=-1"],
        ["serve", "shop:handlers", "--limit", "token=secret"],
        ["serve", "shop:handlers", "--limit", "error_detail=all"],
        ["serve", "shop:handlers", "--limits", "/nowhere.toml"],
        ["serve", "shop:handlers", "--expose", "secrets"],
        ["serve", "shop:handlers", "--monitor", "here"],
        ["serve", "shop:handlers", "--log-level", "loud"],
        ["stats", "no-port"],
        ["completion", "powershell"],
    ],
)
def test_wrong_usage_gets_one_line_and_exit_code_2(arguments: list[str], capsys):
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert_told(Outcome(*capsys.readouterr(), code), "--help", code=2)


def test_alone_it_shows_its_help():
    result = outcome()
    assert (result.code, result.errors) == (0, "")
    assert "serve" in result.output


def test_verbose_shows_where_an_error_comes_from():
    result = outcome("--verbose", "call", "127.0.0.1:1", "echo", "--timeout", "0.1")
    assert result.code == 1
    assert "Traceback" in result.errors


# -- ping


def test_ping_shows_minimum_median_and_p99(shop: str):
    result = outcome("ping", shop, "-n", "20")
    assert result.code == 0
    assert result.errors == "", "no progress line where nobody watches"
    assert result.output.startswith(f"{shop}: 20 round trips, min ")
    assert ", median " in result.output
    assert ", p99 " in result.output


def test_ping_shows_its_progress_on_a_terminal(shop: str):
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "fastcore", "ping", shop, "-n", "20"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=terminal, check=True, timeout=DEADLINE)
    shown = os.read(controller, 10_000).decode()
    os.close(controller)
    os.close(terminal)
    assert shown.startswith("\r1 of 20, the last one ")
    assert shown.endswith("\r\x1b[K"), "the line is gone when the figures come"


def test_ping_tells_that_nobody_listens():
    assert_told(outcome("ping", "127.0.0.1:1", "--timeout", "0.2"), "127.0.0.1:1")


def test_ping_tells_that_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        assert_told(outcome("ping", address, "--timeout", "0.2"), address, "no answer", "0.2 s")


# -- run-classic

CLASSIC = """
import sys
from distributed.core import rpc, Server
import distributed.core
print(__name__, sys.argv[1:], distributed.core.Server is Server, Server.__module__)
"""


def test_run_classic_runs_an_old_program_on_fastcore(tmp_path: Path):
    (tmp_path / "old.py").write_text(CLASSIC)
    expected = "__main__ ['--flag', 'x'] True fastcore.server.server"
    assert outcome("run-classic", "old.py", "--flag", "x", cwd=tmp_path) == (expected, "", 0)
    assert outcome("run-classic", "-m", "old", "--flag", "x", cwd=tmp_path) == (expected, "", 0)


def test_run_classic_finds_the_modules_beside_the_program(tmp_path: Path):
    (tmp_path / "old.py").write_text("import beside")
    (tmp_path / "beside.py").write_text("print('found')")
    assert outcome("run-classic", str(tmp_path / "old.py")).output == "found"


FORKS = """
from multiprocessing import Process

def show():
    import distributed.core
    print(distributed.core.__name__)

if __name__ == "__main__":
    child = Process(target=show)
    child.start()
    child.join()
"""


def test_run_classic_has_the_processes_of_the_program_on_fastcore(tmp_path: Path):
    (tmp_path / "forks.py").write_text(FORKS)
    assert outcome("run-classic", "forks.py", cwd=tmp_path) == ("fastcore", "", 0)
    assert outcome("run-classic", "-m", "forks", cwd=tmp_path) == ("fastcore", "", 0)


def test_run_classic_ends_as_the_program_ends(tmp_path: Path):
    (tmp_path / "exits.py").write_text("raise SystemExit(7)")
    (tmp_path / "fails.py").write_text("1 / 0")
    assert outcome("run-classic", "exits.py", cwd=tmp_path).code == 7
    failed = outcome("run-classic", "fails.py", cwd=tmp_path)
    assert failed.code == 1
    assert "ZeroDivisionError" in failed.errors
    assert "fails.py" in failed.errors, "the author of a program wants its traceback"


def test_run_classic_tells_that_there_is_no_such_program(tmp_path: Path):
    assert_told(outcome("run-classic", "missing.py", cwd=tmp_path), "missing.py")


def test_serve_listens_on_a_unix_socket_where_it_is_told_to(tmp_path: Path):
    (tmp_path / "shop.py").write_text(SHOP)
    address = f"unix:{tmp_path}/shop.sock"
    with fastcore("serve", "shop:handlers", "--host", address, cwd=tmp_path) as program:
        assert program.line() == f"serving shop:handlers on {address}"
        with fastcore("call", address, "echo", "x=1") as call:
            assert call.line() == "{'x': 1}"
        program.send(signal.SIGTERM)
        assert program.wait() == 0
    assert not (tmp_path / "shop.sock").exists()


def test_an_error_of_any_length_is_told_by_its_beginning():
    described = {"type": "E", "message": "\x1b[31m\n" + "x" * 10_000}
    told = in_one_line(remote_exception({"exception": described}, "a:1", "op"))
    assert told.startswith("E: \\x1b[31m xxx")
    assert told.endswith("x...")
    assert len(told) < 2_100
