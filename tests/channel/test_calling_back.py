"""A handler that calls back, or reads, over the stream it was given borrows that of its server."""

import asyncio

import pytest

from fastcore import BadMessage, ConnectionLost, read, rpc, send_recv
from helpers.support import until
from helpers.wire import frame, raw_frame, served, stranger_at


class CallsBack:
    """Handlers that ask the client something over the stream that they were given."""

    def __init__(self):
        self.kept = []

    async def with_block(self, stream):
        async with rpc(stream=stream) as remote:
            return ["heard", await remote.ask(number=1)]

    async def kept_by_the_handler(self, stream):
        self.kept.append(rpc(stream=stream))
        return ["heard", await self.kept[-1].ask(number=1)]

    async def by_send_recv(self, stream):
        return ["heard", await send_recv(stream=stream, op="ask", number=1)]

    async def two_after_each_other(self, stream):
        async with rpc(stream=stream) as remote:
            await remote.ask(number=0)
        return ["heard", await send_recv(stream=stream, op="ask", number=1)]

    @property
    def handlers(self):
        return {name: getattr(self, name) for name in WAYS}


WAYS = ["with_block", "kept_by_the_handler", "by_send_recv", "two_after_each_other"]


async def is_at_rest(server):
    await until(lambda: server.stats()["connections"]["open"] == 0)
    async with asyncio.timeout(1):
        await server.shutdown(deadline=20)
    assert server.stats()["running"] == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_may_call_back_in_a_request_without_a_number_and_the_stream_falls_back(way):
    async with served(CallsBack().handlers) as server:
        async with stranger_at(server) as stranger:
            for _ in range(3):
                stranger.say(frame({"op": way}))
                while isinstance(question := await stranger.hears(), dict):
                    assert question["op"] == "ask"
                    stranger.say(frame(f"answer {question['number']}"))
                assert question == ["heard", "answer 1"]
                assert await stranger.is_served()
            assert server.stats()["connections"] == {"open": 1, "ever": 1}
        await is_at_rest(server)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_while_it_is_asked_is_not_counted_any_more(way):
    async with served(CallsBack().handlers) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": way}))
            assert (await stranger.hears())["op"] == "ask"
        await is_at_rest(server)


@pytest.mark.parametrize("way", WAYS)
async def test_in_a_numbered_request_to_call_back_is_a_clear_error_and_disturbs_nobody(way):
    async with served(CallsBack().handlers) as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(RuntimeError, match=r"belongs to .*connection of a server.*your own"):
                await getattr(remote, way)()
            assert await remote.add(x=1, y=2) == 3
        await is_at_rest(server)


async def test_who_reads_by_hand_beside_numbered_requests_gets_what_has_no_number():
    async def never(stream):
        await asyncio.sleep(3600)

    async with served({"never": never, "reads": read}) as server, stranger_at(server) as stranger:
        # All at once; it is while the first one runs that the stream is lent.
        requests = [{"op": "never"}, {"op": "reads"}, {"op": "add", "x": 1, "y": 2}]
        numbered = [frame(request, call=number) for number, request in enumerate(requests)]
        stranger.say(*numbered, frame("by hand"))
        assert [await stranger.hears(), await stranger.hears()] == [3, "by hand"]


async def test_who_reads_by_hand_beside_numbered_requests_hears_what_is_no_message_and_the_end():
    heard = []

    async def reads(stream):
        while True:
            try:
                await read(stream)
            except Exception as error:
                heard.append(type(error))
                if isinstance(error, ConnectionLost):
                    raise

    async with served({"reads": reads}, cancel_handlers=False) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "reads"}, call=0))
            await until(lambda: server.stats()["running"])
            stranger.say(raw_frame(b"\xc1"), frame({"op": "add", "x": 1, "y": 2}, call=1))
            assert await stranger.hears() == 3
            assert heard == [BadMessage]
        await until(lambda: heard == [BadMessage, ConnectionLost])
        await is_at_rest(server)


async def test_a_plain_function_may_take_its_stream_and_give_it_back():
    kept = []

    def takes(stream):
        kept.append(rpc(stream=stream))
        return "taken"

    async with served({"takes": takes}) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "takes"}))
            assert await stranger.hears() == "taken"
            assert await stranger.is_served()
        await is_at_rest(server)


async def test_an_answer_that_comes_after_the_handler_is_over_is_taken_for_no_request():
    remotes, calls = [], []

    async def asks(stream):
        remotes.append(rpc(stream=stream))
        calls.append(remotes[-1].ask())
        return "over"

    async with served({"asks": asks}) as server:
        async with stranger_at(server) as stranger:
            stranger.say(frame({"op": "asks"}))
            assert (await stranger.hears())["op"] == "ask"
            with pytest.raises(ConnectionLost, match="handler that lent"):
                await calls[0]
            stranger.say(frame({"op": "add", "x": 1, "y": 2}))
            assert b"\x03" not in await stranger.hears_the_end()
        await is_at_rest(server)
