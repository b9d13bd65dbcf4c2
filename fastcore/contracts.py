"""What a channel calls: what carries its bytes, and who has it.

A subclass that lacks one of these methods can't be made, and type checkers know them too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from fastcore._header import CallHeader

__all__ = ["Owner", "Transport"]


def _check(kind: type, declared: type) -> None:
    """Raise, while a class is being made, if it lacks what a channel will call."""
    for name, method in vars(declared).items():
        if not name.startswith("_") and callable(method) and getattr(kind, name) is method:
            raise TypeError(f"{kind.__name__} lacks {name}(), which a channel calls: see {declared.__name__}")


class Transport(ABC):
    """What carries the bytes of a channel.

    A transport makes its channel, and tells it: ``opened`` when bytes can be exchanged,
    ``receive`` when some are there, ``writable`` when it takes more of them, ``ending`` just
    before it closes and ``ended`` when it has.
    """

    __slots__ = ("__weakref__",)

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _check(cls, Transport)

    @abstractmethod
    def pause(self) -> None:
        """Call ``receive`` no more."""

    @abstractmethod
    def resume(self) -> None:
        """Call ``receive`` again when there are bytes, and once in any case."""

    @abstractmethod
    def want_write(self) -> None:
        """Look whether the channel is full: if so, call ``writable`` when more is taken."""

    @abstractmethod
    def close(self, error: BaseException | None) -> None:
        """Close the connection: with the error that ended it, or None."""

    @abstractmethod
    def linger(self) -> None:
        """Send no more, drop what comes, and close when the peer has, or soon."""


class Owner(ABC):
    """Who has a channel: it is given the messages, and told what happens to it."""

    __slots__ = ("__weakref__",)

    #: Whether somebody else may own the channel while a message without a number is handled.
    lends = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _check(cls, Owner)

    @abstractmethod
    def on_message(self, message: Any, header: CallHeader | None) -> bool:
        """Take a message; True to be given the next one.

        ``header`` is what it says of calls, if anything.
        """

    @abstractmethod
    def on_error(self, error: Exception, header: CallHeader | None) -> bool:
        """Hear of a message that is none, or that there will be no more; True to go on.

        ``header`` is as for a message, where it could be read.
        """

    @abstractmethod
    def writable(self) -> None:
        """Hear that the socket takes bytes again, after it was full."""

    @abstractmethod
    def connection_lost(self) -> None:
        """Hear that the connection has ended, or isn't this owner's any more.

        It may be given messages that had arrived, and is told the error, only after that.
        """

    @abstractmethod
    def over_limit(self, error: Exception) -> None:
        """Decide what becomes of a peer that takes longer than it may, or can't be let in."""

    @abstractmethod
    def owes(self) -> bool:
        """Tell whether a peer that says no more still has to be answered."""

    @abstractmethod
    def half_closed(self) -> None:
        """Hear that the peer says no more, of one that is owed something.

        It may have gone altogether: that looks the same, until something is sent to it.
        """

    @abstractmethod
    def is_idle(self) -> bool:
        """Tell whether nobody here works for the peer, so that silence is idleness."""
