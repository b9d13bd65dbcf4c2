"""A caller that asks for what can't be: the error says what, and how it would be right."""

import pytest

from fastcore import BadValue, connect, rpc, send_recv, write
from helpers.wire import served


async def test_an_argument_that_cannot_be_sent_is_named_by_its_keyword():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for options in ({}, {"reply": False}, {"close": True}):
            with pytest.raises(BadValue) as caught:
                await remote.add(x=1, y={"rows": [{"price": {2}}]}, **options)
            assert str(caught.value) == (
                f"the call of 'add' to {remote.address} can't be sent: y['rows'][0]['price'] is of type set, "
                "which messages don't hold"
            )
        with pytest.raises(BadValue, match=r"the call of 'add' .* can't be sent: y is of type set"):
            await send_recv(ip="127.0.0.1", port=server.port, op="add", x=1, y={2})
        assert await remote.add(x=1, y=2) == 3


async def test_a_message_that_cannot_be_sent_by_hand_is_named_by_its_peer():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        with pytest.raises(BadValue) as caught:
            await write(stream, [1, {2}])
        assert str(caught.value).startswith(
            f"a message to 127.0.0.1:{server.port} can't be sent: message[1] "
        )
        stream.close()
