"""An owner of a connection, for tests to say what theirs does otherwise."""

from typing import Any

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

    def is_idle(self) -> bool:
        return True
