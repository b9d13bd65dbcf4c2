"""Calls that have a number, answered by a raw socket: an answer ends the call that it names and no other."""

import asyncio
import gc

import msgpack
import pytest

from fastcore import ConnectionLost, connect, read, rpc, send_recv
from fastcore.transport.tornado import channel_of
from helpers.classic_server import classic_server
from helpers.support import until
from helpers.wire import fake_server, frame, raw_frame, served

LOOKS_LIKE_AN_ERROR = {
    "status": "uncaught-error",
    "exception": {"type": "ValueError", "message": "stored", "args": ["stored"]},
}


class Pair:
    """A caller, and the raw peer at the other end of its one connection."""

    def __init__(self, remote, peer, server):
        self.remote = remote
        self.peer = peer
        self.server = server

    def call(self, op="op", **message):
        return getattr(self.remote, op)(**message)

    async def hears_calls(self, *calls):
        """Hear the request of each; give their numbers."""
        numbers = []
        for _ in calls:
            _, header = await self.peer.hears_all()
            numbers.append(header["call"])
        assert len({*numbers}) == len(numbers)
        return numbers

    def answers(self, number, value, **flags):
        self.peer.say(frame(value, call=number, **flags))

    async def is_used_on(self):
        """Whether a call over the same connection gets its own answer."""
        call = self.call("add")
        message, header = await self.peer.hears_all()
        assert message == {"op": "add"}
        self.answers(header["call"], "added")
        return await call == "added"


class paired:
    """A caller whose peer has numbered an answer already, so that calls share the connection."""

    def __init__(self, numbers=True, **options):
        self.numbers = numbers
        self.options = {"share": 1, **options}

    async def __aenter__(self):
        self.serving = fake_server()
        server = await self.serving.__aenter__()
        self.remote = rpc(ip="127.0.0.1", port=server.port, **self.options)
        first = self.remote.first()
        pair = Pair(self.remote, await server.next(), server)
        message, header = await pair.peer.hears_all()
        assert message == {"op": "first"}
        pair.peer.say(frame("first", **({"call": header["call"]} if self.numbers else {})))
        assert await first == "first"
        return pair

    async def __aexit__(self, *exc_info):
        self.remote.close_rpc()
        await self.serving.__aexit__(*exc_info)


# ---- whose answer it is


async def test_answers_end_their_calls_in_any_order():
    async with paired() as pair:
        calls = [pair.call(n=n) for n in range(5)]
        numbers = await pair.hears_calls(*calls)
        for n in (3, 0, 4, 2, 1):
            pair.answers(numbers[n], n)
            assert await calls[n] == n
        assert len(pair.remote.streams) == 1


async def test_a_number_that_nobody_waits_for_is_dropped(caplog):
    async with paired() as pair:
        call = pair.call()
        (number,) = await pair.hears_calls(call)
        for stray in (number + 1, 2**63, 2**64 - 1, 0):
            pair.answers(stray, "stray")
            pair.answers(stray, "stray", part=True)
            pair.answers(stray, LOOKS_LIKE_AN_ERROR, error=True)
        pair.answers(number, "its own")
        assert await call == "its own"
        assert await pair.is_used_on()
    assert not caplog.records


async def test_an_answer_that_comes_twice_counts_once():
    async with paired() as pair:
        calls = [pair.call(), pair.call()]
        first, second = await pair.hears_calls(*calls)
        pair.answers(first, 1)
        pair.answers(first, 2)
        assert await calls[0] == 1
        pair.answers(second, 3)
        assert await calls[1] == 3
        assert await pair.is_used_on()


async def test_what_is_nobodys_is_dropped_and_the_log_says_how_to_get_it(caplog):
    async with paired() as pair:
        call = pair.call()
        (number,) = await pair.hears_calls(call)
        pair.peer.say(frame({"progress": 1}, call=None))
        pair.answers(number, "its own")
        assert await call == "its own"
        (record,) = caplog.records
        assert "progress" in record.getMessage()
        assert "127.0.0.1" in record.getMessage()
        assert all(word in record.getMessage() for word in ("connect", "write", "read", "yield"))
        assert await pair.is_used_on()


async def test_an_error_is_what_is_marked_as_one():
    async with paired() as pair:
        calls = [pair.call(), pair.call()]
        plain, error = await pair.hears_calls(*calls)
        pair.answers(plain, LOOKS_LIKE_AN_ERROR)
        pair.answers(error, LOOKS_LIKE_AN_ERROR, error=True)
        assert await calls[0] == LOOKS_LIKE_AN_ERROR
        with pytest.raises(ValueError, match="stored"):
            await calls[1]


@pytest.mark.parametrize("reply", [None, 5, "text", [], {}, {"exception": 5}, {"exception": {}}])
async def test_an_error_that_tells_nothing_is_one_all_the_same(reply):
    async with paired() as pair:
        call = pair.call()
        (number,) = await pair.hears_calls(call)
        pair.answers(number, reply, error=True)
        with pytest.raises(Exception):  # noqa: B017, PT011
            await call
        assert await pair.is_used_on()


async def test_an_answer_that_cannot_be_decoded_ends_its_call_alone():
    async with paired(max_depth=5) as pair:
        calls = [pair.call(), pair.call(), pair.call()]
        bad, deep, good = await pair.hears_calls(*calls)
        pair.peer.say(raw_frame(b"\xc1", msgpack.packb({"call": bad})))
        pair.peer.say(frame([[[[[[[1]]]]]]], call=deep))
        pair.answers(good, "good")
        assert await calls[2] == "good"
        with pytest.raises(ValueError, match="decoded"):
            await calls[0]
        with pytest.raises(ValueError, match="max_depth"):
            await calls[1]
        assert await pair.is_used_on()


@pytest.mark.parametrize(
    "header",
    [{"call": -1}, {"call": True}, {"call": "0"}, {"call": 1.0}, {"call": []}],
    ids=str,
)
async def test_after_an_answer_of_which_nobody_knows_whose_it_is_no_call_waits_for_ever(header):
    async with paired() as pair:
        calls = [pair.call(), pair.call()]
        await pair.hears_calls(*calls)
        pair.peer.say(frame("whose?", **header))
        for call in calls:
            with pytest.raises(Exception):  # noqa: B017, PT011
                await call


async def test_a_part_that_cannot_be_decoded_ends_the_call_at_both_ends():
    async with paired(max_depth=5) as pair:
        call = pair.call("rows")
        (number,) = await pair.hears_calls(call)
        pair.answers(number, 1, part=True)
        pair.answers(number, [[[[[[[1]]]]]]], part=True)
        with pytest.raises(ValueError, match="max_depth"):
            await call
        # The handler would stand at its window otherwise.
        assert await pair.peer.hears_all() == (None, {"cancel": number})
        pair.answers(number, None)
        assert await pair.is_used_on()


# ---- a peer that lies


async def test_a_message_without_a_number_from_a_peer_that_numbers_ends_the_connection():
    async with paired() as pair:
        calls = [pair.call(), pair.call()]
        await pair.hears_calls(*calls)
        pair.peer.say(frame("whose?"))
        for call in calls:
            with pytest.raises((ConnectionLost, RuntimeError)):
                await call
        assert await pair.peer.hears_the_end() == b""
        assert not pair.remote.streams


async def test_parts_after_the_end_are_dropped():
    async with paired() as pair:
        call = pair.call("rows")
        (number,) = await pair.hears_calls(call)
        pair.answers(number, 1, part=True)
        pair.answers(number, None)
        pair.answers(number, 2, part=True)
        pair.answers(number, 3)
        assert await call == [1]
        assert await pair.is_used_on()


async def test_more_parts_than_the_window_are_no_harm():
    async with paired() as pair:
        call = pair.call("rows")
        (number,) = await pair.hears_calls(call)
        for value in range(5_000):
            pair.answers(number, value, part=True)
        pair.answers(number, None)
        assert [value async for value in call] == [*range(5_000)]


@pytest.mark.parametrize("flags", [{"window": 3}, {"grant": 3}, {"cancel": 0}])
async def test_what_only_callers_say_is_no_harm(flags):
    async with paired() as pair:
        call = pair.call()
        (number,) = await pair.hears_calls(call)
        pair.answers(number, 5, **flags)
        assert await call == 5
        assert await pair.is_used_on()


async def test_a_part_of_a_plain_call_makes_it_a_list():
    async with paired() as pair:
        call = pair.call()
        (number,) = await pair.hears_calls(call)
        pair.answers(number, 1, part=True)
        pair.answers(number, 2, part=True)
        pair.answers(number, None)
        assert await call == [1, 2]


async def test_a_peer_that_dies_ends_all_its_calls():
    async with paired() as pair:
        calls = [pair.call(), pair.call("rows")]
        _, rows = await pair.hears_calls(*calls)
        pair.answers(rows, 1, part=True)
        pair.peer.leave()
        for call in calls:
            with pytest.raises(ConnectionLost, match="during the call"):
                await call
        assert not pair.remote.streams


async def test_what_a_peer_said_before_it_died_counts():
    async with paired() as pair:
        calls = [pair.call(), pair.call()]
        first, _ = await pair.hears_calls(*calls)
        pair.answers(first, "said")
        pair.peer.writer.close()
        assert await calls[0] == "said"
        with pytest.raises(ConnectionLost):
            await calls[1]


async def test_a_peer_that_stalls_in_the_middle_of_an_answer_is_left():
    async with paired(message_timeout=0.2) as pair:
        calls = [pair.call(), pair.call()]
        first, _ = await pair.hears_calls(*calls)
        pair.peer.say(frame("never whole", call=first)[:-5])
        for call in calls:
            with pytest.raises(ConnectionLost):
                await call


# ---- giving up


async def test_giving_a_call_up_tells_a_peer_that_numbers_and_goes_on():
    async with paired() as pair:
        call, other = pair.call(), pair.call()
        number, others = await pair.hears_calls(call, other)
        call.cancel()
        assert await pair.peer.hears_all() == (None, {"cancel": number})
        pair.answers(number, "too late")
        pair.answers(others, "in time")
        assert await other == "in time"
        assert await pair.is_used_on()


async def test_a_call_that_takes_too_long_is_given_up():
    async with paired() as pair:
        call = pair.call(timeout=0.02)
        (number,) = await pair.hears_calls(call)
        with pytest.raises(TimeoutError, match="no answer to 'op'"):
            await call
        assert await pair.peer.hears_all() == (None, {"cancel": number})
        assert await pair.is_used_on()


async def test_a_time_limit_for_every_call():
    async with paired(call_timeout=0.2) as pair:
        call = pair.call()
        (number,) = await pair.hears_calls(call)
        with pytest.raises(TimeoutError):
            await call
        assert await pair.peer.hears_all() == (None, {"cancel": number})
        # One of its own comes first.
        call = pair.call(timeout=20)
        (number,) = await pair.hears_calls(call)
        await asyncio.sleep(0.3)
        pair.answers(number, "late")
        assert await call == "late"


async def test_a_peer_that_has_not_numbered_yet_is_told_nothing():
    async with fake_server() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        call = remote.op()
        peer = await server.next()
        await peer.hears_all()
        call.cancel()
        assert await peer.hears_the_end() == b""


async def test_a_classic_peer_is_told_nothing():
    async with paired(numbers=False) as pair:
        call = pair.call()
        await pair.hears_calls(call)
        call.cancel()
        assert await pair.peer.hears_the_end() == b""


async def test_a_call_that_is_given_up_before_it_left_is_never_sent():
    async with fake_server() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        given_up, kept = remote.given_up(), remote.kept()
        given_up.cancel()
        peer = await server.next()
        message, header = await peer.hears_all()
        assert message == {"op": "kept"}
        peer.say(frame(5, **header))
        assert await kept == 5


# ---- classic peers


async def test_a_classic_peer_answers_by_position():
    async with paired(numbers=False) as pair:
        for n in range(3):
            call = pair.call(n=n)
            await pair.hears_calls(call)
            pair.peer.say(frame(n))
            assert await call == n
        assert len(pair.remote.streams) == 1


async def test_what_looks_like_an_error_from_a_classic_peer_is_one():
    async with paired(numbers=False) as pair:
        call = pair.call()
        await pair.hears_calls(call)
        pair.peer.say(frame(LOOKS_LIKE_AN_ERROR))
        with pytest.raises(ValueError, match="stored"):
            await call


@pytest.mark.parametrize("at_once", [True, False])
async def test_one_message_too_many_from_a_classic_peer_answers_no_later_call(at_once):
    async with paired(numbers=False) as pair:
        call = pair.call()
        await pair.hears_calls(call)
        (stream,) = pair.remote.streams
        pair.peer.say(frame("the answer"), *([frame("too many")] if at_once else []))
        assert await call == "the answer"
        if not at_once:
            pair.peer.say(frame("too many"))
        await until(lambda: stream.closed() or channel_of(stream).unread)
        second = pair.call("second")
        peer = await pair.server.next()
        _, header = await peer.hears_all()
        peer.say(frame("its own", **header))
        assert await second == "its own"
        assert await pair.peer.hears_the_end() == b""


async def test_calls_to_a_classic_server_get_their_own_answers():
    async def later(n):
        await asyncio.sleep(0.001 * (n % 3))
        return n

    async with classic_server(later=later) as server:
        async with rpc(ip="127.0.0.1", port=server.port, limit=7) as remote:
            calls = [remote.later(n=n) for n in range(200)]
            for call in calls[::5]:
                call.cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for n, answer in enumerate(answers):
                assert answer == n or (n % 5 == 0 and isinstance(answer, asyncio.CancelledError))
        assert server.most <= 7


# ---- a stream of one's own


async def test_calls_on_ones_own_stream_share_it_once_the_peer_has_numbered():
    async with fake_server() as server:
        stream = await connect("127.0.0.1", server.port)
        peer = await server.next()
        call = send_recv(stream, op="first")
        _, header = await peer.hears_all()
        peer.say(frame(1, **header))
        assert await call == 1
        calls = [send_recv(stream, op="op", n=n) for n in range(3)]
        headers = [(await peer.hears_all())[1] for _ in range(3)]
        for header, n in zip(headers[::-1], (2, 1, 0), strict=True):
            peer.say(frame(n, **header))
        assert await asyncio.gather(*calls) == [0, 1, 2]
        # Between calls it is its owner's.
        peer.say(frame("by hand", call=None))
        assert await read(stream) == "by hand"
        stream.close()


async def test_dropping_a_call_leaves_nothing_behind():
    handlers = {"wait": lambda stream: asyncio.sleep(0.01, "done")}
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        await remote.add(x=1, y=2)
        for _ in range(20):
            remote.wait()
        gc.collect()
        await until(lambda: server.stats()["running"])
        await until(lambda: not server.stats()["running"])
        assert await remote.add(x=1, y=2) == 3
        await until(lambda: all(remote.streams.values()))


@pytest.mark.parametrize("raised", [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("later", [False, True])
async def test_errors_that_mean_something_to_python_itself_end_their_call(raised, later):
    def raises(stream):
        raise raised("as it does")

    async def raises_later(stream):
        await asyncio.sleep(0)
        raise raised("as it does")

    handlers = {"raises": raises_later if later else raises}
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for _ in range(2):
            with pytest.raises(Exception):  # noqa: B017, PT011
                await remote.raises()
        assert await remote.add(x=1, y=2) == 3


@pytest.mark.parametrize("share", [0, 1])
async def test_the_first_call_may_want_no_reply(share):
    # It is sent from within the task that made the connection, and wakes another one.
    async with served() as server, rpc(ip="127.0.0.1", port=server.port, share=share) as remote:
        calls = [asyncio.ensure_future(awaited(remote.add(x=1, y=n, reply=False))) for n in range(20)]
        done, _ = await asyncio.wait(calls, timeout=5)
        assert len(done) == 20


async def awaited(call):
    return await call


async def test_the_end_that_comes_behind_an_answer_ends_the_other_calls():
    async with paired() as pair:
        calls = [pair.call(), pair.call()]
        first, _ = await pair.hears_calls(*calls)
        (stream,) = pair.remote.streams
        pair.answers(first, "said")
        # It arrives, and nobody has looked at it when the connection is closed.
        channel = channel_of(stream)
        channel.stop_listening()
        await until(lambda: channel.unread)
        stream.close()
        channel.listen_soon()
        assert await calls[0] == "said"
        with pytest.raises(ConnectionLost):
            await calls[1]
