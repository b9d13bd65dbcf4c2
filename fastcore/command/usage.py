"""What all commands have in common: how arguments are read, and how it is told what is wrong."""

from __future__ import annotations

import argparse
import json
import os
import ssl
from typing import Any, Final, NoReturn

from fastcore.addressing import Address, parse_address
from fastcore.errors import FastcoreError
from fastcore.logs import escaped
from fastcore.tokens import check_token

__all__ = [
    "INTERRUPTED",
    "WRONG_USAGE",
    "CommandError",
    "Parser",
    "WrongUsage",
    "add_files_of_tls",
    "add_server",
    "add_token",
    "client_tls",
    "in_one_line",
    "keyword",
    "load_certificate",
    "positive",
    "seconds",
    "token_of",
]

#: The exit code where nobody can know what is asked.
WRONG_USAGE: Final = 2
#: The one that a shell expects of a program that Ctrl-C ended.
INTERRUPTED: Final = 130

#: Characters of an error that are told.
_MAX_ERROR: Final = 2_000


class CommandError(Exception):
    """A command can't do what was asked; its text is what the user gets to read."""


class WrongUsage(CommandError):
    """Arguments that make no sense together."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End with it."""
        self.exit(WRONG_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def in_one_line(error: BaseException) -> str:
    """Tell an error so that what strangers said in it neither gives orders to the terminal nor fills it."""
    said = str(error)
    text = escaped(" ".join(said[:_MAX_ERROR].split())) + ("..." if len(said) > _MAX_ERROR else "")
    return text if isinstance(error, CommandError | FastcoreError) else f"{type(error).__name__}: {text}"


# ---- types of arguments


def address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``unix:/path``."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def seconds(text: str) -> float:
    """Read a time."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def keyword(text: str) -> tuple[str, Any]:
    """Read ``key=value``, with a value of JSON, or a string where it is none."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    if key == "op":
        raise argparse.ArgumentTypeError("no handler has a keyword 'op': it is what is called")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


# ---- arguments of several commands


def add_server(command: argparse.ArgumentParser, *, read: Any = address, form: str = "HOST:PORT") -> None:
    """Let a command be told which server it talks to, and how."""
    command.add_argument("address", metavar=form, type=read, help="where the server is, or unix:/path")
    command.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="for the connection, and for each answer (default: %(default)g)",
    )
    command.add_argument(
        "--tls", action="store_true", help="speak TLS; so it is with --cafile and --certfile, too"
    )
    add_files_of_tls(
        command,
        cafile="whose certificate the server's must be signed with (default: the system's authorities)",
        certfile="the certificate that is shown to the server, and its key",
    )
    add_token(command, "what the server asks for")


def add_files_of_tls(command: argparse.ArgumentParser, *, cafile: str, certfile: str) -> None:
    """Let a command be told of certificates."""
    command.add_argument("--cafile", metavar="FILE", help=cafile)
    command.add_argument("--certfile", metavar="FILE", help=certfile)
    command.add_argument("--keyfile", metavar="FILE", help="the key, where it is in a file of its own")


def add_token(command: argparse.ArgumentParser, what: str) -> None:
    """Let a command be told a token.

    Not as an argument: every user of a machine can see those of a process.
    """
    command.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"the token, {what}; without it, FASTCORE_TOKEN in the environment",
    )


def token_of(arguments: argparse.Namespace) -> str | None:
    """Give the token, if there is one.

    Raises
    ------
    CommandError
        If the file isn't there, or holds none.
    """
    if arguments.token_file is None:
        return os.environ.get("FASTCORE_TOKEN") or None
    try:
        with open(arguments.token_file) as file:
            return check_token(file.read().strip())
    except (OSError, ValueError) as error:
        raise CommandError(f"can't take the token of {arguments.token_file}: {error}") from error


def client_tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Make what a client speaks TLS with; None if it doesn't.

    Raises
    ------
    CommandError
        If a file isn't what it should be, or is missing.
    """
    if arguments.keyfile and not arguments.certfile:
        raise WrongUsage("--keyfile is the key of --certfile")
    if not (arguments.tls or arguments.cafile or arguments.certfile):
        return None
    try:
        context = ssl.create_default_context(cafile=arguments.cafile)
    except OSError as error:
        raise CommandError(f"can't use the authorities in {arguments.cafile}: {error}") from error
    load_certificate(context, arguments)
    return context


def load_certificate(context: ssl.SSLContext, arguments: argparse.Namespace) -> None:
    """Have a context show the certificate that ``--certfile`` names, if it does.

    Raises
    ------
    CommandError
        If there is none in that file, or not its key.
    """
    if arguments.certfile:
        try:
            context.load_cert_chain(arguments.certfile, arguments.keyfile)
        except OSError as error:
            raise CommandError(f"can't use the certificate in {arguments.certfile}: {error}") from error
