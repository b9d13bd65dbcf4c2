"""A server on ``distributed.core``: prints its port, then serves until it is killed.

Its argument, where there is one, names the compression of what it sends.
"""

import sys

from distributed import core, protocol
from tornado import gen
from tornado.ioloop import IOLoop

protocol.default_compression = sys.argv[1] if len(sys.argv) > 1 else None
if protocol.default_compression:
    assert protocol.default_compression in protocol.compressions


def add(stream, x, y):
    return x + y


def echo(stream, x):
    return x


def divide(stream, x, y):
    return x / y


@gen.coroutine
def count(stream, n):
    for i in range(n):
        yield core.write(stream, i)


loop = IOLoop.current()
server = core.Server({"ping": core.pingpong, "add": add, "echo": echo, "divide": divide, "count": count})
# Its own listen() knows no address.
core.TCPServer.listen(server, 0, "127.0.0.1")
print(server.port)
sys.stdout.flush()
loop.start()
