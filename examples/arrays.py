"""Arrays, dates and a class of one's own: python arrays.py

They arrive as they were sent. The memory of a large array is copied neither into the message nor out of it.
"""

import asyncio
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy

from fastcore import Server, register_type, rpc


@register_type  # at both sides
@dataclass
class Readings:
    day: date
    values: numpy.ndarray[Any, Any]


def scale(stream: object, readings: Readings, by: float) -> Readings:
    readings.values *= by  # it belongs to the handler
    return readings


async def main() -> None:
    server = Server({"scale": scale})
    server.listen(0, "127.0.0.1")

    async with rpc(ip="127.0.0.1", port=server.port) as remote:
        readings = Readings(date(2024, 2, 29), numpy.arange(100_000.0).reshape(100, 1000))
        scaled = await remote.scale(readings=readings, by=0.5)
        print(scaled.day, scaled.values.shape, scaled.values.dtype, scaled.values[0, :4])

    await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
