"""Owners of a connection: one that does nothing, for tests to say what theirs does; and one that listens."""

from typing import Any

from fastcore import ConnectionLost
from fastcore.contracts import Owner


class Bystander(Owner):
    """An owner that takes whatever comes, and does nothing about it."""

    def on_message(self, message: Any, header: Any) -> bool:
        return True

    def on_error(self, error: Exception, header: Any) -> bool:
        return True

    def writable(self) -> None:
        pass

    def connection_lost(self) -> None:
        pass

    def over_limit(self, error: Exception) -> None:
        pass

    def owes(self) -> bool:
        return False

    def half_closed(self) -> None:
        pass

    def is_idle(self) -> bool:
        return True


class Listener(Bystander):
    """An owner that listens, and notes what it is told."""

    def __init__(self, channel, idle=True):
        self.messages, self.errors, self.limits = [], [], []
        self.times_writable = self.times_lost = 0
        self.idle = idle
        channel.own(self)
        channel.listen()

    def on_message(self, message, header):
        self.messages.append(message)
        return True

    def on_error(self, error, header):
        self.errors.append(error)
        return not isinstance(error, ConnectionLost)

    def writable(self):
        self.times_writable += 1

    def connection_lost(self):
        self.times_lost += 1

    def over_limit(self, error):
        self.limits.append(error)

    def is_idle(self):
        return self.idle
