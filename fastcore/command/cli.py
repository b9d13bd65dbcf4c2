"""The command ``fastcore``: serve handlers, call them, time them, run old programs.

What goes wrong is told in one line on stderr, with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import inspect
import json
import logging
import multiprocessing
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fastcore import __version__
from fastcore._parts import Parts
from fastcore.addressing import UNIX_SCHEME, Address, format_address, parse_address
from fastcore.classic import install_as_distributed_core
from fastcore.client.calls import RemoteCall
from fastcore.client.connection import closes, connection_of
from fastcore.command import demo, ping
from fastcore.errors import FastcoreError
from fastcore.logs import escaped
from fastcore.remote_errors import remote_exception
from fastcore.server.server import Server
from fastcore.tokens import check_token
from fastcore.transport.connecting import connect
from fastcore.transport.tornado import channel_of
from fastcore.values.registry import kind_of, to_plain

__all__ = ["main"]

#: What a shell expects of a program that Ctrl-C ended.
_INTERRUPTED = 130


class CommandError(Exception):
    """A command can't do what was asked; its text is what the user gets to read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if left out.

    Returns
    -------
    int
        The exit code: 0, 1 after an error that was told, 130 after Ctrl-C.

    Examples
    --------
    >>> main(['call', '127.0.0.1:1', 'identity', '--timeout', '0.1'])
    1
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever reads the output has enough, as `head` does. What is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.verbose:
            traceback.print_exc()
        print(f"fastcore: {_in_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _in_one_line(error: Exception) -> str:
    text = escaped(" ".join(str(error).split()))
    return text if isinstance(error, CommandError | FastcoreError) else f"{type(error).__name__}: {text}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastcore", description="Messages and remote calls over Tornado streams.")
    parser.add_argument("--version", action="version", version=f"fastcore {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log all there is, and show tracebacks")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("demo", help="start a server, talk to it, show what is said")
    command.set_defaults(run=lambda arguments: asyncio.run(demo.show()))

    command = commands.add_parser("serve", help="serve a dict of handlers, or a Server subclass")
    command.add_argument(
        "target", metavar="MODULE:HANDLERS", help="where the handlers are, such as shop:handlers"
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="who can reach it; 0.0.0.0 or :: is everybody, unix:/path is you (default: %(default)s)",
    )
    command.add_argument("--port", type=int, help="default: the Server's default_port, else a free one")
    command.add_argument(
        "--deadline",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long SIGTERM or Ctrl-C waits for handlers that run (default: %(default)s)",
    )
    _add_token(command, "what callers have to show")
    command.set_defaults(run=lambda arguments: asyncio.run(_serve(arguments)))

    command = commands.add_parser("call", help="call one handler of a server")
    _add_address(command)
    command.add_argument("op", metavar="OP", help="the handler's name")
    command.add_argument(
        "keywords",
        metavar="key=value",
        nargs="*",
        type=_keyword,
        help="value: JSON if it parses, else a string",
    )
    command.add_argument("--json", action="store_true", help="print each answer as JSON, bytes as text")
    command.set_defaults(run=lambda arguments: asyncio.run(_call(arguments)))

    command = commands.add_parser("ping", help="time round trips to a server")
    _add_address(command)
    command.add_argument(
        "-n", "--count", type=_positive, default=1000, help="how many (default: %(default)s)"
    )
    command.set_defaults(
        run=lambda arguments: asyncio.run(
            ping.show(arguments.address, arguments.count, arguments.timeout, _token(arguments))
        )
    )

    command = commands.add_parser(
        "run-classic", help="run a program written for distributed.core, on fastcore in its place"
    )
    command.add_argument("-m", dest="is_module", action="store_true", help="PROGRAM is a module's name")
    command.add_argument("program", metavar="PROGRAM")
    command.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its arguments")
    command.set_defaults(run=_run_classic)
    return parser


def _add_address(command: argparse.ArgumentParser) -> None:
    command.add_argument("address", metavar="HOST:PORT", type=_address)
    command.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for each answer (default: %(default)s)",
    )
    _add_token(command, "what the server asks for")


def _add_token(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"the token, {what}; without it, FASTCORE_TOKEN in the environment",
    )


def _token(arguments: argparse.Namespace) -> str | None:
    """Give the token. Not as an argument: every user of a machine can see those of a process."""
    if arguments.token_file is None:
        return os.environ.get("FASTCORE_TOKEN") or None
    try:
        with open(arguments.token_file) as file:
            return check_token(file.read().strip())
    except (OSError, ValueError) as error:
        raise CommandError(f"can't take the token of {arguments.token_file}: {error}") from error


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _keyword(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


async def _serve(arguments: argparse.Namespace) -> None:
    server = _load_server(arguments.target, _token(arguments))
    stop = _stop_signal()
    host, port = arguments.host, arguments.port
    try:
        if host.startswith(UNIX_SCHEME):
            server.listen(host)
            address = host
        else:
            server.listen(port, host)
            address = format_address((host, server.port))
    except OSError as error:
        raise CommandError(f"can't listen on {host}, port {port}: {error}") from error
    print(f"serving {arguments.target} on {address}", flush=True)
    await stop.wait()
    await server.shutdown(arguments.deadline)


def _load_server(target: str, token: str | None) -> Server:
    module_name, _, name = target.partition(":")
    if not (module_name and name):
        raise CommandError(f"{target!r} is not of the form MODULE:HANDLERS")
    # As `python -m` does: the modules of the current directory count.
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise CommandError(f"can't serve {target!r}: {error}") from error
    if isinstance(found, Mapping):
        return Server(found, token=token)
    if isinstance(found, type) and issubclass(found, Server):
        make_server: Any = found  # what it takes is up to the subclass
        options = {} if token is None else {"token": token}
        if options and not _takes(make_server, options):
            raise CommandError(f"{target!r} takes no token=; have it take one, and give it to Server")
        server: Server = make_server(**options)
        return server
    raise CommandError(f"{target!r} is a {type(found).__name__}, not a dict of handlers or a Server subclass")


def _takes(function: Any, options: dict[str, Any]) -> bool:
    try:
        inspect.signature(function).bind(**options)
    except TypeError:
        return False
    return True


def _stop_signal() -> asyncio.Event:
    """Give what SIGTERM and Ctrl-C set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(signal_number, stop.set)
        except NotImplementedError:  # Windows' loops know no signals
            signal.signal(signal_number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop


class _ShownCall(RemoteCall):
    """The call of `fastcore call`: it tells when its answers turn out to be many."""

    __slots__ = ("has_parts",)
    has_parts: asyncio.Future[None]

    def begin_parts(self) -> Parts:
        if not self.has_parts.done():
            self.has_parts.set_result(None)
        return super().begin_parts()

    def answer_error(self, reply: Any, peer: str) -> None:
        error = remote_exception(reply, peer, self.op)
        told = CommandError(f"{self.op!r} at {peer} raised {_in_one_line(error)}")
        told.__cause__ = error
        self.fail(told)


async def _call(arguments: argparse.Namespace) -> None:
    # Not by rpc: any key may be asked for, also one that rpc has a meaning for.
    message = {**dict(arguments.keywords), "op": arguments.op}
    host, port = arguments.address
    late = f"to {arguments.op!r} from {format_address(arguments.address)} within {arguments.timeout:g} s"
    stream = await connect(host, port, arguments.timeout, token=_token(arguments))
    try:
        connection = connection_of(channel_of(stream))
        call = _ShownCall(loop=asyncio.get_running_loop())
        call.begin(arguments.op, None)
        call.has_parts = call.get_loop().create_future()
        start = connection.start_last if closes(message) else connection.start
        start(call, arguments.op, message)
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
        parts = aiter(call)
        while True:
            try:
                async with asyncio.timeout(arguments.timeout):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise CommandError(f"no further answer {late}") from None
            _show(part, arguments.json)
    finally:
        stream.close()


def _show(answer: object, as_json: bool) -> None:
    text = json.dumps(answer, default=_for_json) if as_json else escaped(str(answer))
    # At once, where somebody else reads the output too: the next answer may take its time.
    print(text, flush=True)


def _for_json(value: object) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return to_plain(value) if kind_of(type(value)) is not None else str(value)


def _run_classic(arguments: argparse.Namespace) -> None:
    program = arguments.program
    if not arguments.is_module and not os.path.exists(program):
        raise CommandError(f"there is no file {program!r}")
    install_as_distributed_core()
    _prefer_fork()
    sys.argv = [program, *arguments.arguments]
    try:
        if arguments.is_module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
            runpy.run_path(program, run_name="__main__")
    except Exception as error:
        # Its author wants to read where, as python itself would tell.
        traceback.print_exception(error)
        raise SystemExit(1) from None


def _prefer_fork() -> None:
    """Start processes as it was in 2016 everywhere: they go on with the modules that the program has.

    Whoever has chosen a start method, or chooses one later, has it.
    """
    usual, *others = multiprocessing.get_all_start_methods()
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen is None and usual != "fork" and "fork" in others:
        choose = multiprocessing.set_start_method
        choose("fork")
        # To the program it is a default: as a choice, it would refuse the program's own.
        multiprocessing.set_start_method = functools.partial(choose, force=True)
