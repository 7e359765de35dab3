"""The listener: metrics in Prometheus' form, health, readiness, and a clear word when the port is taken."""

import asyncio
import socket
import time
from typing import Any

import aiohttp
import pytest

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Http
from syncd.ops import http
from syncd.ops.metrics import Metrics


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_everything_is_served() -> None:
    metrics, port, healthy = Metrics(), free_port(), True
    metrics.page("acme", "people", 300, 200, 50)
    metrics.exchange("acme", "soap", "getMultipleLeads", "ok", 0.3)
    metrics.fault("acme", Fault(Nature.TRANSIENT, "20011", "internal error", "getMultipleLeads"))

    async def ready() -> bool:
        return healthy

    async def status() -> dict[str, Any]:
        return {"instances": []}

    async with http.serve(Http("127.0.0.1", port), metrics, lambda: healthy, ready, status):
        code, text = await get(port, "/metrics")
        assert code == 200
        assert 'syncd_leads_seen_total{instance="acme",pull="people"} 300.0' in text
        assert 'syncd_api_calls_total{api="soap",code="ok",endpoint="getMultipleLeads",instance="acme"} 1.0' in text
        assert 'syncd_faults_total{code="20011",instance="acme",nature="transient"} 1.0' in text
        assert await get(port, "/status.json") == (200, '{"instances":[]}')
        assert (await get(port, "/healthz"))[0] == (await get(port, "/readyz"))[0] == 200
        healthy = False
        assert (await get(port, "/healthz"))[0] == (await get(port, "/readyz"))[0] == 503


async def test_a_taken_port_is_one_clear_line() -> None:
    async def ready() -> bool:
        return True

    async def status() -> dict[str, Any]:
        return {}

    taken = Http("127.0.0.1", free_port())
    async with http.serve(taken, Metrics(), lambda: True, ready, status):
        with pytest.raises(http.PortTaken, match=f"127.0.0.1:{taken.port}.*choose another port"):
            async with http.serve(taken, Metrics(), lambda: True, ready, status):
                pytest.fail("the port was free")


def test_the_log_gets_the_samples_of_the_page() -> None:
    metrics = Metrics()
    metrics.page("acme", "people", 300, 200, 50)
    metrics.settled("acme", "contacts", {"applied": 7, "rejected": 1})
    samples = {(name, tuple(sorted(labels.items()))): value for name, labels, value in metrics.samples()}
    assert samples["syncd_pages_total", (("instance", "acme"), ("pull", "people"))] == 1
    assert samples["syncd_changes_total", (("instance", "acme"), ("outcome", "applied"), ("push", "contacts"))] == 7


async def test_an_answer_that_never_comes_does_not_hold_up_the_end() -> None:
    port = free_port()
    asked = asyncio.Event()

    async def ready() -> bool:
        return True

    async def status() -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with http.serve(Http("127.0.0.1", port), Metrics(), lambda: True, ready, status):
        asking = asyncio.ensure_future(get(port, "/status.json"))
        await asked.wait()
        ended = time.monotonic()
    assert time.monotonic() - ended < 5
    await asyncio.gather(asking, return_exceptions=True)
