"""Handlers of the user's own that misbehave: the server lives on, and the log says who it was."""

import asyncio
import gc
import logging
import socket
import sys
import threading
import time

import pytest
from tornado import gen

from fastcore import BadValue, ConnectionLost, RemoteError, Server, connect, read, register_error, rpc, write
from helpers.support import DEADLINE, until
from helpers.wire import frame, served, stranger_at


class Base(BaseException):
    pass


def raises(error):
    def handler(stream):
        raise error

    async def coroutine(stream):
        await asyncio.sleep(0)
        raise error

    @gen.coroutine
    def classic(stream):
        yield gen.sleep(0)
        raise error

    return {"plain": handler, "coroutine": coroutine, "classic": classic}


ERRORS = [
    ZeroDivisionError("division by zero"),
    Base("not an Exception"),
    GeneratorExit("closed"),
    StopIteration("over"),
    asyncio.CancelledError("not by us"),
    MemoryError(),
    RecursionError("too deep"),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["plain", "coroutine", "classic"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_a_handler_raises_its_caller_hears_of_it_and_the_server_lives_on(error, kind):
    if kind == "classic" and not isinstance(error, Exception):
        pytest.skip("Tornado's coroutines let what isn't an Exception through to the loop")
    async with served(raises(error)) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await getattr(remote, kind)()
        known = isinstance(error, Exception) and not isinstance(error, StopIteration)
        name = (
            "RuntimeError" if isinstance(error, StopIteration) and kind != "plain" else type(error).__name__
        )
        if known:
            assert type(caught.value) is type(error)
        elif name != "RuntimeError":
            assert isinstance(caught.value, RemoteError)
            assert caught.value.type_name == name
        assert await remote.add(x=1, y=2) == 3


async def test_an_endless_recursion_is_an_error_like_others():
    def deeper(stream, value=0):
        return deeper(stream, value + 1)

    async with served({"deeper": deeper}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        with pytest.raises(RecursionError):
            await remote.deeper()
        assert await remote.add(x=1, y=2) == 3


async def test_an_error_that_cannot_be_shown_is_an_error_like_others():
    class Shy(Exception):
        def __str__(self):
            raise ValueError("I won't tell")

        __repr__ = __str__

    def handler(stream):
        raise Shy(Shy())

    async with served({"shy": handler}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        with pytest.raises(RemoteError, match="Shy"):
            await remote.shy()
        assert await remote.add(x=1, y=2) == 3


@pytest.mark.parametrize(
    "result",
    [object(), {len}, 2**64, [object()], {"a": {"b": object()}}, "\ud800", len],
    ids=["object", "set", "huge int", "nested", "deep", "surrogate", "function"],
)
async def test_a_result_that_cannot_be_sent_is_an_error_at_the_caller(result):
    get = {"get": lambda stream: result}
    async with served(get) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            await remote.get()
        assert await remote.add(x=1, y=2) == 3


async def test_an_answer_that_cannot_be_sent_is_named_to_the_caller_and_in_the_log(caplog):
    rows = [1, {"price": range(2)}]

    async def later(stream):
        await asyncio.sleep(0)
        return rows

    async def parts(stream):
        yield 1
        yield rows

    async def by_hand(stream):
        await write(stream, rows)

    handlers = {"now": lambda stream: rows, "later": later, "parts": parts, "by_hand": by_hand}
    words = (
        "can't be sent: answer[1]['price'] is of type range, which messages don't hold: "
        "send list(value), or have both sides call register_type(range, ...)"
    )
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for op in ("now", "later", "parts"):
            caplog.clear()
            with pytest.raises(TypeError) as caught:
                await getattr(remote, op)()
            assert str(caught.value) == f"the answer of {op!r} {words}"
            [record] = caplog.records
            assert record.getMessage().endswith(f": the answer of {op!r} {words}")
            assert record.exc_info is None
        # What a handler writes by itself is its own affair.
        with pytest.raises(BadValue, match=r"a message to .* can't be sent: message\[1\]\['price'\]"):
            await remote.by_hand()
        figures = server.stats()
    assert figures["errors"]["handler"] == 4
    assert [figures["ops"][op]["count"] for op in handlers] == [1, 1, 1, 1]


class Refuses(type):
    def __getattribute__(cls, name):
        if name in ("__name__", "__qualname__", "__module__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


def nameless():
    return Refuses("Nameless", (Exception,), {})()


class Classless(Exception):
    @property
    def __class__(self):
        raise RuntimeError


class EndsAll(Exception):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


class NotesEndAll(Exception):
    @property
    def __notes__(self):
        raise SystemExit(3)


class Awaited:
    def __await__(self):
        yield 5


class Iterated:
    def __aiter__(self):
        raise RuntimeError("no")

    async def __anext__(self):
        return 1


class Hidden:
    def __getattribute__(self, name):
        raise RuntimeError(name)


def ended():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


def raising(error):
    raise error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("when", ["now", "later", "by another task"])
@pytest.mark.parametrize(
    "give",
    [
        lambda: raising(GeneratorExit()),
        lambda: raising(nameless()),
        lambda: raising(Classless()),
        lambda: raising(EndsAll()),
        lambda: raising(NotesEndAll()),
        lambda: raising(ExceptionGroup("both", [ValueError("x"), EndsAll()])),
        Awaited,
        Iterated,
        Hidden,
        ended,
        lambda: Exception,
    ],
)
async def test_each_request_gets_one_answer_whatever_its_handler_is_up_to(give, when, numbered):
    async def later(stream):
        await asyncio.sleep(0)
        result = give()
        return await result if isinstance(result, Awaited | asyncio.Future) else result

    async def by_another_task(stream):
        return await asyncio.create_task(later(stream))

    handlers = {"now": lambda stream: give(), "later": later, "by another task": by_another_task}
    async with served(handlers) as server, stranger_at(server) as stranger:
        for number in range(3):
            if numbered:
                stranger.calls(number, when)
                answer = (await stranger.hears_answers(number))[number][0]
            else:
                stranger.say(frame({"op": when}))
                answer = await stranger.hears()
            assert answer["status"] == "uncaught-error"
        assert await stranger.has_heard_nothing_more()


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("where", ["itself", "a task of its own", "another handler"])
async def test_one_that_is_cancelled_alone_is_answered_and_nobody_else_notices(where, numbered):
    begun = asyncio.Event()

    async def cancelled(stream):
        this = asyncio.current_task()
        if where == "itself":
            this.cancel()
        elif where == "a task of its own":
            asyncio.get_running_loop().call_soon(this.cancel)
        begun.task = this
        begun.set()
        await asyncio.Event().wait()

    async def beside(stream):
        await begun.wait()
        if where == "another handler":
            begun.task.cancel()
        await asyncio.sleep(0.05)
        return "as if nothing had been"

    handlers = {"cancelled": cancelled, "beside": beside}
    async with served(handlers) as server, stranger_at(server) as stranger:
        stranger.calls(1, "beside")
        stranger.say(frame({"op": "cancelled"}, **({"call": 2} if numbered else {})))
        first, header = await stranger.hears_all()
        assert header == {"call": 2 if numbered else None, **({"error": True} if numbered else {})}
        assert first["exception"]["type"] == "CancelledError"
        assert await stranger.hears_all() == ("as if nothing had been", {"call": 1})
        assert await stranger.has_heard_nothing_more()


async def test_one_that_is_cancelled_before_it_has_begun_is_answered_too():
    async def wait(stream):
        await asyncio.sleep(60)

    def abort(stream):
        for task in server._service.tasks:
            task.cancel()

    async with served({"wait": wait, "abort": abort}) as server, stranger_at(server) as stranger:
        stranger.say(frame({"op": "wait"}, call=1), frame({"op": "abort"}, call=2))
        heard = await stranger.hears_answers(1, 2)
        assert heard[1][0]["exception"]["type"] == "CancelledError"
        assert await stranger.has_heard_nothing_more()


def test_where_the_only_one_is_cancelled_others_begin_when_that_was_not_the_end_of_the_loop():
    async def wait(stream):
        await asyncio.sleep(60)

    async def later(stream):
        await asyncio.sleep(0)
        return "later"

    def cancel_all():
        for task in asyncio.all_tasks(loop):
            task.cancel()

    async def begin():
        server.listen(0, "127.0.0.1")

    # A loop as programs of Tornado have it, in which no task runs but those of handlers.
    loop = asyncio.new_event_loop()
    server = Server({"wait": wait, "later": later}, max_running=1)
    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address) as one, socket.create_connection(address) as other:
        one.sendall(frame({"op": "wait"}))
        while not server.stats()["running"]:
            time.sleep(0.001)
        other.sendall(frame({"op": "later"}))
        loop.call_soon_threadsafe(cancel_all)
        one.settimeout(DEADLINE)
        other.settimeout(DEADLINE)
        assert one.recv(1000) == b""
        assert other.recv(1000) == frame("later")
    loop.call_soon_threadsafe(server.stop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(DEADLINE)
    loop.close()


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_one_that_ends_the_loop_is_answered_and_others_if_that_goes_on(error, kind, numbered):
    def plain(stream):
        raise error

    async def coroutine(stream):
        raise error

    def generator(stream):
        yield
        raise error

    heard = []

    async def main():
        handlers = {"plain": plain, "coroutine": coroutine, "generator": generator}
        async with served(handlers, max_running=1) as server, stranger_at(server) as stranger:
            numbers = {"call": 1} if numbered else {}
            stranger.say(frame({"op": kind}, **numbers), frame({"op": "add", "x": 1, "y": 2}, call=2))
            while len(heard) < 2:
                message, header = await stranger.hears_all()
                if "part" not in header:
                    heard.append(message)

    loop = asyncio.new_event_loop()
    # That nobody asks for what the task of a handler raised.
    loop.set_exception_handler(lambda loop, context: None)
    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    loop.run_until_complete(asyncio.wait_for(task, 30))
    gc.collect()
    loop.close()
    assert [each["exception"]["type"] if isinstance(each, dict) else each for each in heard] == [
        error.__name__,
        3,
    ]


async def test_a_handler_that_closes_the_stream_ends_the_connection_and_nothing_else():
    async def later(stream):
        await asyncio.sleep(0)
        stream.close()
        return "nobody hears this"

    handlers = {"now": lambda stream: stream.close(), "later": later}
    async with served(handlers) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        for op in ("now", "later"):
            with pytest.raises(ConnectionLost, match=f"'{op}'"):
                await getattr(remote, op)()
        assert await remote.add(x=1, y=2) == 3


async def test_a_handler_that_never_returns_holds_its_own_connection_only():
    async def never(stream):
        await asyncio.Event().wait()

    async with served({"never": never}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        hanging = [remote.never() for _ in range(20)]
        assert [await remote.add(x=n, y=1) for n in range(10)] == [*range(1, 11)]
        for call in hanging:
            call.cancel()


async def test_a_handler_that_blocks_the_loop_is_named_in_the_log(caplog):
    caplog.set_level(logging.WARNING, "fastcore")

    def blocks(stream):
        time.sleep(0.05)

    async def blocks_later(stream):
        await asyncio.sleep(0)
        time.sleep(0.05)

    async def waits(stream):
        await asyncio.sleep(0.1)

    handlers = {"blocks": blocks, "blocks_later": blocks_later, "waits": waits}
    async with (
        served(handlers, slow_handler=0.03) as server,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        for op in handlers:
            await getattr(remote, op)()
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "'blocks'" in line and "blocked the loop for" in line]) == 1
    assert len([line for line in lines if "'blocks_later'" in line and "blocked the loop for" in line]) == 1
    assert not any("'waits'" in line for line in lines)


async def test_what_a_stranger_is_told_of_an_error_can_be_switched_off():
    def fail(stream):
        raise FileNotFoundError(2, "no such file", "/srv/secret/path")

    async def reply_of(server, message):
        async with stranger_at(server) as stranger:
            stranger.say(frame(message))
            return await stranger.hears()

    async with served({"fail": fail}) as server:
        reply = await reply_of(server, {"op": "fail"})
        assert __file__ in reply["traceback"]
        assert "/srv/secret/path" in str(reply["exception"])
    async with served({"fail": fail}, error_detail="message") as server:
        reply = await reply_of(server, {"op": "fail"})
        assert reply["traceback"] == ""
        assert "/srv/secret/path" in reply["exception"]["message"]
    async with served({"fail": fail}, error_detail="type") as server:
        for message in ({"op": "fail"}, {"op": "no such"}, {"op": "add", "z": 1}, "nonsense"):
            reply = await reply_of(server, message)
            text = str(reply)
            assert not any(
                secret in text for secret in ("secret", "fail(", "add(", "Server", ".py", "identity")
            )
            assert reply["exception"]["type"] in ("FileNotFoundError", "ValueError", "TypeError")
    with pytest.raises(ValueError, match="error_detail"):
        async with served(error_detail="everything"):
            pass


async def test_errors_one_after_the_other_keep_no_memory(caplog):
    @register_error
    class Refused(Exception):
        pass

    def fail(stream):
        raise Refused("no")

    caplog.set_level(logging.CRITICAL, "fastcore")  # pytest keeps all records
    async with served({"fail": fail}) as server, rpc(ip="127.0.0.1", port=server.port) as remote:
        counts = []
        for _ in range(3):
            for _ in range(200):
                with pytest.raises(Refused):
                    await remote.fail()
            gc.collect()
            counts.append(sys.getallocatedblocks())
        assert counts[2] - counts[1] < 2000


async def test_one_that_leaves_a_read_of_its_own_is_answered_and_its_connection_ends():
    def leave(stream):
        read(stream)
        return "left"

    async with served({"leave": leave}) as server:
        stream = await connect("127.0.0.1", server.port)
        await write(stream, {"op": "leave"})
        assert await read(stream) == "left"
        with pytest.raises(ConnectionLost):
            await read(stream)


async def test_a_traceback_that_nobody_gets_to_see_is_not_written(monkeypatch):
    written = []
    monkeypatch.setattr("fastcore.remote_errors.traceback_of", lambda *_: written.append(1) or "told")

    def fail(stream):
        raise LookupError("unheard")

    async with served({"fail": fail}) as server, stranger_at(server) as stranger:
        stranger.say(*[frame({"op": "fail", "reply": False}) for _ in range(50)])
        assert await stranger.is_served()
        assert not written
        stranger.say(frame({"op": "fail"}))
        assert (await stranger.hears())["traceback"] == "told"
        assert len(written) == 1


async def test_whoever_logs_may_fail_and_everybody_is_answered(monkeypatch, capsys):
    class Raising(logging.Handler):
        def emit(self, record):
            raise LookupError("a handler of the program's")

    def fail(stream):
        raise ValueError("no")

    async def part(stream):
        yield object()

    logger = logging.getLogger("fastcore.server")
    monkeypatch.setattr(logger, "handlers", [Raising()])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    async with served({"fail": fail, "part": part}) as server:
        for first in (frame({"op": "fail"}), frame({"op": "part"}, call=1), b"GET / HTTP/1.1\r\n\r\n"):
            async with stranger_at(server) as stranger:
                stranger.say(first)
                await stranger.hears_error()
    assert "Logging error" in capsys.readouterr().err


async def test_a_handler_whose_task_the_program_cancels_is_answered_and_the_others_go_on():
    jobs = []

    async def job(stream):
        jobs.append(asyncio.current_task())
        await asyncio.Event().wait()

    async def cancels_itself(stream):
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    handlers = {"job": job, "cancels_itself": cancels_itself}
    async with served(handlers) as server, stranger_at(server) as stranger:
        stranger.calls(1, "job")
        stranger.calls(2, "cancels_itself")
        await until(lambda: jobs)
        # One without a number, and another that waits for it.
        by_hand = await connect("127.0.0.1", server.port)
        await write(by_hand, {"op": "job"})
        await write(by_hand, {"op": "add", "x": 1, "y": 2})
        await until(lambda: len(jobs) == 2)
        for each in jobs:
            each.cancel()
        answers = await stranger.hears_answers(1, 2)
        assert {number: answer[0]["exception"]["type"] for number, answer in answers.items()} == {
            1: "CancelledError",
            2: "CancelledError",
        }
        assert (await read(by_hand))["exception"]["type"] == "CancelledError"
        assert await read(by_hand) == 3
        stranger.calls(3, "add", x=3, y=4)
        assert await stranger.hears_answers(3) == {3: 7}
        by_hand.close()
