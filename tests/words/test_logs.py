"""The same line over and over is held back, and the log says how often."""

import logging
import os
import threading

import pytest

from fastcore.logs import HoldBackFloods, KeepLines, LastWarnings, get_logger, shown
from helpers.support import DEADLINE, Program
from helpers.torture import collecting


def record(text: str, *args: object, at: float = 0.0, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("fastcore.test", level, "file.py", 1, text, args, None)
    made.created = at
    return made


def passed(limit: HoldBackFloods, records: list[logging.LogRecord]) -> list[str]:
    return [one.getMessage() for one in records if limit.filter(one)]


def test_the_first_lines_of_a_flood_pass_and_the_rest_is_held_back():
    flood = [record("refused %s", peer) for peer in range(1000)]
    assert passed(HoldBackFloods(burst=3), flood) == ["refused 0", "refused 1", "refused 2"]


def test_a_line_is_its_text_without_the_arguments():
    limit = HoldBackFloods(burst=1)
    assert passed(limit, [record("refused %s", 1), record("closed %s", 1), record("refused %s", 2)]) == [
        "refused 1",
        "closed 1",
    ]


def test_the_next_interval_says_how_many_were_held_back():
    limit = HoldBackFloods(burst=1, interval=10)
    passed(limit, [record("refused %s", peer) for peer in range(1501)])
    later = [record("refused %s", "a", at=10.0), record("refused %s", "b", at=20.0)]
    assert passed(limit, later) == ["refused a [1,500 more of this line were held back]", "refused b"]


def test_nothing_is_held_back_until_a_clock_that_was_set_back_has_caught_up():
    limit = HoldBackFloods(burst=1, interval=10)
    passed(limit, [record("refused %s", peer, at=7200.0) for peer in range(3)])
    later = [record("refused %s", "a", at=3600.0), record("refused %s", "b", at=3601.0)]
    assert passed(limit, later) == ["refused a [2 more of this line were held back]"]


def test_a_warning_is_not_held_back_for_the_sake_of_an_info():
    limit = HoldBackFloods(burst=1)
    mixed = [record("lost %s", 1), record("lost %s", 2, level=logging.WARNING)]
    assert passed(limit, mixed) == ["lost 1", "lost 2"]


def test_debug_lines_are_never_held_back():
    limit = HoldBackFloods(burst=1)
    assert len(passed(limit, [record("a", level=logging.DEBUG)] * 100)) == 100


def test_loggers_of_the_package_hold_floods_back(caplog):
    logger = get_logger("fastcore.test_logs")
    with caplog.at_level(logging.INFO, "fastcore"):
        for number in range(1000):
            logger.info("connection %d", number)
    assert 1 <= len(caplog.records) < 100


def test_what_a_stranger_says_begins_no_line_of_its_own(caplog):
    logger = get_logger("fastcore.test_lines")
    try:
        raise ValueError("bad\n2026-01-01 ERROR fastcore.server: forged \x1b[31m")
    except ValueError:
        logger.warning("%r, called from %s, raised", "op", "x\nforged\x1b[2J", exc_info=True)
    [record] = caplog.records
    told = logging.Formatter("%(message)s").format(record)
    first, *rest = told.splitlines()
    assert first == "'op', called from x\\nforged\\x1b[2J, raised"
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in told


def test_a_line_whose_arguments_cannot_be_told_is_told_without_them(caplog):
    class Odd:
        def __str__(self):
            raise RuntimeError

    get_logger("fastcore.test_odd").warning("refused %s", Odd())
    [record] = caplog.records
    assert "refused" in record.getMessage()


def test_what_a_stranger_says_is_not_logged_at_full_length(caplog):
    logger = get_logger("fastcore.test_length")
    try:
        raise ValueError("x\x1b" * 500_000)
    except ValueError as error:
        logger.warning("refused: %s", error, exc_info=True)
    [record] = caplog.records
    assert len(record.getMessage()) < 10_000
    assert record.getMessage().endswith("characters)")
    assert record.exc_text is not None
    assert len(record.exc_text) < 100_000
    assert "test_logs.py" in record.exc_text


def test_what_is_shown_of_a_value_is_short_whatever_it_is():
    class Odd:
        def __repr__(self):
            raise RuntimeError

    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    for value in (
        deep,
        [0] * 10**6,
        {"a": "\n" * 10**6},
        b"\x00" * 10**6,
        10**10_000,
        Odd(),
        "\x1b[2J" * 100,
    ):
        assert len(shown(value)) < 600
        assert shown(value).isprintable()
    for value in ({"op": ["add", b"x"], 1: (2,), "f": 1.5}, [], (), {}, None, (1, 2)):
        assert shown(value) == repr(value)


def test_whoever_comes_in_while_a_line_is_logged_may_log_too():
    logger = logging.getLogger("fastcore.tests.of_logs")
    logger.addFilter(HoldBackFloods())
    logger.addFilter(lambda record: False)

    def log():
        with collecting(lambda: logger.warning("found by the collector"), times=100):
            for number in range(50):
                logger.warning("line %s" % number)  # noqa: UP031  (each is another line)

    # In a thread of its own, as what failed here was never over.
    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_logger_is_made_once():
    assert get_logger("fastcore.tests.of_one") is get_logger("fastcore.tests.of_one")
    assert len(get_logger("fastcore.tests.of_one").filters) == len({HoldBackFloods, KeepLines, LastWarnings})


class Raising(logging.Handler):
    def emit(self, record):
        raise LookupError("a handler of the program's")


@pytest.mark.parametrize("filters", [False, True])
def test_a_handler_or_filter_that_raises_is_told_of_as_python_does_and_goes_no_further(filters, capsys):
    logger = get_logger(f"fastcore.tests.of_raising.{filters}")
    if filters:
        logger.addFilter(lambda record: {}["a filter of the program's"])
    else:
        logger.addHandler(Raising())
    logger.warning("refused %s", "somebody")
    told = capsys.readouterr().err
    assert "Logging error" in told
    assert "of the program's" in told
    assert "refused somebody" in told


FORKED_WHILE_LOGGING = """if True:
    import logging, os, signal, threading
    from fastcore.logs import HoldBackFloods, get_logger

    class Pausing(str):
        # Where the text of a line is looked at, another thread is in the middle of it.
        def __hash__(self):
            inside.set()
            forked.wait()
            return str.__hash__(self)

    inside, forked = threading.Event(), threading.Event()
    logger = get_logger('fastcore.test')
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    record = logging.makeLogRecord({'msg': 'line', 'levelno': 30, 'about': Pausing('peer')})
    thread = threading.Thread(target=logger.handle, args=(record,))
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        logger.warning('from the child')
        os._exit(7)
    forked.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_logs_can_log():
    with Program("-W", "ignore", "-c", FORKED_WHILE_LOGGING) as program:
        assert program.wait() == 0, program.errors
        assert program.rest() == "7"
