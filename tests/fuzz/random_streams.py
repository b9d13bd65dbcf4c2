"""Random streams, some millions of them, through the engine and the reference.

    python tests/fuzz/random_streams.py --examples 3_000_000 --seconds 1200

Uses all processors. Stops at the first difference and prints the seed that repeats it:

    python tests/fuzz/random_streams.py --seed 12345
"""

from __future__ import annotations

import argparse
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.differential import compare_frames, compare_messages, random_case

BATCH = 5_000


def one_example(seed: int) -> None:
    chance = Random(seed)
    sentinel, _, chunks = random_case(chance)
    max_frame_size = chance.choice([50, 300, 1_000_000])
    max_header_size = chance.choice([5, 40, 1000])
    compare_frames(sentinel, max_frame_size, chunks, seed)
    compare_messages(sentinel, max_frame_size, max_header_size, chunks, seed)


def batch(first: int) -> str | None:
    for seed in range(first, first + BATCH):
        try:
            one_example(seed)
        except Exception as error:
            return f"--seed {seed}: {type(error).__name__}: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=3_000_000)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, help="repeat this one example")
    options = parser.parse_args()
    if options.seed is not None:
        one_example(options.seed)
        return 0
    started = time.monotonic()
    done = 0
    first = time.time_ns() % 2**40  # other examples each time
    with get_context("spawn").Pool() as pool:
        for failure in pool.imap_unordered(batch, range(first, first + options.examples, BATCH)):
            if failure is not None:
                print(failure)
                return 1
            done += BATCH
            if time.monotonic() - started > options.seconds:
                break
    seconds = time.monotonic() - started
    print(f"{done:,} streams, each as frames and as messages, in {seconds:.0f} s: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
