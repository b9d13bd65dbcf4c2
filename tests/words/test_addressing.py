"""Addresses, in all the forms that callers use."""

import pytest

from fastcore.addressing import format_address, parse_address


@pytest.mark.parametrize(
    "given",
    ["10.0.0.1:8786", b"10.0.0.1:8786", ("10.0.0.1", 8786), (b"10.0.0.1", 8786), ["10.0.0.1", 8786]],
)
def test_all_forms_tell_the_same_address(given):
    assert parse_address(given) == ("10.0.0.1", 8786)
    assert parse_address(addr=given) == ("10.0.0.1", 8786)


@pytest.mark.parametrize("port", [8786, "8786", b"8786"])
def test_host_and_port_may_come_apart(port):
    assert parse_address(ip="localhost", port=port) == ("localhost", 8786)


@pytest.mark.parametrize("given", ["[::1]:8786", b"[::1]:8786", ("::1", 8786), ("[::1]", 8786)])
def test_an_ipv6_host_stands_in_brackets_where_the_port_follows(given):
    assert parse_address(given) == ("::1", 8786)
    assert format_address(("::1", 8786)) == "[::1]:8786"


@pytest.mark.parametrize("given", ["unix:/run/a.sock", ("unix:/run/a.sock", None), ("unix:/run/a.sock", 0)])
def test_a_unix_socket_has_a_path_and_no_port(given):
    assert parse_address(given) == ("unix:/run/a.sock", None)
    assert format_address(("unix:/run/a.sock", None)) == "unix:/run/a.sock"


@pytest.mark.parametrize(
    "address", [("10.0.0.1", 1), ("::1", 65535), ("host.example", 80), ("unix:/a", None)]
)
def test_what_is_written_is_read_again(address):
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("10.0.0.1", "no port"),
        ("10.0.0.1:", "isn't a number"),
        ("10.0.0.1:http", "isn't a number"),
        (":8786", "no host"),
        ("::1:8786", "IPv6 as"),
        ("10.0.0.1:0", "no such port"),
        ("10.0.0.1:65536", "no such port"),
        (("10.0.0.1", 1.5), "1.5 isn't a number"),
        (("10.0.0.1", float("nan")), "isn't a number"),
        ("local\0host:8786", "no host"),
        ("unix:", "no path"),
        (("10.0.0.1",), "no port"),
        (("10.0.0.1", None), "isn't a number"),
        ((None, 8786), "no host"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_address(given)


def test_nothing_is_no_address():
    with pytest.raises(ValueError, match="no host"):
        parse_address()


def test_two_addresses_are_one_too_many():
    with pytest.raises(ValueError, match="twice"):
        parse_address("10.0.0.1:8786", ip="10.0.0.2", port=1)


def test_a_number_is_no_address():
    with pytest.raises(TypeError, match="host:port"):
        parse_address(8786)
