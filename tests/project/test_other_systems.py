"""What other systems lack is told, or done without: as far as that shows on this one."""

import asyncio
import signal
import socket

import pytest

from fastcore import Server, connect
from fastcore.command import cli


def take_unix_sockets_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Done in the loop, which has made itself a pair of them by then."""
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)


def test_without_unix_sockets_listening_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        take_unix_sockets_away(monkeypatch)
        with pytest.raises(OSError, match="this system's Python has no unix sockets: unix:/tmp/s"):
            Server({}).listen("unix:/tmp/s")

    asyncio.run(main())


def test_without_unix_sockets_connecting_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        take_unix_sockets_away(monkeypatch)
        with pytest.raises(OSError, match="this system's Python has no unix sockets: unix:/tmp/s"):
            await connect("unix:/tmp/s", None, timeout=0)

    asyncio.run(main())


def test_without_unix_sockets_a_server_serves_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        take_unix_sockets_away(monkeypatch)
        server = Server({})
        server.listen(0, "127.0.0.1")
        assert server.port
        await server.shutdown(1)

    asyncio.run(main())


def test_serve_ends_at_a_signal_on_a_loop_that_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse, raising=False)
        stop = cli._stop_signal()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 10)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(main())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
