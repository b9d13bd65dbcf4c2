"""The limits of a server, as a command line and a TOML file say them."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import tomllib
from typing import Any, Final

from fastcore.limits import Limits
from fastcore.server.server import Server

__all__ = ["add_limits", "limits_of"]

#: What ``Server`` takes that says what may be done, and how.
NAMES: Final = {
    *(field.name for field in dataclasses.fields(Limits)),
    *inspect.signature(Server.__init__).parameters,
} - {"self", "handlers", "kwargs", "expose", "token", "authenticate", "middleware"}
_UNITS: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_WORDS: Final = {"none": None, "true": True, "false": False}


def add_limits(command: argparse.ArgumentParser) -> None:
    """Let a command be told of limits."""
    command.add_argument(
        "--limit",
        metavar="NAME=VALUE",
        dest="limits",
        action="append",
        type=_limit,
        default=[],
        help="a keyword of Server, such as max_connections=1000, max_buffer_size=10MiB, idle_timeout=none; "
        "may be given again",
    )
    command.add_argument(
        "--limits",
        metavar="FILE",
        dest="limits_of_file",
        type=_limits_file,
        default={},
        help="a TOML file of such lines; --limit goes first",
    )


def limits_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the keywords for ``Server``."""
    return {**arguments.limits_of_file, **dict(arguments.limits)}


def _limit(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, _checked(name, value)


def _limits_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise argparse.ArgumentTypeError(f"can't read {path}: {error}") from None
    return {name: _checked(name, value) for name, value in found.items()}


def _checked(name: str, value: Any) -> Any:
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"no such limit: {name!r}; there are {', '.join(sorted(NAMES))}")
    value = _value(value) if isinstance(value, str) else value
    try:
        Server({}, **{name: value})
    except (TypeError, ValueError, ImportError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = re.fullmatch(r"(\d[\d_]*)(\.\d+)? ?(|[KMG]iB)", text)
    if number is None:
        return text
    whole, fraction, unit = number.groups()
    if not fraction:
        return int(whole) * _UNITS[unit]
    # There are no parts of bytes.
    return int(float(whole + fraction) * _UNITS[unit]) if unit else float(whole + fraction)
