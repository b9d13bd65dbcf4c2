"""Limits that are times, with a clock that the test sets."""

from types import SimpleNamespace

import pytest

from fastcore.limits import Limits
from fastcore.watchdog import Watchdog


class Clock:
    """A loop's clock, and its timers."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        timer = SimpleNamespace(when=self.now + delay, callback=callback)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = timer.when
            timer.callback()
        self.now = end


@pytest.fixture
def channel():
    """A channel to which nothing happens; the errors of its limits are in ``struck``."""
    struck = []
    figures = dict.fromkeys(("bytes_in", "bytes_out", "messages_in", "unread"), 0)
    states = {"is_read": True, "full": False, "watched": False, "is_idle": None}
    return SimpleNamespace(loop=Clock(), struck=struck, on_limit=struck.append, **figures, **states)


def test_a_message_that_is_begun_and_not_finished_strikes_up_to_a_quarter_late(channel):
    dog = Watchdog(channel, Limits(message_timeout=100))
    channel.unread = 10
    dog.wake()
    channel.loop.advance(99)
    assert not channel.struck
    channel.loop.advance(26)
    assert "message_timeout" in str(channel.struck)
    assert not channel.loop.timers


def test_the_timer_goes_when_nothing_is_left_to_wait_for(channel):
    dog = Watchdog(channel, Limits())
    channel.unread, channel.full = 10, True
    dog.wake()
    channel.unread = 0
    dog.rest()
    assert channel.watched
    assert channel.loop.timers
    channel.full = False
    dog.rest()
    assert not channel.watched
    assert not channel.loop.timers


def test_time_in_which_nobody_wanted_the_rest_does_not_count(channel):
    dog = Watchdog(channel, Limits(message_timeout=100))
    channel.unread = 10
    dog.wake()
    channel.is_read = False
    dog.rest()
    channel.loop.advance(1000)
    channel.is_read = True
    dog.wake()
    channel.loop.advance(99)
    assert not channel.struck
    channel.loop.advance(26)
    assert channel.struck
