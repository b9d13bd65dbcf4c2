"""A script, without an event loop: python script.py [port of server.py]

It calls what ``server.py`` beside it serves.
"""

import sys

from fastcore import SyncClient


def main(port: int) -> None:
    with SyncClient(ip="127.0.0.1", port=port, timeout=5) as remote:
        print(remote.add(x=1, y=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8888)
