"""The rest of the classic module: every name."""

import asyncio
import inspect
import os
import pickle
import signal
import textwrap

import pytest
from tornado.ioloop import IOLoop

import fastcore
from fastcore import RemoteError, Server, rpc
from helpers.classic_server import classic_server
from helpers.support import Program
from helpers.surface import HANDLERS, serving

SIGNATURES = {
    "read": ["stream"],
    "write": ["stream", "msg"],
    "connect": ["ip", "port", "timeout"],
    "send_recv": ["stream", "arg", "ip", "port", "addr", "reply"],
    "send_recv_sync": ["stream", "ip", "port", "reply"],
    "rpc": ["arg", "stream", "ip", "port", "addr", "timeout"],
    "Server": ["handlers", "max_buffer_size"],
    "ConnectionPool": ["limit"],
    "pingpong": ["stream"],
    "coerce_to_address": ["o", "out"],
    "coerce_to_rpc": ["o"],
    "ip_port_from_args": ["arg", "addr", "ip", "port"],
    "error_message": ["e", "status"],
    "clean_exception": ["exception", "traceback"],
    "dumps": ["x"],
    "loads": ["x"],
    "get_total_physical_memory": [],
    "handle_signal": ["sig", "frame"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_classic_name_keeps_its_signature(name):
    parameters = list(inspect.signature(getattr(fastcore, name)).parameters)
    assert parameters[: len(SIGNATURES[name])] == SIGNATURES[name]


@pytest.mark.parametrize("name", ["RPCCall", "RPCClosed", "MAX_BUFFER_SIZE", "sentinel", "logger"])
def test_a_classic_name_is_there(name):
    assert hasattr(fastcore, name)


def test_the_sentinel_is_the_classic_one():
    assert fastcore.sentinel == b"7d629535c4f3a6963f566af7d3e3a2d2"


def test_two_hundred_megabytes_pass():
    assert fastcore.MAX_BUFFER_SIZE >= 200e6


def test_fastcore_core_is_fastcore():
    import fastcore.core
    from fastcore.core import read

    assert fastcore.core is fastcore
    assert read is fastcore.read


@pytest.mark.parametrize(
    "given",
    ["127.0.0.1:8786", b"127.0.0.1:8786", ("127.0.0.1", 8786), (b"127.0.0.1", "8786"), ["127.0.0.1", 8786]],
)
def test_an_address_is_coerced_to_either_form(given):
    assert fastcore.coerce_to_address(given) == "127.0.0.1:8786"
    assert fastcore.coerce_to_address(given, out=tuple) == ("127.0.0.1", 8786)


async def test_anything_that_names_a_server_is_coerced_to_an_rpc():
    remote = rpc("127.0.0.1:8786")
    assert fastcore.coerce_to_rpc(remote) is remote
    for given in ("127.0.0.1:8786", b"127.0.0.1:8786", ("127.0.0.1", 8786), ["127.0.0.1", 8786]):
        assert fastcore.coerce_to_rpc(given, timeout=1).address == "127.0.0.1:8786"
    with serving() as server:
        stream = await fastcore.connect("127.0.0.1", server.port)
        assert await fastcore.coerce_to_rpc(stream).ping() == b"pong"
        stream.close()
    with pytest.raises(TypeError):
        fastcore.coerce_to_rpc(1)


def test_ip_and_port_are_read_from_any_arguments():
    for given in ({"arg": "a:1"}, {"addr": b"a:1"}, {"ip": b"a", "port": 1}, {"arg": ("a", 1)}):
        assert fastcore.ip_port_from_args(**given) == ("a", 1)


def test_functions_go_through_dumps_and_loads():
    assert fastcore.loads(fastcore.dumps(lambda x: x + 1))(1) == 2


def test_send_recv_sync_waits_for_the_reply():
    loop = IOLoop()
    server = Server(HANDLERS)
    server.listen(0, "127.0.0.1")
    try:
        answer = fastcore.send_recv_sync(ip="127.0.0.1", port=server.port, op="add", x=1, y=2, close=True)
        assert answer == 3
    finally:
        server.stop()
        loop.close(all_fds=True)
        asyncio.set_event_loop(None)


def test_an_exception_goes_through_a_message_and_back():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        message = fastcore.error_message(error, status="uncaught-error")
    assert message["status"] == "uncaught-error"
    kind, error, traceback = fastcore.clean_exception(**message)
    assert kind is ZeroDivisionError
    assert str(error) == "division by zero"
    assert traceback is None
    assert "1 / 0" in "".join(error.__notes__)


class Exploit:
    def __reduce__(self):
        return os.putenv, ("FASTCORE_TEST_EXPLOITED", "1")


async def test_a_pickle_that_a_peer_sent_as_its_error_is_never_loaded(monkeypatch):
    loaded = []
    monkeypatch.setattr(pickle, "loads", loaded.append)
    pickled = pickle.dumps(Exploit())
    message = {"status": "uncaught-error", "exception": pickled, "traceback": pickled}
    async with (
        classic_server(old=lambda: message) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        with pytest.raises(RemoteError, match="pickle"):
            await remote.old()
    assert isinstance(fastcore.clean_exception(**message)[1], RemoteError)
    assert loaded == []


def test_a_signal_stops_the_loop():
    program = """
        import signal
        from tornado.ioloop import IOLoop
        from fastcore import handle_signal

        signal.signal(signal.SIGTERM, handle_signal)
        loop = IOLoop(make_current=False)
        loop.add_callback(print, "started")
        loop.start()
        loop.close()
        print("stopped")
    """
    with Program("-c", textwrap.dedent(program)) as running:
        assert running.line() == "started"
        running.send(signal.SIGTERM)
        assert running.line() == "stopped"
        assert running.wait() == 0
