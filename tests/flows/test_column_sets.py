"""Thousands of column sets, few of them dense: what goes by files, what by Sync Leads, beside the cheapest mix in hindsight."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from math import ceil

import orjson
import pytest

from syncd.core.batching import CALLS_OF_A_FILE, MOST_RECORDS
from syncd.core.settings import Limits, Push
from syncd.marketo.imports import envelope_bytes
from syncd.simulator.fields import Field
from tests.flows.conftest import Build, House

COLUMNS = tuple(f"nullable{number:02}" for number in range(20))
OF_IMPORTS = ("import", "status", "failures", "warnings")


@dataclass(frozen=True)
class Scale:
    """So many changes of so many column sets, the n-th of which is n times as rare as the first."""

    changes: int
    sets: int
    max_body_bytes: int
    flush_after: timedelta


SUITE = Scale(30_000, 100, 200_000, timedelta(seconds=20))
PROVE = Scale(1_500_000, 5_000, 9_900_000, timedelta(minutes=5))


@dataclass(frozen=True)
class Bill:
    """What was spent. A slot counts as one call."""

    files: int
    file_calls: float
    sync_calls: int

    @property
    def total(self) -> float:
        return self.files + self.file_calls + self.sync_calls


def column_sets(scale: Scale, chance: random.Random) -> list[tuple[str, ...]]:
    """Distinct sets of columns."""
    masks = chance.sample(range(1, 1 << len(COLUMNS)), scale.sets)
    return [tuple(name for at, name in enumerate(COLUMNS) if mask >> at & 1) for mask in masks]


def traffic(scale: Scale) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A key and the columns that its change sets."""
    chance = random.Random(6)
    sets = column_sets(scale, chance)
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(sets))))
    for number, columns in enumerate(chance.choices(sets, cum_weights=weights, k=scale.changes)):
        yield f"person{number}@example.com", columns


def records(changes: Iterable[tuple[str, tuple[str, ...]]]) -> Iterator[tuple[str, str, str, str]]:
    """Rows of the outbox."""
    for key, columns in changes:
        yield "acme", "contacts", key, orjson.dumps(dict.fromkeys(columns, "a value")).decode()


def cheapest(scale: Scale, calls_of_a_file: float) -> Bill:
    """Each column set by as many full files as pay, and the rest of it by Sync Leads, whose calls all sets share: who knew it all
    beforehand, and what a file was to cost, could do no better."""
    rows: Counter[tuple[str, ...]] = Counter()
    size: Counter[tuple[str, ...]] = Counter()
    for key, columns in traffic(scale):
        rows[columns] += 1
        size[columns] += len(key) + len(columns) * len(",a value") + 1
    files = 0
    rest = 0.0
    for columns, count in rows.items():
        room = scale.max_body_bytes - envelope_bytes("csv") - len(",".join(("email", *columns))) - 1
        fitting = room * count / size[columns]  # rows of a file
        wanted = range(ceil(size[columns] / room) + 1)
        number = min(wanted, key=lambda n: n * (calls_of_a_file + 1) + max(0.0, count - n * fitting) / MOST_RECORDS)
        files += number
        rest += max(0.0, count - number * fitting)
    return Bill(files, files * calls_of_a_file, ceil(rest / MOST_RECORDS))


async def spent(home: House) -> Bill:
    report = home.simulator.report()
    assert (report.violations, report.imports_refused, report.duplicate_live_keys, report.synced_live_keys) == ({}, {}, (), ())
    calls = Counter({call.endpoint: 0 for call in report.calls})
    for call in report.calls:
        calls[call.endpoint] += call.count
    print(f"\n  {dict(calls)}")
    return Bill(len(await home.job_states()), sum(calls[name] for name in OF_IMPORTS), calls["sync_leads"])


@pytest.mark.parametrize("scale", [SUITE, pytest.param(PROVE, marks=pytest.mark.prove)], ids=["suite", "prove"])
async def test_a_mix_near_the_cheapest_in_hindsight(house: Build, scale: Scale) -> None:
    push = Push("contacts", max_body_bytes=scale.max_body_bytes, flush_after=scale.flush_after)
    home = await house(pushes=[push], limits=Limits(calls_per_20s=100))
    for number, name in enumerate(COLUMNS):
        home.simulator.add_field(Field(100 + number, name, "string", name, None, 255))
    await home.pool.copy_records_to_table(
        "outbox", schema_name="syncd", columns=("instance", "push", "key", "fields"), records=records(traffic(scale))
    )
    began = home.clock.now()
    await home.run(7 * 86_400, home.all_ended)
    bill = await spent(home)
    best = cheapest(scale, min(CALLS_OF_A_FILE, bill.file_calls / bill.files))
    took = home.clock.now() - began
    print(f"  {scale.changes:,} changes of {scale.sets:,} column sets in {took}: {bill} = {bill.total:,.0f}")
    print(f"  cheapest mix in hindsight: {best} = {best.total:,.0f}; {bill.total / best.total:.2f} times as much")
    assert await home.states() == {"applied": scale.changes}
    assert bill.files > 1
    assert bill.sync_calls > 1
    assert bill.total <= 1.3 * best.total
