"""A model of calls: whatever happens around it, an answer belongs to its question, and every call ends.

Hypothesis makes a plan: servers that number and classic ones, calls of all kinds with the fate of
each, cuts and restarts in between. The model of an answer is the question itself.
"""

import asyncio
import contextlib
import gc
import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcore import ConnectionLost, ConnectionPool, Server, write
from helpers.classic_server import classic_server
from helpers.support import run, until

#: Examples; more of them: FASTCORE_EXAMPLES=5000.
EXAMPLES = int(os.environ.get("FASTCORE_EXAMPLES", "60"))

DELAYS = (0.0, 0.0, 0.001, 0.004)
SIZES = (0, 0, 0, 10, 3_000, 100_000)


def deep(levels):
    """Lists inside each other."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


class Handlers:
    """Each answers with its question; some do more than they should."""

    def __init__(self):
        self.notes = []
        #: Generators that have begun and not ended.
        self.open = 0

    def at_once(self, stream, q, **more):
        return ["answer", q]

    async def later(self, stream, q, delay, **more):
        await asyncio.sleep(delay)
        return ["answer", q]

    def fails(self, stream, q, **more):
        raise LookupError(q)

    async def fails_later(self, stream, q, delay, **more):
        await asyncio.sleep(delay)
        raise LookupError(q)

    def error_as_data(self, stream, q, **more):
        return {"status": "uncaught-error", "exception": {"type": "KeyError", "message": "no", "args": [q]}}

    def odd(self, stream, q, **more):
        return object()

    async def writes(self, stream, q, delay, **more):
        write(stream, {"progress": q})
        await asyncio.sleep(delay)
        write(stream, ["answer", -1])
        return ["answer", q]

    async def never(self, stream, q, **more):
        await asyncio.get_running_loop().create_future()

    async def hangs_up(self, stream, q, delay, **more):
        await asyncio.sleep(delay)
        stream.close()

    def rows(self, stream, q, **more):
        self.open += 1
        try:
            for i in range(q % 70):
                yield [q, i]
        finally:
            self.open -= 1

    async def async_rows(self, stream, q, delay, **more):
        self.open += 1
        try:
            for i in range(q % 7):
                await asyncio.sleep(delay)
                yield [q, i]
        finally:
            # Before it waits: it may be given up just then, as it was over already.
            self.open -= 1
            await asyncio.sleep(0)

    async def endless(self, stream, q, **more):
        self.open += 1
        try:
            i = 0
            while True:
                yield [q, i]
                i += 1
        finally:
            self.open -= 1

    async def note(self, stream, q, delay, **more):
        await asyncio.sleep(delay)
        self.notes.append(q)

    @property
    def all(self):
        return {
            name: getattr(self, name)
            for name in vars(type(self))
            if not name.startswith("_") and name not in ("all", "classic")
        }

    @property
    def classic(self):
        """Those that a server of 2016 has."""

        def without_stream(handler):
            return lambda **message: handler(None, **message)

        return {name: without_stream(getattr(self, name)) for name in ("at_once", "later", "never")}


#: What is called, and what is asked for beside that.
OPS = st.sampled_from(
    [
        *["at_once", "later", "fails", "fails_later", "error_as_data", "odd", "writes", "never"],
        *["hangs_up", "rows", "async_rows", "endless", "note", "unknown", "wrong keywords", "too deep"],
        *["later", "later", "rows", "async_rows"],
    ]
)
CLASSIC_OPS = st.sampled_from(["at_once", "later", "later", "never"])
FATES = st.sampled_from(["awaited"] * 4 + ["cancelled", "timed out", "dropped", "read", "read some"])
EVENTS = st.sampled_from(["cut one", "close_streams", "server cuts", "restart", "collect", "connect"])


def steps(ops):
    one_call = st.tuples(
        st.just("call"), ops, FATES, st.sampled_from(DELAYS), st.sampled_from(SIZES), st.booleans()
    )
    return st.lists(
        st.one_of(one_call, one_call, one_call, one_call, st.tuples(EVENTS), st.just(("pause",))),
        min_size=1,
        max_size=50,
    )


plans = st.one_of(
    st.tuples(
        st.just("numbered"),
        st.sampled_from([0, 1, 4]),
        st.sampled_from([1, 3, 512]),
        st.sampled_from([1, 2, 256]),
        steps(OPS),
    ),
    st.tuples(
        st.just("classic"),
        st.sampled_from([0, 1, 4]),
        st.sampled_from([1, 3, 512]),
        st.just(None),
        steps(CLASSIC_OPS),
    ),
)


class Run:
    """One plan, carried out."""

    def __init__(self, kind, share, limit, most):
        self.kind = kind
        self.most = most
        self.handlers = Handlers()
        self.pool = ConnectionPool(limit, share=share, timeout=5)
        self.chance = random.Random(1)
        self.port = 0
        self.tasks = []
        self.questions = 0
        #: Whether something happened after which calls may be lost.
        self.is_rough = False
        self.serving = None

    async def serve(self):
        if self.kind == "classic":
            self.serving = classic_server(self.port, **self.handlers.classic)
            self.server = await self.serving.__aenter__()
        else:
            self.server = Server(self.handlers.all, max_depth=20, max_running_per_connection=self.most)
            self.server.listen(self.port, "127.0.0.1")
        self.port = self.server.port

    async def end_server(self):
        if self.serving is not None:
            await self.serving.__aexit__(None, None, None)
        else:
            await self.server.shutdown(deadline=0)

    async def happens(self, event):
        if event == "pause":
            await asyncio.sleep(0.001)
            return
        if event == "collect":
            self.pool.collect()
            return
        if event == "connect":
            self.tasks.append(asyncio.ensure_future(self.has_one_for_itself()))
            return
        self.is_rough = True
        if event == "cut one":
            streams = [each for group in (self.pool.available, self.pool.occupied) for each in group.values()]
            streams = sorted((stream for group in streams for stream in group), key=id)
            if streams:
                self.chance.choice(streams).close()
        elif event == "close_streams":
            self.pool.close_streams()
        elif event == "server cuts" and self.kind == "numbered":
            for channel in [*self.server._connections]:
                channel.close()
        elif event == "restart":
            await self.end_server()
            await self.serve()

    async def has_one_for_itself(self):
        """Take a connection, and use it by hand."""
        try:
            stream = await self.pool.connect("127.0.0.1", self.port, timeout=5)
        except (ConnectionLost, TimeoutError):
            return
        await asyncio.sleep(0.001)
        if self.chance.random() < 0.5:
            stream.close()
        else:
            with contextlib.suppress(ValueError):
                self.pool.release(stream)

    def calls(self, op, fate, delay, size, reply):
        q = self.questions
        self.questions += 1
        if self.most is not None and self.most < 256:
            # What is held back stays below max_waiting, so that the server hears who gives up.
            size = min(size, 3_000)
        message = {"q": q, "delay": delay, "padding": bytes(size)}
        name = op
        if op == "wrong keywords":
            name, message = "later", {"q": q, "wrong": 1}
        elif op == "too deep":
            name, message = "at_once", {"q": q, "deep": deep(30)}
        elif op == "unknown":
            name = "no_such_op"
        if not reply:
            if self.kind == "classic" or op in ("endless", "never") or fate in ("read", "read some"):
                reply = True
            else:
                message["reply"] = False
        # What doesn't end by itself is given an end.
        timeout = 0.003 if fate == "timed out" else 0.02 if op in ("never", "endless") else None
        call = getattr(self.pool(ip="127.0.0.1", port=self.port), name)(timeout=timeout, **message)
        if fate == "dropped":
            self.tasks.append(asyncio.ensure_future(asyncio.wait([call])))
            call.add_done_callback(lambda call: call.cancelled() or call.exception())
        else:
            self.tasks.append(asyncio.ensure_future(self.ends(call, q, op, fate, reply)))

    async def ends(self, call, q, op, fate, reply):
        """See that a call ends as it may."""
        if fate == "cancelled":
            await asyncio.sleep(self.chance.choice(DELAYS))
            call.cancel()
        try:
            if fate in ("read", "read some"):
                answer = []
                async for value in call:
                    answer.append(value)
                    if fate == "read some" and len(answer) == 3:
                        break
            else:
                answer = await call
        except asyncio.CancelledError:
            assert fate == "cancelled"
        except TimeoutError:
            assert fate == "timed out" or op in ("never", "endless")
        except ConnectionLost:
            assert self.is_rough or op == "hangs_up" or self.hung_up or self.kind == "classic"
        except LookupError as error:
            self.check_error(error, LookupError(q), op, ("fails", "fails_later"))
        except (TypeError, ValueError) as error:
            if "await it" not in str(error):
                self.check_error(error, error, op, ("odd", "unknown", "wrong keywords", "too deep"))
        else:
            self.check(answer, q, op, fate, reply)

    #: Set where a handler closes the connection that others share.
    hung_up = False

    def check_error(self, error, expected, op, ops):
        assert op in ops, repr(error)
        assert (type(error), error.args) == (type(expected), expected.args)

    def check(self, answer, q, op, fate, reply):
        if not reply:
            assert answer is None
        elif op in ("at_once", "later", "writes"):
            # Who iterates over a list gets its values.
            assert answer == (["answer", q] if fate != "read some" else ["answer", q][:3])
        elif op == "error_as_data":
            assert answer["exception"]["args"] == [q]
        elif op in ("rows", "async_rows"):
            n = q % (70 if op == "rows" else 7)
            if fate == "read some":
                n = min(n, 3)
            assert answer == [[q, i] for i in range(n)]
        elif op == "endless":
            assert fate == "read some"
            assert answer == [[q, i] for i in range(3)]
        elif op == "note":
            assert answer is None or answer == []
        else:
            raise AssertionError(f"{op} was answered by {answer!r}")


async def carry_out(plan):
    kind, share, limit, most, todo = plan
    at = Run(kind, share, limit, most)
    at.hung_up = any(step[:2] == ("call", "hangs_up") for step in todo)
    await at.serve()
    try:
        for what, *how in todo:
            if what == "call":
                at.calls(*how)
            else:
                await at.happens(what)
        if at.tasks:
            await asyncio.gather(*at.tasks)
        gc.collect(0)
        # All comes to rest: nothing runs, nothing is in use, nobody waits.
        if kind == "numbered":
            await until(lambda: not at.server.stats()["running"])
            await until(lambda: not at.handlers.open)
        await until(lambda: not at.pool.occupied)
        # Behind a question of the pool's own they are, until its connection is there.
        await until(lambda: not at.pool.waiting)
        assert limit is None or at.pool.open <= limit
        # And goes on.
        # The server may have closed one of them, of which nobody here has heard yet.
        at.pool.close_streams()
        at.calls("at_once", "awaited", 0.0, 0, True)
        at.calls("later", "awaited", 0.001, 0, True)
        at.is_rough = False
        await asyncio.gather(*at.tasks[-2:])
    finally:
        at.pool.close()
        await at.end_server()


@pytest.mark.slow_under_valgrind
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck], print_blob=True)
@given(plans)
def test_every_answer_belongs_to_its_question_and_every_call_ends(plan):
    run(carry_out(plan), 20)
