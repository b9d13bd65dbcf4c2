"""A connection for one command."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tornado.iostream import IOStream

from fastcore.addressing import format_address
from fastcore.command.usage import client_tls, token_of
from fastcore.transport.connecting import connect

__all__ = ["connected"]

#: Seconds without a connection before it is told that somebody still tries.
_NOTICE_AFTER: Final = 0.7


@asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncIterator[IOStream]:
    """Connect to the server that the arguments name, until the block is left.

    Raises
    ------
    ConnectionLost
        If there is no connection until ``--timeout``.
    """
    host, port = arguments.address
    told = asyncio.get_running_loop().call_later(_NOTICE_AFTER, _tell, arguments)
    try:
        stream = await connect(
            host, port, arguments.timeout, ssl_options=client_tls(arguments), token=token_of(arguments)
        )
    finally:
        told.cancel()
    try:
        yield stream
    finally:
        stream.close()


def _tell(arguments: argparse.Namespace) -> None:
    print(
        f"fastcore: no connection to {format_address(arguments.address)} yet; "
        f"trying again until {arguments.timeout:g} s are over",
        file=sys.stderr,
    )
