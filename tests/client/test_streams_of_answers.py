"""Many answers to one call: read one by one as they come, or awaited as a list."""

import asyncio
import gc

import pytest

from fastcore import ConnectionLost, rpc
from helpers.classic_server import classic_server
from helpers.support import until
from helpers.wire import served


class Source:
    """Generators that count what they gave, and tell when they have ended."""

    def __init__(self):
        self.given = 0
        self.ended = []

    def rows(self, stream, n, size=0, breaks=False):
        try:
            for i in range(n):
                self.given += 1
                yield [i, bytes(size)] if size else i
            if breaks:
                raise LookupError("after the last")
        finally:
            self.ended.append("rows")

    async def async_rows(self, stream, n, size=0, breaks=False):
        try:
            for i in range(n):
                await asyncio.sleep(0)
                self.given += 1
                yield [i, bytes(size)] if size else i
            if breaks:
                raise LookupError("after the last")
        finally:
            await asyncio.sleep(0)
            self.ended.append("async_rows")

    def gives(self, stream, **message):
        return self.async_rows(stream, **message)

    async def gives_later(self, stream, **message):
        await asyncio.sleep(0)
        return self.rows(stream, **message)

    async def slowly(self, stream, n):
        try:
            for i in range(n):
                yield i
                await asyncio.sleep(30)
        finally:
            self.ended.append("slowly")

    @property
    def handlers(self):
        names = ("rows", "async_rows", "gives", "gives_later", "slowly")
        return {name: getattr(self, name) for name in names}


class streaming:
    """A source, its server, and an rpc to it."""

    def __init__(self, server_options=None, **options):
        self.source = Source()
        self.serving = served(self.source.handlers, **(server_options or {}))
        self.options = options

    async def __aenter__(self):
        self.server = await self.serving.__aenter__()
        self.remote = rpc(ip="127.0.0.1", port=self.server.port, **self.options)
        return self

    async def __aexit__(self, *exc_info):
        self.remote.close_rpc()
        await self.serving.__aexit__(*exc_info)

    def call(self, op, **message):
        return getattr(self.remote, op)(**message)

    async def is_at_rest(self):
        """Wait until nothing runs and nothing is in use, at either end."""
        await until(lambda: not self.server.stats()["running"])
        await until(lambda: all(self.remote.streams.values()))


OPS = ["rows", "async_rows", "gives", "gives_later"]
each_op = pytest.mark.parametrize("op", OPS)


@each_op
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 5_000])
async def test_they_are_read_one_by_one(op, n):
    async with streaming() as at:
        assert [value async for value in at.call(op, n=n)] == [*range(n)]
        await at.is_at_rest()


@each_op
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 5_000])
async def test_awaited_they_are_a_list(op, n):
    async with streaming() as at:
        assert await at.call(op, n=n) == [*range(n)]
        await at.is_at_rest()


@each_op
async def test_with_a_connection_each_it_is_the_same(op):
    async with streaming(share=0) as at:
        for _ in range(3):
            assert [value async for value in at.call(op, n=100)] == [*range(100)]
            assert await at.call(op, n=100) == [*range(100)]
        assert len(at.remote.streams) == 1


async def test_read_late_they_are_all_there():
    async with streaming() as at:
        call = at.call("rows", n=20)
        await until(lambda: at.source.ended)
        await until(call.done)
        assert [value async for value in call] == [*range(20)]


async def test_they_are_read_by_one():
    async with streaming() as at:
        call = at.call("rows", n=20)
        first = aiter(call)
        assert await anext(first) == 0
        with pytest.raises(RuntimeError, match="read already"):
            aiter(call)
        assert [value async for value in first] == [*range(1, 20)]


async def test_two_tasks_at_one_iterator_are_an_error_and_no_hang():
    async with streaming() as at:
        call = aiter(at.call("slowly", n=5))
        assert await anext(call) == 0
        waiting = asyncio.ensure_future(anext(call))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await anext(call)
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_the_answer_of_a_classic_server_is_iterated():
    serving = classic_server(rows=lambda n: [*range(n)], add=lambda: 3)
    async with serving as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        assert [value async for value in remote.rows(n=5)] == [*range(5)]
        assert [value async for value in remote.rows(n=0)] == []
        assert await remote.rows(n=5) == [*range(5)]
        with pytest.raises(TypeError, match="await it"):
            [value async for value in remote.add()]
        assert await remote.add() == 3


# ---- the end


@each_op
async def test_leaving_the_loop_early_ends_the_generator(op):
    async with streaming() as at:
        async for value in at.call(op, n=10**9):
            if value == 40:
                break
        await until(lambda: at.source.ended)
        await at.is_at_rest()
        # The connection is used on.
        assert await at.remote.add(x=1, y=2) == 3
        assert len(at.remote.streams) == 1


async def test_an_error_inside_the_loop_ends_the_generator():
    async with streaming() as at:
        with pytest.raises(KeyError):  # noqa: PT012
            async for value in at.call("rows", n=10**9):
                raise KeyError(value)
        gc.collect()
        await until(lambda: at.source.ended)
        await at.is_at_rest()


async def test_cancelling_the_one_who_reads_ends_the_generator():
    async with streaming() as at:

        async def read_all():
            async for _ in at.call("slowly", n=10**9):
                pass

        task = asyncio.ensure_future(read_all())
        await until(lambda: at.server.stats()["running"])
        task.cancel()
        await asyncio.wait([task])
        del task
        gc.collect()
        await until(lambda: at.source.ended)
        await at.is_at_rest()


async def test_cancelling_the_call_ends_the_loop_and_the_generator():
    async with streaming() as at:
        call = at.call("slowly", n=10**9)
        with pytest.raises(asyncio.CancelledError):  # noqa: PT012
            async for _ in call:
                call.cancel()
        await until(lambda: at.source.ended)
        await at.is_at_rest()


async def test_dropping_the_iterator_ends_the_generator():
    async with streaming() as at:
        rows = aiter(at.call("rows", n=10**9))
        assert await anext(rows) == 0
        del rows
        await until(lambda: at.source.ended)
        await at.is_at_rest()


@pytest.mark.parametrize("op", ["rows", "async_rows"])
async def test_an_error_is_raised_at_its_place(op):
    async with streaming() as at:
        values = []
        with pytest.raises(LookupError, match="after the last"):  # noqa: PT012
            async for value in at.call(op, n=100, breaks=True):
                values.append(value)  # noqa: PERF401
        assert values == [*range(100)]
        with pytest.raises(LookupError):
            await at.call(op, n=100, breaks=True)
        await at.is_at_rest()


async def test_a_stream_of_answers_has_a_time_limit_too():
    async with streaming() as at:
        values = []
        with pytest.raises(TimeoutError, match="slowly"):  # noqa: PT012
            async for value in at.call("slowly", n=5, timeout=0.1):
                values.append(value)  # noqa: PERF401
        assert values == [0]
        await until(lambda: at.source.ended)
        await at.is_at_rest()


async def test_what_came_before_the_connection_broke_is_given_first():
    async with streaming() as at:
        call = at.call("rows", n=20, breaks=False)
        rows = aiter(call)
        await until(lambda: at.source.ended)
        await until(lambda: call.done() or len(call.parts.values) == 20)
        at.remote.close_streams()
        assert [value async for value in rows] == [*range(20)]


async def test_a_server_that_is_gone_ends_the_loop():
    async with streaming() as at:
        values = []
        with pytest.raises(ConnectionLost):  # noqa: PT012
            async for value in at.call("slowly", n=5):
                values.append(value)
                await at.server.shutdown(deadline=0)
        assert values == [0]


async def test_a_loop_over_a_call_that_never_had_a_connection_ends():
    async with streaming(timeout=0.1) as at:
        port = at.server.port
    async with rpc(ip="127.0.0.1", port=port, timeout=0.1) as remote:
        with pytest.raises(ConnectionLost, match="could not connect"):
            [value async for value in remote.rows(n=5)]


async def test_a_loop_over_a_call_that_another_task_cancels_ends():
    async with streaming() as at:
        call = at.call("slowly", n=5)

        async def read_all():
            return [value async for value in call]

        reading = asyncio.ensure_future(read_all())
        await until(lambda: at.server.stats()["running"])
        call.cancel()
        await asyncio.wait([reading], timeout=5)
        assert reading.cancelled()


# ---- slow readers


@each_op
async def test_a_slow_reader_stops_the_generator_and_no_other_call(op):
    async with streaming(share=1) as at:
        rows = aiter(at.call(op, n=100_000, size=1_000))
        for _ in range(200):
            await anext(rows)
        # Others go on, over the same connection, while nobody reads.
        for n in range(200):
            assert await at.remote.add(x=n, y=1) == n + 1
        assert len(at.remote.streams) == 1
        ahead = at.source.given - 200
        assert 0 <= ahead <= 1_100
        for n in range(200):
            assert await at.remote.add(x=n, y=1) == n + 1
        assert at.source.given - 200 == ahead
        assert await anext(rows) == [200, bytes(1_000)]
        del rows
        await at.is_at_rest()


async def test_a_reader_that_never_reads_has_a_few_waiting():
    async with streaming(share=1) as at:
        call = at.call("rows", n=100_000, size=10_000)
        rows = aiter(call)
        await until(lambda: at.source.given)
        for n in range(100):
            assert await at.remote.add(x=n, y=1) == n + 1
        assert at.source.given <= 40
        del rows, call
        await at.is_at_rest()


async def test_large_parts_wait_by_their_bytes():
    async with streaming(share=1) as at:
        rows = aiter(at.call("async_rows", n=1_000, size=300_000))
        for _ in range(100):
            await anext(rows)
        for n in range(50):
            assert await at.remote.add(x=n, y=1) == n + 1
        assert at.source.given <= 100 + 32
        del rows
        await at.is_at_rest()


async def test_many_streams_share_a_connection():
    async with streaming(share=1) as at:

        async def read_some(n):
            total = 0
            async for value in at.call(OPS[n % 4], n=300):
                total += value
                if n % 7 == 0 and value == 150:
                    return n
                if value % (n + 1) == 0:
                    await asyncio.sleep(0)
            assert total == 300 * 299 // 2
            return n

        assert await asyncio.gather(*[read_some(n) for n in range(40)]) == [*range(40)]
        await at.is_at_rest()
        assert len(at.source.ended) == 40
        # The first calls came before it was known that they can share.
        assert len([*at.remote.streams]) == 1


async def test_more_streams_than_may_run_have_their_turns():
    async with streaming({"max_running_per_connection": 3}, share=1) as at:
        calls = [at.call(OPS[n % 4], n=200) for n in range(20)]
        for call in calls:
            assert [value async for value in call] == [*range(200)]
        await at.is_at_rest()
