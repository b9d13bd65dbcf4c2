"""One process that serves, from its first connection to its end: alone, or as one of several."""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
from collections.abc import Callable
from types import ModuleType
from typing import Final

from fastcore.command.program import hook, load_server
from fastcore.command.settings import limits_of
from fastcore.command.usage import CommandError, in_one_line, load_certificate, token_of
from fastcore.command.words import describe_seconds
from fastcore.logs import get_logger
from fastcore.server.server import Server

__all__ = ["loaded", "serve_until"]

logger = get_logger("fastcore.command")

#: Handlers that are named when they are waited for.
_MAX_NAMED: Final = 5
#: Seconds between two looks whether somebody is connected.
_POLL_INTERVAL: Final = 0.02


def loaded(arguments: argparse.Namespace) -> tuple[Server, ModuleType]:
    """Make the server that the arguments name, with its limits, its token and its TLS.

    Raises
    ------
    CommandError
        If there is none, or not with these.
    """
    options = limits_of(arguments)
    if arguments.expose:
        options["expose"] = arguments.expose
    if (token := token_of(arguments)) is not None:
        options["token"] = token
    server, module = load_server(arguments.target, options)
    if arguments.certfile:
        server.ssl_options = _server_tls(arguments)
    return server, module


def _server_tls(arguments: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, arguments)
    if arguments.cafile:
        try:
            context.load_verify_locations(arguments.cafile)
        except OSError as error:
            raise CommandError(f"can't use the authorities in {arguments.cafile}: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve_until(
    asked: asyncio.Event,
    server: Server,
    module: ModuleType,
    deadline: float,
    *,
    ready: Callable[[], object],
    ending: Callable[[], object] = lambda: None,
    way_out: str = "",
    last_calls: float = 0.0,
) -> None:
    """Serve until it is asked for the end; then let the handlers answer that run.

    Parameters
    ----------
    asked : asyncio.Event
        Set when it shall end.
    server : Server
        It listens already.
    module : module
        Its ``on_start`` is called before it is ready, its ``on_end`` before anybody is turned away.
    deadline : float
        Seconds that running handlers have.
    ready, ending : callable
        Called when it serves, and when it begins to end.
    way_out : str
        What is said, where something is waited for, of how to end without that.
    last_calls : float
        Seconds that clients have for calls over connections that are open then: who has just
        connected still gets his answer.

    Raises
    ------
    CommandError
        If ``on_start`` raises.
    """
    asking = asyncio.ensure_future(asked.wait())
    starting = asyncio.ensure_future(hook(module, "on_start", server))
    try:
        await asyncio.wait([asking, starting], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            try:
                starting.result()
            except Exception as error:
                raise CommandError(f"on_start of {module.__name__} raised {in_one_line(error)}") from error
            ready()
            await asking
            ending()
            await _told_to_end(server, module, deadline, way_out)
            await _nobody_is_connected(server, last_calls)
    finally:
        starting.cancel()
        asking.cancel()
        await server.shutdown(deadline)


async def _told_to_end(server: Server, module: ModuleType, deadline: float, way_out: str) -> None:
    snapshot = Server.snapshot(server)
    calls = snapshot["calls"]
    if calls:
        longest = [f"{call['op']!r} for {describe_seconds(call['seconds'])}" for call in calls[:_MAX_NAMED]]
        logger.info(
            "ending: up to %g s for what still runs (%d): %s%s%s",
            deadline,
            snapshot["running"],
            ", ".join(longest),
            ", ..." if len(calls) > _MAX_NAMED else "",
            way_out,
        )
    try:
        async with asyncio.timeout(deadline):
            await hook(module, "on_end", server)
    except Exception:
        # It ends all the same.
        logger.exception("on_end of %s failed", module.__name__)


async def _nobody_is_connected(server: Server, timeout: float) -> None:
    until = time.monotonic() + timeout
    while Server.open_connections(server) and time.monotonic() < until:
        await asyncio.sleep(_POLL_INTERVAL)
