"""The connections of an event loop whose messages are here, and wait for their turn."""

class RunQueue:
    def serve(self) -> None: ...
