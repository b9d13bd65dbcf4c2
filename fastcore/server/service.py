"""What a call needs of its server: one object that the server and its connections share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Protocol

from tornado.iostream import IOStream

from fastcore.remote_errors import Detail
from fastcore.server.figures import ServerStats
from fastcore.server.turns import Turns
from fastcore.transport.tornado import channel_of, has_channel

__all__ = ["Handler", "HasHandlers", "Service", "caller_of"]

Handler = Callable[..., Any]


def caller_of(stream: IOStream) -> Any:
    """Tell who calls, as the server's ``authenticate`` or ``token`` has it.

    Parameters
    ----------
    stream : tornado.iostream.IOStream
        A handler's.

    Returns
    -------
    object
        What ``authenticate`` returned for this connection; the name of the token that was
        shown; None where the server asks nobody.

    Examples
    --------
    >>> import asyncio
    >>> from fastcore import Server, caller_of, rpc
    >>> async def main():
    ...     server = Server({'whoami': caller_of}, token={'ada': 'correct horse'})
    ...     server.listen(0, '127.0.0.1')
    ...     async with rpc(ip='127.0.0.1', port=server.port, token='correct horse') as remote:
    ...         print(await remote.whoami())
    ...     server.stop()
    >>> asyncio.run(main())
    ada
    """
    return channel_of(stream).caller if has_channel(stream) else None


class HasHandlers(Protocol):
    """Whose handlers are called; a program may change or replace them while it serves."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by op."""
        ...


@dataclass(slots=True, eq=False)
class Service:
    """What a call needs of its server.

    Attributes
    ----------
    host : HasHandlers
        The server, as far as its connections see it.
    kind : str
        What it is called: the name of its class.
    error_detail : str
        How much an error reply tells.
    slow_ns : float
        Nanoseconds that a handler may block the loop without being named in the log.
    max_running, max_running_per_connection : int or None
        How many requests may be handled at a time.
    cancels : bool
        Whether a client that is gone ends the handlers of its numbered requests.
    figures : ServerStats
        What was done.
    context : contextvars.Context
        What each request's handler begins with, whoever's turn it is called in.
    tasks : set of asyncio.Task
        The handlers that wait for something. (A task that nobody refers to can be collected.)
    running : int
        Requests that are being handled; a large one counts more than once.
    held_back : deque of callable
        Connections that read no further until there is room, told in the order of coming.
    is_ending : bool
        Whether connections end as soon as no handler works for them.
    turns : Turns
        Of the generators that run.
    """

    host: HasHandlers
    kind: str
    error_detail: Detail
    slow_ns: float
    max_running: int | None
    max_running_per_connection: int | None
    cancels: bool
    figures: ServerStats = field(default_factory=ServerStats)
    context: Context = field(default_factory=copy_context)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    running: int = 0
    held_back: deque[Callable[[], None]] = field(default_factory=deque)
    is_ending: bool = False
    turns: Turns = field(default_factory=Turns)
    _is_waking: bool = False
    #: What was found in this turn of the loop, and in which; None if nobody has looked.
    _ends_with_its_loop: bool = False
    _looked_at: asyncio.AbstractEventLoop | None = None

    @property
    def is_full(self) -> bool:
        """Whether no further request may be begun."""
        return self.max_running is not None and self.running >= self.max_running

    def let_go_on(self) -> None:
        """Let those go on who wait for a request to be over."""
        if self._is_waking:
            # What goes on may be over at once, where tasks are eager, and comes back here.
            return
        self._is_waking = True
        try:
            while self.held_back and not self.is_full:
                self.held_back.popleft()()
        finally:
            self._is_waking = False

    def ends_with_its_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether all that runs in the loop is being cancelled, as when it ends, and not one handler alone.

        Looked at once in a turn: all the others that are cancelled in it ask, too.
        """
        if self._looked_at is not loop:
            self._looked_at = loop
            self._ends_with_its_loop = all(task.cancelling() for task in asyncio.all_tasks(loop))
            loop.call_soon(self._look_again)
        return self._ends_with_its_loop

    def _look_again(self) -> None:
        self._looked_at = None
