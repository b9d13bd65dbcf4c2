"""Tracebacks as Python writes them, without doing all of its work for each."""

import traceback

import pytest

from fastcore import tracebacks
from fastcore.tracebacks import traceback_of


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("it raises")


def plain():
    {}["key"]


def led_to_another():
    try:
        plain()
    except KeyError as error:
        error.add_note("a note\nof two lines")
        raise RuntimeError("another") from error


def several():
    try:
        plain()
    except KeyError:
        raise ExceptionGroup("several", [ValueError(1), raised(plain)])  # noqa: B904


def without_end():
    without_end()


def no_program():
    compile("a b", "<given>", "exec")


def over_some_lines():
    return [
        len,
        (lambda: 1 / 0)(),
    ]


@pytest.mark.parametrize("most", [3, 30])
@pytest.mark.parametrize(
    "function", [plain, led_to_another, several, without_end, no_program, over_some_lines]
)
def test_they_are_what_python_writes(function, most):
    error = raised(function)
    expected = "".join(traceback.format_exception(error, limit=-most))
    assert traceback_of(error, most) == expected
    assert traceback_of(error, most) == expected


def test_one_may_begin_further_inside():
    error = raised(over_some_lines)
    told = traceback_of(error, 30, error.__traceback__.tb_next)
    assert told.startswith("Traceback (most recent call last):\n")
    assert "in raised" not in told
    assert "in over_some_lines" in told


def led_to(error, count):
    for number in range(count):
        error, before = KeyError(number), error
        error.__cause__ = before
    return error


class LedToItself(Exception):
    @property
    def __context__(self):
        return LedToItself()


@pytest.mark.parametrize(
    "error",
    [
        led_to(ValueError("first"), 5_000),
        ExceptionGroup("several", [ValueError(number) for number in range(5_000)]),
        LedToItself("again"),
    ],
    ids=["causes", "group", "endless"],
)
def test_one_with_thousands_of_others_is_told_alone_and_soon(error, monkeypatch):
    error.add_note("what it says itself")
    made = []
    real = traceback.TracebackException.__init__

    def counted(self, *args, **kwargs):
        made.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(traceback.TracebackException, "__init__", counted)
    told = traceback_of(error, 30)
    assert len(made) == 1
    assert str(error) in told.splitlines()[0]
    assert told.splitlines()[1:] == [
        "what it says itself",
        "(there are more than 50 other exceptions in it, or that led to it)",
    ]


def test_a_place_is_looked_up_once():
    traceback_of(raised(plain), 30)
    before = tracebacks._lines_of.cache_info()
    for _ in range(100):
        traceback_of(raised(plain), 30)
    after = tracebacks._lines_of.cache_info()
    assert after.misses - before.misses <= 1  # who calls `plain` here
    assert after.hits > before.hits
