"""Headless Chromium, asked by its DevTools protocol over a websocket."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

LONGEST = 60.0  # seconds; machines of CI are slow
ARGUMENTS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)

Scheme = Literal["light", "dark"]


@dataclass(frozen=True)
class Screen:
    """What a page is looked at with."""

    name: str
    width: int
    height: int
    pixels: float = 1.0
    """Of the device to one of CSS."""
    fingers: bool = False


PHONE = Screen("phone", 390, 844, 2.0, fingers=True)
DESKTOP = Screen("desktop", 1280, 900)


def missing() -> str | None:
    """What keeps Chromium from running here."""
    return None if shutil.which("chromium") else "no chromium here (tests/system/install.sh says why)"


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """The address at which a browser listens while the body runs."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = ["chromium", *ARGUMENTS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
    with (profile / "log").open("wb") as log:
        browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{_port(profile, browser)}"
    finally:
        browser.terminate()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()


def _port(profile: Path, browser: "subprocess.Popen[bytes]") -> int:
    told = profile / "DevToolsActivePort"
    deadline = time.monotonic() + LONGEST
    while not (told.exists() and (lines := told.read_text().splitlines())):
        assert browser.poll() is None, f"chromium ended: {(profile / 'log').read_text()[-1000:]}"
        assert time.monotonic() < deadline, f"chromium never listened: {(profile / 'log').read_text()[-1000:]}"
        time.sleep(0.05)
    return int(lines[0])


class Tab:
    """One page of it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.console: list[str] = []
        """What the page complained of: errors of its script, and what its policy forbade."""
        self._events: set[str] = set()

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        """What the browser answers."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": given})
        async with asyncio.timeout(LONGEST):
            while True:
                message = await self._message()
                if message.get("id") == number:
                    assert "error" not in message, f"{method}: {message['error']}"
                    result: dict[str, Any] = message["result"]
                    return result

    async def event(self, method: str) -> None:
        """Wait until it is told, unless it was since the page was asked for."""
        async with asyncio.timeout(LONGEST):
            while method not in self._events:
                await self._message()

    async def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str())
        if "method" in message:
            self._events.add(message["method"])
            if message["method"] == "Runtime.exceptionThrown":
                self.console.append(str(message["params"]["exceptionDetails"]["text"]))
            if message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.console.append(str(message["params"]["entry"]["text"]))
        return message

    async def look_with(self, screen: Screen, scheme: Scheme) -> None:
        """As that screen, and who has chosen that scheme, would."""
        size = {"width": screen.width, "height": screen.height, "deviceScaleFactor": screen.pixels, "mobile": screen.fingers}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def open(self, address: str) -> None:
        """Go there, and wait until all of it is there."""
        self._events.discard("Page.loadEventFired")
        told = await self.call("Page.navigate", url=address)
        assert not told.get("errorText"), told
        await self.event("Page.loadEventFired")

    async def opened_again(self) -> None:
        """Wait until the page has been loaded once more, by itself."""
        self._events.discard("Page.loadEventFired")
        await self.event("Page.loadEventFired")

    async def source(self) -> str:
        """The page as it stands, without the help of its scripts."""
        root = (await self.call("DOM.getDocument", depth=0))["root"]["nodeId"]
        return str((await self.call("DOM.getOuterHTML", nodeId=root))["outerHTML"])

    async def read(self, expression: str) -> Any:
        """What JavaScript makes of the page."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until JavaScript finds it true of the page."""
        async with asyncio.timeout(LONGEST):
            while not await self.read(expression):
                await asyncio.sleep(0.1)

    async def shoot(self, file: Path) -> None:
        """A picture of the whole page, down to its end."""
        told = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def tab(browser: str) -> AsyncIterator[Tab]:
    """A new page of the browser at that address."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{browser}/json/new?about:blank") as reply:
            target = await reply.json()
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            found = Tab(socket)
            for domain in ("Page", "Runtime", "Log"):
                await found.call(f"{domain}.enable")
            yield found
        async with session.get(f"{browser}/json/close/{target['id']}") as reply:
            await reply.read()
