"""What waits for the socket, with a socket that takes what the test says."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcore._outbox import Outbox
from fastcore._socket import Socket


class Taker:
    """Takes so many bytes at each call; None is 'would block'."""

    def __init__(self, *takes):
        self.takes = list(takes)
        self.taken = b""
        self.calls = 0

    def send(self, data):
        self.calls += 1
        size = self.takes.pop(0) if self.takes else len(data)
        if size is None:
            raise BlockingIOError
        self.taken += bytes(data[:size])
        return min(size, len(data))

    def sendmsg(self, pieces):
        return self.send(b"".join(pieces))


@given(
    st.lists(st.binary(max_size=40_000), max_size=20),
    st.lists(st.integers(1, 50_000), max_size=30),
    st.booleans(),
)
def test_bytes_leave_whole_and_in_order(pieces, takes, gathers):
    sock, outbox = Taker(*takes), Outbox()
    pieces = [piece for piece in pieces if piece]
    outbox.put(pieces)
    while outbox.unsent:
        outbox.flush(Socket(sock, gathers))
    assert sock.taken == b"".join(pieces)
    assert outbox.sent == len(sock.taken)


def test_many_small_messages_leave_in_one_call():
    sock, outbox = Taker(), Outbox()
    outbox.put([b"message"] * 1000)
    outbox.flush(Socket(sock, gathers=True))
    assert sock.calls == 1


def test_a_large_piece_is_handed_over_as_it_is():
    large = bytes(100_000)
    handed = []
    outbox = Outbox()
    outbox.put([b"header", large, b"sentinel"])
    sock = SimpleNamespace(sendmsg=lambda pieces: handed.extend(pieces) or sum(map(len, pieces)))
    outbox.flush(Socket(sock, gathers=True))
    assert handed[1] is large


def test_what_the_socket_refuses_waits():
    sock, outbox = Taker(5, None), Outbox()
    outbox.put([b"0123456789"])
    outbox.flush(Socket(sock, gathers=True))
    assert (outbox.sent, outbox.unsent) == (5, 5)
    outbox.flush(Socket(sock, gathers=True))
    assert sock.taken == b"0123456789"


def test_a_broken_socket_is_told_of():
    def broken(data):
        raise ConnectionResetError

    outbox = Outbox()
    outbox.put([b"0123456789"])
    with pytest.raises(ConnectionResetError):
        outbox.flush(Socket(SimpleNamespace(send=broken)))
