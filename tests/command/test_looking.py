"""``fastcore stats``, ``top`` and ``ops``: what a server tells of itself, and its monitor."""

import asyncio
import json
import sys
from typing import NamedTuple

import pytest

from fastcore import ConnectionLost, Monitor, rpc
from fastcore.command import cli, top
from fastcore.command.usage import CommandError
from helpers.support import in_a_thread
from helpers.wire import served


class Outcome(NamedTuple):
    output: str
    errors: str
    code: int


@pytest.fixture
def command(capfd):
    """The command, in a thread beside the server's loop."""

    async def run(*arguments: str) -> Outcome:
        code = await in_a_thread(lambda: cli.main(arguments))
        return Outcome(*capfd.readouterr(), code)

    return run


def greet(stream, name: str, loudly: bool = False) -> str:
    """Say hello.

    In the usual way.
    """
    return f"hello {name}"


async def test_stats_are_told_by_the_server_itself_where_it_says_so(command):
    async with served({"greet": greet}, expose=["stats"]) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await remote.greet(name="Ada")
        result = await command("stats", f"127.0.0.1:{server.port}")
    assert (result.errors, result.code) == ("", 0)
    lines = result.output.splitlines()
    assert lines[0].startswith(f"127.0.0.1:{server.port}: ready, up ")
    assert any(line.split()[:3] == ["greet", "1", "0"] for line in lines)


async def test_stats_are_told_as_json(command):
    async with served(expose=["stats"]) as server:
        result = await command("stats", f"127.0.0.1:{server.port}", "--json")
    assert json.loads(result.output)["health"] == "ready"


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "http://127.0.0.1:{}/", "127.0.0.1:{}"])
async def test_a_monitor_is_asked_by_http_also_where_nobody_says_that_it_is_one(command, form):
    async with served({"greet": greet}) as server, Monitor(server) as monitor:
        monitor.listen(0)
        stats = await command("stats", form.format(monitor.port))
        ops = await command("ops", form.format(monitor.port))
    assert ": ready, up " in stats.output
    assert "greet(name: str, loudly: bool = False) -> str\n    Say hello.\n" in ops.output


async def test_ops_are_told_by_the_server_itself_where_it_says_so(command):
    async with served({"greet": greet}, expose=["ops"]) as server:
        shown = await command("ops", f"127.0.0.1:{server.port}")
        told = await command("ops", f"127.0.0.1:{server.port}", "--json")
    assert "greet(name: str, loudly: bool = False) -> str\n    Say hello.\n" in shown.output
    assert {"op": "add", "signature": "(x, y)", "doc": ""} in json.loads(told.output)


@pytest.mark.parametrize("what", ["stats", "ops"])
async def test_a_server_that_does_not_tell_is_no_riddle(command, what):
    async with served() as server:
        result = await command(what, f"127.0.0.1:{server.port}")
    assert (result.output, result.code) == ("", 1)
    assert f"--expose {what}" in result.errors
    assert "--monitor" in result.errors


async def test_a_server_that_is_no_monitor_is_told(command):
    async with served() as server:
        result = await command("stats", f"http://127.0.0.1:{server.port}")
    assert (result.output, result.code) == ("", 1)
    assert f"http://127.0.0.1:{server.port} tells no stats" in result.errors


async def test_what_a_server_says_gives_no_orders_to_the_terminal(command):
    def fail(stream):
        raise KeyError("\x1b[2J")

    async with served({"\x1b[31m": greet, "fail": fail}, expose=["stats", "ops"]) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(KeyError):
                await remote.fail()
        address = f"127.0.0.1:{server.port}"
        for result in [await command("stats", address), await command("ops", address)]:
            assert result.code == 0
            assert "\x1b" not in result.output


async def test_top_shows_the_server_again_and_again(command):
    pytest.importorskip("rich")

    async def wait(stream):
        await asyncio.Event().wait()

    async with (
        served({"wait": wait, "[bold]markup": greet}, expose=["stats"]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        await getattr(remote, "[bold]markup")(name="x")
        call = remote.wait()
        await remote.add(x=1, y=2)
        result = await command("top", f"127.0.0.1:{server.port}", "--every", "0.05", "-n", "3")
        call.cancel()
    assert (result.errors, result.code) == ("", 0)
    assert "calls/s" in result.output
    assert "[bold]markup" in result.output
    assert "wait" in result.output


@pytest.mark.parametrize("comes_back", [False, True])
async def test_top_outlives_its_server_and_says_so(command, monkeypatch, comes_back: bool):
    pytest.importorskip("rich")
    async with served() as server:
        snapshot = server.snapshot()
    answers = [snapshot, CommandError("nobody is there"), ConnectionLost("it ended"), snapshot][
        : 3 + comes_back
    ]
    looks = iter(answers)

    async def ask(arguments, what):
        match next(looks):
            case Exception() as error:
                raise error
            case told:
                return told

    monkeypatch.setattr(top, "ask", ask)
    result = await command("top", "127.0.0.1:1", "--every", "0", "-n", str(len(answers)))
    assert (result.errors, result.code) == ("", 0)
    assert ("it ended; it is tried again" in result.output) is not comes_back
    assert "calls/s" in result.output


async def test_top_without_rich_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.live", None)
    result = await command("top", "127.0.0.1:1")
    assert result.code == 1
    assert "fastcore-rpc[rich]" in result.errors


async def test_completion_is_for_all_commands(command):
    pytest.importorskip("shtab")
    result = await command("completion", "bash")
    assert result.code == 0
    for name in ("serve", "run-classic", "--workers"):
        assert name in result.output
    assert "_certfile_COMPGEN=_shtab_compgen_files" in result.output
