"""One worker of ``fastcore serve --workers``: a process that its parent starts, and hands connections to.

It is no command of its own. What the parent asks of it goes over a stream of messages, as any
call does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import closing
from typing import Final

from tornado.iostream import IOStream

from fastcore.command.cli import parser, told
from fastcore.command.door import Door
from fastcore.command.ending import hear
from fastcore.command.log_lines import set_up
from fastcore.command.serving import loaded, serve_until
from fastcore.command.worker_arguments import WorkerArguments
from fastcore.server.server import Server
from fastcore.server.snapshot import describe_ops

__all__ = ["main"]

#: Seconds in which those are served who were handed in just before the door was shut.
_DRAIN_TIMEOUT: Final = 1.0


def main() -> int:
    """Work until the door is closed, and give the exit code."""
    told_here = WorkerArguments(*json.loads(sys.argv[1]))
    arguments = parser().parse_args(told_here.given)
    set_up(arguments, told_here.name)
    arguments.run = lambda arguments: asyncio.run(_work(told_here, arguments))
    return told(arguments)


async def _work(me: WorkerArguments, arguments: argparse.Namespace) -> None:
    for fd in (me.door, me.control):
        # What the program starts is no worker.
        os.set_inheritable(fd, False)
    asked = asyncio.Event()
    name = tuple(me.listens_on) if isinstance(me.listens_on, list) else me.listens_on
    door = Door(me.door, name, asked.set)
    # Somebody ends this worker alone: the parent is told, and shuts the door.
    hear(signal.SIGTERM, lambda *_: door.ask_to_leave())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ready = asyncio.Event()
    control, served = _control(ready)
    stream = IOStream(socket.socket(fileno=me.control))
    control.handle_stream(stream, me.name)
    # Also where nothing can be served: what the parent asks would be begun as the loop ends.
    with closing(stream):
        server, module = loaded(arguments)
        served.append(server)
        server.add_sockets([door])
        await serve_until(
            asked,
            server,
            module,
            arguments.deadline,
            ready=ready.set,
            last_calls=min(_DRAIN_TIMEOUT, arguments.deadline),
        )


def _control(ready: asyncio.Event) -> tuple[Server, list[Server]]:
    """Make what answers the parent, and the place for the server that it asks about."""
    served: list[Server] = []
    handlers = {
        "ready": lambda stream: ready.wait(),
        "load": lambda stream: (Server.open_connections(served[0]), Server.health(served[0])),
        "snapshot": lambda stream: Server.snapshot(served[0]),
        "ops": lambda stream: describe_ops(served[0].handlers),
    }
    return Server(handlers), served


if __name__ == "__main__":
    sys.exit(main())
