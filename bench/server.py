"""The server process of a pair: ``python -m bench.server PEER [CORE]``.

Prints one JSON line with its port and process id, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from bench.peers import PEERS


def pin(core: int) -> None:
    """Stay on one core, or anywhere when *core* is negative."""
    if core >= 0:
        os.sched_setaffinity(0, {core})


def settle_memory() -> None:
    """Leave malloc as it is in a program that has run for a while.

    glibc maps and unmaps each block over 128 KiB until the first such block was freed whole. Whether that
    has happened when the measuring begins would be an accident of what a peer imports.
    """
    bytearray(2**20)


def end_with_parent() -> None:
    """Leave without a word when the parent closes our standard input, or dies."""
    sys.stdin.read()
    os._exit(0)


def announce(port: int) -> None:
    """Tell the parent where we listen."""
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


def main(name: str, core: str = "-1") -> None:
    """Serve as one of the peers."""
    pin(int(core))
    settle_memory()
    threading.Thread(target=end_with_parent, daemon=True).start()
    peer = PEERS[name].module()
    if hasattr(peer, "run"):
        peer.run(peer.serve(announce))
    else:
        peer.serve(announce)


if __name__ == "__main__":
    main(*sys.argv[1:])
