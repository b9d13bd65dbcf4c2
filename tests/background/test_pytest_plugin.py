"""The fixture that pytest finds where fastcore is installed."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from helpers.support import Program

if not entry_points(group="pytest11", name="fastcore"):
    pytest.skip("fastcore was installed before it had a plugin", allow_module_level=True)

USES_IT = """
import fastcore

def test_the_shop_adds(fastcore_server):
    shop = fastcore_server({"add": lambda stream, x, y: x + y})
    assert fastcore.send_recv_sync(ip=shop.ip, port=shop.port, op="add", x=1, y=2) == 3

def test_two_servers_talk(fastcore_server):
    shop = fastcore_server({"price": lambda stream: 5}, token="secret")

    async def price(stream):
        async with fastcore.rpc(shop.address, token="secret") as remote:
            return 2 * await remote.price()

    till = fastcore_server({"price": price}, slow_handler=None)
    assert fastcore.send_recv_sync(ip=till.ip, port=till.port, op="price") == 10

def test_none_is_left():
    import threading
    assert not [thread for thread in threading.enumerate() if thread.name == "fastcore"]
"""

DOES_NOT = """
import sys

def test_it_costs_nothing():
    assert "fastcore.testing" in sys.modules
    assert not {"tornado", "msgpack", "fastcore.surface"} & {*sys.modules}
"""


def run(folder: Path, tests: str) -> str:
    (folder / "test_it.py").write_text(tests)
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py")
    with Program(*command, cwd=folder) as program:
        output = program.rest()
        program.wait()
        return output


def test_it_makes_servers_that_end_with_the_test(tmp_path: Path):
    assert "3 passed" in run(tmp_path, USES_IT)


def test_who_does_not_ask_for_it_pays_nothing(tmp_path: Path):
    assert "1 passed" in run(tmp_path, DOES_NOT)
