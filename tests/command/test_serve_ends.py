"""``fastcore serve`` is told to end: what was acknowledged is done, what hangs doesn't hang the end."""

import asyncio
import signal
import time

import pytest

from fastcore import ConnectionLost, rpc
from helpers.commands import fastcore

HANDLERS = """
import asyncio

async def slow(stream):
    print("working")
    await asyncio.sleep(0.3)
    return "done"

async def never(stream):
    print("hanging")
    await asyncio.Event().wait()

handlers = {"slow": slow, "never": never}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_lets_running_handlers_answer_when_it_is_told_to_end(number, tmp_path):
    (tmp_path / "slowly.py").write_text(HANDLERS)
    with fastcore("serve", "slowly:handlers", cwd=tmp_path) as program:
        port = int(program.line().rpartition(":")[2])
        async with rpc(ip="127.0.0.1", port=port) as remote:
            call = remote.slow()
            assert await asyncio.to_thread(program.line) == "working"
            program.send(number)
            assert await call == "done"
        assert await asyncio.to_thread(program.wait) == 0


async def test_serve_ends_at_its_deadline_whatever_hangs(tmp_path):
    (tmp_path / "slowly.py").write_text(HANDLERS)
    with fastcore("serve", "slowly:handlers", "--deadline", "0.2", cwd=tmp_path) as program:
        port = int(program.line().rpartition(":")[2])
        async with rpc(ip="127.0.0.1", port=port) as remote:
            call = remote.never()
            assert await asyncio.to_thread(program.line) == "hanging"
            begun = time.monotonic()
            program.send(signal.SIGTERM)
            with pytest.raises(ConnectionLost, match="'never'"):
                await call
        assert await asyncio.to_thread(program.wait) == 0
        assert time.monotonic() - begun < 20
