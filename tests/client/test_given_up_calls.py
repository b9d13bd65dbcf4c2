"""Calls given up at any moment: nobody gets somebody else's answer, and all comes to rest."""

import asyncio
import gc
import os
import random
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcore import ConnectionLost, connect, rpc, send_recv
from helpers.answers import DELAYS, Answers
from helpers.classic_server import classic_server
from helpers.support import run, until
from helpers.wire import served

#: What may happen to a call.
FATES = ("answered", "cancelled", "timed out", "hung up on by the server", "hung up on by the client")


async def one_call(remote, question, fate, delay, patience, op, size):
    """Make a call that meets its fate; True if it was answered."""
    op = "hang_up" if fate == "hung up on by the server" else op
    timeout = patience + 0.0001 if fate == "timed out" else None
    call = getattr(remote, op)(question=question, delay=delay, padding=b"p" * size, timeout=timeout)
    if fate == "cancelled":
        await asyncio.sleep(patience)
        call.cancel()
    elif fate == "hung up on by the client":
        await asyncio.sleep(patience)
        streams = sorted(remote.streams, key=id)
        if streams:
            random.Random(question).choice(streams).close()
    try:
        answer = await call
    except (asyncio.CancelledError, TimeoutError, ConnectionLost):
        return False
    assert answer == [question, size]
    return True


calls = st.lists(
    st.tuples(
        st.sampled_from(FATES),
        st.sampled_from(DELAYS),
        st.sampled_from(DELAYS),
        st.sampled_from(("later", "at_once")),
        st.sampled_from((0, 10, 1000, 300_000)),
    ),
    min_size=1,
    max_size=60,
)


async def make_all(plan, share):
    # A server's id: where a system keeps a clock for these, the first one opens its file for good.
    uuid.uuid1()
    before = open_descriptors()
    async with served(Answers().handlers) as server:
        async with rpc(ip="127.0.0.1", port=server.port, share=share) as remote:
            answered = await asyncio.gather(
                *(one_call(remote, question, *call) for question, call in enumerate(plan))
            )
            undisturbed = [fate == "answered" for fate, *_ in plan]
            ends_others = ["hung up on by the client"] + ["hung up on by the server"] * (share > 0)
            if not any(call[0] in ends_others for call in plan):
                assert all(got for got, sure in zip(answered, undisturbed, strict=True) if sure)
            assert await remote.at_once(question="last", delay=0, padding=b"") == ["last", 0]
            assert all(remote.streams.values()), "a connection is taken, and nobody calls"
        assert remote.streams == {}
        await until(lambda: server_is_at_rest(server))
    await until(lambda: open_descriptors() <= before)
    await until(no_future_pends)


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def server_is_at_rest(server) -> bool:
    return not server.stats()["running"]


def no_future_pends() -> bool:
    gc.collect()
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls, st.sampled_from([0, 1, 4]))
def test_every_answer_belongs_to_its_question_whatever_happens_to_the_others(plan, share):
    run(make_all(plan, share))


@pytest.mark.deadline(60)
@pytest.mark.parametrize("share", [0, 4])
async def test_thousands_of_calls_given_up_at_random(share):
    chance = random.Random(20160401)
    plan = [
        (
            chance.choice(FATES),
            chance.choice(DELAYS),
            chance.choice(DELAYS),
            chance.choice(("later", "at_once")),
            chance.choice((0, 10, 1000, 300_000)),
        )
        for _ in range(4000)
    ]
    for start in range(0, len(plan), 200):
        await make_all(plan[start : start + 200], share)


async def test_a_call_that_timed_out_closes_its_connection_to_a_classic_server():
    async with (
        classic_server(later=asyncio.sleep, add=lambda x, y: x + y) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        assert await remote.add(x=1, y=2) == 3
        (first,) = remote.streams
        with pytest.raises(TimeoutError, match=f"'later' from 127.0.0.1:{server.port} within 0.01 s"):
            await remote.later(delay=3600, timeout=0.01)
        assert first.closed()
        assert await remote.add(x=2, y=2) == 4
        assert first not in remote.streams


async def test_a_call_that_timed_out_leaves_its_connection_to_the_next_where_calls_have_numbers():
    async with served(Answers().handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.at_once(question=0, delay=0, padding=b"")
        (first,) = remote.streams
        with pytest.raises(TimeoutError, match=f"'later' from 127.0.0.1:{server.port} within 0.01 s"):
            await remote.later(question=1, delay=3600, padding=b"", timeout=0.01)
        assert await remote.at_once(question=2, delay=0, padding=b"") == [2, 0]
        assert remote.streams == {first: True}
        await until(lambda: server_is_at_rest(server))


async def test_over_ones_own_stream_too_no_late_answer_is_taken_for_that_of_the_next_call():
    """Also where no call was open in between, so that nothing of the ones before is remembered."""
    async with served({"early": lambda stream: "early", "late": lambda stream: "late"}) as server:
        stream = await connect("127.0.0.1", server.port)
        assert await send_recv(stream, op="early") == "early"
        for _ in range(3):
            send_recv(stream, op="late").cancel()
            assert await send_recv(stream, op="early") == "early"
        stream.close()


async def test_a_call_with_a_timeout_may_begin_in_the_middle_of_setting_a_timer(monkeypatch):
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        pytest.skip("this loop keeps its timers in a way of its own")
    # As where the collector is woken by that, and a `__del__` calls: asyncio's heap of timers, which
    # compares them, breaks where one is put in meanwhile.
    is_earlier = asyncio.TimerHandle.__lt__
    calls = []

    def compare(one, other):
        if len(calls) < 20:
            calls.append(remote.echo(x=len(calls), timeout=600 - len(calls)))
        return is_earlier(one, other)

    async with (
        served({"echo": lambda stream, x: x}) as server,
        rpc(ip="127.0.0.1", port=server.port, share=1) as remote,
    ):
        await remote.echo(x="the first")
        monkeypatch.setattr(asyncio.TimerHandle, "__lt__", compare)
        async with asyncio.timeout(60):
            pass
        monkeypatch.undo()
        assert calls
        assert await asyncio.gather(*calls) == [*range(len(calls))]
