"""A client on ``distributed.core``: does the one thing that its arguments name, and prints what it saw.

client.py PORT THING [COMPRESSION]
"""

import sys

from distributed import core, protocol
from tornado import gen
from tornado.ioloop import IOLoop

port, thing = int(sys.argv[1]), sys.argv[2]
protocol.default_compression = sys.argv[3] if len(sys.argv) > 3 else None
remote = core.rpc(ip="127.0.0.1", port=port)


@gen.coroutine
def read_all(stream, n):
    answers = []
    while len(answers) < n:
        answer = yield core.read(stream)
        answers.append(answer)
    raise gen.Return(answers)


@gen.coroutine
def identity():
    answer = yield remote.identity()
    raise gen.Return(answer["type"])


@gen.coroutine
def ping():
    answer = yield remote.ping()
    raise gen.Return(answer)


@gen.coroutine
def large():
    sent = bytes(bytearray(range(256))) * (30 * 4096)
    answer = yield remote.echo(x=sent)
    raise gen.Return((len(answer), answer == sent))


@gen.coroutine
def compressible():
    sent = {"text": "abc" * 10000, "bytes": b"\0" * 10000}
    answer = yield remote.echo(x=sent)
    raise gen.Return(answer == sent)


@gen.coroutine
def error():
    answer = yield remote.divide(x=1, y=0)
    afterwards = yield remote.ping()
    raise gen.Return((answer["status"], answer["exception"]["type"], afterwards))


@gen.coroutine
def noreply():
    stream = yield core.connect("127.0.0.1", port)
    yield core.write(stream, {"op": "echo", "x": 1, "reply": False})
    yield core.write(stream, {"op": "echo", "x": 2})
    answer = yield core.read(stream)
    raise gen.Return(answer)


@gen.coroutine
def close():
    stream = yield core.connect("127.0.0.1", port)
    yield core.write(stream, {"op": "ping", "close": True})
    answer = yield core.read(stream)
    after_it = "open"
    try:
        yield core.read(stream)
    except core.StreamClosedError:
        after_it = "closed"
    raise gen.Return((answer, after_it))


@gen.coroutine
def pipelined():
    stream = yield core.connect("127.0.0.1", port)
    for i in range(100):
        core.write(stream, {"op": "add", "x": i, "y": 1})
    answers = yield read_all(stream, 100)
    raise gen.Return(answers == list(range(1, 101)))


@gen.coroutine
def stream():
    stream = yield core.connect("127.0.0.1", port)
    yield core.write(stream, {"op": "count", "n": 3, "reply": False})
    answers = yield read_all(stream, 3)
    raise gen.Return(answers)


print(repr(IOLoop.current().run_sync(globals()[thing], timeout=30)))
