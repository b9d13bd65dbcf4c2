"""Answers that tell which question they belong to, and what an answer tells of an error."""

import asyncio

#: Seconds; short enough to overlap with everything.
DELAYS = (0.0, 0.0, 0.001, 0.003)


class Answers:
    """Handlers whose answer tells which question it belongs to."""

    async def later(self, stream, question, delay, padding):
        await asyncio.sleep(delay)
        return question, len(padding)

    def at_once(self, stream, question, delay, padding):
        return question, len(padding)

    async def hang_up(self, stream, question, delay, padding):
        await asyncio.sleep(delay)
        stream.close()

    @property
    def handlers(self):
        return {"later": self.later, "at_once": self.at_once, "hang_up": self.hang_up}


def error_type(answer):
    """The type of the error that an answer tells of, with `error` in its header."""
    message, header = answer
    assert header == {"error": True}
    return message["exception"]["type"]
