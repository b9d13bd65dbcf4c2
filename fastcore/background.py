"""A server in a thread of its own, for programs that have no event loop, or one that isn't asyncio's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Self

from fastcore.addressing import format_address
from fastcore.logs import get_logger
from fastcore.server.server import Server
from fastcore.server.service import Handler

__all__ = ["ServerInThread"]

logger = get_logger("fastcore.server")

#: Seconds for a thread to end, when its handlers have had their time.
_JOIN_TIMEOUT: Final = 5.0


class ServerInThread:
    """A server that runs in a thread of its own: in scripts, notebooks and tests.

    Its handlers run in that thread; what they share with others is theirs to guard.

    Parameters
    ----------
    handlers : dict of str to callable, or callable
        Those of the server; or what makes one of the keywords, such as a subclass of
        :class:`fastcore.Server`. It is made in the thread.
    host, port
        Where it listens; any free port of this machine, unless said.
    **keywords
        As :class:`fastcore.Server` takes them, or whatever makes it.

    Attributes
    ----------
    server : Server
        It belongs to the thread: elsewhere, have its loop call it.
    loop : asyncio.AbstractEventLoop
        The thread's, for ``loop.call_soon_threadsafe`` and
        ``asyncio.run_coroutine_threadsafe``.
    address : str
        Where it listens; its parts are ``ip`` and ``port``.

    Raises
    ------
    OSError
        If the port is taken.

    Examples
    --------
    >>> from fastcore import ServerInThread, SyncClient
    >>> with ServerInThread({'add': lambda stream, x, y: x + y}) as server:
    ...     with SyncClient(server.address) as remote:
    ...         remote.add(x=1, y=2)
    3
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler] | Callable[..., Server],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        **keywords: Any,
    ) -> None:
        self._handlers = handlers
        self._keywords = keywords
        self._deadline = 0.0
        started: Future[None] = Future()
        # One that nobody stops must not keep the program from ending.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(host, port, started)), name="fastcore", daemon=True
        )
        self._thread.start()
        started.result()

    server: Server
    loop: asyncio.AbstractEventLoop
    _ends: asyncio.Event

    async def _serve(self, host: str, port: int, started: Future[None]) -> None:
        try:
            if isinstance(self._handlers, Mapping):
                server = Server(self._handlers, **self._keywords)
            else:
                server = self._handlers(**self._keywords)
            server.listen(port, host)
        except BaseException as error:
            started.set_exception(error)
            return
        self.server, self.loop, self._ends = server, asyncio.get_running_loop(), asyncio.Event()
        self.ip, self.port = host, server.port
        self.address = format_address((host, server.port))
        started.set_result(None)
        await self._ends.wait()
        await server.shutdown(self._deadline)

    def stop(self, deadline: float = 1.0) -> None:
        """End the server and its thread. A second time, it does nothing.

        Called by one of its own handlers it returns at once, and the server ends when that has answered. A
        thread that a handler blocks can't be ended: it is left alone after some seconds more, with a line in
        the log.

        Parameters
        ----------
        deadline : float
            Seconds in which handlers that run may still answer.
        """
        if not self._thread.is_alive():
            return
        self._deadline = deadline
        # Somebody else may have ended it just now.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._ends.set)
        if threading.current_thread() is self._thread:
            return
        self._thread.join(deadline + _JOIN_TIMEOUT)
        if self._thread.is_alive():
            logger.warning("%r doesn't end: something blocks its thread", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "serving on" if self._thread.is_alive() else "was on"
        return f"<ServerInThread: {type(self.server).__name__} {state} {self.address}>"
