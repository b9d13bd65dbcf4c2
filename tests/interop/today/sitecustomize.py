"""Lets the programs of 2016 run on today's Python, Tornado and pytest.

On the path of a program, Python runs this before it. None of it is about messages: it
gives back names that the standard library and Tornado have dropped since, so that the
modules around ``distributed.core`` can be imported. ``CORE`` in the environment tells
which core they get: their own, or fastcore.
"""

import collections
import collections.abc
import inspect
import multiprocessing
import os
import sys
import time
import types
import warnings

warnings.simplefilter("ignore")

for name in ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence"):
    setattr(collections, name, getattr(collections.abc, name))

inspect.getargspec = lambda function: inspect.getfullargspec(function)[:4]

try:
    import lz4.block
except ImportError:
    pass
else:
    lz4.LZ4_compress, lz4.LZ4_uncompress = lz4.block.compress, lz4.block.decompress

try:
    import psutil
except ImportError:
    pass
else:
    psutil.Process.memory_info_ex = psutil.Process.memory_info

# Only used to load eggs.
sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")

import msgpack  # noqa: E402
import tornado.ioloop  # noqa: E402
from tornado.platform.asyncio import BaseAsyncIOLoop  # noqa: E402


class PeriodicCallback(tornado.ioloop.PeriodicCallback):
    def __init__(self, callback, callback_time, io_loop=None):
        super().__init__(callback, callback_time)


def stop_from_any_thread(loop):
    loop.asyncio_loop.call_soon_threadsafe(loop.asyncio_loop.stop)


def close_when_stopped(loop, all_fds=False, close=BaseAsyncIOLoop.close):
    while loop.asyncio_loop.is_running():
        time.sleep(0.001)
    close(loop, all_fds)


tornado.ioloop.PeriodicCallback = PeriodicCallback
tornado.ioloop.IOLoop._running = property(lambda loop: loop.asyncio_loop.is_running())
BaseAsyncIOLoop.stop = stop_from_any_thread
BaseAsyncIOLoop.close = close_when_stopped


def loads(packed, encoding, loads=msgpack.unpackb):
    # It was 'utf8' always, which is how strings are decoded now.
    return loads(packed, strict_map_key=False)


msgpack.loads = loads

if os.environ.get("CORE") in ("classic", "fastcore"):
    # Its nanny starts workers as it was done in 2016; from Python 3.14 on one has to ask for it.
    # Elsewhere `fastcore run-classic` asks.
    multiprocessing.set_start_method("fork")

if os.environ.get("CORE") == "fastcore":
    import fastcore

    fastcore.install_as_distributed_core()
