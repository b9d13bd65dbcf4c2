"""A server in a process of its own, so that what it takes is told apart from what its clients take."""

import asyncio
import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psutil

from fastcore import Server, rpc


@dataclass
class ServerProcess:
    """Where it is, and, once it has ended, what it complained of."""

    pid: int
    port: int
    complaints: list[str] = field(default_factory=list)


@contextmanager
def server_process(new_server: Callable[[], Server]) -> Iterator[ServerProcess]:
    """Run a server beside the block. It has the op ``figures`` too.

    What makes it is called in its process, which imports it: a function of a module.
    """
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, new_server))
    process.start()
    # The server has its own: so a server that ends is told, instead of waited for.
    there.close()
    try:
        server = ServerProcess(process.pid or 0, here.recv())
        yield server
        # One that has ended has said nothing; its exit code does.
        with suppress(OSError, EOFError):
            here.send("end")
            server.complaints += here.recv()
    finally:
        here.close()
        process.join(20)
    if process.exitcode != 0:
        server.complaints.append(f"it ended with {process.exitcode}")


def _serve(pipe: Connection, new_server: Callable[[], Server]) -> None:
    """Serve until the other end of the pipe says so, or is gone; then tell what was logged as an error."""
    # Python 3.15 warns of its own: what it spawns runs the main module without a __spec__.
    warnings.filterwarnings("ignore", "Module globals is missing", DeprecationWarning)
    errors: list[str] = []

    class Errors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(f"{record.name}: {record.getMessage()[:1000]}")

    def figures(stream: object) -> dict[str, Any]:
        gc.collect()
        process = psutil.Process()
        return {"rss": process.memory_info().rss, "descriptors": process.num_fds(), **server.stats()}

    async def main() -> None:
        server.listen(0, "127.0.0.1", backlog=1024)
        pipe.send(server.port)
        await asyncio.get_running_loop().run_in_executor(None, pipe.poll, None)
        await server.shutdown(1)

    # Handlers' errors are warnings; anything above is the server's own.
    logging.getLogger().addHandler(Errors(logging.ERROR))
    logging.getLogger("fastcore").setLevel(logging.ERROR)
    server = new_server()
    server.handlers["figures"] = figures
    asyncio.run(main())
    with suppress(OSError):
        pipe.send(errors)


async def figures_of(port: int) -> dict[str, Any]:
    """Ask for RSS in bytes, open descriptors and statistics, once nobody else is connected."""
    async with rpc(ip="127.0.0.1", port=port) as remote:
        while True:
            figures: dict[str, Any] = await remote.figures()
            if figures["connections"]["open"] == 1:
                return figures
            await asyncio.sleep(0.05)
