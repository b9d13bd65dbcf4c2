"""What other systems lack is told, or done without: as far as that shows on this one."""

import asyncio
import signal
from types import SimpleNamespace

import pytest

from fastcore import Server, addressing, connect
from fastcore.command.ending import Ending


@pytest.fixture
def no_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    # To fastcore alone: loops have some of their own.
    monkeypatch.setattr(addressing, "socket", SimpleNamespace())


@pytest.mark.usefixtures("no_unix_sockets")
def test_without_unix_sockets_listening_says_so() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="this system's Python has no unix sockets: unix:/tmp/s"):
            Server({}).listen("unix:/tmp/s")

    asyncio.run(main())


@pytest.mark.usefixtures("no_unix_sockets")
def test_without_unix_sockets_connecting_says_so() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="this system's Python has no unix sockets: unix:/tmp/s"):
            await connect("unix:/tmp/s", None, timeout=0)

    asyncio.run(main())


def test_serve_ends_at_a_signal_on_a_loop_that_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse, raising=False)
        ending = Ending()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(ending.asked.wait(), 10)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(main())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
