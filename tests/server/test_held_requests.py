"""Requests that are held for later: in order, and found by their number however many there are."""

from types import SimpleNamespace

from fastcore.server.held import HeldRequests


class Number(int):
    """A number that counts how often one is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Number.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


def held(*numbers: int | None) -> HeldRequests:
    requests = HeldRequests(SimpleNamespace(last_size=1000), lambda: None)
    for number in numbers:
        requests.keep({"of": number}, None if number is None else SimpleNamespace(call=number))
    return requests


def test_they_come_out_as_they_came_in():
    requests = held(5, None, 3, None)
    assert requests.last[0] == {"of": None}
    assert [requests.first()[0]["of"] for _ in range(len(requests))] == [5, None, 3, None]
    assert not requests
    assert requests.size == 0


def test_one_that_is_given_up_leaves_the_others_in_order():
    requests = held(1, 2, 3)
    assert requests.of_call(2)[0] == {"of": 2}
    assert requests.of_call(2) is None
    assert [message["of"] for message, _, _ in requests] == [1, 3]
    assert requests.size == 2000


def test_a_number_that_comes_twice_is_held_twice():
    requests = held(1, 1)
    assert len(requests) == 2
    assert requests.of_call(1) is not None
    assert requests.first()[0] == {"of": 1}


def test_who_gives_up_is_found_without_going_through_all_that_wait():
    requests = held(*map(Number, range(10_000)))
    Number.compared = 0
    for number in range(9_999, 9_000, -1):
        assert requests.of_call(Number(number)) is not None
        assert requests.of_call(Number(number + 100_000)) is None
    assert Number.compared < 10_000


def test_a_small_one_counts_as_what_it_has_become():
    requests = HeldRequests(SimpleNamespace(last_size=50), lambda: None)
    requests.keep({"op": "add"}, None)
    assert requests.size == 512
