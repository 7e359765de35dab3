"""From the log of a run alone, the counters of /metrics at its last beat can be rebuilt."""

import asyncio
import io
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import asyncpg
import orjson
import pytest
import structlog
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from syncd.core.settings import Database, Logging, Secret, Settings
from syncd.daemon import Daemon
from syncd.ops import logs
from tests.flows.conftest import PULL, PUSH
from tests.flows.test_daemon import marketo, until

Series = tuple[str, tuple[tuple[str, str], ...]]
RESERVED = {"event", "time", "level", "name", "value"}


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, force=True)


def read_json(line: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(line)
    return found


def read_logfmt(line: str) -> dict[str, Any]:
    return {key: quoted or plain for key, quoted, plain in re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))', line)}


def rebuilt(log: str, form: str) -> dict[Series, float]:
    """The last value of each series that the log tells."""
    events = map(read_json if form == "json" else read_logfmt, log.splitlines())
    return {series(event["name"], event): float(event["value"]) for event in events if event["event"] == "metrics"}


def series(name: str, labels: dict[str, Any]) -> Series:
    return name, tuple(sorted((key, str(value)) for key, value in labels.items() if key not in RESERVED))


def shown(daemon: Daemon) -> tuple[dict[Series, float], dict[Series, float]]:
    """What /metrics shows: the counters and histograms, and the rest."""
    counters: dict[Series, float] = {}
    gauges: dict[Series, float] = {}
    for family in text_string_to_metric_families(generate_latest(daemon.metrics.registry).decode()):
        into = counters if family.type in ("counter", "histogram") else gauges
        into.update({series(sample.name, sample.labels): sample.value for sample in family.samples})
    return counters, gauges


@pytest.mark.parametrize("form", ["json", "logfmt"])
async def test_the_counters_are_rebuilt_from_the_log_alone(database: str, pool: asyncpg.Pool, form: Literal["json", "logfmt"]) -> None:
    out = io.StringIO()
    settings = Logging("info", form, timedelta(seconds=30))
    for number in range(5):
        await pool.execute("SELECT syncd.enqueue('acme', 'contacts', $1, '{\"company\": \"A\"}')", f"a{number}@example.com")
    async with marketo([PUSH]) as (instance, clock):
        logs.configure(settings, clock, out)
        daemon = Daemon(Settings(Database(Secret(database)), (instance,), None, settings), clock)
        working = asyncio.ensure_future(daemon.run())
        await until(pool, "SELECT count(*) = 5 FROM syncd.change WHERE state = 'applied'")
        daemon.stop()
        await working
    counters, _ = shown(daemon)
    told = rebuilt(out.getvalue(), form)
    assert {key: told.get(key) for key in counters} == counters
    assert counters["syncd_changes_total", (("instance", "acme"), ("outcome", "applied"), ("push", "contacts"))] == 5
    assert any(name == "syncd_api_call_seconds_bucket" for name, _ in told), "of histograms, what quantiles are made of"
    assert out.getvalue().count("syncd_build_info") >= 2, "a beat, and the last one at the stop"
    assert not re.search(r"[\w.]+@example\.com", out.getvalue())


async def test_a_beat_tells_the_gauges_as_they_are_shown(pool: asyncpg.Pool) -> None:
    out = io.StringIO()
    async with marketo([]) as (instance, clock):
        logs.configure(Logging(), clock, out)
        daemon = Daemon(Settings(Database(), (instance,), None), clock)
        daemon.metrics.brake("acme", "pace", lambda: 0.5)
        daemon.metrics.subscription("acme", 3, 4)
        daemon._tell_metrics()
    _, gauges = shown(daemon)
    assert {key: rebuilt(out.getvalue(), "json").get(key) for key in gauges} == gauges
    assert gauges["syncd_brake", (("instance", "acme"), ("kind", "pace"))] == 0.5
    assert PULL.name not in out.getvalue()
