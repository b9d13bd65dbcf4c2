"""A connection is of one process, one loop and one thread; elsewhere it says so before anything is sent."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastcore import connect, read, rpc, send_recv, write
from fastcore.transport.tornado import channel_of
from helpers.streams import close_both, stream_pair
from helpers.support import Program, in_a_thread, until
from helpers.wire import served

USES = {
    "write": lambda stream: write(stream, {"op": "note"}),
    "read": read,
    "send_recv": lambda stream: send_recv(stream=stream, op="note"),
    "rpc": lambda stream: rpc(stream=stream),
}


def refused(use, stream, words):
    with pytest.raises(RuntimeError, match=words):
        USES[use](stream)


@pytest.mark.parametrize("use", USES)
async def test_another_thread_is_told_so_before_anything_is_sent(use):
    noted = []
    async with served({"note": lambda stream: noted.append(1)}) as server:
        stream = await connect("127.0.0.1", server.port)
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        await in_a_thread(
            lambda: refused(use, stream, "another thread than its loop's.*call_soon_threadsafe")
        )

        async def there():
            refused(use, stream, "another event loop than the one that runs here; connect anew")

        await in_a_thread(lambda: asyncio.run(there()))
        # It serves on where it belongs, and nothing came in between.
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        assert not noted
        stream.close()


async def test_another_thread_is_not_given_what_has_arrived_either():
    one, another = stream_pair()
    for number in range(3):
        write(one, number)
    await until(lambda: channel_of(another).unread)
    for expected in range(3):
        await in_a_thread(lambda: refused("read", another, "another thread than its loop's"))
        assert await read(another) == expected
    close_both(one, another)


async def test_an_rpc_called_in_another_thread_says_so_or_has_a_connection_of_its_own_there():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert await remote.add(x=1, y=2) == 3

        def without_a_loop():
            with pytest.raises(RuntimeError, match=r"another thread than its own.*call_soon_threadsafe"):
                remote.add(x=0, y=0)

        async def with_one():
            answers = [await remote.add(x=n, y=0) for n in range(3)]
            remote.close_streams()
            return answers

        await in_a_thread(without_a_loop)
        assert await in_a_thread(lambda: asyncio.run(with_one())) == [0, 1, 2]
        assert await remote.add(x=1, y=2) == 3
        assert server.stats()["connections"]["ever"] >= 2


class ServedElsewhere:
    """A server in a thread and a loop of its own."""

    def __enter__(self):
        self.ready, self.port = threading.Event(), 0
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))
        self.thread.start()
        assert self.ready.wait(30)
        return self

    async def serve(self):
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        async with served({"never": self.never}) as self.server:
            self.port = self.server.port
            self.ready.set()
            await self.over.wait()

    async def never(self, stream):
        await asyncio.sleep(3600)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(30)


@pytest.mark.parametrize("use", USES)
def test_after_its_loop_has_ended_it_says_so_before_anything_is_sent(use):
    async def make():
        stream = await connect("127.0.0.1", server.port)
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        return stream

    async def afterwards():
        refused(use, stream, "another event loop than the one that runs here")

    with ServedElsewhere() as server:
        stream = asyncio.run(make())
        refused(use, stream, "an event loop that has ended; connect anew")
        asyncio.run(afterwards())
        assert server.server.stats()["messages"]["in"] == 1
        stream.close()


def test_a_read_that_has_to_wait_is_refused_in_another_loop_whatever_was_read_before():
    async def make():
        stream = await connect("127.0.0.1", server.port)
        for n in range(3):
            write(stream, {"op": "add", "x": n, "y": 0})
        # All three are here now, and the last read takes what was.
        return stream, [await read(stream) for n in range(3)]

    async def afterwards(stream):
        with pytest.raises(RuntimeError, match="another event loop"):
            read(stream)

    with ServedElsewhere() as server:
        stream, answers = asyncio.run(make())
        assert answers == [0, 1, 2]
        asyncio.run(afterwards(stream))
        stream.close()


def test_a_call_that_its_loop_left_running_is_in_nobodys_way_in_the_next():
    async def leave():
        calls = remote.never(), remote.add(x=1, y=2)
        await until(lambda: server.server.stats()["running"])
        assert not any(call.done() for call in calls)

    async def call():
        return await remote.add(x=1, y=2)

    with ServedElsewhere() as server:
        remote = rpc(ip="127.0.0.1", port=server.port, limit=1)
        for _ in range(3):
            asyncio.run(leave())
            assert asyncio.run(call()) == 3
        remote.close_rpc()


AFTER_A_FORK = """if True:
    import asyncio, os, sys
    from fastcore import *

    def refused(use):
        try:
            use()
        except RuntimeError as error:
            return "another process" in str(error)

    async def child(stream, remote, port):
        uses = [
            lambda: write(stream, {"op": "add", "x": 0, "y": 0}),
            lambda: read(stream),
            lambda: send_recv(stream=stream, op="add", x=0, y=0),
            lambda: rpc(stream=stream),
        ]
        assert all(map(refused, uses))
        for n in range(10):
            assert await remote.add(x=n, y=1000) == n + 1000
        # Closing it here leaves it open there.
        stream.close()
        remote.close_rpc()

    async def connected(port):
        stream = await connect("127.0.0.1", port)
        assert await send_recv(stream=stream, op="add", x=1, y=2) == 3
        remote = rpc(ip="127.0.0.1", port=port)
        assert await remote.add(x=1, y=2) == 3
        return stream, remote

    async def parent(stream, remote, port):
        for n in range(100):
            assert await remote.add(x=n, y=0) == n
            assert await send_recv(stream=stream, op="add", x=n, y=0) == n
        stream.close()
        remote.close_rpc()

    port = int(sys.argv[1])
    loop = asyncio.new_event_loop()
    stream, remote = loop.run_until_complete(connected(port))
    pid = os.fork()
    if not pid:
        asyncio.run(child(stream, remote, port))
        os._exit(0)
    loop.run_until_complete(parent(stream, remote, port))
    loop.close()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_after_a_fork_it_is_the_parents_and_the_child_connects_anew():
    async with served() as server:
        with Program("-W", "ignore::ResourceWarning", "-c", AFTER_A_FORK, str(server.port)) as program:
            await until(lambda: program.process.poll() is not None)
            assert program.rest() == "0", program.errors
            assert program.wait() == 0


FORKED_WHILE_OPENING = """if True:
    import asyncio, os, sys
    from fastcore import connect, read, rpc, write

    async def child(port):
        async with rpc(ip='127.0.0.1', port=port) as remote:
            return await remote.add(x=1, y=2)

    async def main(port, turns):
        async with rpc(ip='127.0.0.1', port=port) as remote:
            call = asyncio.ensure_future(remote.add(x=1, y=2))
            opening = asyncio.ensure_future(connect('127.0.0.1', port))
            for _ in range(turns):
                await asyncio.sleep(0)
            pid = os.fork()
            if not pid:
                asyncio._set_running_loop(None)
                os._exit(asyncio.run(child(port)))
            # Whatever the child closes, and forgets, comes first.
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            stream = await opening
            await write(stream, {'op': 'add', 'x': 4, 'y': 5})
            print(code, await call, await read(stream), await remote.add(x=7, y=8))
            stream.close()

    for turns in range(6):
        asyncio.run(main(int(sys.argv[1]), turns))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_a_fork_while_a_connection_is_opened_harms_neither_side():
    async with served() as server:
        with Program("-W", "ignore", "-c", FORKED_WHILE_OPENING, str(server.port)) as program:
            await until(lambda: program.process.poll() is not None)
            assert program.rest().split() == ["3", "3", "9", "15"] * 6, program.errors


LEFT_BY_A_CHILD = """if True:
    import asyncio, gc, os, sys
    from fastcore import Server, connect, read, rpc, write
    from helpers.certificates import client_context, server_context

    async def later(stream, x):
        await asyncio.sleep(0.3)
        return x

    async def main(how):
        ours, theirs = (server_context(), client_context()) if how == 'TLS' else (None, None)
        server = Server({'later': later}, ssl_options=ours)
        server.listen(0, '127.0.0.1')
        remote = rpc(ip='127.0.0.1', port=server.port, ssl_options=theirs)
        stream = await connect('127.0.0.1', server.port, ssl_options=theirs)
        await remote.later(x=1)
        await write(stream, {'op': 'later', 'x': 3})
        pid = os.fork()
        if not pid:
            # It forgets what isn't its own, and asyncio goes on with the parent's loop to end that.
            del remote, stream
            gc.collect()
            if sys.version_info < (3, 14):
                sys.exit(7)
            # There asyncio drops that error, and the child would go on for ever.
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, await remote.later(x=2), await read(stream), server.stats()['connections']['ever'])
        stream.close()
        remote.close_rpc()
        await server.shutdown()

    asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("how", ["plain", "TLS"])
async def test_a_child_that_leaves_says_nothing_over_the_connections_of_its_parent(how, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with Program("-W", "ignore", "-c", LEFT_BY_A_CHILD, how) as program:
        await until(lambda: program.process.poll() is not None)
        assert program.rest().split() == ["7", "2", "3", "2"], program.errors


# ---- what the check costs

CALLS = """if True:
    import asyncio, sys
    from fastcore import *
    async def main(count):
        async with Server({"add": lambda stream, x, y: x + y}) as server:
            server.listen(0, "127.0.0.1")
            stream = await connect("127.0.0.1", server.port)
            for number in range(count):
                await write(stream, {"op": "add", "x": number, "y": 1})
                assert await read(stream) == number + 1
            async with rpc(stream=stream) as remote:
                for number in range(count):
                    assert await remote.add(x=number, y=1) == number + 1
    asyncio.run(main(int(sys.argv[1])))
"""


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_trace(), reason="strace can't trace here")
def test_to_know_where_it_is_costs_no_system_call(tmp_path):
    """Six for a call, at both ends together; one more, if the peer has had the time to go meanwhile.

    Who reads by hand looks for that each time, who calls only where a call took long, as all do here.
    """

    def counted(calls):
        program = [sys.executable, "-c", CALLS, str(calls)]
        trace = tmp_path / "trace"
        subprocess.run(["strace", "-f", "-c", "-o", str(trace), *program], check=True, timeout=100)
        lines = re.findall(
            r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", trace.read_text(), re.MULTILINE
        )
        return {name: int(count) for count, name in lines if name != "total"}

    few, many = counted(100), counted(600)
    per_call = {name: (count - few.get(name, 0)) / 1000 for name, count in many.items()}
    theirs = {name: round(count, 1) for name, count in per_call.items() if count > 0.1}
    assert {*theirs} <= {"sendto", "recvfrom", "epoll_wait", "epoll_pwait", "epoll_pwait2"}
    assert sum(theirs.values()) < 7.5


@pytest.mark.parametrize("ends", ["closed", "stopped before it ran"])
def test_what_a_loop_had_still_to_send_when_it_ended_lets_no_other_loop_write(ends):
    streams = []

    async def makes_one():
        streams.extend(stream_pair())
        write(streams[0], "leaves at once")
        await read(streams[1])

    def writes():
        # The second one waits for the end of a turn that doesn't come.
        write(streams[0], "leaves at once")
        write(streams[0], "waits")

    async def writes_in_another_loop():
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            write(streams[0], "anything")

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(makes_one())
    if ends == "closed":
        # As loops end: with what is still to be done in this turn.
        loop.call_soon(writes)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    else:
        writes()
    asyncio.run(writes_in_another_loop())
    asyncio.set_event_loop(None)
    if ends != "closed":
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.wait_for(read(streams[1]), 10))
        assert loop.run_until_complete(asyncio.wait_for(read(streams[1]), 10)) == "waits"
        close_both(*streams)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        asyncio.set_event_loop(None)
    else:
        close_both(*streams)
