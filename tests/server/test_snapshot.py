"""What ``server.snapshot()`` tells beside the figures, and which of it clients may ask for."""

import asyncio
import functools
import logging
import time

import msgpack
import pytest

from fastcore import Server, rpc
from fastcore._latencies import bucket_start
from fastcore.logs import LastWarnings, get_logger, last_warnings
from fastcore.server.figures import OpStats
from fastcore.server.snapshot import describe_ops, merge
from helpers.support import until
from helpers.wire import frame, served, stranger_at


async def test_a_snapshot_is_the_figures_and_what_can_be_seen_beside_them():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.add(x=1, y=2)
        told = server.snapshot()
        figures = server.stats()
    assert told["ops"]["add"].items() >= figures["ops"]["add"].items()
    assert sum(told["ops"]["add"]["buckets"].values()) == 1
    for name in figures.keys() - {"ops", "uptime"}:
        assert told[name] == figures[name]
    assert (told["health"], told["type"], told["calls"]) == ("ready", "Server", [])
    assert msgpack.unpackb(msgpack.packb(told)) == told


async def test_what_runs_is_told_with_its_peer_and_for_how_long_the_longest_first():
    go_on = asyncio.Event()

    async def wait(stream):
        await go_on.wait()

    async with (
        served({"first": wait, "second": wait}) as server,
        stranger_at(server) as stranger,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        first = remote.first()
        await until(lambda: server.snapshot()["calls"])
        # One without a number runs beside those that have one.
        stranger.say(frame({"op": "second"}))
        await until(lambda: len(server.snapshot()["calls"]) == 2)
        calls = server.snapshot()["calls"]
        go_on.set()
        await first
        assert await stranger.hears() is None
        assert server.snapshot()["calls"] == []
    assert [call["op"] for call in calls] == ["first", "second"]
    assert calls[0]["seconds"] > calls[1]["seconds"] > 0
    assert all(call["peer"].startswith("127.0.0.1:") for call in calls)


async def test_a_handler_that_blocked_the_loop_is_told_afterwards():
    def block(stream):
        time.sleep(0.02)

    async with served({"block": block}, slow_handler=0.01) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            await remote.block()
        told = server.snapshot()
    assert told["errors"] == {"slow_handler": 1}
    assert "'block'" in told["warnings"][-1]["text"]
    assert "blocked the loop" in told["warnings"][-1]["text"]


# ---- health


async def test_a_server_is_ready_from_its_first_port_until_it_is_told_to_end():
    server = Server({})
    assert server.health() == "draining"
    server.listen(0, "127.0.0.1")
    assert server.health() == "ready"
    server.stop()
    assert server.health() == "draining"


async def test_a_server_is_overloaded_at_max_connections():
    async with served(max_connections=1) as server:
        async with stranger_at(server) as stranger:
            assert await stranger.is_served()
            assert server.health() == "overloaded"
        await until(lambda: server.health() == "ready")


async def test_a_server_is_overloaded_at_max_running():
    go_on = asyncio.Event()

    async def wait(stream):
        await go_on.wait()

    async with served({"wait": wait}, max_running=2) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            calls = [remote.wait(), remote.wait()]
            await until(lambda: server.health() == "overloaded")
            go_on.set()
            await asyncio.gather(*calls)
        assert server.health() == "ready"


async def test_a_subclass_may_use_these_names_for_something_else():
    class Patient(Server):
        def __init__(self):
            self.health = self.snapshot = self.open_connections = "mine"
            super().__init__({}, expose=["stats"])

    server = Patient()
    server.listen(0, "127.0.0.1")
    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        assert (await remote.stats())["health"] == "ready"
    await server.shutdown()
    assert server.health == "mine"


# ---- what clients may ask


async def test_nothing_of_the_server_itself_can_be_asked_unless_it_says_so():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for op in ("stats", "ops"):
            with pytest.raises(ValueError, match="no handler"):
                await getattr(remote, op)()


async def test_what_is_exposed_can_be_asked():
    async with (
        served(expose=["stats", "ops"]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        await remote.add(x=1, y=2)
        assert (await remote.stats())["ops"]["add"]["count"] == 1
        assert {op["op"] for op in await remote.ops()} == {"add", "identity", "ops", "stats"}


async def test_a_handler_of_that_name_goes_first():
    async with (
        served({"stats": lambda stream: "mine"}, expose=["stats"]) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.stats() == "mine"


@pytest.mark.parametrize("expose", ["stats", ["secrets"], [""]])
def test_what_cannot_be_exposed_is_refused(expose):
    with pytest.raises(ValueError, match="expose"):
        Server({}, expose=expose)


def test_ops_are_told_with_their_signatures_and_the_first_lines_of_their_docstrings():
    def add(stream, x: int, y: int = 0) -> int:
        """Add two numbers.

        In the usual way.
        """

    class Shop:
        async def buy(self, stream, *, item: str, **how):
            pass

    class Silent:
        __signature__ = "none of anybody's business"

        def __call__(self, stream):
            pass

    handlers = {"add": add, "buy": Shop().buy, "hush": Silent(), "half": functools.partial(add, x=1), 7: add}
    told = {op["op"]: (op["signature"], op["doc"]) for op in describe_ops(handlers)}
    assert told["add"] == told["7"] == ("(x: int, y: int = 0) -> int", "Add two numbers.")
    assert told["buy"] == ("(*, item: str, **how)", "")
    assert told["half"][0] == "(*, x: int = 1, y: int = 0) -> int"
    assert told["hush"] == ("(...)", "")


def test_annotations_that_are_texts_are_told_as_what_they_mean():
    def typed(stream, x: "int", unknown: "Elsewhere" = "it's"):  # noqa: F821
        pass

    def known(stream, x: "int"):
        pass

    assert describe_ops({"f": known})[0]["signature"] == "(x: int)"
    assert describe_ops({"f": typed})[0]["signature"] == """(x: 'int', unknown: 'Elsewhere' = "it's")"""


# ---- several together


async def test_several_are_told_as_one():
    told = []
    for calls in (1, 2):
        async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
            for _ in range(calls):
                await remote.add(x=1, y=2)
            told.append(server.snapshot())
    both = merge(told)
    assert both.keys() == told[0].keys()
    assert both["ops"]["add"]["count"] == 3
    assert both["messages"]["in"] == 3
    assert both["connections"]["ever"] == sum(one["connections"]["ever"] for one in told)


def test_none_are_told_as_one_that_did_nothing():
    nothing = merge([])
    assert nothing["health"] == "draining"
    assert nothing["connections"] == {"open": 0, "ever": 0}
    assert nothing["ops"] == {}


def test_latencies_of_several_are_those_of_all_their_calls():
    fast, slow = OpStats(), OpStats()
    for _ in range(99):
        fast.record(1_000)
    slow.record(1_000_000_000)
    together = OpStats()
    for op in (fast, slow):
        together.add(op.as_dict_with_buckets())
    assert together.quantile(0.5) == pytest.approx(1e-6, rel=0.13)
    assert together.quantile(1) == pytest.approx(1, rel=0.13)


@pytest.mark.parametrize("nanoseconds", [0, 1, 7, 8, 15, 16, 17, 1_000, 123_456_789])
def test_a_bucket_begins_where_the_one_before_ends(nanoseconds):
    op = OpStats()
    op.record(nanoseconds)
    [bucket] = map(int, op.as_dict_with_buckets()["buckets"])
    assert bucket_start(bucket) <= nanoseconds < bucket_start(bucket + 1)


# ---- the last warnings


def test_warnings_are_remembered_without_a_program_that_logs():
    """And what Python prints by itself, where nothing is set up, stays so: there is no handler."""
    logger = get_logger("fastcore.test_of_warnings")
    logger.warning("a peer said %r", "\x1b[31m")
    logger.info("this is none")
    assert last_warnings.as_list()[-1]["text"] == "a peer said '\\x1b[31m'"
    assert logging.getLogger("fastcore").handlers == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("two\nlines"), "KeyError: 'two\\nlines'"),
        (ValueError("the first line\nand the second"), "ValueError: the first line\\nand the second"),
        (StopAsyncIteration(), "StopAsyncIteration"),
    ],
)
def test_an_exception_is_remembered_by_its_type_and_all_that_it_says(error: Exception, told: str):
    logger = get_logger("fastcore.test_of_exceptions")
    logger.warning("it failed", exc_info=error)
    assert last_warnings.as_list()[-1]["text"] == f"it failed: {told}"


def test_only_so_many_are_remembered_and_so_much_of_each():
    last = LastWarnings(most=2, longest=3)
    for number in range(5):
        last.filter(logging.makeLogRecord({"msg": f"{number} and more", "levelno": logging.ERROR}))
    assert [line["text"] for line in last.as_list()] == ["3 a", "4 a"]
