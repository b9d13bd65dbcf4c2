"""A network that loses, delays, reorders, repeats and garbles packets, or is cut.

Two network namespaces of the kernel, each with a TUN device; what one sends is carried
to the other by a thread, as badly as it is told to. Needs the rights of root, and Linux.
"""

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from helpers.support import Program

SERVER_ADDRESS, CLIENT_ADDRESS = "10.98.0.1", "10.98.0.2"

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass
class Troubles:
    """How bad the network is: chances from 0 to 1, seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    garble: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {value}" for name, value in vars(self).items() if value != Troubles.__dict__[name]
        )


class Carrier(threading.Thread):
    """Carries packets between two TUN devices."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(daemon=True)
        self.troubles = Troubles()
        self._other = {first: second, second: first}
        self._chance = random.Random(1)
        self._ends, self._end = os.pipe()

    def run(self) -> None:
        due: list[tuple[float, int, int, bytes]] = []
        number = itertools.count()
        while True:
            wait = max(0.0, due[0][0] - time.monotonic()) if due else None
            readable, _, _ = select.select([*self._other, self._ends], [], [], wait)
            if self._ends in readable:
                return
            for device in readable:
                packet = os.read(device, 2**16)
                for late in self._fate():
                    packet = self._maybe_garbled(packet)
                    heapq.heappush(due, (time.monotonic() + late, next(number), self._other[device], packet))
            while due and due[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(due)
                with contextlib.suppress(OSError):  # a garbled packet is refused at once
                    os.write(device, packet)

    def _fate(self) -> Iterator[float]:
        """How late each copy of a packet arrives."""
        if self._chance.random() < self.troubles.loss:
            return
        yield self._chance.uniform(*self.troubles.delay)
        if self._chance.random() < self.troubles.repeat:
            yield self._chance.uniform(*self.troubles.delay)

    def _maybe_garbled(self, packet: bytes) -> bytes:
        if self._chance.random() >= self.troubles.garble:
            return packet
        place = self._chance.randrange(len(packet))
        return packet[:place] + bytes([packet[place] ^ 0xFF]) + packet[place + 1 :]

    def end(self) -> None:
        os.write(self._end, b"x")
        self.join()
        os.close(self._end)
        os.close(self._ends)


@dataclass
class BadNetwork:
    """The namespaces of a server and of a client, and what carries packets between them."""

    server: str
    client: str
    carrier: Carrier

    def suffers(self, troubles: Troubles) -> None:
        self.carrier.troubles = troubles

    def is_cut(self) -> None:
        self.suffers(Troubles(loss=1.0))

    def is_whole(self) -> None:
        self.suffers(Troubles())


class Inside(Program):
    """A program in a network namespace."""

    def __init__(self, namespace: str, source: str, **options: object) -> None:
        starter = "import os, sys; os.execvp('ip', ['ip', 'netns', 'exec', *sys.argv[1:]])"
        arguments = ("-X", "dev", "-W", "error", "-u", "-c", source)
        super().__init__("-c", starter, namespace, sys.executable, *arguments, **options)


@contextlib.contextmanager
def bad_network() -> Iterator[BadNetwork]:
    """Make the network; OSError or CalledProcessError where that isn't allowed."""
    with contextlib.ExitStack() as stack:
        names = [f"fastcore-{end}{os.getpid()}" for end in "sc"]
        devices = []
        for name, own, other in zip(
            names, (SERVER_ADDRESS, CLIENT_ADDRESS), (CLIENT_ADDRESS, SERVER_ADDRESS), strict=True
        ):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            device, interface = open_tun()
            stack.callback(os.close, device)
            ip("link", "set", interface, "netns", name)
            ip("-n", name, "address", "add", own, "peer", other, "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
            devices.append(device)
        carrier = Carrier(*devices)
        carrier.start()
        stack.callback(carrier.end)
        yield BadNetwork(*names, carrier)


def open_tun() -> tuple[int, str]:
    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        request = fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"", _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device, request[:16].rstrip(b"\0").decode()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
