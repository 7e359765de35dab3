"""Every source gives the same mirror of the same moving world, and switching between them changes nothing (issue 4, point 1)."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from syncd.simulator import FaultRates
from tests.acceptance.sources import ROWS, SOURCES, Story, assert_all_agree, story

BEGIN = {name: "bulk_extract" if name == "activities" else name for name in SOURCES}
NAMED_SO = {name: name for name in SOURCES}
ROTATED = {"soap": "auto", "bulk_extract": "soap", "activities": "bulk_extract", "auto": "activities"}

SUITE = {"leads": 1_500, "speed": 60, "per_second": 1.5}
PROVE = {"leads": 20_000, "speed": 20, "per_second": 8.0, "patience": 900, "faults": FaultRates.rough()}


async def moved_and_agreed(told: Story, seconds: float) -> None:
    """The world moves for a while, stands still, and all four know all of it."""
    began = time.monotonic()
    await told.moved_on(seconds)
    moved = time.monotonic()
    await told.at_rest(await told.stand_still())
    print(f"moved {moved - began:.1f} s, at rest after {time.monotonic() - moved:.1f} s", dict(told.others.did), await told.gone())
    await assert_all_agree(told)
    assert all(deleted > 0 and merged > 0 for deleted, merged in (await told.gone()).values())


@pytest.mark.parametrize(("size", "seconds"), [(SUITE, 150), pytest.param(PROVE, 1_500, marks=pytest.mark.prove)], ids=["suite", "prove"])
async def test_all_sources_give_the_same_mirror_and_switching_changes_nothing(
    database: str, tmp_path: Path, size: Mapping[str, Any], seconds: float
) -> None:
    began = time.monotonic()
    async with story(database, tmp_path, seed=5, **size) as told:
        told.move()
        await told.restart(BEGIN)
        await told.filled()
        print(f"filled {time.monotonic() - began:.1f} s")
        await told.restart(NAMED_SO)  # the log goes on where the extracts were
        await moved_and_agreed(told, seconds)

        told.move()
        await told.moved_on(30)
        await told.restart(ROTATED)
        await moved_and_agreed(told, seconds)


async def test_switching_changes_nothing_where_nothing_moves(database: str, tmp_path: Path) -> None:
    """Each instance goes through all four sources, and each of them reads every lead once more: no row of the mirror is written."""
    rows: dict[str, tuple[Any, ...]] = {}
    async with story(database, tmp_path, leads=400, speed=60, seed=9, aside=False) as told:
        told.every = "2m"  # an extract takes as long, and news would always go before the backfills
        await told.restart(BEGIN)
        await told.moved_on(0)
        for turn in range(4):
            await told.restart({name: SOURCES[(number + turn) % 4] for number, name in enumerate(SOURCES)})
            await told.read_all_again()
            before, rows = rows, {row["instance"]: tuple(row)[1:] for row in await told.one.connection.fetch(ROWS)}
            assert not turn or rows == before
        assert len({visible for visible, _ in rows.values()}) == 1
        assert await told.one.connection.fetchval("SELECT count(*) FROM syncd.lead_history") == 0
