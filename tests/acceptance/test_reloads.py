"""Reloads at random moments: the flows end their steps and begin anew with other settings, and nothing is lost, repeated or overrun."""

import asyncio
import random
import signal
from pathlib import Path

from tests.acceptance.rehearsal import assert_holds, rehearsal

OTHERWISE = (
    ("concurrency: 5", "concurrency: 4"),
    ("import_slots: 10", "import_slots: 6"),
    ("max_body_bytes: 30000", "max_body_bytes: 20000"),
    ("flush_after: 10s", "flush_after: 5s"),
    ("every: 30s", "every: 20s"),
    ("level: info", "level: debug"),
)


async def test_reloads_at_random_moments_lose_and_repeat_nothing(database: str, tmp_path: Path) -> None:
    chance = random.Random(13)
    async with rehearsal(database, tmp_path, leads=1_000, changes=2_000, speed=30, max_body_bytes=30_000) as one:
        daemon = await one.spawn()
        await one.wait_for_log(0, "lease_taken")
        yaml = tmp_path / "syncd.yaml"
        first = yaml.read_text()
        for number in range(10):
            await asyncio.sleep(chance.uniform(0.0, 1.5))  # wherever it happens to be: that, and not any event, is the point
            text = first
            for here, there in chance.sample(OTHERWISE, 3) if number % 2 == 0 else ():
                assert here in text
                text = text.replace(here, there)
            yaml.write_text(text)
            daemon.send_signal(signal.SIGHUP)
        yaml.write_text(first)
        daemon.send_signal(signal.SIGHUP)
        await one.come_to_rest(90)
        assert one.log(0).count("event=reloaded") >= 5
        assert one.log(0).count("event=lease_taken") == 1, "it kept its place"
        assert_holds(await one.prove(faultless=False))
        assert await one.connection.fetchval("SELECT count(*) FROM syncd.import_job WHERE state IN ('unconfirmed', 'absent')") == 0
