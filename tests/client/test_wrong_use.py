"""A caller that asks for what can't be: the error says what, and how it would be right."""

import copy
import pickle
import re

import pytest

from fastcore import (
    BadFrame,
    BadMessage,
    BadValue,
    ConnectionPool,
    Limits,
    Monitor,
    RPCClosed,
    Server,
    SyncClient,
    TooDeep,
    TooManyValues,
    connect,
    register_error,
    rpc,
    send_recv,
    write,
)
from helpers.kinds import Order
from helpers.support import in_a_thread
from helpers.wire import fake_server, served


async def test_an_argument_that_cannot_be_sent_is_named_by_its_keyword():
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for options in ({}, {"reply": False}, {"close": True}):
            with pytest.raises(BadValue) as caught:
                await remote.add(x=1, y={"rows": [{"price": range(2)}]}, **options)
            assert str(caught.value) == (
                f"the call of 'add' to {remote.address} can't be sent: y['rows'][0]['price'] "
                "is of type range, which messages don't hold: send list(value), "
                "or have both sides call register_type(range, ...)"
            )
        with pytest.raises(BadValue, match=r"the call of 'add' .* can't be sent: y is of type range"):
            await send_recv(ip="127.0.0.1", port=server.port, op="add", x=1, y=range(2))
        assert await remote.add(x=1, y=2) == 3


async def test_a_client_that_blocks_names_it_by_its_keyword_too():
    async with served() as server:

        def calls():
            with SyncClient(ip="127.0.0.1", port=server.port) as remote:
                with pytest.raises(BadValue) as caught:
                    remote.add(x=1, y=Order("pen", [range(2)]))
                return str(caught.value), remote.add(x=1, y=2)

        told, answer = await in_a_thread(calls)
        assert told.startswith(
            f"the call of 'add' to 127.0.0.1:{server.port} can't be sent: y.tags[0] is of type range, "
        )
        assert answer == 3


async def test_a_message_that_cannot_be_sent_by_hand_is_named_by_its_peer():
    async with served() as server:
        stream = await connect("127.0.0.1", server.port)
        with pytest.raises(BadValue) as caught:
            await write(stream, [1, range(2)])
        assert str(caught.value).startswith(
            f"a message to 127.0.0.1:{server.port} can't be sent: message[1] "
        )
        stream.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: rpc("127.0.0.1:1", tiemout=3),
            ["rpc has no", "'tiemout'", "mean 'timeout'", "call_timeout"],
        ),
        (lambda: rpc("127.0.0.1:1", ssl=True), ["rpc has no keyword 'ssl'", "ssl_options", "share"]),
        (lambda: ConnectionPool(limits=3), ["ConnectionPool has no keyword 'limits'", "mean 'limit'"]),
        (
            lambda: Server({}, max_conections=3),
            ["Server has no", "mean 'max_connections'", "max_depth"],
        ),
        (lambda: Server({}, max_frame_size=3), ["Server has no keyword", "max_buffer_size"]),
        (lambda: Limits(max_dept=3), ["Limits has no keyword 'max_dept'", "mean 'max_depth'"]),
        (lambda: Limits(max_depth=1.5), ["max_depth", "whole number", "1.5"]),
        (lambda: Limits(max_depth=True), ["max_depth", "whole number", "True"]),
        (lambda: Limits(max_depth=None), ["max_depth", "whole number", "None"]),
        (lambda: Limits(max_values=2**70), ["max_values", "2**63"]),
        (lambda: Limits(max_buffer_size=1e9), ["max_buffer_size", "whole number"]),
        (lambda: Limits(idle_timeout=float("nan")), ["idle_timeout", "above 0", "nan"]),
        (lambda: rpc("127.0.0.1:1", limit=2.5), ["limit", "whole number or None", "2.5"]),
        (lambda: rpc("127.0.0.1:1", share=-1), ["share", "-1"]),
        (lambda: rpc("127.0.0.1:1", share=True), ["share", "True"]),
        (lambda: rpc("127.0.0.1:1", timeout=None), ["timeout", "number", "None"]),
        (lambda: rpc("127.0.0.1:1", call_timeout="3"), ["call_timeout", "'3'"]),
        (lambda: rpc("127.0.0.1:1", compression="gzip"), ["'gzip'", "zlib"]),
        (lambda: rpc("127.0.0.1:1", compression=["zlib"]), ["compression", "['zlib']"]),
        (lambda: rpc("127.0.0.1:1", ssl_options=True), ["ssl_options", "ssl.SSLContext", "True"]),
        (lambda: rpc("127.0.0.1:1", ssl_options={"cert": "x"}), ["'cert'", "certfile"]),
        (lambda: rpc("127.0.0.1:1", stream=5), ["IOStream", "5"]),
        (lambda: rpc("127.0.0.1", 8786), ["no port", "'host:port'"]),
        (lambda: Server([]), ["dict of callables", "[]"]),
        (lambda: Server({"add": 5}), ["'add'", "can't be called", "5"]),
        (lambda: Server({}, ssl_options="server.pem"), ["ssl_options", "'server.pem'"]),
        (lambda: Server({}).listen("http"), ["no such port: 'http'", "65535", "unix:"]),
        (lambda: Server({}).listen(1.5), ["no such port: 1.5"]),
        (lambda: register_error(KeyboardInterrupt), ["subclass of Exception", "KeyboardInterrupt"]),
        (lambda: register_error(type("Over", (StopIteration,), {})), ["StopIteration", "Over"]),
        (lambda: rpc("127.0.0.1:1").add(1, 2), ["add() takes its arguments by keyword", "not add(1"]),
        (lambda: rpc("127.0.0.1:1").add(10**5000), ["add() takes its arguments by keyword"]),
        (lambda: rpc("127.0.0.1:1").add(op=1), ["'op'"]),
        (lambda: rpc("127.0.0.1:1").add(x=1, timeout="3"), ["timeout", "'3'"]),
        (lambda: rpc("127.0.0.1:1", middleware=[len]).add(1), ["add() takes its arguments by keyword"]),
        (lambda: rpc("127.0.0.1:1", middleware=[len]).add(op=1), ["'op'"]),
        (lambda: rpc("127.0.0.1:1", tokn="x"), ["rpc has no keyword 'tokn'", "mean 'token'"]),
        (lambda: Server({}, tokn="x"), ["Server has no keyword 'tokn'", "mean 'token'"]),
        (lambda: Limits(max_dept=3, max_values=1), ["message_timeout, peer_timeout, write_timeout"]),
        (lambda: Limits(max_depth=1_025), ["max_depth", "1,024 at most", "1025"]),
        (lambda: Server({}, cancel_handlers="no"), ["cancel_handlers", "True or False", "'no'"]),
        (lambda: Server({}, writable_values="no"), ["writable_values", "True or False", "'no'"]),
        (lambda: rpc("127.0.0.1:1", writable_values=None), ["writable_values", "True or False", "None"]),
        (lambda: SyncClient("127.0.0.1:1", writable_values="no"), ["writable_values", "'no'"]),
        (lambda: Server({}, authenticate="ada"), ["authenticate", "hook", "'ada'"]),
        (lambda: Server({}, middleware=len), ["middleware", "sequence", "len"]),
        (lambda: Server({}, middleware=[5]), ["middleware", "can be called", "5"]),
        (lambda: rpc("127.0.0.1:1", middleware=5), ["middleware", "sequence", "5"]),
        (lambda: rpc("127.0.0.1:1", middleware=[None]), ["middleware", "can be called", "None"]),
        (lambda: rpc("127.0.0.1:1", token="x" * 5000), ["token", "4,096", "5,000"]),
        (lambda: Server({}).listen(0, adress="127.0.0.1"), ["listen has no keyword", "mean 'address'"]),
        (lambda: Server({}).listen(True), ["no such port: True"]),
        (lambda: Monitor(Server({})).listen(80_000), ["no such port: 80000"]),
        (lambda: rpc("tcp://127.0.0.1:1"), ["no scheme", "'tcp://127.0.0.1:1'", "'host:port'"]),
        (lambda: rpc("[::1]"), ["no port in the address '[::1]'"]),
        (lambda: rpc("[::1:80"), ["no port in the address '[::1:80'"]),
        (lambda: rpc("127.0.0.1:8_0"), ["'8_0' isn't a number"]),
        (lambda: rpc(("127.0.0.1", True)), ["True isn't a number"]),
        (lambda: rpc("unix:a\0b"), ["no path in the address"]),
        (lambda: rpc("127.0.0.1:1").add(x=1, timeout=float("nan")), ["timeout", "nan"]),
        (lambda: rpc("127.0.0.1:1").add(x=1, timeout=10**400), ["timeout must be a number of seconds"]),
        (lambda: ConnectionPool().connect("127.0.0.1", 1, timeout="3"), ["timeout", "'3'"]),
        (lambda: ConnectionPool().connect("127.0.0.1", 1, float("nan")), ["timeout", "nan"]),
        (lambda: ConnectionPool().call(5, "add"), ["an address is", "5"]),
        (lambda: ConnectionPool().call("localhost", "add"), ["no port", "'localhost'"]),
        (lambda: SyncClient("127.0.0.1:1", tiemout=3), ["SyncClient has no keyword", "mean 'timeout'"]),
        (lambda: SyncClient("127.0.0.1:1", max_depth=1.5), ["max_depth", "whole number"]),
        (lambda: SyncClient("127.0.0.1:1", ssl_options=True), ["ssl_options", "ssl.SSLContext"]),
        (lambda: SyncClient("127.0.0.1:1").add(op=1), ["'op'"]),
        (lambda: SyncClient("127.0.0.1:1").add.each(1), ["add() takes its arguments by keyword"]),
        (lambda: SyncClient("127.0.0.1:1").add(x=1, timeout="3"), ["timeout", "'3'"]),
    ],
)
async def test_what_makes_no_sense_is_told_at_once_with_what_would(make, words):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert all(word in str(caught.value) for word in words), str(caught.value)


async def test_options_of_connect_are_told_in_its_future():
    with pytest.raises(TypeError, match="connect has no keyword 'max_dept': did you mean 'max_depth'"):
        await connect("127.0.0.1", 1, max_dept=3)
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not None"):
        await connect("127.0.0.1", 1, timeout=None)
    with pytest.raises(ValueError, match=r"no port .* 'host:port'"):
        await connect("127.0.0.1:1")


# Tornado leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_port_that_is_taken_is_named():
    async with served() as server:
        with pytest.raises(OSError, match=f"in use: 127.0.0.1, port {server.port}"):
            Server({}).listen(server.port, "127.0.0.1")


async def test_whose_limit_it_was_is_told():
    """A keyword of the server does nothing at the client, and the other way round."""
    async with (
        served({"many": lambda stream, n: [0] * len(n)}, max_values=100) as server,
        rpc(ip="127.0.0.1", port=server.port, max_values=50) as remote,
    ):
        with pytest.raises(TooManyValues, match=rf"raise the limit at {remote.address} with max_values="):
            await remote.many(n=[0] * 200)
        with pytest.raises(TooManyValues, match="raise the limit with max_values="):
            await remote.many(n=[0] * 60)


async def test_an_answer_that_cannot_be_read_names_the_call_that_it_is_for():
    async with served({"deep": lambda stream: [[[[]]]]}) as server:
        async with rpc(ip="127.0.0.1", port=server.port, max_depth=3) as remote:
            with pytest.raises(TooDeep, match="max_depth=") as raised:
                await remote.deep()
            assert raised.value.__notes__ == [f"in the answer of op 'deep' at {remote.address}"]

        def ask():
            with SyncClient(ip="127.0.0.1", port=server.port, max_depth=3) as client:
                client.identity()
                client.deep()

        with pytest.raises(TooDeep) as raised:
            await in_a_thread(ask)
        assert raised.value.__notes__ == [f"in the answer of op 'deep' at 127.0.0.1:{server.port}"]


async def test_a_pool_takes_an_address_in_any_form():
    async with served() as server:
        pool = ConnectionPool(limit=1, timeout=0.1, share=0)
        for address in (f"127.0.0.1:{server.port}", ("127.0.0.1", server.port)):
            assert await pool.call(address, "add", x=1, y=2) == 3
        stream = await pool.connect("127.0.0.1", server.port)
        with pytest.raises(TimeoutError, match=f"no connection to 127.0.0.1:{server.port} was free"):
            await pool.call(f"127.0.0.1:{server.port}", "add", x=1, y=2)
        pool.release(stream)
        pool.close()


async def test_a_call_of_what_is_closed_says_what_closed_it():
    remote = rpc("127.0.0.1:1")
    remote.close_rpc()
    with pytest.raises(RPCClosed, match=r"127.0.0.1:1: close_rpc\(\) .* make another"):
        await remote.add(x=1)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP, and this client doesn't: is it the right port?"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS, and this client doesn't: pass ssl_options="),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH"),
        (b"220 mail.example ESMTP\r\n", "speaks SMTP or FTP"),
        (b"-ERR unknown command\r\n", "speaks Redis"),
        (b"J\0\0\0\n8.0.33\0" + bytes(66), "speaks MySQL"),
    ],
    ids=lambda case: case[:8] if isinstance(case, bytes) else "",
)
@pytest.mark.parametrize("blocks", [False, True])
async def test_a_server_of_another_kind_is_named(said, told, blocks):
    async with fake_server() as server:
        remote = (SyncClient if blocks else rpc)(ip="127.0.0.1", port=server.port)
        call = in_a_thread(remote.add) if blocks else remote.add()
        stranger = await server.next()
        stranger.say(said)
        stranger.writer.close()
        with pytest.raises(BadMessage, match=re.escape(f"127.0.0.1:{server.port} {told}")) as caught:
            await call
        assert isinstance(caught.value.__cause__, BadFrame | BadMessage)
        remote.close_rpc()


@pytest.mark.parametrize("hands_on", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_what_has_connections_is_handed_to_no_other_process(hands_on):
    async with served() as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        pool = ConnectionPool()
        blocking = SyncClient(ip="127.0.0.1", port=server.port)
        for each in (remote, pool, pool(remote.address), blocking, blocking.add):
            with pytest.raises(TypeError, match="hand on the address"):
                hands_on(each)
        with pytest.raises(TypeError, match="hand on the address"):
            pickle.dumps(remote.add)
        assert await remote.add(x=1, y=2) == 3
