"""A real Prometheus over a running rehearsal: what it scrapes is well formed, its rules hold, and no picture of the dashboard is empty."""

import asyncio
import contextlib
import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from syncd.core.settings import Http
from syncd.daemon import Daemon
from syncd.demo.stage import DemoOptions, Rehearsal, prepare
from tests.ops.test_http import free_port, get
from tests.ops.test_pictures import PROMETHEUS, QUERIES, RULES

LONGEST = 240  # seconds; machines of CI are slow
YAML = """\
global: {{scrape_interval: 1s, evaluation_interval: 2s}}
rule_files: ["{rules}"]
scrape_configs: [{{job_name: syncd, honor_labels: true, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _here() -> None:
    absent = next((tool for tool in ("prometheus", "promtool") if shutil.which(tool) is None), None)
    if absent is not None:
        pytest.skip(f"no {absent} here (tests/system/install.sh says why)")


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    """What it complains of."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_the_rules_hold() -> None:
    promtool("check", "rules", PROMETHEUS / "syncd.rules.yaml")
    promtool("test", "rules", PROMETHEUS / "syncd.rules.test.yaml")


@asynccontextmanager
async def rehearsed(port: int) -> AsyncIterator[Rehearsal]:
    """`syncd demo` in the middle of its work, listening there."""
    async with AsyncExitStack() as stack:
        one = await prepare(DemoOptions(leads=3_000, changes=9_000, speed=20), Console(quiet=True), stack)
        daemon = Daemon(replace(one.settings, http=Http("127.0.0.1", port)), one.clock)
        working = asyncio.create_task(daemon.run())
        around = [
            asyncio.create_task(one.application.run(one.postgres.dsn, one.clock)),
            asyncio.create_task(one.others.run(one.clock)),
        ]
        try:
            await asyncio.wait_for(daemon.ready.wait(), LONGEST)
            yield one
        finally:
            for each in around:
                each.cancel()
            await asyncio.gather(*around, return_exceptions=True)
            daemon.stop()
            await working


@contextmanager
def prometheus(scraped: int) -> Iterator[str]:
    """Its address, while the body runs."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="syncd-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "prometheus.yaml").write_text(YAML.format(rules=PROMETHEUS / "syncd.rules.yaml", port=scraped))
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


async def asked(session: aiohttp.ClientSession, path: str, **given: str) -> Any:
    async with session.get(f"/api/v1/{path}", params=given) as reply:
        told = json.loads(await reply.text())
        assert told["status"] == "success", told
        return told["data"]


def as_grafana_asks(expression: str) -> str:
    return re.sub(r"\$__rate_interval", "10s", expression.replace("$instance", ".*"))


def numbers(result: Any) -> list[float]:
    """The values of a vector, or of a scalar, that are numbers."""
    values = [float(each["value"][1]) for each in result["result"]]
    return [value for value in values if not math.isnan(value)]


async def answered(session: aiohttp.ClientSession) -> None:
    """Until it does."""
    while True:
        try:
            if numbers(await asked(session, "query", query='up{job="syncd"} == 1')):
                return
        except (aiohttp.ClientError, json.JSONDecodeError):
            pass  # it starts
        await asyncio.sleep(0.2)


async def shown(session: aiohttp.ClientSession, empty: dict[str, str]) -> None:
    """Until each query has had something to tell; those that have not are left in `empty`."""
    while empty:
        for title, expression in list(empty.items()):
            if numbers(await asked(session, "query", query=as_grafana_asks(expression))):
                del empty[title]
        await asyncio.sleep(0.5)


async def test_each_picture_shows_something_while_a_rehearsal_runs() -> None:
    port = free_port()
    async with rehearsed(port):
        with prometheus(port) as address:
            async with aiohttp.ClientSession(address) as session:
                await asyncio.wait_for(answered(session), LONGEST)
                empty = {f"{title}: {expression}": expression for title, expression in QUERIES}
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(shown(session, empty), LONGEST)
                assert empty == {}
                rules = [rule for group in (await asked(session, "rules"))["groups"] for rule in group["rules"]]
        status, text = await get(port, "/metrics")
    assert {rule["name"]: rule["health"] for rule in rules} == {rule["alert"]: "ok" for rule in RULES}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == [], "nothing is wrong"
    assert status == 200
    assert promtool("check", "metrics", given=text) == ""
