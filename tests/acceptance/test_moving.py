"""Two pulls beside each other in a world that moves and fails: the mirror is the truth, and nothing was applied twice."""

import asyncio
import gc
import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from syncd.core import settings
from syncd.demo.compare import compare
from syncd.demo.traffic import INSTANCE
from syncd.ops.clock import WallClock
from syncd.simulator import Fault, FaultRates, ForeignLoad, Limits, Report, Simulator, World
from syncd.store import backfills
from tests.acceptance.rehearsal import Rehearsal, rehearsal

OVERLAP = timedelta(seconds=30)
PIECE = 30  # leads of a burst, between which the simulator answers; few enough for its index not to be made anew

# Both pulls ask for the title: either may bring a change of it, or of the address, which every reply has.
YAML = """\
database: {{dsn: "{dsn}"}}
instances:
  {instance}:
    rest: {{endpoint: "{rest}", client_id: "{client_id}", client_secret: "{client_secret}"}}
    soap: {{endpoint: "{soap}", user_id: "{user_id}", encryption_key: "{encryption_key}"}}
    network: {{timeout: 2s}}
    limits: {{calls_per_20s: 80, concurrency: 5}}
    history: 90d
    census: null
    pulls:
      people: &pull
        source: soap
        select: {{updated_since: 2016-01-01T00:00:00Z}}
        fields: [FirstName, LastName, Company, LeadScore, Title, Lifetime_Value]
        every: 30s
        overlap: 30s
        margin: 2s
        streams: 4
      details:
        <<: *pull
        fields: [Title, Notes, Website, Last_Webinar_At]
        streams: 2
http: null
logging: {{format: logfmt, level: info}}
"""

# Those without a rate of their own that a retry can get over; each is met once in a while.
MISCHIEF = (
    *(Fault.HTML_500, Fault.WRONG_LENGTH, Fault.GARBLED_XML, Fault.SLOW_DRIP, Fault.REDIRECT, Fault.WRONG_LENGTH_CUT),
    *(Fault.SOAP_29999, Fault.GZIP_BOMB),
)

# Those with a rate that a page of leads can meet.
MET_BY_PULLS = (
    *("reset_before", "reset_after", "truncated", "html_200", "html_503", "gateway_502", "gateway_504", "short_page"),
    *("soap_10001", "soap_20011", "soap_20016", "soap_20023", "soap_20024", "soap_20122"),
)

FIRST_WALK_DONE = """
SELECT (SELECT count(*) FROM syncd.pull WHERE planned_at IS NOT NULL) = 2
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE state IN ('open', 'blocked') AND starts_at < $1)
"""
PLANNED_PAST = "SELECT bool_and(planned_until > $1) FROM syncd.pull"
WALKED_PAST = """
SELECT (SELECT bool_and(planned_until > $1) FROM syncd.pull)
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE state IN ('open', 'blocked'))
"""
BACKFILLED = "SELECT bool_and(finished_at IS NOT NULL) FROM syncd.backfill"
TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncd %'
"""
REMEMBER = "CREATE TEMP TABLE seen AS SELECT lead_id, first_seen_at FROM syncd.lead"
SEEN_ANEW = """
SELECT (SELECT count(*) FROM seen) AS remembered, count(*) FILTER (WHERE l.first_seen_at IS DISTINCT FROM s.first_seen_at) AS anew
  FROM seen s LEFT JOIN syncd.lead l USING (lead_id)
"""
# Every row's place in its table: a row that was written again stands elsewhere, even with the same values.
ROWS = """
SELECT md5(string_agg(lead_id || ' ' || xmin || ' ' || ctid, ',' ORDER BY lead_id)) AS places, count(*) AS leads,
       (SELECT count(*) FROM syncd.lead_history) AS lines
  FROM syncd.lead
"""
HISTORY = """
SELECT h.lead_id, h.pull, h.field, h.old::text AS old, h.new::text AS new,
       (CASE h.field WHEN 'email' THEN to_jsonb(l.email) ELSE l.attributes -> h.field END)::text AS held
  FROM syncd.lead_history h JOIN syncd.lead l USING (instance, lead_id)
 ORDER BY h.lead_id, h.field, h.seen_at
"""


class Others:
    """What others do in Marketo meanwhile. Each change carries a number, by which it is known which of two came later."""

    def __init__(self, simulator: Simulator, clock: WallClock, chance: random.Random, per_second: int, burst: int) -> None:
        self.changes = self.bursts = self.created = 0
        self._number = 1_000  # above every score that leads are born with
        self._simulator = simulator
        self._clock = clock
        self._chance = chance
        self._per_second = per_second
        self._burst = burst
        self._ids = [lead.id for lead in simulator.world]
        self._busy = chance.sample(self._ids, 20)
        self._struck: list[int] = []

    async def run(self) -> None:
        """Until cancelled: changes here and there, always some of the same leads, newcomers, and now and then a burst."""
        second = 0
        while True:
            await self._clock.sleep(1.0)
            second += 1
            world = self._simulator.world
            now = self._clock.now().timestamp()
            for lead_id in (
                *self._chance.choices(self._ids, k=self._chance.randrange(2 * self._per_second)),
                self._chance.choice(self._busy),
            ):
                self._change(world, [lead_id], now)
            if second % 5 == 0:
                self._ids.append(world.create(self._values() | {"firstName": "Newcomer", "email": f"moved.{self._number}@example.org"}).id)
                self.created += 1
            if second % 20 == 0:
                self._simulator.script("soap", MISCHIEF[second // 20 % len(MISCHIEF)])
            if second % 45 == 0:
                if self.bursts % 3 != 1:  # the second of three strikes the leads of the first once more
                    self._struck = self._chance.sample(self._ids, self._burst)
                await self._strike(world, now)
                self.bursts += 1

    async def _strike(self, world: World, now: float) -> None:
        """Change many in one second. That takes a while, and the simulator would seem to get at once what reaches it meanwhile."""
        for start in range(0, len(self._struck), PIECE):
            self._change(world, self._struck[start : start + PIECE], now)
            await asyncio.sleep(0)

    def _change(self, world: World, ids: Sequence[int], now: float) -> None:
        """Change them in one second; sometimes Marketo commits it late."""
        leads = [lead for lead_id in ids if (lead := world.get(lead_id)) is not None]
        for lead in leads:
            world.write(lead, self._values())
        late = self._chance.uniform(0.0, 20.0) if len(leads) == 1 and self._chance.random() < 0.1 else 0.0
        world.touch(leads, max(now - late, *(lead.updated for lead in leads)) if late else now)
        self.changes += len(leads)

    def _values(self) -> dict[str, str]:
        self._number += 1
        number, chance = self._number, self._chance
        values = {"leadScore": str(number)}
        if chance.random() < 0.5:
            values["title"] = chance.choice(("", f"moved {number}"))
        if chance.random() < 0.3:
            values["notes"] = chance.choice(("", f"moved {number}"))
        if chance.random() < 0.1:
            values["email"] = f"moved.{number}@example.com"
        return values


@dataclass(frozen=True)
class Size:
    """`burst` leads change in one second; `longest` real seconds pass between two blows."""

    leads: int
    speed: float
    per_second: int
    burst: int
    blows: int
    longest: float
    patience: float


SUITE = Size(leads=4_000, speed=20, per_second=6, burst=400, blows=9, longest=1.0, patience=60)
PROVE = Size(leads=200_000, speed=10, per_second=30, burst=5_000, blows=30, longest=5.0, patience=400)


@dataclass
class Story:
    """A run: its parts, and what it met."""

    one: Rehearsal
    others: Others
    moving: asyncio.Task[None]
    blows: Counter[str] = field(default_factory=Counter)

    async def stop_moving(self) -> datetime:
        """The world stands still from the moment that is returned."""
        assert not self.moving.done(), self.moving.exception()
        self.moving.cancel()
        await asyncio.gather(self.moving, return_exceptions=True)
        return self.one.clock.now()


@asynccontextmanager
async def story(database: str, folder: Path, size: Size, seed: int) -> AsyncIterator[Story]:
    faults = replace(FaultRates.rough(), soap_20024=0.005, rest_615=0.005)
    simulated = {
        "latency": 0.3,
        "limits": Limits(calls_per_20s=100, soap_calls_per_day=50_000),
        "foreign": ForeignLoad(calls_per_20s=20),
    }
    async with rehearsal(
        database, folder, leads=size.leads, changes=0, speed=size.speed, seed=seed, faults=faults, yaml=YAML, simulated=simulated
    ) as one:
        gc.freeze()  # to look through all leads for garbage takes half a second, in which the simulator does not answer
        others = Others(one.simulator, one.clock, random.Random(seed), size.per_second, size.burst)
        moving = asyncio.ensure_future(others.run())
        try:
            yield Story(one, others, moving)
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            gc.unfreeze()


async def strike(told: Story, size: Size, chance: random.Random) -> None:
    """kill -9, SIGTERM and ended sessions, as many of each, wherever the daemon happens to be: that, and not any event, is the point."""
    one = told.one
    kinds = ["kill -9", "SIGTERM", "sessions ended"] * (size.blows // 3)
    chance.shuffle(kinds)
    for kind in kinds:
        number = len(one.daemons) - 1
        await one.wait_for_log(number, "lease_taken")
        await asyncio.sleep(chance.uniform(0.0, size.longest))
        told.blows[kind] += 1
        if kind == "sessions ended":
            told.blows["sessions"] += await one.connection.fetchval(TERMINATE)
            continue
        daemon = one.daemons[-1]
        daemon.send_signal(signal.SIGKILL if kind == "kill -9" else signal.SIGTERM)
        code = await asyncio.wait_for(daemon.wait(), 10)
        assert code == (-signal.SIGKILL if kind == "kill -9" else 0), one.log(number)[-3000:]
        await one.spawn()


async def assert_the_mirror_is_the_truth(told: Story) -> None:
    fields = list(dict.fromkeys(name for pull in told.one.instance().pulls for name in pull.fields))
    result = await compare(told.one.simulator.world.truth(fields), told.one.connection, INSTANCE)
    assert result.agrees, (result.differing, result.differences)
    assert result.mirror.records == len(told.one.simulator.world)


async def assert_nothing_was_applied_twice(told: Story) -> None:
    """Each line of a field's history goes on where the last one ended, and forwards; the last one ends at what the mirror holds."""
    lines = await told.one.connection.fetch(HISTORY)
    wrong: list[str] = []
    for _, chain in groupby(lines, itemgetter("lead_id", "field")):
        wrong += wrong_in(list(chain))
        await asyncio.sleep(0)  # the simulator answers on this loop, and its clock goes on
    assert not wrong, (len(wrong), len(lines), wrong[:20])
    assert len(lines) > told.others.changes / 10, "history hardly saw any of it"
    print(f"history: {len(lines):,} lines")


def wrong_in(chain: Sequence[Any]) -> Iterator[str]:
    """What is wrong in the history of one field of one lead."""
    newest = 0
    for before, line in zip((None, *chain), chain, strict=False):
        what = f"lead {line['lead_id']}, {line['field']}, {line['pull']}: {line['old']} → {line['new']}"
        if line["old"] == line["new"]:
            yield f"{what}, which is no change"
        if before is not None and line["old"] != before["new"]:
            yield f"{what}, but before it was {before['new']}"
        newest = max(newest, number_of(line["old"]) or 0)
        number = number_of(line["new"])
        if number is not None and number <= newest:
            yield f"{what}, back from {newest}"
        newest = max(newest, number or 0)
    if line["new"] != line["held"]:
        yield f"{what}, but the mirror holds {line['held']}"


def number_of(value: str | None) -> int | None:
    """Which of the Others' changes set this value of a history line; None for one from before, or none."""
    decoded = json.loads(value or "null")
    if isinstance(decoded, int):
        return decoded
    found = re.match(r"moved\D(\d+)", decoded or "")
    return int(found[1]) if found else None


async def assert_a_whole_pass_writes_nothing(told: Story, size: Size) -> None:
    """First a look of each pull for news, then every lead once more, while nothing moves."""
    one = told.one
    before = await one.connection.fetchrow(ROWS)
    await one.wait_until(WALKED_PAST, one.clock.now() + timedelta(seconds=35), seconds=size.patience)
    assert await one.connection.fetchrow(ROWS) == before, "a look for news wrote something"
    for pull in one.instance().pulls:
        await backfills.order(one.connection, INSTANCE, pull.name, datetime(2016, 1, 1, tzinfo=UTC), "a whole pass")
    await one.wait_until(BACKFILLED, seconds=size.patience)
    assert await one.connection.fetchrow(ROWS) == before, "a whole pass wrote something"


async def assert_nobody_came_twice(told: Story) -> None:
    row = await told.one.connection.fetchrow(SEEN_ANEW)
    assert row is not None
    assert row["remembered"] > 0
    assert row["anew"] == 0


def assert_within_limits(report: Report, limits: settings.Limits) -> None:
    assert report.violations == {}
    assert limits.calls_per_20s / 2 < report.busiest_20s <= limits.calls_per_20s
    assert limits.concurrency / 2 < report.max_concurrency <= limits.concurrency


async def assert_all_holds(told: Story, size: Size) -> None:
    """Stop the world, let both pulls come past that, and look at everything."""
    began = time.monotonic()
    still = await told.stop_moving()
    await told.one.wait_until(WALKED_PAST, still + OVERLAP, seconds=size.patience)
    walked = time.monotonic()
    await assert_the_mirror_is_the_truth(told)
    await assert_nobody_came_twice(told)
    await assert_nothing_was_applied_twice(told)
    compared = time.monotonic()
    await assert_a_whole_pass_writes_nothing(told, size)
    report = told.one.simulator.report()
    others = told.others
    print(f"{len(told.one.simulator.world):,} leads, {others.changes:,} changes, {others.created:,} created, {others.bursts} bursts")
    print(f"caught up {walked - began:.1f} s, compared {compared - walked:.1f} s, walked again {time.monotonic() - compared:.1f} s")
    print(f"{report.calls_counted:,} calls, {report.busiest_20s} in the busiest 20 s, {report.max_concurrency} at once; {dict(told.blows)}")
    print("met", {name: count for name, count in sorted(report.faults_injected.items()) if count})
    assert_within_limits(report, told.one.instance().limits)


async def moved_through(told: Story, size: Size) -> None:
    """Until both pulls have walked what there was at the start, and a while longer."""
    one = told.one
    start = one.clock.now()
    await one.wait_until("SELECT count(*) > 0 FROM syncd.lead", seconds=30)
    await one.connection.execute(REMEMBER)
    await one.wait_until(FIRST_WALK_DONE, start, seconds=size.patience)
    await one.wait_until(PLANNED_PAST, one.clock.now() + timedelta(seconds=60), seconds=size.patience)


async def test_a_moving_world_is_mirrored_through_all_faults(database: str, tmp_path: Path) -> None:
    async with story(database, tmp_path, SUITE, seed=2) as told:
        await told.one.spawn()
        await moved_through(told, SUITE)
        await assert_all_holds(told, SUITE)


async def test_a_moving_world_is_mirrored_through_kills_and_ended_sessions(database: str, tmp_path: Path) -> None:
    async with story(database, tmp_path, SUITE, seed=3) as told:
        await told.one.spawn()
        await told.one.wait_until("SELECT count(*) > 0 FROM syncd.lead", seconds=30)
        await told.one.connection.execute(REMEMBER)
        await strike(told, SUITE, random.Random(13))
        await assert_all_holds(told, SUITE)


@pytest.mark.prove
@pytest.mark.parametrize("struck", [False, True], ids=["faults", "kills"])
async def test_200_000_moving_leads_are_mirrored(database: str, tmp_path: Path, struck: bool) -> None:
    seed = time.time_ns() % 1_000_000
    print(f"\nseed {seed}")
    async with story(database, tmp_path, PROVE, seed) as told:
        await told.one.spawn()
        if struck:
            await told.one.wait_until("SELECT count(*) > 0 FROM syncd.lead", seconds=30)
            await told.one.connection.execute(REMEMBER)
            await strike(told, PROVE, random.Random(seed))
        else:
            await moved_through(told, PROVE)
        await assert_all_holds(told, PROVE)
        assert {name for name in MET_BY_PULLS if not told.one.simulator.report().faults_injected.get(name)} == set()
