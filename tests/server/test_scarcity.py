"""What a machine can lack: descriptors, memory. The error is clear, the server lives on."""

import errno

from helpers.support import Program

FEW_DESCRIPTORS = """
import asyncio, logging, resource, socket
from fastcore import Server, rpc

async def main():
    server = Server({"add": lambda stream, x, y: x + y})
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.add(x=1, y=2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        clients = []
        try:
            while True:
                clients.append(socket.create_connection(("127.0.0.1", server.port)))
                await asyncio.sleep(0.001)
        except OSError as error:
            print("out of descriptors:", error.errno)
        clients.pop().close()
        # One more waits to be accepted, and can't be.
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        turns = 0
        ended = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < ended:
            turns += 1
            await asyncio.sleep(0.01)
        print("answers:", await remote.add(x=1, y=2))
        for client in clients:
            client.close()
        while len(server.stats()["errors"]) == 0:
            await asyncio.sleep(0.01)
        print("pauses:", *server.stats()["errors"].values())
        async with rpc(ip="127.0.0.1", port=server.port, timeout=20) as another:
            print("lets in again:", await another.add(x=3, y=4))
    server.stop()

logging.basicConfig(format="%(name)s %(message)s")
asyncio.run(main())
"""

LITTLE_MEMORY = """
import asyncio, resource
from pathlib import Path
from fastcore import Server, rpc

async def main():
    server = Server({"size": lambda stream, value: len(value), "big": lambda stream: bytes(2 * 10**9)})
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        value = bytes(400 * 10**6)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 10**6,) * 2)
        for call in (lambda: remote.size(value=value), lambda: remote.big()):
            try:
                print(await call())
            except Exception as error:
                print(type(error).__name__)
            print("lives on:", await remote.size(value=b"abc"))
    server.stop()

asyncio.run(main())
"""


def test_a_server_without_descriptors_waits_for_some_and_says_so_once_for_each_pause():
    with Program("-c", FEW_DESCRIPTORS) as program:
        assert program.wait(60) == 0, program.errors
        said = program.rest().splitlines()
        # How many there were is the machine's business.
        pauses = int(said.pop(2).removeprefix("pauses: "))
        assert said == [
            f"out of descriptors: {errno.EMFILE}",
            "answers: 3",
            "lets in again: 7",
        ]
        lines = [line for line in program.errors.splitlines() if line]
        assert len(lines) == pauses, program.errors
        assert lines[0].startswith("fastcore.")
        assert "Too many open files" in lines[0]


def test_a_message_for_which_there_is_no_memory_costs_that_message():
    with Program("-c", LITTLE_MEMORY) as program:
        assert program.wait(60) == 0, program.errors
        first, lives, second, lives_still = program.rest().splitlines()
        assert first in ("MemoryError", "BadFrame")
        assert second == "MemoryError"
        assert lives == lives_still == "lives on: 3"
