"""The page of a running server, in a real Chromium without a screen."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastcore import Monitor, rpc, send_recv
from helpers.support import in_a_thread
from helpers.wire import served

webdriver = pytest.importorskip("selenium.webdriver", reason="there is no selenium")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium, or no chromedriver"),
    pytest.mark.deadline(120),
]

HOSTILE = [
    "<script>document.title = 'stolen'</script>",
    "<img src=x onerror=\"document.title = 'stolen'\">",
    "\"><svg onload=document.title='stolen'>",
    "__proto__",
    "constructor",
    "\u202egnp.exe",
    "x" * 300,
]
#: Where the documents' picture of the page goes, if somebody wants a new one.
PICTURE = os.environ.get("FASTCORE_PICTURE")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Nothing but the page: no updates, no syncing, no sandbox where root runs it.
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1100,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a user sees and does, asked for outside of the loop, so that the server answers meanwhile."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def run(self, script: str, *arguments: object) -> Any:
        return await in_a_thread(lambda: self._driver.execute_script(script, *arguments))

    async def open(self, port: int) -> None:
        await in_a_thread(lambda: self._driver.get(f"http://127.0.0.1:{port}/"))

    async def text(self, of: str) -> str:
        return await self.run("return document.querySelector(arguments[0]).innerText", of)

    async def shows(self, of: str, text: str) -> None:
        """Wait until an element holds a text."""
        while text not in (shown := await self.text(of)):
            await asyncio.sleep(0.1)
            assert shown is not None

    async def click(self, label: str) -> None:
        await in_a_thread(lambda: self._button(label).click())

    async def press(self, label: str, seconds: float) -> None:
        """Click as slowly as that."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self._driver)
        button = await in_a_thread(lambda: self._button(label))
        await in_a_thread(actions.click_and_hold(button).pause(seconds).release().perform)

    def _button(self, label: str) -> Any:
        buttons = self._driver.find_elements("css selector", "button")
        [button] = [button for button in buttons if button.text == label]
        return button

    def complaints(self) -> list[str]:
        """What the browser's console says, among it all that the policy of the page forbade."""
        return [line["message"] for line in self._driver.get_log("browser")]

    def asked_for(self) -> set[str]:
        """Which addresses it asked for."""
        events = [json.loads(line["message"])["message"] for line in self._driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {params["request"]["url"] for params in sent}

    async def has_size(self, width: int, dark: bool) -> None:
        """Be a screen of this width, in the light or in the dark."""

        def change() -> None:
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

        await in_a_thread(change)


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    yield Page(browser)
    # It would look for a server that is gone, and complain in the next test.
    browser.get("about:blank")
    browser.get_log("browser")


async def test_the_figures_move_by_themselves(page: Page):
    async with (
        served() as server,
        Monitor(server) as monitor,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        monitor.listen(0)
        await page.open(monitor.port)
        await page.shows("#health", "ready")
        await remote.add(x=1, y=2)
        await page.shows("#ops", "add")
        for _ in range(999):
            await remote.add(x=1, y=2)
        await page.shows("#ops", "1,000")
        await page.shows("#tiles", "connections")
        assert await page.run("return document.querySelectorAll('polyline[points]').length") == 3
    assert page.complaints() == []
    assert all(f"//127.0.0.1:{monitor.port}/" in url for url in page.asked_for() if url.startswith("http"))


async def test_a_click_chooses_the_op_that_is_plotted(page: Page):
    async with (
        served() as server,
        Monitor(server) as monitor,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        monitor.listen(0)
        await remote.add(x=1, y=2)
        await page.open(monitor.port)
        await page.shows("#ops", "add")
        await page.shows("#chosen", "all ops")
        await page.click("add")
        await page.shows("#chosen", "add")
        # While it is pressed, the page goes on.
        await page.press("add", 2.5)
        await page.shows("#chosen", "all ops")


async def test_a_page_that_was_paused_goes_on(page: Page):
    async with (
        served() as server,
        Monitor(server) as monitor,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        monitor.listen(0)
        await page.open(monitor.port)
        await page.shows("#health", "ready")
        await page.click("Pause")
        await remote.add(x=1, y=2)
        await asyncio.sleep(1.5)
        assert "add" not in await page.text("#ops")
        await page.click("Go on")
        await page.shows("#ops", "add")


async def test_what_peers_and_programs_say_is_text_and_nothing_else(page: Page):
    def fail(stream, text):
        raise KeyError(text)

    handlers = {op: lambda stream: None for op in HOSTILE}
    async with (
        served({**handlers, "fail": fail}, slow_handler=None) as server,
        Monitor(server) as monitor,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        monitor.listen(0)
        await page.open(monitor.port)
        for text in HOSTILE:
            with pytest.raises(KeyError):
                await remote.fail(text=text)
        for op in HOSTILE:
            await send_recv(ip="127.0.0.1", port=server.port, op=op)
        for op in HOSTILE:
            await page.shows("#ops", op)
        await page.shows("#warnings", HOSTILE[0])
        assert (await page.run("return document.title")).endswith("ready")
        inside = "return [...document.querySelectorAll('main script, main img, main svg[onload]')].length"
        assert await page.run(inside) == 0
        await page.run("document.querySelectorAll('#ops button').forEach((button) => button.click())")
        await page.shows("#chosen", HOSTILE[-1])
    assert page.complaints() == []


async def test_a_script_that_got_in_after_all_would_not_run(page: Page):
    async with served() as server, Monitor(server) as monitor:
        monitor.listen(0)
        await page.open(monitor.port)
        await page.shows("#health", "ready")
        sneak = """
            const attempt = (sneak) => { try { sneak(); } catch { } };
            const made = document.createElement("div");
            document.body.append(made);
            attempt(() => made.setAttribute("onclick", "document.title = 'stolen'"));
            attempt(() => { made.innerHTML = "<img src=x onerror=\\"document.title = 'stolen'\\">"; });
            attempt(() => made.append(document.createElement("style"), "a {}"));
            made.click();
            return document.title;
        """
        assert "stolen" not in await page.run(sneak)
    complaints = " ".join(page.complaints())
    assert "Content Security Policy" in complaints


async def test_after_a_handler_blocked_the_loop_the_page_says_so(page: Page):
    def block(stream):
        time.sleep(2.5)

    async with (
        served({"block": block}) as server,
        Monitor(server) as monitor,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        monitor.listen(0)
        await page.open(monitor.port)
        await page.shows("#health", "ready")
        await remote.block()
        await page.shows("#warnings", "blocked the loop")
        await page.shows("#silence", "gave no answer for")


async def test_a_server_that_is_gone_is_told(page: Page):
    async with served() as server, Monitor(server) as monitor:
        monitor.listen(0)
        await page.open(monitor.port)
        await page.shows("#health", "ready")
    await page.shows("#health", "no answer")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1100])
async def test_it_can_be_read_on_a_phone_and_in_the_dark(page: Page, width: int, dark: bool):
    async with (
        served({HOSTILE[-1]: lambda stream: None}) as server,
        Monitor(server) as monitor,
        rpc(ip="127.0.0.1", port=server.port) as remote,
    ):
        monitor.listen(0)
        await remote.add(x=1, y=2)
        await send_recv(ip="127.0.0.1", port=server.port, op=HOSTILE[-1])
        await page.has_size(width, dark)
        await page.open(monitor.port)
        await page.shows("#ops", "add")
        # Nothing makes the page wider than the screen.
        assert await page.run("return document.documentElement.scrollWidth") <= width
        contrast = await page.run(CONTRAST)
        assert contrast > 7, "the text can be told from what is behind it"
        if PICTURE:
            path = Path(PICTURE) / f"page-{width}-{'dark' if dark else 'light'}.png"
            await in_a_thread(lambda: page._driver.save_screenshot(str(path)))


#: Of the page's text and its background, as WCAG has it.
CONTRAST = """
    const light = (color) => {
        const [r, g, b] = color.match(/\\d+/g).slice(0, 3).map((value) => value / 255)
            .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(document.body);
    const [dark, bright] = [light(style.color), light(style.backgroundColor)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
"""
