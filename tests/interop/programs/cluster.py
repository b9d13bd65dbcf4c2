"""One process of a cluster of 1.9.0: prints where it is, then serves until it is killed.

cluster.py scheduler
cluster.py worker SCHEDULER_PORT
cluster.py executor SCHEDULER_PORT: computes on the cluster, and prints the results instead
"""

import operator
import sys

import distributed
from tornado.ioloop import IOLoop

role, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
loop = IOLoop()
loop.make_current()


def scheduler():
    server = distributed.Scheduler(ip="127.0.0.1")
    server.start(0)
    return server


def worker():
    server = distributed.Worker("127.0.0.1", ports[0], ip="127.0.0.1", ncores=1)
    loop.run_sync(server._start)
    return server


def executor():
    with distributed.Executor(("127.0.0.1", ports[0])) as client:
        numbers = client.map(operator.neg, range(20))
        total = client.submit(sum, numbers)
        print(client.gather(total))
        failed = client.submit(operator.floordiv, 1, 0)
        print(repr(failed.exception()))
        [scattered] = client.scatter([b"x" * 10000000])
        print(client.submit(len, scattered).result())
        workers = client.ncores()
        used = {address for held in client.who_has(numbers).values() for address in held}
        print(len(workers), len(used))


if role == "executor":
    executor()
else:
    print(globals()[role]().port)
    loop.start()
