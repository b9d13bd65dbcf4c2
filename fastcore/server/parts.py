"""Answers in parts: what a generator gives, sent as it comes."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from fastcore._channel import Channel
from fastcore._header import PART_FLAG
from fastcore._wire import frozen
from fastcore.server.request import Request
from fastcore.server.results import end_of, is_async
from fastcore.server.turns import TURN_BUDGET, Turn

__all__ = ["Blocked", "send_parts"]

#: Told of nanoseconds in which a handler let nobody else have a turn.
Blocked = Callable[[int], object]


async def send_parts(result: Any, request: Request, channel: Channel, turn: Turn, blocked: Blocked) -> Any:
    """Send what a generator gives, as it comes; a list of it to those who know no parts."""
    try:
        begun = await turn.begin()
    except BaseException:
        await end_of(result)
        raise
    if request.call is None or not request.reply:
        return await _list_of(result, request, turn, begun, blocked)
    fields = request.fields(PART_FLAG)
    sent = 0
    try:
        # In one frame: a step more for each part would cost a fifth of all that is done for it.
        if is_async(result):
            async for value in result:
                if request.left == 0 or channel.is_full:
                    turn.end()
                    # Others run meanwhile, and may change what they all have.
                    value = frozen(value)
                    await _room_for(request, channel)
                    begun = await turn.begin()
                if request.left is not None:
                    request.left -= 1
                channel.send(value, fields)
                sent += 1
                if perf_counter_ns() - begun > TURN_BUDGET:
                    # It may never wait for anything itself.
                    turn.end()
                    begun = await turn.begin()
        else:
            for value in result:
                if request.left == 0 or channel.is_full:
                    turn.end()
                    # Others run meanwhile, and may change what they all have.
                    value = frozen(value)
                    await _room_for(request, channel)
                    begun = await turn.begin()
                if request.left is not None:
                    request.left -= 1
                channel.send(value, fields)
                sent += 1
                if (took := perf_counter_ns() - begun) > TURN_BUDGET:
                    blocked(took)
                    turn.end()
                    begun = await turn.begin()
    finally:
        turn.end()
        await end_of(result)
    return None if sent else []


async def _list_of(result: Any, request: Request, turn: Turn, begun: int, blocked: Blocked) -> list[Any]:
    """Give all that a generator gives, if anybody wants it."""
    values: list[Any] = []
    try:
        if is_async(result):
            async for value in result:
                if request.reply:
                    # Whoever gives it may change it before he gives the next.
                    values.append(frozen(value))
                if perf_counter_ns() - begun > TURN_BUDGET:
                    turn.end()
                    begun = await turn.begin()
        else:
            for value in result:
                if request.reply:
                    # Whoever gives it may change it before he gives the next.
                    values.append(frozen(value))
                if (took := perf_counter_ns() - begun) > TURN_BUDGET:
                    blocked(took)
                    turn.end()
                    begun = await turn.begin()
        return values
    finally:
        turn.end()
        await end_of(result)


async def _room_for(request: Request, channel: Channel) -> None:
    """Wait until a part may be sent."""
    while request.left == 0 or channel.is_full:
        if channel.is_lost:
            raise channel.lost_error()
        request.waiting = channel.loop.create_future()
        try:
            await request.waiting
        finally:
            # One that was cancelled knows this frame by its error.
            request.waiting = None
