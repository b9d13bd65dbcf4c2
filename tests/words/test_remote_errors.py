"""Errors that cross the wire."""

import builtins
import dataclasses
import traceback

import msgpack
import pytest

from fastcore import RemoteError, register_error
from fastcore.remote_errors import error_reply, is_error_reply, remote_exception


def raised(error):
    """The exception, with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def across(error, **options):
    """What the caller gets of an exception."""
    reply = msgpack.unpackb(msgpack.packb(error_reply(raised(error), **options)))
    assert is_error_reply(reply)
    return remote_exception(reply, "10.0.0.1:8786", "divide")


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        KeyError("x"),
        ValueError("a", 1, None),
        OSError(2, "No such file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_builtin_arrives_as_itself(error):
    arrived = across(error)
    assert type(arrived) is type(error)
    assert arrived.args == error.args


def test_it_tells_where_it_comes_from():
    (note,) = across(ZeroDivisionError("division by zero")).__notes__
    assert "op 'divide' at 10.0.0.1:8786" in note
    assert "test_remote_errors.py" in note


def test_the_traceback_can_be_kept_at_home():
    (note,) = across(ZeroDivisionError("division by zero"), detail="message").__notes__
    assert "test_remote_errors.py" not in note


class Overbooked(Exception):
    pass


def test_another_type_arrives_as_a_remote_error():
    arrived = across(Overbooked("apples", 3))
    assert type(arrived) is RemoteError
    assert (arrived.type_name, arrived.message) == ("Overbooked", "('apples', 3)")
    assert arrived.remote_args == ("apples", 3)
    assert str(arrived) == "Overbooked: ('apples', 3)"


def test_a_registered_type_arrives_as_itself():
    @register_error
    class SoldOut(Exception):
        pass

    arrived = across(SoldOut("apples"))
    assert type(arrived) is SoldOut
    assert arrived.args == ("apples",)


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit", "GeneratorExit", "StopIteration"])
def test_what_would_end_the_caller_does_not_arrive_as_itself(name):
    arrived = across(getattr(builtins, name)("now"))
    assert type(arrived) is RemoteError
    assert arrived.type_name == name


def test_a_type_whose_constructor_takes_something_else_arrives_all_the_same():
    arrived = remote_exception(
        error_reply(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")), "a:1", "op"
    )
    assert "invalid start byte" in str(arrived)


@pytest.mark.parametrize("argument", [object(), 2**70, float("nan"), [1], "x" * 100_000, lambda: None])
def test_arguments_that_cannot_be_sent_are_described(argument):
    assert type(across(ValueError(argument))) is ValueError


def test_an_exception_without_a_text_is_told_all_the_same():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert "can't be had" in str(across(Mute()))


@pytest.mark.parametrize("described", ["it broke", None, 7, ["x"]])
def test_an_error_described_in_a_way_of_the_peers_own_is_told_as_it_is(described):
    arrived = remote_exception({"status": "uncaught-error", "exception": described}, "a peer", "op")
    assert isinstance(arrived, RemoteError)
    assert str(described) in str(arrived)


def test_a_pickle_is_never_read():
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    import pickle

    reply = {"status": "uncaught-error", "exception": pickle.dumps(Bomb()), "traceback": pickle.dumps(Bomb())}
    arrived = remote_exception(reply, "a:1", "op")
    assert type(arrived) is RemoteError
    assert "pickle" in str(arrived)


@pytest.mark.parametrize(
    "exception", [None, 5, [], {}, {"type": 7}, {"type": "ValueError", "args": 3}, "text"]
)
def test_any_reply_that_claims_an_error_raises_one(exception):
    reply = {"status": "uncaught-error", "exception": exception, "traceback": 3}
    assert isinstance(remote_exception(reply, "a:1", "op"), Exception)


@pytest.mark.parametrize(
    "reply", [None, 3, "uncaught-error", {"status": "OK"}, {"status": "uncaught-error"}, []]
)
def test_an_ordinary_reply_is_none(reply):
    assert not is_error_reply(reply)


@pytest.mark.parametrize(
    "described",
    [
        {"type": "UnicodeDecodeError", "args": ["utf-8", b"x", -(2**40), -(2**40) + 1, "r"]},
        {"type": "UnicodeDecodeError", "args": ["utf-8", b"x", -40, -39, "r"]},
        {"type": "UnicodeDecodeError", "args": ["utf-8", b"x", 0, 2, "r"]},
        {"type": "UnicodeEncodeError", "args": ["utf-8", "x", 1, 0, "r"]},
        {"type": "UnicodeTranslateError", "args": ["x", 2**62, 2**62 + 1, "r"]},
        {"type": "SyntaxError", "args": ["m", ["f", 1, 1, 5]]},
        {"type": "ExceptionGroup", "args": ["m", [1]]},
        {"type": "OSError", "args": [2**70, "m"]},
        {"type": "FrameTooLarge", "args": [[1], {}, None, 3]},
        {"type": "ImportError", "args": [{"deep": [[[]]]}]},
        {"type": ["ValueError"], "message": {"no": "text"}},
    ],
    ids=lambda described: str(described["type"]),
)
def test_arguments_that_a_peer_made_up_harm_nobody_who_prints_the_error(described):
    arrived = remote_exception({"status": "uncaught-error", "exception": described}, "a:1", "op")
    assert "".join(traceback.format_exception(arrived))
    assert repr(arrived)


def test_a_unicode_error_that_makes_sense_arrives_as_itself():
    arrived = across(UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"))
    assert type(arrived) is UnicodeDecodeError
    assert (arrived.object, arrived.start, arrived.end) == (b"a\xff", 1, 2)


def test_a_type_that_only_shares_its_name_with_a_builtin_is_not_taken_for_it():
    class ConnectionError(Exception):
        pass

    arrived = across(ConnectionError("of some library"))
    assert type(arrived) is RemoteError
    assert arrived.type_name == "ConnectionError"


def test_an_exception_that_cannot_be_described_is_described_poorly():
    @dataclasses.dataclass(init=False)
    class Odd(Exception):
        args: int

    class Odder(Exception):
        @property
        def args(self):
            raise RuntimeError

    assert "Odd" in str(across(Odd()))
    assert "Odder" in str(across(Odder("x")))


def test_what_a_peer_says_reaches_no_terminal_unescaped():
    reply = {"status": "uncaught-error", "exception": {"type": "ValueError"}, "traceback": "red \x1b[31m"}
    (note,) = remote_exception(reply, "a:1", "op").__notes__
    assert "\x1b" not in note
    assert "red \\x1b[31m" in note


@pytest.mark.parametrize("args", [["x" * 10_000] * 3, [1] * 101, [b"x" * 15_000, "y" * 15_000]])
def test_arguments_are_taken_only_if_all_together_are_no_longer_than_a_message(args):
    described = {"type": "ValueError", "module": "builtins", "message": "too much", "args": args}
    error = remote_exception({"exception": described}, "peer", "op")
    assert (type(error), error.args) == (ValueError, ("too much",))
    sent = error_reply(ValueError(*args))["exception"]
    assert sent["args"] == [sent["message"]]
    assert len(sent["message"]) <= 20_000


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("BadValue", ["\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x00"]),
        ("LimitReached", ["\x1b[31m", "\x9b2J"]),
        ("FrameTooLarge", ["\x1b[31m", 5, 4, "\x07"]),
        ("BadMessage", ["\x1b[31m"]),
    ],
)
def test_an_error_of_the_librarys_own_says_nothing_to_a_terminal(name, args):
    described = {"type": name, "module": "fastcore.errors", "message": "\x1b[31m", "args": args}
    error = remote_exception({"exception": described}, "127.0.0.1:1", "op")
    assert type(error).__name__ == name
    assert str(error).isprintable()
