"""What is served: a dict of handlers or a ``Server``, out of a module; and what the module wants to hear."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from fastcore.command.usage import CommandError, in_one_line
from fastcore.server.server import Server

__all__ = ["hook", "load_server", "target"]


def target(text: str) -> tuple[str, str]:
    """Read ``MODULE:HANDLERS``."""
    module, _, name = text.partition(":")
    if not (module and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form MODULE:HANDLERS")
    return module, name


def load_server(where: tuple[str, str], options: dict[str, Any]) -> tuple[Server, ModuleType]:
    """Import a module, and make the server of what is named in it.

    Parameters
    ----------
    where : tuple of (str, str)
        The module, and the name in it.
    options : dict
        Keywords for ``Server``.

    Raises
    ------
    CommandError
        If it isn't there, or nothing that can be served so.
    """
    module_name, name = where
    spelt = ":".join(where)
    # As `python -m` does: the modules of the current directory count.
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise CommandError(f"can't serve {spelt!r}: {in_one_line(error)}{_place(error)}") from error
    if isinstance(found, Mapping):
        return Server(found, **options), module
    if isinstance(found, Server):
        if options:
            raise CommandError(f"{spelt!r} is made already, and takes no {', '.join(options)} any more")
        return found, module
    if isinstance(found, type) and issubclass(found, Server):
        return _made(found, spelt, options), module
    raise CommandError(
        f"{spelt!r} is a {type(found).__name__}, not a dict of handlers, nor a Server or its class"
    )


def _place(error: BaseException) -> str:
    """Tell the line of the program that raised; nothing where none of it has run."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<frozen")
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _made(kind: type[Server], spelt: str, options: dict[str, Any]) -> Server:
    make_server: Any = kind  # what it takes is up to the subclass
    try:
        inspect.signature(make_server).bind(**options)
    except TypeError as error:
        raise CommandError(
            f"{spelt!r} {error}; let its __init__ take **kwargs, and give them to that of Server"
        ) from error
    server: Server = make_server(**options)
    return server


async def hook(module: ModuleType, name: str, server: Server) -> None:
    """Call what a module has for the beginning or the end of its server, if it has it.

    Parameters
    ----------
    module : module
        Where the handlers are.
    name : str
        ``'on_start'`` or ``'on_end'``: a function, or an ``async`` one, that takes the server.
    server : Server
        What it is called with.
    """
    call = getattr(module, name, None)
    if call is not None:
        result = call(server)
        if inspect.isawaitable(result):
            await result
