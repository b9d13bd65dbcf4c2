"""What a running server tells of itself: over its own port, or by HTTP from its monitor."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, Final

from fastcore.addressing import format_address
from fastcore.client.rpc import send_recv
from fastcore.command.connected import connected
from fastcore.command.usage import CommandError, address, client_tls

__all__ = ["ask", "place", "title"]

#: Seconds after which what doesn't answer a message is asked by HTTP. A monitor waits for the rest of
#: what it takes for a request; a server would have answered.
_MESSAGE_TIMEOUT: Final = 1.0


def place(text: str) -> Any:
    """Read ``HOST:PORT``, of a server or its monitor, or the address of a monitor's page."""
    return text.rstrip("/") if text.startswith(("http://", "https://")) else address(text)


def title(arguments: argparse.Namespace) -> str:
    """Tell where that is."""
    where = arguments.address
    return where if isinstance(where, str) else format_address(where)


async def ask(arguments: argparse.Namespace, what: str) -> Any:
    """Ask a server about itself.

    Parameters
    ----------
    arguments : argparse.Namespace
        With what ``add_server`` has read.
    what : str
        ``'stats'`` or ``'ops'``.

    Raises
    ------
    CommandError
        If it doesn't tell.
    """
    if isinstance(arguments.address, str):
        return await _by_http(arguments.address, what, arguments)
    message_timeout = min(_MESSAGE_TIMEOUT, arguments.timeout)
    async with connected(arguments) as stream:
        call = send_recv(stream, op=what)
        done, _ = await asyncio.wait([call], timeout=message_timeout)
        if not done:
            _, port = arguments.address
            try:
                if port is None:
                    raise CommandError("a monitor has a port")
                return await _by_http(f"http://{title(arguments)}", what, arguments)
            except CommandError:
                done, _ = await asyncio.wait([call], timeout=arguments.timeout - message_timeout)
        if not done:
            call.cancel()
            raise CommandError(f"no answer from {title(arguments)} within {arguments.timeout:g} s")
        try:
            return await call
        except ValueError as error:
            if "no handler found" not in str(error):
                raise
            raise CommandError(
                f"{title(arguments)} doesn't tell: serve with --expose {what}, or with --monitor PORT "
                "and ask that port"
            ) from error


async def _by_http(url: str, what: str, arguments: argparse.Namespace) -> Any:
    # Here, as it takes long to import, and the other commands need none of it.
    from tornado.httpclient import AsyncHTTPClient, HTTPError

    try:
        answer = await AsyncHTTPClient().fetch(
            f"{url}/{what}",
            connect_timeout=arguments.timeout,
            request_timeout=arguments.timeout,
            ssl_options=client_tls(arguments),
        )
        return json.loads(answer.body)
    except (HTTPError, OSError, ValueError) as error:
        raise CommandError(f"{url} tells no {what}: {error}") from error
