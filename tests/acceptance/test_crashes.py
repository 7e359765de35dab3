"""kill -9, SIGTERM and a second daemon, at random moments: both sides agree at the end, and no change is unaccounted for."""

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.rehearsal import Rehearsal, assert_holds, rehearsal


async def random_moment(chance: random.Random, longest: float) -> None:
    """The daemon is met wherever it happens to be: that, and not any event, is the point."""
    await asyncio.sleep(chance.uniform(0.0, longest))


async def killed_again_and_again(one: Rehearsal, kills: int, chance: random.Random, longest: float) -> None:
    for number in range(kills):
        daemon = await one.spawn()
        await one.wait_for_log(number, "lease_taken")
        await random_moment(chance, longest)
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
    await one.spawn()


async def test_kill_9_at_random_moments_loses_and_repeats_nothing_visible(database: str, tmp_path: Path) -> None:
    async with rehearsal(database, tmp_path, leads=1_500, changes=4_000, speed=30, max_body_bytes=30_000) as one:
        await killed_again_and_again(one, 5, random.Random(7), 1.5)
        await one.come_to_rest(90)
        assert_holds(await one.prove(faultless=False))


@pytest.mark.prove
async def test_kill_9_at_20_random_moments_of_a_demo_sized_run(database: str, tmp_path: Path) -> None:
    async with rehearsal(database, tmp_path, leads=20_000, changes=60_000, speed=10, max_body_bytes=200_000) as one:
        await killed_again_and_again(one, 20, random.Random(time.time_ns()), 5.0)
        await one.come_to_rest(300)
        proof = await one.prove(faultless=False)
        print(proof.outcomes, [f"{check.name}: {check.detail}" for check in proof.checks])
        assert_holds(proof)


async def test_sigterm_at_random_moments_ends_in_time_with_exit_code_0(database: str, tmp_path: Path) -> None:
    chance = random.Random(11)
    async with rehearsal(database, tmp_path, leads=1_000, changes=2_000, speed=30, max_body_bytes=30_000) as one:
        for number in range(4):
            daemon = await one.spawn()
            await one.wait_for_log(number, "started")
            await random_moment(chance, 1.5)
            asked = time.monotonic()
            daemon.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(daemon.wait(), 10) == 0, one.log(number)[-3000:]
            assert time.monotonic() - asked < 10
        await one.spawn()
        await one.come_to_rest(90)
        assert_holds(await one.prove(faultless=False))
        # Without a fault and without a kill, nothing needs to have been sent twice.
        assert await one.connection.fetchval("SELECT count(*) FROM syncd.import_job WHERE state IN ('unconfirmed', 'absent')") == 0


async def test_a_second_daemon_stands_by_and_takes_over_when_the_first_dies(database: str, tmp_path: Path) -> None:
    async with rehearsal(database, tmp_path, leads=300, changes=500, speed=30, max_body_bytes=30_000) as one:
        first = await one.spawn()
        await one.wait_for_log(0, "lease_taken")
        await one.spawn()
        await one.wait_for_log(1, "event=standby")
        assert f"pid {first.pid} on" in one.log(1)
        assert "lease_taken" not in one.log(1)
        first.send_signal(signal.SIGKILL)
        died = time.monotonic()
        await one.wait_for_log(1, "lease_taken")
        assert time.monotonic() - died < 5, "the holder's session is gone: no need to wait for its silence"
        await one.come_to_rest(60)
        assert_holds(await one.prove(faultless=False))


async def test_a_hung_holder_is_replaced_and_cannot_write_any_more(database: str, tmp_path: Path) -> None:
    async with rehearsal(database, tmp_path, leads=300, changes=500, speed=30, max_body_bytes=30_000) as one:
        hung = await one.spawn()
        await one.wait_for_log(0, "lease_taken")
        await one.spawn()
        await one.wait_for_log(1, "event=standby")
        hung.send_signal(signal.SIGSTOP)
        await one.wait_for_log(1, "lease_taken", seconds=25)
        hung.send_signal(signal.SIGCONT)
        await one.wait_for_log(0, "event=standby", seconds=25)
        await one.come_to_rest(60)
        assert_holds(await one.prove(faultless=False))


@pytest.mark.prove
@pytest.mark.parametrize(("leads", "changes"), [(20_000, 30_000), (200_000, 300_000)])
async def test_peak_memory_stays_under_200_mb(database: str, tmp_path: Path, leads: int, changes: int) -> None:
    async with rehearsal(database, tmp_path, leads=leads, changes=changes, speed=40, max_body_bytes=9_900_000) as one:
        daemon = await one.spawn()
        await one.come_to_rest(900)
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        (peak,) = (int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        print(f"{leads} leads: peak memory {peak:.0f} MB")
        assert peak < 200
        assert_holds(await one.prove(faultless=True))
