"""The database ends our sessions amid the work: the daemon picks up its lease again and goes on."""

import asyncio
import random
from pathlib import Path

from tests.acceptance.rehearsal import assert_holds, rehearsal

TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncd %'
"""


async def test_sessions_that_are_ended_at_random_moments_cost_time_and_nothing_else(database: str, tmp_path: Path) -> None:
    chance = random.Random(5)
    async with rehearsal(database, tmp_path, leads=1_000, changes=2_000, speed=30, max_body_bytes=30_000) as one:
        daemon = await one.spawn()
        await one.wait_for_log(0, "lease_taken")
        ended = 0
        for _ in range(5):
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            ended += await one.connection.fetchval(TERMINATE)
        assert ended > 0
        await one.come_to_rest(90)
        assert daemon.returncode is None
        assert_holds(await one.prove(faultless=False))
