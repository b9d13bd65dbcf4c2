"""The states of a channel until it ends, over a transport that is no socket."""

import asyncio
import os
from types import SimpleNamespace

import pytest

from fastcore import BadMessage, ConnectionLost, FrameTooLarge, LimitReached
from fastcore._socket import Socket
from fastcore.limits import Limits
from helpers.owners import Listener
from helpers.states import lost, state, turns
from helpers.support import until
from helpers.toy_transport import toy_pair
from helpers.wire import frame, raw_frame

SHAPES = [
    0,
    "text",
    b"bytes" * 10_000,
    [b"x" * 300_000, {"deep": [[b"y" * 200_000]]}],
    None,
    list(range(5_000)),
]


# ---- opening


async def test_before_it_is_open_messages_wait_and_then_leave_in_their_order():
    one, another = toy_pair(opened=False)
    writes = [one.channel.write(number) for number in range(5)]
    reading = another.channel.read()
    await turns()
    assert (state(one), state(another)) == ("opening", "opening")
    assert one.channel.unsent == sum(len(frame(number)) for number in range(5))
    assert not any(write.done() for write in writes)
    one.open()
    another.open()
    assert (state(one), state(another)) == ("open", "open")
    assert [await reading] + [await another.channel.read() for _ in range(4)] == [*range(5)]
    await asyncio.gather(*writes)
    assert one.channel.unsent == 0


async def test_what_never_opens_ends_with_all_that_waited_for_it():
    one, _ = toy_pair(opened=False)
    writing, reading = one.channel.write("never"), one.channel.read()
    one.channel.close(OSError("no way"))
    for waiting in (writing, reading):
        with pytest.raises(ConnectionLost, match="no way"):
            await waiting
    await lost(one, "no way")
    # It is over, whatever comes of the connecting.
    one.open()
    assert state(one) == "lost"


async def test_who_is_closed_before_it_is_open_sends_what_was_written_then():
    one, another = toy_pair(opened=False)
    one.channel.write("still")
    one.channel.close_when_sent()
    assert state(one) == "closing"
    another.open()
    one.open()
    assert await another.channel.read() == "still"
    await lost(one)


async def test_a_farewell_before_it_is_open_is_said_then():
    one, another = toy_pair(opened=False)
    one.channel.farewell("turned away")
    assert (state(one), one.is_lingering) == ("leaving", False)
    another.open()
    one.open()
    assert one.is_lingering
    assert await another.channel.read() == "turned away"
    await until(lambda: state(one) == "lost")


# ---- open


@pytest.mark.deadline(150)  # in dev mode each turn of the loop takes its time
@pytest.mark.parametrize("pieces", [7, 1000, 2**16])
async def test_messages_of_every_shape_go_both_ways_in_pieces_of_any_size(pieces):
    one, another = toy_pair(pieces=pieces)

    async def send_all(end):
        for message in SHAPES:
            await end.channel.write(message)

    both = asyncio.gather(send_all(one), send_all(another))
    for end in (one, another):
        assert [await end.channel.read() for _ in SHAPES] == SHAPES
    await both
    for end in (one, another):
        assert (end.channel.messages_in, end.channel.messages_out) == (len(SHAPES), len(SHAPES))
        assert end.channel.bytes_out == sum(end.sends) == end.other.channel.bytes_in


async def test_the_first_message_of_a_turn_leaves_at_once_and_what_follows_together_at_its_end():
    one, another = toy_pair()
    for number in range(100):
        one.channel.write(number)
    # One more where the machine was busy with something else: a turn of so long counts as over.
    assert len(one.sends) <= 2
    await turns()
    assert len(one.sends) <= 3
    assert [await another.channel.read() for _ in range(100)] == [*range(100)]


async def test_when_there_is_enough_it_leaves_before_the_turn_ends():
    one, _ = toy_pair(pieces=2**20)
    for number in range(100):
        one.channel.write([number, b"x" * 1000])
    assert sum(one.sends) > 50_000
    assert len(one.sends) <= 3


async def test_what_is_no_message_costs_that_one_message():
    one, another = toy_pair()
    told = Listener(another.channel)
    one.send(frame("first") + raw_frame(b"\xc1") + frame("second"))
    await until(lambda: len(told.messages) == 2)
    assert told.messages == ["first", "second"]
    assert [type(error) for error in told.errors] == [BadMessage]
    assert state(another) == "open"


async def test_what_is_too_large_ends_what_can_be_read_and_a_reader_closes_it():
    one, another = toy_pair(limits=Limits(max_buffer_size=1000))
    reading = another.channel.read()
    one.channel.write(bytes(5000))
    with pytest.raises(FrameTooLarge):
        await reading
    assert isinstance(another.channel.failure, FrameTooLarge)
    await turns()
    assert state(another) == "lost"


async def test_who_writes_on_and_on_lets_others_have_their_turn_though_all_of_it_is_taken():
    one, _ = toy_pair()
    turns_of_others = 0

    async def others():
        nonlocal turns_of_others
        while True:
            turns_of_others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    for number in range(2000):
        await one.channel.write(number)
    task.cancel()
    assert not one.channel.is_full
    assert turns_of_others > 2000 / 512


async def test_who_begins_to_listen_is_given_what_is_here_at_once_or_in_the_next_turn():
    for begin, at_once in (("listen", ["here"]), ("listen_soon", [])):
        one, another = toy_pair()
        told = Listener(another.channel)
        another.channel.stop_listening()
        one.channel.write("here")
        await until(lambda channel=another.channel: channel.unread)
        assert not told.messages
        getattr(another.channel, begin)()
        assert told.messages == at_once
        await turns()
        assert told.messages == ["here"]


# ---- full


async def test_full_is_who_writes_faster_than_the_peer_takes_and_no_longer_when_it_has():
    one, another = toy_pair(size=2, pieces=1000)
    told = Listener(one.channel)
    another.is_paused = True
    writing = one.channel.write(bytes(10_000))
    behind = one.channel.write("behind")
    assert not one.channel.send("further behind")
    await turns()
    assert (one.channel.is_full, one.wants_write) == (True, True)
    assert (writing.done(), behind.done(), told.times_writable) == (False, False, 0)
    another.resume()
    assert [await another.channel.read() for _ in range(3)] == [bytes(10_000), "behind", "further behind"]
    await writing
    await behind
    await until(lambda: told.times_writable)
    assert (one.channel.is_full, one.wants_write, told.times_writable) == (False, False, 1)
    assert one.channel.write("again").done()


async def test_each_writer_is_told_when_its_own_message_has_left():
    one, another = toy_pair(size=1, pieces=1000)
    another.is_paused = True
    writes = [one.channel.write(bytes(2000)) for _ in range(5)]
    done = []
    while len(done) < 5:
        await take_a_piece(another)
        done = [write for write in writes if write.done()]
        # In their order, and none before its last byte.
        assert done == writes[: len(done)]
        left = sum(one.sends) // len(frame(bytes(2000)))
        assert len(done) <= left
    assert one.channel.unsent == 0


async def take_a_piece(end):
    end.resume()
    await asyncio.sleep(0)
    end.is_paused = True
    await turns()


async def test_flushed_is_when_all_that_was_written_has_left():
    one, another = toy_pair(size=2, pieces=1000)
    assert one.channel.flushed().done()
    one.channel.write("first of a turn leaves at once")
    one.channel.write("and what follows at its end, or before that")
    assert one.channel.unsent
    assert one.channel.flushed().done()
    assert not one.channel.unsent
    one.channel.write(bytes(5_000))
    flushed = one.channel.flushed()
    assert not flushed.done()
    read = [await another.channel.read() for _ in range(3)]
    assert read[-1] == bytes(5_000)
    await flushed
    assert not one.channel.unsent


async def test_what_cant_leave_any_more_is_never_flushed():
    one, another = toy_pair(size=1, pieces=10)
    one.channel.write(bytes(1_000))
    waiting = one.channel.flushed()
    another.close(None)
    with pytest.raises(ConnectionLost):
        await waiting
    with pytest.raises(ConnectionLost):
        await one.channel.flushed()
    unopened, _ = toy_pair(opened=False)
    unopened.channel.write("waits")
    waiting = unopened.channel.flushed()
    assert not waiting.done()
    unopened.open()
    await waiting


# ---- closed from inside of its own doing


async def test_it_may_be_closed_while_it_looks_whether_it_still_has_to_watch_the_time():
    one, another = toy_pair(size=2, pieces=1000)

    class Closes(Listener):
        def is_idle(self):
            if not channel.is_full:
                channel.close()
            return True

    channel = one.channel
    told = Closes(channel)
    another.is_paused = True
    writing = channel.write(bytes(10_000))
    await turns()
    assert channel.is_watched()
    another.resume()
    assert await another.channel.read() == bytes(10_000)
    await until(lambda: told.times_lost)
    assert state(one) == "lost"
    assert writing.done()


@pytest.mark.parametrize("use", ["receive", "catch_up"])
async def test_it_may_be_closed_while_its_socket_receives(use):
    _, another = toy_pair()
    channel = another.channel

    def recv_into(memory):
        channel.close()
        memory[:4] = bytes(4)
        return 4

    with open(os.devnull) as some_file:
        source = SimpleNamespace(recv_into=recv_into, send=another.send)
        channel.opened(Socket(source, bare_fileno=some_file.fileno))
        reading = channel.read()
        assert not getattr(channel, use)()
        with pytest.raises(ConnectionLost):
            await reading
    await lost(another)


async def test_nobody_uses_another_connection_from_inside_of_what_a_socket_does_in_python():
    """OpenSSL has one queue of errors for each thread: who comes in between would be told another's."""
    one, another = toy_pair()
    beside, beyond = toy_pair()
    taken_inside = []

    def recv_into(memory):
        beside.channel.send("later")
        taken_inside.append(beside.sends[:])
        return None

    another.channel.opened(Socket(SimpleNamespace(recv_into=recv_into, send=another.send)))
    reading = beyond.channel.read()
    assert not another.channel.receive()
    assert taken_inside == [[]]
    beside.channel.writable()
    assert await reading == "later"
    one.channel.close()


# ---- paused


async def test_paused_is_what_arrives_and_nobody_reads_until_somebody_has():
    one, another = toy_pair(size=4, limits=Limits(max_waiting=10_000))
    for number in range(1000):
        one.channel.write([number, b"x" * 1000])
    await until(lambda: another.is_paused)
    assert another.channel.is_paused
    assert one.channel.is_full
    assert 10_000 <= another.channel.unread < 10_000 + 4 * 2**16
    assert [(await another.channel.read())[0] for _ in range(1000)] == [*range(1000)]
    one.channel.write("after it")
    assert await another.channel.read() == "after it"
    assert not another.channel.is_paused


async def test_an_owner_that_listens_is_never_the_reason_for_a_pause():
    one, another = toy_pair(limits=Limits(max_waiting=1))
    told = Listener(another.channel)
    for number in range(1000):
        one.channel.write(number)
    await until(lambda: len(told.messages) == 1000)
    assert not another.is_paused
    assert told.messages == [*range(1000)]


# ---- time


async def test_a_message_that_is_begun_and_not_finished_ends_it_where_somebody_waits():
    one, another = toy_pair(limits=Limits(message_timeout=0.05))
    reading = another.channel.read()
    one.send(frame("never whole")[:-1])
    with pytest.raises(ConnectionLost) as caught:
        await reading
    assert isinstance(caught.value.real_error, LimitReached)
    assert caught.value.real_error.keyword == "message_timeout"


@pytest.mark.parametrize("keyword", ["message_timeout", "write_timeout", "idle_timeout"])
async def test_an_owner_decides_what_becomes_of_who_takes_too_long(keyword):
    one, another = toy_pair(size=1, pieces=1000, limits=Limits(**{keyword: 0.05}))
    told = Listener(one.channel)
    Listener(another.channel, idle=False)
    if keyword == "message_timeout":
        another.send(frame("never whole")[:-1])
    elif keyword == "write_timeout":
        another.is_paused = True
        one.channel.write(bytes(10_000))
    await until(lambda: told.limits)
    assert [error.keyword for error in told.limits] == [keyword]
    assert state(one) == "open"


async def test_who_works_for_the_peer_is_not_idle():
    one, another = toy_pair(limits=Limits(idle_timeout=0.05))
    working, idle = Listener(one.channel, idle=False), Listener(another.channel)
    await until(lambda: idle.limits)
    assert not working.limits
    working.idle = True
    await until(lambda: working.limits)


async def test_what_moves_is_not_too_slow():
    one, another = toy_pair(size=1, pieces=100, limits=Limits(message_timeout=0.3, write_timeout=0.3))
    told = Listener(one.channel), Listener(another.channel)
    another.is_paused = True
    one.channel.write(bytes(3000))
    while not told[1].messages:
        await take_a_piece(another)
        await asyncio.sleep(0.02)
    assert not told[0].limits


async def test_nobody_is_told_of_a_time_that_runs_out_after_the_end():
    one, another = toy_pair(limits=Limits(idle_timeout=0.05))
    told = Listener(one.channel)
    another.channel.close()
    await until(lambda: state(one) == "lost")
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.2, over.set_result, None)
    await over
    assert not told.limits
