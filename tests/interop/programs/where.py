"""A program that asks a cluster of 1.9.0 what each of its processes has as its core.

where.py SCHEDULER_PORT: prints the module's name in this process, then in each worker.
"""

import sys

import distributed.core


def name_of_the_core():
    return sys.modules["distributed.core"].__name__


print(name_of_the_core())
with distributed.Executor("127.0.0.1:" + sys.argv[1]) as client:
    for worker in client.ncores():
        print(client.submit(name_of_the_core, workers=[worker], pure=False).result())
