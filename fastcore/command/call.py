"""``fastcore call``: one call of a handler, and its answers as they come."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastcore._parts import Parts
from fastcore.addressing import format_address
from fastcore.client.calls import RemoteCall
from fastcore.client.connection import connection_of
from fastcore.command.connected import connected
from fastcore.command.usage import CommandError, add_server, in_one_line, keyword
from fastcore.logs import escaped
from fastcore.remote_errors import remote_exception
from fastcore.transport.tornado import channel_of
from fastcore.values.registry import kind_of, to_plain

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Add the command to the others."""
    command = commands.add_parser("call", help="call one handler of a server")
    add_server(command)
    command.add_argument("op", metavar="OP", help="the handler's name")
    command.add_argument(
        "keywords",
        metavar="key=value",
        nargs="*",
        type=keyword,
        help="value: JSON if it parses, else a string",
    )
    command.add_argument("--json", action="store_true", help="print each answer as JSON, bytes as text")
    command.set_defaults(run=lambda arguments: asyncio.run(run(arguments)))


class _ShownCall(RemoteCall):
    """A call that tells when its answers turn out to be many."""

    __slots__ = ("has_parts",)
    has_parts: asyncio.Future[AsyncIterator[Any]]

    def begin_parts(self) -> Parts:
        parts = super().begin_parts()
        # Iterated from here on: an error may come with them, and parts that nobody iterates end with it.
        self.has_parts.set_result(aiter(self))
        return parts

    def answer_error(self, reply: Any, peer: str) -> None:
        error = remote_exception(reply, peer, self.op)
        told = CommandError(f"{self.op!r} at {peer} raised {in_one_line(error)}")
        told.__cause__ = error
        self.fail(told)


async def run(arguments: argparse.Namespace) -> None:
    """Call, and print what is answered.

    Raises
    ------
    CommandError
        If the handler raised, or takes too long.
    """
    # Not by rpc: any key may be asked for, also one that rpc has a meaning for.
    message = {**dict(arguments.keywords), "op": arguments.op}
    late = f"to {arguments.op!r} from {format_address(arguments.address)} within {arguments.timeout:g} s"
    async with connected(arguments) as stream:
        connection = connection_of(channel_of(stream))
        call = _ShownCall(loop=asyncio.get_running_loop())
        call.begin(arguments.op, None)
        call.has_parts = call.get_loop().create_future()
        connection.start_here(call, arguments.op, message)
        # Which of both it is shows with the first answer: a list may be one answer too.
        done, _ = await asyncio.wait(
            [call, call.has_parts], timeout=arguments.timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise CommandError(f"no answer {late}")
        if not call.has_parts.done():
            answer = await call
            if message.get("reply", True):
                _show(answer, arguments.json)
            return
        parts = await call.has_parts
        while True:
            try:
                async with asyncio.timeout(arguments.timeout):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise CommandError(f"no further answer {late}") from None
            _show(part, arguments.json)


def _show(answer: object, as_json: bool) -> None:
    text = json.dumps(answer, default=_for_json) if as_json else escaped(str(answer))
    # At once, where somebody else reads the output too: the next answer may take its time.
    print(text, flush=True)


def _for_json(value: object) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return to_plain(value) if kind_of(type(value)) is not None else str(value)
