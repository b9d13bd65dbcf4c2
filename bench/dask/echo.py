"""One end of a comm in a process of its own.

python -m bench.dask.echo serve SCHEME FOLDER          answers; prints a JSON line with address and process id
python -m bench.dask.echo call ADDRESS FOLDER COUNT    makes so many small requests

FOLDER holds the certificates.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import trustme
from distributed.comm import Comm, CommClosedError, connect, listen
from distributed.protocol import to_serialize

from bench.server import end_with_parent, settle_memory

SMALL = {"op": "echo", "key": "task-12345", "who": "tcp://127.0.0.1:40000", "nbytes": 28}
ENCRYPTED = ("tls", "fastcores")


def make_certificates(folder: Path) -> None:
    """Write an authority, and a certificate for this machine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "ours.pem"))


def connection_args(scheme: str, folder: Path, purpose: ssl.Purpose) -> dict[str, Any]:
    """Give what Dask is to be told beside an address."""
    if scheme not in ENCRYPTED:
        return {}
    context = ssl.create_default_context(purpose, cafile=str(folder / "authority.pem"))
    context.load_cert_chain(folder / "ours.pem")
    return {"ssl_context": context}


async def answer(comm: Comm) -> None:
    """Send back what comes, or keep it until something small was sent back."""
    try:
        while True:
            message = await comm.read()
            if message["op"] == "keep":
                await comm.write(SMALL)
            else:
                arrays = message.get("data", ())
                await comm.write({**message, "data": [to_serialize(array) for array in arrays]})
            # Else it would be there beside the next one.
            del message
    except CommClosedError:
        pass


async def serve(scheme: str, folder: Path) -> None:
    """Listen until the parent is gone."""
    options = connection_args(scheme, folder, ssl.Purpose.CLIENT_AUTH)
    listener = await listen(f"{scheme}://127.0.0.1:0", answer, **options)
    print(json.dumps({"address": listener.contact_address, "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


async def meet(address: str, folder: Path) -> Comm:
    """Connect."""
    scheme = address.partition("://")[0]
    return await connect(address, **connection_args(scheme, folder, ssl.Purpose.SERVER_AUTH))


async def call(address: str, folder: Path, count: int) -> None:
    """Make small requests, one after the other."""
    comm = await meet(address, folder)
    for _ in range(count):
        await comm.write(SMALL)
        await comm.read()
    await comm.close()


def main(role: str, what: str, folder: str, count: str = "0") -> None:
    """Be one of the two."""
    settle_memory()
    if role == "serve":
        threading.Thread(target=end_with_parent, daemon=True).start()
        asyncio.run(serve(what, Path(folder)))
    else:
        asyncio.run(call(what, Path(folder), int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
