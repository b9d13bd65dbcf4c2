"""Coverage-guided fuzzing: bytes through the buffers and the protocol.

    python tests/fuzz/guided.py -max_total_time=600 [CORPUS_FOLDER]

Needs atheris (`pip install --group fuzz`), which instruments the reference and the
protocol: an input is interesting when it takes a new way through one of them. A finding
is written to a file ``crash-...``; give that file as the argument to repeat it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

SENTINELS = [b"\n", b"\0\0\0\0\0", b"aab aab", b"0123456789abcdef" * 15 + b"0123456789abcde"]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def make_target() -> Callable[[bytes], None]:
    from fastcore._framing import SENTINEL, MessageBuffer
    from fastcore._header import read_header
    from fastcore._wire import decode
    from fastcore.errors import BadFrame, BadMessage
    from helpers.differential import compare_frames, compare_messages

    def decoded(chunks: list[bytes]) -> list[str]:
        """What a connection would give its reader; no error but the two that it announces."""
        buffer = MessageBuffer(read_header, max_frame_size=100_000, max_header_size=1000)
        taken = []
        for chunk in chunks:
            buffer.feed(chunk)
            while True:
                try:
                    message = buffer.next_message()
                    if message is None:
                        break
                    taken.append(repr(decode(*message, max_decompressed_size=100_000)))
                except (BadFrame, BadMessage) as error:
                    taken.append(type(error).__name__)
                    if buffer.failure is not None:
                        return taken
        return taken

    def one_input(data: bytes) -> None:
        if len(data) < 3:
            return
        kind, size, limit = data[0], data[1] + 1, 1 + 16 * data[2]
        sentinel = [SENTINEL, *SENTINELS][kind % 5]
        # So that a mutation of one byte can bring a whole sentinel, or most of one.
        stream = data[3:].replace(b"\xfe", sentinel).replace(b"\xfd", sentinel[:-1])
        chunks = cut(stream, size)
        compare_frames(sentinel, limit, chunks, kind)
        compare_messages(sentinel, limit, limit // 2, chunks, kind)
        if sentinel == SENTINEL:
            assert decoded(chunks) == decoded([stream])

    return one_input


def write_seeds(folder: Path) -> None:
    """Good messages of every kind to start from; chance alone writes few headers."""
    from fastcore._framing import SENTINEL
    from fastcore._wire import encode

    messages = [None, b"pong", {"op": "add", "x": [1, 2.5, "three"]}, {"data": SENTINEL * 2}, "x" * 3000]
    for number, message in enumerate(messages):
        for compression in (None, "zlib"):
            encoded = encode(message, compression)
            data = encoded if isinstance(encoded, bytes) else b"".join(encoded)
            stream = data.replace(SENTINEL, b"\xfe")
            (folder / f"{number}-{compression}").write_bytes(b"\0\xff\xff" + stream * 2)


def main() -> None:
    import atheris

    # Whole packages are included; how the two are compared is no way through one of them.
    included = ["helpers", "fastcore", "msgpack"]
    with atheris.instrument_imports(include=included, exclude=["helpers.differential"]):
        target = make_target()
    with TemporaryDirectory() as seeds:
        write_seeds(Path(seeds))
        repeats = any(Path(argument).is_file() for argument in sys.argv[1:])
        atheris.Setup(sys.argv if repeats else [*sys.argv, seeds], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
