"""The port to look at a running server: what it answers, to whom, and when."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fastcore import Monitor, Server, rpc
from helpers.support import until
from helpers.web import get, get_json
from helpers.wire import served, stranger_at


@asynccontextmanager
async def monitored(server: Server) -> AsyncIterator[int]:
    async with Monitor(server) as monitor:
        monitor.listen(0)
        yield monitor.port


async def test_stats_are_the_snapshot_as_json():
    async with (
        served() as server,
        monitored(server) as port,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        await remote.add(x=1, y=2)
        told = await get_json(port, "/stats")
        expected = server.snapshot()
    assert told.keys() == expected.keys()
    assert told["ops"] == expected["ops"]
    assert told["connections"] == expected["connections"]


async def test_ops_are_told():
    async with served() as server, monitored(server) as port:
        told = await get_json(port, "/ops")
    assert {"op": "add", "signature": "(x, y)", "doc": ""} in told


async def test_health_says_whether_to_send_calls():
    async with served(max_connections=1) as server, monitored(server) as port:
        answer = await get(port, "/health")
        assert (answer.code, answer.body) == (200, b"ready")
        async with stranger_at(server) as stranger:
            assert await stranger.is_served()
            answer = await get(port, "/health")
            assert (answer.code, answer.body) == (503, b"overloaded")
        await until(lambda: server.health() == "ready")
        server.stop()
        answer = await get(port, "/health")
        assert (answer.code, answer.body) == (503, b"draining")
        assert (await get(port, "/live")).code == 200, "it lives while it ends"


async def test_it_answers_while_the_server_takes_no_connections():
    async with (
        served(max_connections=1) as server,
        monitored(server) as port,
        stranger_at(server) as first,
        stranger_at(server) as second,
    ):
        assert await first.is_served()
        assert "takes no more" in await second.hears_error()
        told = await get_json(port, "/stats")
    assert told["connections"]["open"] == 1
    assert told["errors"]["max_connections"] == 1


async def test_while_a_handler_blocks_the_loop_it_waits_and_says_so_afterwards():
    asked = asyncio.Event()

    async def block(stream):
        await asked.wait()
        time.sleep(0.2)

    async with (
        served({"block": block}, slow_handler=0.1) as server,
        monitored(server) as port,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        call = remote.block()
        await until(lambda: server.snapshot()["calls"])
        answer = asyncio.ensure_future(get_json(port, "/stats"))
        asked.set()
        told = await answer
        await call
        told = await get_json(port, "/stats")
    assert "'block'" in told["warnings"][-1]["text"]
    assert told["errors"]["slow_handler"] == 1


async def test_what_it_answers_may_run_nothing_and_be_framed_by_nobody():
    async with served() as server, monitored(server) as port:
        for path in ("/", "/page.js", "/page.css", "/stats", "/health", "/nothing"):
            headers = (await get(port, path)).headers
            policy = headers["Content-Security-Policy"].split("; ")
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "Server" not in headers


async def test_the_page_names_nothing_from_elsewhere_and_has_no_script_or_style_inside():
    async with served() as server, monitored(server) as port:
        page, script, style = [
            (await get(port, path)).body.decode() for path in ("/", "/page.js", "/page.css")
        ]
    assert "//" not in page
    assert "<script src=" in page
    assert " style=" not in page
    assert " on" not in "".join(part.partition(">")[0] for part in page.split("<"))
    assert set(re.findall(r"https?:\S+?(?=[\"'`;])", script)) == {"http://www.w3.org/2000/svg"}, (
        "a name, not a place"
    )
    assert "innerHTML" not in script.replace("no innerHTML", "")
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    "path", ["/nothing", "/static/page.js", "/../port.py", "/page.js/..", "/%2e%2e/port.py"]
)
async def test_there_is_nothing_else(path):
    async with served() as server, monitored(server) as port:
        answer = await get(port, path)
    assert answer.code == 404
    assert b"<" not in answer.body


async def test_it_only_tells():
    async with served() as server, monitored(server) as port:
        for method in ("POST", "PUT", "DELETE"):
            body = None if method == "DELETE" else b"x"
            assert (await get(port, "/stats", method=method, body=body)).code == 405
        head = await get(port, "/stats", method="HEAD")
        assert (head.code, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("host", "code"),
    [
        *((host, 200) for host in ("localhost:9100", "127.0.0.1", "[::1]:80", "shop.localhost")),
        *((host, 403) for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9100")),
    ],
)
async def test_no_web_page_reaches_it_by_a_name_of_its_own(host, code):
    async with served() as server, monitored(server) as port:
        assert (await get(port, "/stats", headers={"Host": host})).code == code


async def test_elsewhere_it_may_be_asked_for_by_any_name():
    async with served() as server, Monitor(server) as monitor:
        monitor.listen(0, "0.0.0.0")
        assert (await get(monitor.port, "/live", headers={"Host": "shop.example"})).code == 200


async def test_a_port_that_is_taken_is_told():
    async with served() as server, Monitor(server) as monitor:
        with pytest.raises(OSError, match="in use"):
            monitor.listen(server.port)
        with pytest.raises(OSError, match="listen"):
            _ = monitor.port


async def test_it_listens_once():
    async with served() as server, Monitor(server) as monitor:
        monitor.listen(0)
        with pytest.raises(RuntimeError, match=str(monitor.port)):
            monitor.listen(0)


async def test_after_its_end_nobody_is_answered():
    async with served() as server:
        async with monitored(server) as port:
            assert (await get(port, "/live")).code == 200
        with pytest.raises(ConnectionRefusedError):
            await get(port, "/live")
