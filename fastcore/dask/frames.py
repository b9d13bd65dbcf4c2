"""Dask's frames to a message and back, without a copy of what is large.

A message is the list of its frames. Those that lie side by side in the memory of one object, as
the shards of an array do, travel as one value, so that they lie so again where they arrive;
and what is larger than MessagePack's largest value travels in parts. Both are a list within
the list: the sizes of the frames, then the values that hold them.

    small frame | frame | [[64 MiB, 31 MiB], array] | [[5 GiB], part, part, part ...]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from distributed.protocol.utils import address_of_memoryview, host_array
from distributed.utils import ensure_memoryview

__all__ = ["frames_of", "message_of"]

#: As Dask's ``to_frames`` makes them.
Frame: TypeAlias = bytes | bytearray | memoryview

#: The most bytes in one value of MessagePack.
_MAX_BIN: Final = 0xFFFF_FFFF
#: What is larger is cut into parts of this size. They are freed one by one while they are put
#: together again, so that it never takes twice its memory.
_PART_SIZE: Final = 2**27


def message_of(frames: Iterable[Frame]) -> list[Any]:
    """Make the message of some frames.

    Parameters
    ----------
    frames : iterable of bytes-like
        They must not change until the message has left.

    Examples
    --------
    >>> array = memoryview(bytes(300_000))
    >>> head, (sizes, value) = message_of([b'head', array[:200_000], array[200_000:]])
    >>> head, sizes, len(value)
    (b'head', [200000, 100000], 300000)
    """
    message: list[Any] = []
    for run in _side_by_side(frames):
        if len(run) == 1 and len(run[0]) <= _MAX_BIN:
            message.append(run[0])
        else:
            whole = _whole(run)
            size = _PART_SIZE if len(whole) > _MAX_BIN else len(whole)
            parts = [whole[at : at + size] for at in range(0, len(whole), size)]
            message.append([[len(frame) for frame in run], *parts])
    return message


def _side_by_side(frames: Iterable[Frame]) -> Iterator[list[Any]]:
    """Group the frames that follow each other in the memory of one object."""
    run: list[Any] = []
    for frame in frames:
        if type(frame) is not bytes:
            frame = _plain(memoryview(frame))
        if not run:
            run = [frame]
        elif _follows(frame, run[-1]):
            run.append(frame)
        else:
            yield run
            run = [frame]
    if run:
        yield run


def _plain(frame: memoryview) -> memoryview:
    """Give the same memory as bytes in one dimension; a copy if there are gaps in it."""
    if frame.nbytes and frame.c_contiguous:
        # Unlike ensure_memoryview's, this view tells whose memory it is.
        return frame.cast("B")
    plain: memoryview = ensure_memoryview(frame)
    return plain


def _follows(frame: Frame, before: Frame) -> bool:
    return (
        type(frame) is memoryview
        and type(before) is memoryview
        and frame.obj is before.obj
        and frame.obj is not None
        and bool(frame.nbytes and before.nbytes)
        # Else there is no one view of all of its memory.
        and memoryview(frame.obj).contiguous
        and address_of_memoryview(frame) == address_of_memoryview(before) + before.nbytes
    )


def _whole(run: list[Any]) -> memoryview:
    """Give one view of frames that lie side by side."""
    first = memoryview(run[0])
    if len(run) == 1:
        return first
    # Of whichever shape and order the object is: this is its memory.
    memory = _plain(memoryview(first.obj))
    start = address_of_memoryview(first) - address_of_memoryview(memory)
    return memory[start : start + sum(map(len, run))]


def frames_of(message: list[Any]) -> list[Frame]:
    """Give the frames of a message, each in memory that can be written to, as those of ``tcp://`` are.

    Parameters
    ----------
    message : list
        As it was received. What it has in parts is taken out of it.

    Raises
    ------
    TypeError, ValueError
        If it isn't a list of frames.

    Examples
    --------
    >>> [frame.nbytes for frame in frames_of([b'head', [[2, 3], b'array']])]
    [4, 2, 3]
    """
    frames: list[Frame] = []
    for item in message:
        if type(item) is not list:
            frames.append(_writable(item))
            continue
        if not item:
            raise ValueError("frames without their sizes")
        sizes = item.pop(0)
        whole = _writable(item[0]) if len(item) == 1 else _joined(item)
        if sum(sizes) != len(whole):
            raise ValueError(f"frames of {sum(sizes):,} bytes in {len(whole):,}")
        at = 0
        for size in sizes:
            frames.append(whole[at : at + size])
            at += size
    return frames


def _joined(parts: list[bytes | bytearray]) -> memoryview:
    whole: memoryview = host_array(sum(map(len, parts)))
    at = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def _writable(value: bytes | bytearray) -> memoryview:
    # A small one came as bytes.
    return memoryview(value if type(value) is bytearray else bytearray(value))
