"""How a channel ends, over a transport that is no socket: closing, leaving, lost."""

import asyncio

import pytest

from fastcore import ConnectionLost
from helpers.owners import Listener
from helpers.states import lost, state, turns
from helpers.support import until
from helpers.toy_transport import toy_pair
from helpers.wire import frame

# ---- closing


async def test_closed_when_sent_it_sends_what_waits_and_ends():
    one, another = toy_pair(size=1, pieces=1000)
    another.is_paused = True
    writes = [one.channel.write(bytes(3000)), one.channel.write("last")]
    one.channel.close_when_sent()
    await turns()
    assert (state(one), one.channel.is_open, one.is_closed) == ("closing", False, False)
    another.resume()
    assert [await another.channel.read(), await another.channel.read()] == [bytes(3000), "last"]
    await asyncio.gather(*writes)
    with pytest.raises(ConnectionLost):
        await another.channel.read()
    await lost(one)
    assert one.unsent == 0
    assert one.channel.end_error is None


async def test_closed_when_sent_with_nothing_to_send_it_ends_at_once():
    one, another = toy_pair()
    one.channel.close_when_sent()
    await lost(one)
    with pytest.raises(ConnectionLost):
        await another.channel.read()
    await lost(another)


async def test_what_is_written_while_it_is_closing_still_leaves():
    one, another = toy_pair(size=1, pieces=1000)
    another.is_paused = True
    one.channel.write(bytes(3000))
    one.channel.close_when_sent()
    one.channel.write("a late answer")
    another.resume()
    assert [await another.channel.read(), await another.channel.read()] == [bytes(3000), "a late answer"]
    await turns()
    await lost(one)


# ---- leaving


async def test_a_farewell_is_heard_and_what_still_comes_is_dropped():
    one, another = toy_pair()
    told = Listener(one.channel)
    another.channel.write("heard")
    await until(lambda: told.messages)
    one.channel.write("before")
    one.channel.farewell("goodbye")
    assert (state(one), one.channel.is_open) == ("leaving", False)
    another.channel.write("not heard")
    assert not one.channel.receive()
    with pytest.raises(ConnectionLost, match="being closed, after its last message"):
        one.channel.send("after it")
    with pytest.raises(ConnectionLost, match="being closed, after its last message"):
        await one.channel.write("after it")
    # A second one is too late, and breaks nothing.
    one.channel.farewell("goodbye again")
    assert [await another.channel.read(), await another.channel.read()] == ["before", "goodbye"]
    with pytest.raises(ConnectionLost):
        await another.channel.read()
    await until(lambda: state(one) == "lost")
    assert told.messages == ["heard"]
    await lost(one)


async def test_a_farewell_waits_for_what_was_written_before_and_not_for_ever_for_the_peer():
    one, another = toy_pair(size=1, pieces=1000)
    another.is_paused = True
    one.channel.write(bytes(3000))
    one.channel.farewell("goodbye")
    await turns()
    assert (state(one), one.is_lingering) == ("leaving", False)
    another.resume()
    assert [await another.channel.read(), await another.channel.read()] == [bytes(3000), "goodbye"]
    assert one.is_lingering
    # The peer says nothing and closes nothing.
    another.is_paused = True
    await until(lambda: state(one) == "lost")
    await lost(one)


async def test_to_close_it_while_it_closes_or_leaves_ends_it_at_once():
    for begin in ("close_when_sent", "farewell"):
        one, another = toy_pair(size=1, pieces=1000)
        another.is_paused = True
        writing = one.channel.write(bytes(3000))
        getattr(one.channel, begin)(*["goodbye"][: begin == "farewell"])
        one.channel.close()
        with pytest.raises(ConnectionLost):
            await writing
        assert one.unsent > 0
        await lost(one)


# ---- lost


async def test_what_had_arrived_is_read_after_the_end_and_then_the_end():
    one, another = toy_pair()
    for number in range(3):
        one.channel.write(number)
    one.channel.close()
    await turns(10)
    assert [await another.channel.read() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ConnectionLost, match="connection to one was closed"):
        await another.channel.read()
    await lost(another)


async def test_the_end_in_the_middle_of_a_message_is_told_apart():
    one, another = toy_pair()
    reading = another.channel.read()
    one.send(frame("whole") + frame("half")[:-1])
    one.shut()
    assert await reading == "whole"
    with pytest.raises(ConnectionLost, match="in the middle of a message"):
        await another.channel.read()


async def test_an_error_that_ends_it_is_told_to_everybody_who_waits():
    one, another = toy_pair(size=1, pieces=1000)
    another.is_paused = True
    told = Listener(one.channel)
    writes = [one.channel.write(bytes(3000)) for _ in range(3)]
    error = OSError("the cable")
    one.channel.close(error)
    assert told.times_lost == 1
    for writing in writes:
        with pytest.raises(ConnectionLost, match="the cable") as caught:
            await writing
        assert caught.value.real_error is error
    await turns()
    assert [each.real_error for each in told.errors] == [error]
    # Whoever waited for room needn't any more.
    assert told.times_writable == 1
    assert one.channel.end_error is error
    await lost(one, "the cable")


async def test_a_transport_that_breaks_while_it_sends_ends_the_connection():
    one, another = toy_pair()
    another.channel.close()
    with pytest.raises(ConnectionLost, match="nobody is there"):
        await one.channel.write("into the void")
    await lost(one)


async def test_a_message_that_ends_the_connection_while_it_is_encoded_leaves_nothing_behind():
    class Closes(list):
        def __iter__(self):
            one.channel.close()
            return super().__iter__()

    one, _ = toy_pair()
    with pytest.raises(ConnectionLost):
        await one.channel.write(Closes([1]))
    assert one.channel.messages_out == 0
    await lost(one)


async def test_an_end_of_which_the_transport_tells_twice_is_one():
    one, _ = toy_pair()
    told, ends = Listener(one.channel), []
    one.channel.add_end_callback(lambda: ends.append(1))
    one.channel.close()
    one.channel.ended("again", OSError("again"))
    await turns()
    assert (told.times_lost, len(told.errors), ends) == (1, 1, [1])
    assert one.channel.end_error is None
