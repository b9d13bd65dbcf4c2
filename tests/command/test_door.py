"""The door by which a parent hands connections to its worker: nothing of what was handed in is lost."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("fcntl", reason="descriptors are handed over there")

from fastcore.command.door import Door, DoorToWorker


class Both:
    """Both ends of a door, and connections to hand in."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        parent, worker = socket.socketpair()
        self.shut = 0
        self.parent = DoorToWorker(parent)
        stack.callback(self.parent.close)
        self.worker = stack.enter_context(Door(worker.detach(), ("127.0.0.1", 8786), self.is_shut))

    def is_shut(self) -> None:
        self.shut += 1

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """One that was accepted, and its peer."""
        accepted, peer = socket.socketpair()
        self._stack.enter_context(accepted)
        self._stack.enter_context(peer)
        peer.settimeout(10)
        return accepted, peer


@pytest.fixture
def door() -> Iterator[Both]:
    with ExitStack() as stack:
        yield Both(stack)


def test_to_a_server_it_is_the_socket_that_the_parent_listens_on(door: Both):
    assert (door.worker.family, door.worker.getsockname()) == (socket.AF_INET, ("127.0.0.1", 8786))
    with pytest.raises(BlockingIOError):
        door.worker.accept()
    assert door.shut == 0


def test_a_connection_is_the_parents_until_the_worker_has_it(door: Both):
    accepted, peer = door.connection()
    assert door.parent.hand_in(accepted)
    assert [*door.parent.in_door] == [accepted]
    taken, _ = door.worker.accept()
    with taken:
        assert door.parent.hear()
        assert not door.parent.in_door
        assert accepted.fileno() < 0
        taken.sendall(b"hello")
        assert peer.recv(10) == b"hello"


def test_all_that_was_handed_in_can_be_taken_after_it_was_shut(door: Both):
    peers = []
    for _ in range(3):
        accepted, peer = door.connection()
        assert door.parent.hand_in(accepted)
        peers.append(peer)
    door.parent.shut()
    assert not door.parent.hand_in(door.connection()[0])
    for peer in peers:
        with door.worker.accept()[0] as taken:
            taken.sendall(b"hello")
            assert peer.recv(10) == b"hello"
    assert door.shut == 0
    with pytest.raises(BlockingIOError):
        door.worker.accept()
    assert door.shut == 1
    assert door.parent.hear()
    assert not door.parent.in_door


def test_what_a_worker_that_died_had_not_taken_is_still_the_parents(door: Both):
    connections = [door.connection() for _ in range(3)]
    for accepted, _ in connections:
        door.parent.hand_in(accepted)
    door.worker.accept()[0].close()
    door.worker.close()
    assert not door.parent.hear()
    assert door.parent.is_over
    left = [accepted for accepted, _ in connections[1:]]
    assert [*door.parent.in_door] == left
    left[0].sendall(b"still there")
    assert connections[1][1].recv(20) == b"still there"


def test_a_worker_that_wants_to_leave_says_so_after_what_it_has_taken(door: Both):
    accepted, _ = door.connection()
    door.parent.hand_in(accepted)
    with door.worker.accept()[0]:
        door.worker.ask_to_leave()
        assert not door.parent.hear()
        assert not door.parent.in_door


def test_one_whose_server_is_stopped_is_told_too(door: Both):
    door.worker.close()
    assert door.shut == 1
    door.worker.ask_to_leave()


def test_a_full_door_takes_no_more_and_leaves_the_connection_to_the_parent(door: Both):
    accepted, peer = door.connection()
    with ExitStack() as stack:
        for _ in range(100_000):
            copy = stack.enter_context(accepted.dup())
            if not door.parent.hand_in(copy):
                break
        else:
            pytest.fail("it takes whatever is handed in")
        copy.sendall(b"still there")
        assert peer.recv(20) == b"still there"


def test_a_connection_that_has_gone_already_is_passed_over(door: Both):
    listening = socket.create_server(("127.0.0.1", 0))
    with listening, socket.create_connection(listening.getsockname()) as peer:
        accepted, _ = listening.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        door.parent.hand_in(accepted)
        with pytest.raises(ConnectionAbortedError):
            door.worker.accept()
    door.parent.hear()
