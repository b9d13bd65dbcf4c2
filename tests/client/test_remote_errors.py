"""What a handler raises, as its caller gets it."""

import pytest

from fastcore import RemoteError, connect, read, register_error, rpc, send_recv, write
from helpers.surface import OurError, serving
from helpers.wire import served


async def test_a_builtin_exception_arrives_as_itself_with_peer_op_and_remote_traceback():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(ZeroDivisionError) as raised:
                await remote.divide(x=1, y=0)
    note = "".join(raised.value.__notes__)
    assert "divide" in note
    assert f"127.0.0.1:{server.port}" in note
    assert "return x / y" in note


async def test_another_exception_arrives_as_remote_error_until_it_is_registered():
    with serving() as server:
        async with rpc(ip="127.0.0.1", port=server.port) as remote:
            with pytest.raises(RemoteError, match="OurError") as raised:
                await remote.fail()
            assert raised.value.type_name == "OurError"
            assert raised.value.remote_args == ("ours", 1)
            register_error(OurError)
            with pytest.raises(OurError) as known:
                await remote.fail()
            assert known.value.args == ("ours", 1)


async def test_what_a_handler_returns_is_an_answer_even_if_it_looks_like_an_error():
    def fail(stream):
        raise ValueError("an error")

    async with served({"fail": fail, "echo": lambda stream, x: x}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "fail"})
        error = await read(stream)
        assert error["status"] == "uncaught-error"
        assert await send_recv(stream=stream, op="echo", x=error) == error
        async with rpc(stream=stream) as remote:
            assert await remote.echo(x=error) == error
            with pytest.raises(ValueError, match="an error"):
                await remote.fail()


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator", "async generator"])
async def test_the_remote_traceback_begins_with_the_handler(kind):
    def plain(stream):
        raise LookupError(kind)

    async def coroutine(stream):
        raise LookupError(kind)

    def generator(stream):
        yield 1
        raise LookupError(kind)

    async def async_generator(stream):
        yield 1
        raise LookupError(kind)

    handlers = {
        "plain": plain,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }
    async with served({"fail": handlers[kind]}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        with pytest.raises(LookupError) as caught:
            await remote.fail()
    (note,) = caught.value.__notes__
    places = [line for line in note.splitlines() if line.lstrip().startswith("File ")]
    assert len(places) == 1
    assert "test_remote_errors" in places[0]
