"""Limits that are times, with a clock that the test sets."""

from types import SimpleNamespace

from fastcore._watchdog import Watchdog
from fastcore.limits import Limits


class Clock:
    """A loop's clock, and its timers."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, delay, callback, context=None):
        timer = SimpleNamespace(when=self.now + delay, callback=callback)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def stand_still(self, seconds):
        """Let time pass in which no timer runs."""
        self.now += seconds

    def call_soon(self, callback):
        return self.call_later(0, callback)

    def advance(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.callback()
        self.now = end


class Watched:
    """A connection to which nothing happens; the errors of its limits are in ``struck``."""

    def __init__(self, **limits):
        self.clock = Clock()
        self.begun = self.unsent = None
        self.struck = []
        figures = lambda: (self.begun, self.unsent, 0)  # noqa: E731
        self.dog = Watchdog(self.clock, Limits(**limits), figures, self.struck.append)


def test_a_message_that_is_begun_and_not_finished_strikes_up_to_a_quarter_late():
    watched = Watched(message_timeout=100)
    watched.begun = 7
    watched.dog.wake()
    watched.clock.advance(99)
    assert not watched.struck
    watched.clock.advance(26)
    assert "message_timeout" in str(watched.struck)
    assert not watched.clock.timers


def test_the_timer_goes_when_nothing_is_left_to_wait_for():
    watched = Watched()
    watched.begun, watched.unsent = 7, 10
    watched.dog.wake()
    watched.begun = None
    watched.dog.doze()
    assert watched.dog.is_awake
    assert watched.clock.timers
    watched.unsent = None
    watched.dog.doze()
    assert not watched.dog.is_awake
    assert not watched.clock.timers


def test_time_in_which_nobody_wanted_the_rest_does_not_count():
    watched = Watched(message_timeout=100)
    watched.begun = 7
    watched.dog.wake()
    watched.begun = None
    watched.dog.doze()
    watched.clock.advance(1000)
    watched.begun = 7
    watched.dog.wake()
    watched.clock.advance(99)
    assert not watched.struck
    watched.clock.advance(26)
    assert watched.struck


def test_time_in_which_the_loop_stood_still_counts_as_that_between_two_looks():
    watched = Watched(message_timeout=20)
    watched.begun = 7
    watched.dog.wake()
    watched.clock.advance(5)
    # A handler blocks it for an hour. What the peer sent meanwhile is received after that.
    watched.clock.stand_still(3600)
    watched.clock.advance(5)
    assert not watched.struck
    watched.clock.advance(15)
    assert "message_timeout" in str(watched.struck)


def test_each_limit_is_reached_by_figures_of_its_own():
    for place, keyword in enumerate(
        ("message_timeout", "write_timeout", "idle_timeout", "handshake_timeout", "peer_timeout")
    ):
        clock, struck = Clock(), []
        figures = tuple(1 if number == place else None for number in range(5))
        dog = Watchdog(clock, Limits(**{keyword: 20}), lambda figures=figures: figures, struck.append)
        dog.wake()
        clock.advance(30)
        assert [error.keyword for error in struck] == [keyword]
