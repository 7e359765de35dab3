"""The listener: the page, its live updates, metrics in Prometheus' form, health, readiness, and a clear word when the port is taken."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Http, Secret
from syncd.ops import http
from syncd.ops.http import Shown
from syncd.ops.metrics import Metrics

TOKEN = "open sesame"


class Pages:
    """What a test shows."""

    policy = "default-src 'none'"

    def __init__(self) -> None:
        self.away = False
        self.looks = 0

    async def status(self) -> Mapping[str, Any] | None:
        return None if self.away else {"instances": []}

    async def document(self) -> Shown:
        return Shown(not self.away, "<main>all is well</main>")

    async def main(self) -> str:
        self.looks += 1
        return f"<p>look\n{self.looks}</p>"


class Stuck(Pages):
    """Never has anything to show."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def status(self) -> Mapping[str, Any] | None:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def yes() -> bool:
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


@asynccontextmanager
async def served(pages: Pages, token: str | None = None) -> AsyncIterator[int]:
    port = free_port()
    async with http.serve(Http("127.0.0.1", port, Secret(token) if token else None), Metrics(), lambda: True, yes, pages):
        yield port


async def test_everything_is_served() -> None:
    metrics, port, healthy, pages = Metrics(), free_port(), True, Pages()
    metrics.page("acme", "people", 300, 200, 50)
    metrics.exchange("acme", "soap", "getMultipleLeads", "ok", 0.3)
    metrics.fault("acme", Fault(Nature.TRANSIENT, "20011", "internal error", "getMultipleLeads"))

    async def ready() -> bool:
        return healthy

    async with http.serve(Http("127.0.0.1", port), metrics, lambda: healthy, ready, pages):
        code, text = await get(port, "/metrics")
        assert code == 200
        assert 'syncd_leads_seen_total{instance="acme",pull="people"} 300.0' in text
        assert 'syncd_api_calls_total{api="soap",code="ok",endpoint="getMultipleLeads",instance="acme"} 1.0' in text
        assert 'syncd_faults_total{code="20011",instance="acme",nature="transient"} 1.0' in text
        assert "_created" not in text
        assert await get(port, "/status.json") == (200, '{"instances":[]}')
        assert await get(port, "/") == (200, "<main>all is well</main>")
        assert (await get(port, "/healthz"))[0] == (await get(port, "/readyz"))[0] == 200
        healthy, pages.away = False, True
        assert (await get(port, "/healthz"))[0] == (await get(port, "/readyz"))[0] == 503
        assert (await get(port, "/"))[0] == (await get(port, "/status.json"))[0] == 503


async def test_what_is_shown_is_for_the_asker_alone_and_runs_nothing() -> None:
    async with served(Pages()) as port, aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as response:
        assert response.content_type == "text/html"
        assert response.headers["Content-Security-Policy"] == Pages.policy
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with session.post(f"http://127.0.0.1:{port}/") as refused:
            assert refused.status == 405, "read-only"


async def test_an_open_page_is_kept_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LIVE_EVERY", 0.01)
    pages = Pages()
    async with served(pages) as port, aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/events") as response:
        assert response.content_type == "text/event-stream"
        lines = [(await response.content.readline()).decode() for _ in range(6)]
        assert lines == ["data: <p>look\n", "data: 1</p>\n", "\n", "data: <p>look\n", "data: 2</p>\n", "\n"]


async def test_more_open_pages_than_are_kept_live_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "STREAMS", 1)
    async with served(Pages()) as port, aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/events"):
        assert (await get(port, "/events"))[0] == 503


async def test_a_taken_port_is_one_clear_line() -> None:
    async with served(Pages()) as port:
        with pytest.raises(http.PortTaken, match=f"127.0.0.1:{port}.*choose another port"):
            async with http.serve(Http("127.0.0.1", port), Metrics(), lambda: True, yes, Pages()):
                pytest.fail("the port was free")


def test_the_log_gets_the_samples_of_the_page() -> None:
    metrics = Metrics()
    metrics.page("acme", "people", 300, 200, 50)
    metrics.settled("acme", "contacts", {"applied": 7, "rejected": 1})
    samples = {(name, tuple(sorted(labels.items()))): value for name, labels, value in metrics.samples()}
    assert samples["syncd_pages_total", (("instance", "acme"), ("pull", "people"))] == 1
    assert samples["syncd_changes_total", (("instance", "acme"), ("outcome", "applied"), ("push", "contacts"))] == 7


async def test_neither_an_answer_that_never_comes_nor_an_open_page_holds_up_the_end() -> None:
    pages = Stuck()
    async with aiohttp.ClientSession() as session:
        async with served(pages) as port:
            reading = await session.get(f"http://127.0.0.1:{port}/events")
            asking = asyncio.ensure_future(get(port, "/status.json"))
            await pages.asked.wait()
            ended = time.monotonic()
        assert time.monotonic() - ended < 5
        await asyncio.gather(asking, return_exceptions=True)
        reading.close()


@pytest.mark.parametrize("path", ["/", "/events", "/status.json", "/metrics"])
async def test_without_the_token_nothing_is_told(path: str) -> None:
    async with served(Pages(), TOKEN) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}{path}"
        for shown in ({}, {"Authorization": "Bearer guess"}, {"Authorization": TOKEN}, {"Cookie": f"syncd={TOKEN}"}):
            async with session.get(url, headers=shown) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
                assert "well" not in await response.text()
        async with session.get(url, params={"token": "guess"}) as response:
            assert response.status == 401
        async with session.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200


async def test_health_is_told_without_a_token() -> None:
    async with served(Pages(), TOKEN) as port:
        assert await get(port, "/healthz") == await get(port, "/readyz") == (200, "ok\n")


async def test_the_token_in_the_address_becomes_a_cookie_and_leaves_it() -> None:
    jar = aiohttp.CookieJar(unsafe=True)  # it is sent to an IP address, too
    async with served(Pages(), TOKEN) as port, aiohttp.ClientSession(cookie_jar=jar) as session:
        url = f"http://127.0.0.1:{port}/"
        async with session.get(url, params={"token": TOKEN}, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
            cookie = response.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert TOKEN not in cookie
        async with session.get(url) as response:
            assert response.status == 200


async def test_another_token_makes_cookies_void_and_one_that_cannot_be_read_lets_nobody_in() -> None:
    secret = TOKEN

    def read() -> str:
        if not secret:
            raise OSError("cannot read the secret file token: Permission denied")
        return secret

    jar, port = aiohttp.CookieJar(unsafe=True), free_port()
    settings = Http("127.0.0.1", port, Secret(read))
    async with http.serve(settings, Metrics(), lambda: True, yes, Pages()), aiohttp.ClientSession(cookie_jar=jar) as session:
        async with session.get(f"http://127.0.0.1:{port}/", params={"token": TOKEN}) as response:
            assert response.status == 200
        secret = "another"
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            assert response.status == 401
        secret = ""
        async with session.get(f"http://127.0.0.1:{port}/", headers={"Authorization": "Bearer "}) as response:
            assert response.status == 503
