"""``fastcore serve``: what operators tell it, and what it tells them."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastcore import TooDeep, rpc
from fastcore.command import cli
from fastcore.command.settings import limits_of
from helpers.certificates import OURS, client_context
from helpers.commands import fastcore, serving
from helpers.support import Program, in_a_thread
from helpers.web import get, get_json

pytest.importorskip("fcntl", reason="there are signals and unix sockets in it")

PROGRAM = """
import asyncio, os, time
from fastcore import Server

def add(stream, x, y):
    return x + y

async def slow(stream, seconds):
    print("working", flush=True)
    await asyncio.sleep(seconds)
    return "done"

def block(stream, seconds):
    print("blocking", flush=True)
    time.sleep(seconds)

handlers = {"add": add, "slow": slow, "block": block}

class Plain(Server):
    def __init__(self):
        super().__init__(handlers)

class Open(Server):
    def __init__(self, **kwargs):
        super().__init__(handlers, **kwargs)

made = Open(max_depth=3)
"""
HOOKS = """
async def on_start(server):
    print("registered", server.port, flush=True)

def on_end(server):
    print("left", server.health(), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "hooked.py").write_text(PROGRAM + HOOKS)
    return tmp_path


def port_of(line: str) -> int:
    return int(line.split(" on 127.0.0.1:")[1].partition(",")[0])


async def line_of(program: Program) -> str:
    return await in_a_thread(program.line)


# ---- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A server's certificate with its key, and the authority."""
    OURS.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    OURS.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "server.pem"), str(tmp_path / "ca.pem")


async def test_with_a_certificate_it_speaks_tls(folder: Path, certificate: tuple[str, str]):
    with serving(folder, "--certfile", certificate[0]) as (_, line):
        async with rpc(ip="127.0.0.1", port=port_of(line), ssl_options=client_context()) as remote:
            assert await remote.add(x=1, y=2) == 3


async def test_with_an_authority_it_asks_clients_for_certificates(folder: Path, certificate: tuple[str, str]):
    server, ca = certificate
    with serving(folder, "--certfile", server, "--cafile", ca) as (_, line):
        address = f"127.0.0.1:{port_of(line)}"
        command = ["-m", "fastcore", "call", address, "add", "x=1", "y=2", "--timeout", "5", "--cafile", ca]
        for certified, code in (([], 1), (["--certfile", server], 0)):
            with Program(*command, *certified) as call:
                output = await in_a_thread(call.rest)
                assert await in_a_thread(call.wait) == code, call.errors
                assert output == ("" if code else "3")


@pytest.mark.parametrize("option", ["--keyfile", "--cafile"])
def test_files_of_tls_without_a_certificate_are_told(folder: Path, option: str):
    with fastcore("serve", "shop:handlers", option, "x.pem", cwd=folder) as program:
        assert program.wait() == 2
        assert "--certfile" in program.errors


def test_a_file_that_is_no_certificate_is_told(folder: Path):
    with fastcore("serve", "shop:handlers", "--certfile", "shop.py", cwd=folder) as program:
        assert program.wait() == 1
        assert "certificate in shop.py" in program.errors


# ---- limits


async def test_limits_are_those_of_the_command_line_before_those_of_the_file(folder: Path):
    (folder / "limits.toml").write_text('max_depth = 3\nmax_values = 5\nidle_timeout = "none"\n')
    limits = ["--limits", "limits.toml", "--limit", "max_values=1_000"]
    with serving(folder, *limits) as (_, line):
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            assert await remote.add(x=[1] * 500, y=[]) == [1] * 500
            with pytest.raises(TooDeep, match="3 levels"):
                await remote.add(x=[[[[]]]], y=[])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("max_connections=1_000", 1_000),
        ("max_buffer_size=10MiB", 10 * 2**20),
        ("max_waiting=0.5 KiB", 512),
        ("slow_handler=0.25", 0.25),
        ("idle_timeout=none", None),
        ("cancel_handlers=false", False),
        ("error_detail=type", "type"),
        ("compression=zlib", "zlib"),
    ],
)
def test_a_limit_is_a_number_with_its_unit_or_a_word(text: str, value: object):
    arguments = cli.parser().parse_args(["serve", "shop:handlers", "--limit", text])
    assert limits_of(arguments) == {text.partition("=")[0]: value}


@pytest.mark.parametrize(
    "line", ["max_conections = 3", 'max_depth = "deep"', "max_depth = -1", "max_depth ="]
)
def test_a_file_of_limits_that_makes_no_sense_is_wrong_usage(folder: Path, line: str):
    (folder / "limits.toml").write_text(line)
    with Program(
        "-m", "fastcore", "serve", "shop:handlers", "--limits", "limits.toml", cwd=folder
    ) as program:
        assert program.wait() == 2
        assert len(program.errors.splitlines()) == 1


async def test_a_subclass_gets_limits_as_keywords(folder: Path):
    options = ("--limit", "max_depth=3", "--expose", "stats")
    with serving(folder, *options, target="shop:Open") as (_, line):
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            assert (await remote.stats())["type"] == "Open"
            with pytest.raises(TooDeep, match="3 levels"):
                await remote.add(x=[[[[]]]], y=[])


def test_a_subclass_that_takes_no_limits_is_told(folder: Path):
    for target, told in (("shop:Plain", "**kwargs"), ("shop:made", "is made already")):
        arguments = ("serve", target, "--limit", "max_depth=3")
        with fastcore(*arguments, cwd=folder) as program:
            assert program.wait() == 1
            assert "max_depth" in program.errors
            assert told in program.errors


async def test_a_server_that_is_made_already_is_served_as_it_is(folder: Path):
    with serving(folder, target="shop:made") as (_, line):
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            with pytest.raises(TooDeep, match="3 levels"):
                await remote.add(x=[[[[]]]], y=[])


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (
            "import nothing_there",
            "handlers",
            "ModuleNotFoundError: No module named 'nothing_there' ({bad}, line 1)",
        ),
        ("handlers = {}\n1 / 0", "handlers", "ZeroDivisionError: division by zero ({bad}, line 2)"),
        ("handlers = {}", "handler", "AttributeError: module 'bad' has no attribute 'handler'"),
    ],
)
def test_a_program_that_cannot_be_imported_is_told_with_its_line(
    folder: Path, source: str, target: str, told: str
):
    (folder / "bad.py").write_text(source)
    told = f"fastcore: can't serve 'bad:{target}': {told.format(bad=folder / 'bad.py')}"
    with fastcore("serve", f"bad:{target}", cwd=folder) as program:
        assert program.wait() == 1
        assert program.errors.splitlines() == [told]
    # And once more by its first worker, which says nothing else.
    with fastcore("serve", f"bad:{target}", "--workers", "2", cwd=folder) as program:
        assert program.wait() == 1
        assert told in program.errors.splitlines()
        assert "pending" not in program.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_takes_long_to_be_imported_can_be_ended(folder: Path, number: signal.Signals):
    (folder / "bad.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)")
    with fastcore("serve", "bad:handlers", cwd=folder) as program:
        assert program.line() == "importing"
        program.send(number)
        assert program.wait() == {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 130}[number]
        assert program.errors == ""


# ---- beginning and end


async def test_hooks_of_the_module_are_called_when_it_serves_and_before_it_ends(folder: Path):
    with fastcore("serve", "hooked:handlers", cwd=folder) as program:
        registered = await line_of(program)
        line = await line_of(program)
        assert registered == f"registered {port_of(line)}"
        program.send(signal.SIGTERM)
        assert await line_of(program) == "left ready"
        assert await in_a_thread(program.wait) == 0


def test_a_hook_that_fails_at_the_start_ends_it(folder: Path):
    (folder / "bad.py").write_text(PROGRAM + "def on_start(server):\n    raise LookupError('no registry')\n")
    with fastcore("serve", "bad:handlers", cwd=folder) as program:
        assert program.rest() == ""
        assert program.wait() == 1
        assert program.errors.splitlines()[-1] == "fastcore: on_start of bad raised LookupError: no registry"


def test_a_hook_that_hangs_at_the_start_can_be_ended(folder: Path):
    hook = "async def on_start(server):\n    print('hanging', flush=True)\n    await asyncio.sleep(600)\n"
    (folder / "bad.py").write_text(PROGRAM + hook)
    with fastcore("serve", "bad:handlers", cwd=folder) as program:
        assert program.line() == "hanging"
        program.send(signal.SIGTERM)
        assert program.wait() == 0


async def test_the_first_ctrl_c_says_what_it_waits_for_and_the_second_ends_at_once(folder: Path):
    with fastcore("serve", "shop:handlers", cwd=folder) as program:
        port = port_of(await line_of(program))
        async with rpc(ip="127.0.0.1", port=port) as remote:
            call = remote.slow(seconds=600)
            assert await line_of(program) == "working"
            program.send(signal.SIGINT)
            while "'slow' for" not in program.errors:
                await asyncio.sleep(0.01)
            assert "Ctrl-C once more ends at once" in program.errors
            program.send(signal.SIGINT)
            assert await in_a_thread(program.wait) == 130
            await asyncio.wait([call])
            assert call.exception() is not None


async def test_ctrl_c_twice_ends_it_also_while_a_handler_blocks_the_loop(folder: Path):
    with fastcore("serve", "shop:handlers", cwd=folder) as program:
        port = port_of(await line_of(program))
        async with rpc(ip="127.0.0.1", port=port) as remote:
            call = remote.block(seconds=600)
            assert await line_of(program) == "blocking"
            program.send(signal.SIGINT)
            while "blocks the loop" not in program.errors:
                await asyncio.sleep(0.01)
            program.send(signal.SIGINT)
            assert await in_a_thread(program.wait) == 130
            await asyncio.wait([call])
            assert call.exception() is not None


# ---- where it listens


async def test_a_unix_socket_is_there_as_long_as_it_serves(folder: Path):
    path = folder / "shop.sock"
    with serving(folder, "--host", f"unix:{path}") as (_, line):
        assert line == f"serving shop:handlers on unix:{path}"
        async with rpc(f"unix:{path}") as remote:
            assert await remote.add(x=1, y=2) == 3
    assert not path.exists()


ACTIVATION = """
import os, sys
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, [sys.executable, "-m", "fastcore", "serve", "shop:handlers", *sys.argv[2:]])
"""


@contextmanager
def activated(folder: Path, sock: socket.socket, *arguments: str) -> Iterator[Program]:
    fd = sock.fileno()
    with Program("-c", ACTIVATION, str(fd), *arguments, cwd=folder, pass_fds=[fd]) as program:
        yield program


async def test_a_socket_of_the_service_manager_is_served_and_left_as_it_was(folder: Path):
    path = str(folder / "managed.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        # Who knocks before it is there is served all the same.
        async with rpc(f"unix:{path}") as remote:
            call = remote.add(x=1, y=2)
            with activated(folder, sock) as program:
                assert await line_of(program) == f"serving shop:handlers on unix:{path}"
                assert await call == 3
                program.send(signal.SIGTERM)
                assert await in_a_thread(program.wait) == 0
    assert os.path.exists(path), "it is the service manager's"


def test_where_to_listen_is_said_once(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as sock, activated(folder, sock, "--port", "0") as program:
        assert program.wait() == 2
        assert "--port" in program.errors


def test_a_descriptor_that_does_not_listen_is_told(folder: Path):
    with socket.socket() as sock, activated(folder, sock) as program:
        assert program.wait() == 1
        assert "descriptor 3 isn't a socket that listens" in program.errors


async def test_a_service_manager_is_told_when_it_serves_and_when_it_ends(folder: Path):
    path = str(folder / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": path}
        arguments = ("-m", "fastcore", "serve", "shop:handlers")
        with Program(*arguments, cwd=folder, env=environment) as program:
            assert await in_a_thread(lambda: manager.recv(100)) == b"READY=1"
            program.send(signal.SIGTERM)
            assert await in_a_thread(lambda: manager.recv(100)) == b"STOPPING=1"
            assert await in_a_thread(program.wait) == 0


# ---- what it tells


async def test_a_monitor_is_opened_beside_it(folder: Path):
    with serving(folder, "--monitor", "0") as (_, line):
        port = int(line.partition("monitor on http://127.0.0.1:")[2].rstrip("/"))
        assert (await get(port, "/health")).body == b"ready"
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            await remote.add(x=1, y=2)
            assert (await get_json(port, "/stats"))["ops"]["add"]["count"] == 1


async def test_a_monitor_says_while_it_ends_that_it_does(folder: Path):
    with fastcore("serve", "shop:handlers", "--monitor", "0", cwd=folder) as program:
        line = await line_of(program)
        port = int(line.partition("monitor on http://127.0.0.1:")[2].rstrip("/"))
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            call = remote.slow(seconds=1)
            assert await line_of(program) == "working"
            program.send(signal.SIGTERM)
            while (answer := await get(port, "/health")).code == 200:
                await asyncio.sleep(0.01)
            assert answer.body == b"draining"
            assert await call == "done"
        assert await in_a_thread(program.wait) == 0


async def test_logs_as_json_are_an_object_on_each_line_also_with_what_peers_say(folder: Path):
    with serving(folder, "--log-format", "json") as (program, line):
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            with pytest.raises(ValueError, match="no handler"):
                await getattr(remote, 'x"}\n{"level": "FAKE')()
            with pytest.raises(TypeError):
                await remote.add(x=1, y=None)
    all_logged = [json.loads(line) for line in program.errors.splitlines()]
    # On a slow machine asyncio has something to say, too.
    logged = [entry for entry in all_logged if entry["logger"].startswith("fastcore")]
    assert [entry["level"] for entry in logged] == ["INFO", "WARNING"]
    assert "no handler" in logged[0]["message"]
    assert "TypeError" in logged[1]["traceback"]
    assert all(entry["process"] == program.process.pid for entry in logged)


async def test_a_log_level_bounds_what_is_logged_but_not_what_the_monitor_shows(folder: Path):
    with serving(folder, "--log-level", "error", "--monitor", "0") as (program, line):
        async with rpc(ip="127.0.0.1", port=port_of(line)) as remote:
            with pytest.raises(TypeError):
                await remote.add(x=1, y=None)
        port = int(line.partition("monitor on http://127.0.0.1:")[2].rstrip("/"))
        [warning] = (await get_json(port, "/stats"))["warnings"]
    assert "TypeError" in warning["text"]
    assert program.errors == ""
