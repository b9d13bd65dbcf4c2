"""``fastcore serve``: the handlers of a module, in one process or in several."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Any

from fastcore.addressing import format_address
from fastcore.command.ending import Ending
from fastcore.command.fleet import Fleet
from fastcore.command.listening import Listening
from fastcore.command.log_lines import add_logging, set_up
from fastcore.command.program import target
from fastcore.command.serving import loaded, serve_until
from fastcore.command.settings import add_limits
from fastcore.command.systemd import notify
from fastcore.command.usage import CommandError, WrongUsage, add_files_of_tls, add_token, positive, seconds
from fastcore.monitor.port import Monitor
from fastcore.monitor.watched import Watched
from fastcore.server.server import Server

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser("serve", help="serve a dict of handlers, or a Server subclass")
    command.add_argument(
        "target", metavar="MODULE:HANDLERS", type=target, help="where the handlers are, such as shop:handlers"
    )
    command.add_argument(
        "--host",
        help="who can reach it; 0.0.0.0 or :: is everybody, unix:/path is you (default: 127.0.0.1)",
    )
    command.add_argument("--port", type=_port, help="default: the Server's default_port, else a free one")
    command.add_argument(
        "--deadline",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long SIGTERM or Ctrl-C waits for handlers that run (default: %(default)g)",
    )
    command.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="so many processes that share the port; one that ends is replaced, SIGHUP replaces them all",
    )
    add_files_of_tls(
        command,
        cafile="ask clients for a certificate that one of these authorities has signed",
        certfile="speak TLS: the server's certificate, and its key",
    )
    add_token(command, "what callers have to show")
    add_limits(command)
    command.add_argument(
        "--expose",
        action="append",
        default=[],
        choices=["stats", "ops"],
        help="what clients may ask of the server itself; may be given again",
    )
    command.add_argument(
        "--monitor",
        type=_monitor,
        metavar="[HOST:]PORT",
        help="a port to look at it: a page, /stats, /metrics, /health (host: 127.0.0.1)",
    )
    add_logging(command)
    command.set_defaults(run=run)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(
            f"no such port: {text!r}; there are 0, which picks a free one, to 65535"
        )
    return int(text)


def _monitor(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", _port(port)


def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises
    ------
    CommandError
        If it can't be served so.
    """
    if (arguments.keyfile or arguments.cafile) and not arguments.certfile:
        raise WrongUsage("--keyfile and --cafile are for TLS, which needs --certfile")
    set_up(arguments)
    asyncio.run(_run_workers(arguments) if arguments.workers else _run_alone(arguments))


async def _run_alone(arguments: argparse.Namespace) -> None:
    # While the program is imported nothing is served, so nothing is waited for: asyncio's own Ctrl-C would.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server, module = loaded(arguments)
    ending = Ending()
    async with AsyncExitStack() as stack:
        listening = Listening(arguments, server.default_port)
        stack.callback(listening.close)
        server.add_sockets(listening.sockets)
        monitored = await _monitored(server, arguments, stack)

        def begin_to_end() -> None:
            notify("STOPPING=1")
            listening.leave_path()

        await serve_until(
            ending.asked,
            server,
            module,
            arguments.deadline,
            ready=lambda: _tell(arguments, listening.address, monitored),
            ending=begin_to_end,
            way_out="; Ctrl-C once more ends at once",
        )


async def _run_workers(arguments: argparse.Namespace) -> None:
    fleet = Fleet(arguments)
    ending = Ending(fleet.kill)
    async with AsyncExitStack() as stack:
        listening = Listening(arguments)
        stack.callback(listening.close)
        monitored = await _monitored(fleet, arguments, stack)
        await fleet.serve(listening, ending.asked, lambda: _tell(arguments, listening.address, monitored))


async def _monitored(watched: Server | Watched, arguments: argparse.Namespace, stack: AsyncExitStack) -> str:
    """Open the port to look at it, if one is wanted, and say where."""
    if arguments.monitor is None:
        return ""
    host, port = arguments.monitor
    monitor = await stack.enter_async_context(Monitor(watched))
    try:
        monitor.listen(port, host)
    except OSError as error:
        raise CommandError(f"can't listen on {host}, port {port}, for the monitor: {error}") from error
    return f", monitor on http://{format_address((host, monitor.port))}/"


def _tell(arguments: argparse.Namespace, address: str, monitored: str) -> None:
    print(f"serving {':'.join(arguments.target)} on {address}{monitored}", flush=True)
    notify("READY=1")
