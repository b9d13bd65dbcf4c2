"""Who may call: a connection is served once its peer has said who it is.

Until then a Newcomer owns it. That one takes the first message, asks the server's hook, and
either puts the message back for the Connection that serves from there on, or says goodbye. So
no handler runs before it, and nothing of it is left in the way of a message.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from tornado.iostream import IOStream

from fastcore._channel import Channel
from fastcore._futures import set_error, set_value
from fastcore._header import ERROR_FLAG, CallHeader, call_fields
from fastcore.contracts import Owner
from fastcore.errors import ConnectionLost, LimitReached
from fastcore.logs import get_logger
from fastcore.remote_errors import error_reply
from fastcore.server.figures import ServerStats
from fastcore.server.half_closed import Questions
from fastcore.server.penalties import Penalties, origin
from fastcore.server.strangers import tell_of_bad_message, tell_of_refused
from fastcore.tokens import check_token
from fastcore.transport.tornado import socket_of

__all__ = ["Admission", "Authenticate", "Newcomer", "Token", "Tokens"]

logger = get_logger("fastcore.server")

#: What a server takes as ``token=``.
Token = str | Mapping[str, str]
#: Who has shown the token of a server that has only one.
_ONLY_ONE: Final = "token"

#: What a server takes as ``authenticate=``.
Authenticate = Callable[[IOStream, dict[str, Any]], Any]

#: Bytes in the message that shows a token; strangers can't make it more.
_MAX_GREETING = 64 * 1024


class Tokens:
    """What a server takes for a token, and who has which.

    Parameters
    ----------
    token : str, or dict of str to str
        The one that all callers have; or by name, who has which.

    Examples
    --------
    >>> tokens = Tokens({'ada': 'correct horse', 'bob': 'battery staple'})
    >>> tokens.owner('battery staple'), tokens.owner('guessed')
    ('bob', None)
    """

    def __init__(self, token: Token) -> None:
        named = token if isinstance(token, Mapping) else {_ONLY_ONE: token}
        if not named:
            raise ValueError("with no token at all, nobody could call this server")
        self._digests = [(name, _digest(check_token(each))) for name, each in named.items()]

    def owner(self, token: object) -> str | None:
        """Tell whose a token is; None if it is nobody's.

        Takes as long whether it is wrong in its first character, its last one or in its length,
        and whoever's it is.
        """
        shown = _digest(token) if isinstance(token, str) else b""
        owner = None
        for name, digest in self._digests:
            if hmac.compare_digest(digest, shown):
                owner = name
        return owner


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _by_token(tokens: Tokens) -> Authenticate:
    """Make the hook that asks for a token."""

    def authenticate(stream: IOStream, message: dict[str, Any]) -> str:
        if "token" not in message:
            raise PermissionError(
                "this server asks for a token; pass token= (or --token-file to the command)"
            )
        owner = tokens.owner(message["token"])
        if owner is None:
            raise PermissionError("this is none of the server's tokens")
        return owner

    return authenticate


class Admission:
    """What newcomers of one server share.

    Parameters
    ----------
    figures : ServerStats
        Where refusals are counted.
    token, authenticate : optional
        As :class:`fastcore.Server` takes them; one of them.

    Attributes
    ----------
    authenticate : callable
        The hook.
    only_greets : bool
        Whether a first message shows a token and nothing else, so that it is small.
    newcomers : dict of Newcomer to None
        Those of whom it isn't known yet who they are, the one that came first first.
    """

    def __init__(
        self, figures: ServerStats, token: Token | None = None, authenticate: Authenticate | None = None
    ) -> None:
        self.figures = figures
        self.only_greets = token is not None
        if token is not None:
            if authenticate is not None:
                raise ValueError("give token= or authenticate=; a hook can look at a token itself")
            authenticate = _by_token(Tokens(token))
        assert authenticate is not None
        self.authenticate = authenticate
        self.penalties = Penalties()
        self.newcomers: dict[Newcomer, None] = {}

    def meet(self, stream: IOStream, channel: Channel) -> Newcomer:
        """Have a connection wait until it is known who it is."""
        return Newcomer(self, stream, channel)

    def make_room(self) -> None:
        """Turn away who has taken the longest to say who it is: it shall keep out nobody who will."""
        oldest = next(iter(self.newcomers), None)
        if oldest is not None:
            oldest.turn_away()


class Newcomer(Owner):
    """A connection whose peer hasn't said yet who it is.

    Parameters
    ----------
    admission : Admission
        The server's.
    stream : tornado.iostream.IOStream
        What the hook is given.
    channel : Channel
        Its messages.

    Attributes
    ----------
    decided : asyncio.Task
        Its result is whether to serve the connection.
    """

    __slots__ = (
        "_admission",
        "_first",
        "_header",
        "_questions",
        "_until",
        "channel",
        "decided",
        "stream",
    )

    def __init__(self, admission: Admission, stream: IOStream, channel: Channel) -> None:
        self._admission = admission
        self.stream = stream
        self.channel = channel
        self._first: asyncio.Future[Any] = channel.loop.create_future()
        self._header: CallHeader | None = None
        self._questions: Questions | None = None
        limit = channel.limits.handshake_timeout
        self._until = None if limit is None else channel.loop.time() + limit
        admission.newcomers[self] = None
        channel.own(self)
        if admission.only_greets:
            channel.set_max_size(min(_MAX_GREETING, channel.limits.max_buffer_size))
        self.decided = channel.loop.create_task(self._decide())

    def listen(self) -> None:
        """Wait for the first message."""
        self.channel.listen()

    def __repr__(self) -> str:
        return f"<newcomer {self.channel.peer}>"

    async def _decide(self) -> bool:
        channel = self.channel
        try:
            message = await self._in_time(self._first)
            if not isinstance(message, dict):
                raise TypeError("a message is a dict with an 'op'")
            caller = await self._ask(message)
        except asyncio.CancelledError:
            # It has left, was turned away, or the server ends.
            channel.close()
            return False
        except Exception as error:
            await self._refuse(error)
            return False
        finally:
            self._admission.newcomers.pop(self, None)
            if self._questions is not None:
                self._questions.stop()
        channel.caller = caller
        channel.set_max_size(channel.limits.max_buffer_size)
        channel.put_back(message, self._header)
        return True

    async def _ask(self, message: dict[str, Any]) -> Any:
        """Give the identity that the hook finds, or raise what the peer is told."""
        try:
            caller = self._admission.authenticate(self.stream, message)
            if inspect.isawaitable(caller):
                caller = await self._in_time(asyncio.ensure_future(caller))
        except (PermissionError, LimitReached):
            raise
        except Exception as error:
            logger.exception("the authenticate hook raised for %s", self.channel.peer)
            raise PermissionError("the server can't tell who you are; its log says why") from error
        if caller is None or caller is False:
            raise PermissionError("this server doesn't know you")
        return caller

    async def _in_time(self, awaited: asyncio.Future[Any]) -> Any:
        """Wait as long as a newcomer may take. What takes longer is given up, even if it won't end."""
        patience = None if self._until is None else self._until - self.channel.loop.time()
        try:
            done, _ = await asyncio.wait([awaited], timeout=patience)
            if not done:
                limit = self.channel.limits.handshake_timeout
                raise LimitReached("handshake_timeout", f"who you are wasn't clear within {limit:g} s")
            return awaited.result()
        finally:
            awaited.cancel()

    async def _refuse(self, error: Exception) -> None:
        channel = self.channel
        figures = self._admission.figures
        if isinstance(error, PermissionError):
            figures.errors["authenticate"] += 1
            address = origin(self._peer_name())
            logger.warning("refused %s: %s", channel.peer, error, extra={"about": address})
            if delay := self._admission.penalties.failed(address):
                await asyncio.sleep(delay)
        elif not isinstance(error, ConnectionLost):
            tell_of_bad_message(figures, channel, error)
        header = self._header
        fields = None if header is None or header.call is None else call_fields(header.call, ERROR_FLAG)
        channel.farewell(error_reply(error, "message"), fields)

    def _peer_name(self) -> object:
        try:
            return socket_of(self.stream).getpeername()
        except (OSError, AttributeError):
            return None

    # ---- what the server decides

    def hand_over(self) -> bool:
        """Leave the connection to whoever serves it; False if it has ended."""
        self.channel.disown(self)
        return not self.channel.is_lost

    def turn_away(self) -> None:
        """Close the connection, as others need its place."""
        logger.warning("turned %s away, as it didn't say who it is", self.channel.peer)
        self.finish()

    def finish(self) -> None:
        """Close the connection: nothing is owed to a stranger."""
        self._admission.newcomers.pop(self, None)
        self.decided.cancel()
        self.channel.close()

    @property
    def is_over(self) -> bool:
        """Whether the server knows by itself how this ended."""
        return self.decided.done() or self.decided.cancelling() > 0

    def running(self) -> tuple[()]:
        """Tell that no handler runs."""
        return ()

    def requests_of(self, task: asyncio.Task[Any] | None) -> tuple[()]:
        """Tell that no handler runs."""
        return ()

    # ---- what the channel tells

    def on_message(self, message: Any, header: CallHeader | None) -> bool:
        """Take the first message; those behind it wait."""
        self._header = header
        set_value(self._first, message)
        return False

    def on_error(self, error: Exception, header: CallHeader | None) -> bool:
        """Refuse whose first message is none."""
        self._header = header
        set_error(self._first, error)
        return False

    def writable(self) -> None:
        """Do nothing: nobody waits for that."""

    def connection_lost(self) -> None:
        """Ask no further who it was."""
        # What decides may be cancelled before it has begun, and then does nothing of this.
        self._admission.newcomers.pop(self, None)
        self.decided.cancel()

    def over_limit(self, error: Exception) -> None:
        """Refuse, unless that is happening already."""
        channel = self.channel
        if isinstance(error, LimitReached) and not self._first.done():
            set_error(self._first, error)
        else:
            if not self.is_over:
                tell_of_refused(self._admission.figures, error, channel.peer, channel.first_bytes)
            # Before it is closed, as that asks whether this has been told.
            self.decided.cancel()
            channel.close(error)

    def owes(self) -> bool:
        """Tell whether a client that says no more has said enough."""
        return self._first.done() or bool(self.channel.unread)

    def half_closed(self) -> None:
        """Find out whether a client that knows whose a message is has gone; of others the answer tells."""
        if self._header is not None and self._header.call is not None:
            self.channel.mark_as_nobodys()
            self._questions = Questions(self.channel)

    def is_idle(self) -> bool:
        """Tell whether the peer is the one that has to say something."""
        return not self._first.done()
