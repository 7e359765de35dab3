"""`syncd verify` says what it costs, has the daemon do it, and tells what drifted."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from structlog.testing import capture_logs

from syncd.config import load
from syncd.daemon import Daemon
from syncd.ops.clock import WallClock
from syncd.simulator import ScaledClock, Simulator, SimulatorSettings
from tests.cli.conftest import LONGEST, Run, Yaml

SPEED = 60.0


@pytest.fixture
def origin() -> float:
    return time.time()


@pytest.fixture
async def marketo(origin: float) -> AsyncIterator[Simulator]:
    async with Simulator(
        SimulatorSettings(leads=20, updated_since=datetime(2026, 2, 1, tzinfo=UTC)), ScaledClock(SPEED, origin)
    ) as simulator:
        yield simulator


@pytest.fixture
async def daemon(yaml: Yaml, origin: float, pool: asyncpg.Pool) -> AsyncIterator[Daemon]:
    """One that has filled the mirror; what it logs is not to be mixed with what a command prints."""
    with capture_logs():
        daemon = Daemon(load(yaml.write(), {}), WallClock(SPEED, origin))
        working = asyncio.ensure_future(daemon.run())
        await daemon.ready.wait()
        async with asyncio.timeout(LONGEST):
            while await pool.fetchval("SELECT count(*) FROM syncd.lead") < 20:
                await asyncio.sleep(0.05)
        yield daemon
        daemon.stop()
        await working


async def test_all_agree(syncd: Run, yaml: Yaml, daemon: Daemon) -> None:
    ran = await syncd("verify", "-c", yaml.write(), "--sample", "10", "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert "acme: 10 leads drawn by chance: 1 to 2 calls" in ran.out
    assert "10 leads read back in 1 call: all agree with the mirror" in ran.out
    assert daemon.metrics.registry.get_sample_value("syncd_verify_drift", {"instance": "acme", "cause": "mirror_wrong"}) == 0
    ran = await syncd("status", "-c", yaml.write())
    assert "10 leads read back, all agree" in ran.out


async def test_what_drifted_is_told_by_field_and_cause(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, daemon: Daemon) -> None:
    lead = await pool.fetchval("SELECT min(lead_id) FROM syncd.lead")
    await pool.execute("""UPDATE syncd.lead SET attributes = attributes || '{"firstName": "Mallory"}' WHERE lead_id = $1""", lead)
    ran = await syncd("verify", "-c", yaml.write(), "--all", "--yes")
    assert (ran.code, ran.err) == (1, "")
    assert "acme: all 20 leads: 1 to 2 calls" in ran.out
    assert "20 leads read back in 2 calls: 1 lead drifted" in ran.out
    (row,) = [line for line in ran.out.splitlines() if line.split()[:3] == ["1", "firstName", "mirror_wrong"]]
    assert row.endswith(str(lead))
    assert "Mallory" not in ran.out
    told = json.loads((await syncd("verify", "-c", yaml.write(), "--all", "--yes", "--json")).out)
    assert (told["leads"], told["drifted"], told["wanted"]) == (20, 1, None)
    assert told["drift"] == [{"cause": "mirror_wrong", "field": "firstName", "leads": 1, "examples": [lead]}]
    status = json.loads((await syncd("status", "-c", yaml.write(), "--json")).out)
    assert status["instances"][0]["verification"]["causes"] == {"mirror_wrong": 1}
    ran = await syncd("status", "-c", yaml.write())
    assert "20 leads read back, 1 drifted (mirror_wrong 1)" in ran.out


async def test_nothing_is_read_unasked(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, marketo: Simulator) -> None:
    ran = await syncd("verify", "-c", yaml.write())
    assert ran.code == 1
    assert "has no leads yet" in ran.err
    await pool.execute(
        "INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)"
        " SELECT 'acme', n, '{}', '{}', now(), now(), now() FROM generate_series(1, 2000) n"
    )
    ran = await syncd("verify", "-c", yaml.write())
    assert ran.code == 2
    assert "1,000 leads drawn by chance: 4 to 8 calls" in ran.out
    assert "--yes" in ran.err
    assert await pool.fetchval("SELECT count(*) FROM syncd.verification") == 0
    assert marketo.report().calls == ()


async def test_without_a_daemon_it_is_ordered_once(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)"
        " VALUES ('acme', 1, '{}', '{}', now(), now(), now())"
    )
    for told in ("no daemon runs for acme", "being verified already"):
        ran = await syncd("verify", "-c", yaml.write(), "--yes")
        assert (ran.code, ran.err) == (1, "")
        assert told in ran.out
    assert await pool.fetchval("SELECT count(*) FROM syncd.verification") == 1


async def test_without_rest_there_is_nothing_to_read_by(syncd: Run, yaml: Yaml) -> None:
    text = yaml.write().read_text().splitlines()
    yaml.file.write_text("\n".join(line for line in text if not line.strip().startswith(("rest:", "pushes:"))))
    ran = await syncd("verify", "-c", yaml.file, "--yes")
    assert ran.code == 2
    assert "acme has no rest" in ran.err
