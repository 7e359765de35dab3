"""Four instances of one daemon beside each other, one for each source, over a Marketo that moves: what they share, and what they see."""

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from syncd.demo.compare import canonical, canonical_json
from syncd.ops.clock import WallClock
from syncd.simulator import ActivityModel, ExportModel, FaultRates, ForeignLoad, Limits, Simulator, World
from syncd.store import backfills
from tests.acceptance.rehearsal import Rehearsal, rehearsal

SOURCES = ("soap", "bulk_extract", "activities", "auto")
"""The instances are named after the sources that they begin with."""

BOTH = {
    "Company": "company",
    "FirstName": "firstName",
    "LastName": "lastName",
    "Title": "title",
    "Phone": "phone",
    "Website": "website",
    "Country": "country",
    "LeadScore": "leadScore",
    "Unsubscribed": "unsubscribed",
    "DateofBirth": "dateOfBirth",
    "Date_of_purchase": "dateOfPurchase",
    "Last_Webinar_At": "lastWebinarAt",
    "Lifetime_Value": "lifetimeValue",
    "Account_Number": "accountNumber",
    "Notes": "notes",
    "Customer_Number": "customerNumber",
}
"""What both interfaces know, by SOAP's name and by REST's: all of Marketo's types that a value can have."""
ASIDE = ("Legacy_Segment", "memberLevel", "leadRating")
"""One is SOAP's, one REST's, and one a formula, whose changes nothing tells of."""

OVERLAP = timedelta(seconds=30)
LATE = 10.0
"""Seconds by which a change may show late, and an activity later still: together they are within the overlap."""

HEAD = """\
database: {{dsn: "{dsn}"}}
instances:
"""
ONE_INSTANCE = """\
  %(name)s:
    rest: {{endpoint: "{rest}", client_id: "{client_id}", client_secret: "{client_secret}"}}
    soap: {{endpoint: "{soap}", user_id: "{user_id}", encryption_key: "{encryption_key}"}}
    limits: {{calls_per_20s: 20, concurrency: 2, export_slots: 3, export_running: 2}}
    census: null
    pulls:
      people:
        source: %(source)s
        select: {{updated_since: %(since)s}}
        fields: [%(fields)s]
        every: %%(every)s
        overlap: 30s
        margin: 2s
        streams: 2
        window: %%(window)s
"""
TAIL = """\
http: null
logging: {{format: logfmt, level: info}}
"""

PAST = """
SELECT (SELECT count(*) FROM syncd.pull WHERE instance = ANY ($1) AND planned_at IS NOT NULL AND planned_until > $2 AND closings = 0)
       = cardinality($1::text[])
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE instance = ANY ($1) AND state IN ('open', 'blocked') AND starts_at <= $2)
   AND NOT EXISTS (SELECT FROM syncd.backfill WHERE instance = ANY ($1) AND finished_at IS NULL)
"""
NOTHING_DUE = "SELECT NOT EXISTS (SELECT FROM syncd.lead_due)"
# Windows of what came after may be open: a pull by extracts always has some.
AT_REST = """
SELECT (SELECT count(*) FROM syncd.pull WHERE instance = ANY ($1) AND planned_at IS NOT NULL AND planned_until > $2 AND closings = 0)
       = cardinality($1::text[])
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE instance = ANY ($1) AND state IN ('open', 'blocked') AND starts_at <= $2)
   AND NOT EXISTS (SELECT FROM syncd.lead_due WHERE instance = ANY ($1))
   AND (SELECT count(*) FROM (
           SELECT FROM syncd.activity_token WHERE instance = ANY ($1) AND stream IN ('deletions', 'merges') AND NOT under_way
            GROUP BY instance, stream HAVING max(looked_at) > $2) s) = 2 * cardinality($1::text[])
"""
WHERE_ALL_STAND = """
SELECT p.instance, p.source, p.follows, p.state, p.message, p.planned_at, p.planned_until,
       (SELECT count(*) FROM syncd.pull_window w WHERE w.instance = p.instance AND w.state IN ('open', 'blocked')) AS windows,
       (SELECT min(starts_at) FROM syncd.pull_window w WHERE w.instance = p.instance AND w.state IN ('open', 'blocked')) AS oldest,
       (SELECT count(*) FROM syncd.lead_due d WHERE d.instance = p.instance) AS due,
       (SELECT string_agg(stream || ' ' || looked_at, ', ') FROM (SELECT stream, max(looked_at) AS looked_at FROM syncd.activity_token t
         WHERE t.instance = p.instance AND NOT under_way GROUP BY 1) s) AS streams
  FROM syncd.pull p ORDER BY 1
"""
DIFFERING = """
SELECT lead_id, string_agg(concat_ws(' ', instance, email, attributes, misfits), E'\n' ORDER BY instance) AS sides
  FROM (SELECT lead_id, instance, email, (attributes - $1::text[])::text AS attributes, misfits::text AS misfits
          FROM syncd.lead WHERE deleted_at IS NULL) l
 GROUP BY lead_id
HAVING count(*) <> $2 OR count(DISTINCT (coalesce(email, ''), attributes, coalesce(misfits, ''))) <> 1
 ORDER BY 1
"""
# A lead that came and went between two looks is not in every mirror.
GONE_OTHERWISE = """
SELECT lead_id, string_agg(format('%s: %s into %s', instance, deleted_at, merged_into), E'\n' ORDER BY instance) AS sides
  FROM syncd.lead GROUP BY lead_id
HAVING (bool_or(deleted_at IS NULL) AND bool_or(deleted_at IS NOT NULL)) OR count(DISTINCT coalesce(merged_into, 0)) <> 1
 ORDER BY 1
"""
GONE = """
SELECT instance, count(*) FILTER (WHERE merged_into IS NULL) AS deleted, count(*) FILTER (WHERE merged_into IS NOT NULL) AS merged
  FROM syncd.lead WHERE deleted_at IS NOT NULL GROUP BY 1
"""
ROWS = """
SELECT instance,
       md5(string_agg(concat_ws(' ', lead_id, email, attributes, misfits, deleted_at, merged_into), E'\n' ORDER BY lead_id)) AS visible,
       md5(string_agg(concat_ws(' ', lead_id, first_seen_at, changed_at), E'\n' ORDER BY lead_id)) AS times
  FROM syncd.lead GROUP BY 1
"""
MIRROR = """
SELECT lead_id, email, (attributes - $2::text[])::text AS attributes, misfits::text AS misfits FROM syncd.lead
 WHERE instance = $1 AND deleted_at IS NULL ORDER BY 1
"""


def yaml_of(sources: Mapping[str, str], since: datetime, aside: bool, window: str, every: str) -> str:
    """The configuration of instances by name → source; all ask for the same fields, half of them by the other interface's names."""
    fields = [name if number % 2 else BOTH[name] for number, name in enumerate(BOTH)] + (["Legacy_Segment", "memberLevel"] if aside else [])
    fields.append("leadRating")
    return (
        HEAD
        + "".join(
            ONE_INSTANCE
            % {"name": name, "source": source, "fields": ", ".join(fields), "since": f"{since:%Y-%m-%dT%H:%M:%SZ}"}
            % {"window": window, "every": every}
            for name, source in sources.items()
        )
        + TAIL
    )


class Others:
    """What others do in Marketo: they update, create, delete and merge leads, and some of it shows late."""

    def __init__(self, simulator: Simulator, clock: WallClock, chance: random.Random, per_second: float) -> None:
        self.did: Counter[str] = Counter()
        self._simulator = simulator
        self._clock = clock
        self._chance = chance
        self._per_second = per_second
        self._ids = [lead.id for lead in simulator.world]
        self._busy = chance.sample(self._ids, 20)

    async def run(self) -> None:
        """Until cancelled."""
        number = 0
        while True:
            await self._clock.sleep(1.0)
            number += 1
            world, chance = self._simulator.world, self._chance
            while chance.random() < self._per_second / (1 + self._per_second):
                self._update(world, self._some(world), number)
            if number % 3 == 0:
                self._update(world, self._some(world, self._busy), number)
            if number % 7 == 0:
                self._ids.append(world.create({"firstName": f"Newcomer {number}", "email": f"new.{number}@example.org"}).id)
                self.did["created"] += 1
            if number % 11 == 0:
                world.delete(self._some(world))
                self.did["deleted"] += 1
            if number % 17 == 0:
                self._merge(world)

    def _some(self, world: World, among: list[int] | None = None) -> int:
        while world.get(lead_id := self._chance.choice(among or self._ids)) is None:
            (among or self._ids).remove(lead_id)
        return lead_id

    def _update(self, world: World, lead_id: int, number: int) -> None:
        lead, now, chance = world.get(lead_id), self._clock.now().timestamp(), self._chance
        assert lead is not None
        world.write(lead, self._values(number))
        late = chance.random() < 0.1
        world.touch([lead], max(now - chance.uniform(0.0, LATE), lead.updated) if late else now)
        self.did["shown late" if late else "updated"] += 1

    def _merge(self, world: World) -> None:
        winner, *losers = {self._some(world) for _ in range(self._chance.randrange(2, 5))}
        if losers:
            world.merge(winner, losers)
            self.did["merged"] += len(losers)

    def _values(self, number: int) -> dict[str, str]:
        """Often the score alone, of which the log tells otherwise."""
        chance = self._chance
        values = {"leadScore": str(chance.randrange(-5, 200))} if chance.random() < 0.6 else {}
        if not values or chance.random() < 0.3:
            values |= chance.choice(
                (
                    {"title": chance.choice(("", f"Mover {number}"))},
                    {"notes": chance.choice(("", f'said "{number}",\nand <that>'))},
                    {"lifetimeValue": chance.choice(("", f"{number}.50", "0.10"))},
                    {"accountNumber": str(10**22 + chance.randrange(10**9))},
                    {"email": f"moved.{number}.{chance.randrange(1000)}@example.com"},
                    {"unsubscribed": chance.choice(("true", "false"))},
                    {"lastWebinarAt": f"2026-0{chance.randrange(1, 10)}-11T10:00:00-06:00", "dateOfBirth": "1970-02-01"},
                )
            )
        return values


@dataclass
class Story:
    """Four instances and the world that they mirror."""

    one: Rehearsal
    others: Others
    since: datetime
    patience: float
    sources: dict[str, str]
    aside: bool = True
    window: str = "30d"
    every: str = "30s"
    moving: asyncio.Task[None] | None = None

    async def gone(self) -> Mapping[str, tuple[int, int]]:
        """How many leads each instance knows to be deleted, and merged."""
        return {row["instance"]: (row["deleted"], row["merged"]) for row in await self.one.connection.fetch(GONE)}

    async def restart(self, sources: Mapping[str, str]) -> None:
        """End the daemon, if one works, and begin one with other sources."""
        if self.one.daemons:
            daemon = self.one.daemons[-1]
            daemon.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(daemon.wait(), 15) == 0, self.one.log(len(self.one.daemons) - 1)[-3000:]
        self.sources = dict(sources)
        self.one.yaml = yaml_of(self.sources, self.since, self.aside, self.window, self.every)
        (self.one.folder / "syncd.yaml").unlink(missing_ok=True)
        await self.one.spawn()

    def move(self) -> None:
        """Let the world move."""
        self.moving = asyncio.ensure_future(self.others.run())

    async def stand_still(self) -> datetime:
        """The world stands still from the moment that is returned."""
        assert self.moving is not None
        assert not self.moving.done(), self.moving.exception()
        self.moving.cancel()
        await asyncio.gather(self.moving, return_exceptions=True)
        self.moving = None
        return self.one.clock.now()

    async def wait_until(self, query: str, *arguments: object) -> None:
        try:
            await self.one.wait_until(query, *arguments, seconds=self.patience)
        except AssertionError as error:
            stand = "\n".join(str(dict(row)) for row in await self.one.connection.fetch(WHERE_ALL_STAND))
            raise AssertionError(f"{self.one.clock.now()}\n{stand}\n{error}") from None

    async def filled(self, names: Iterable[str] = SOURCES) -> None:
        """Until these have all that there was: leads may have moved on from window to window, each time before its turn came."""
        for _ in range(3):
            await self.wait_until(PAST, list(names), self.one.clock.now())

    async def moved_on(self, seconds: float) -> None:
        """Until all have come past what is so many seconds away now; the world moves meanwhile."""
        await self.wait_until(PAST, list(self.sources), self.one.clock.now() + timedelta(seconds=seconds))

    async def read_all_again(self) -> None:
        """Let each pull read each lead, which it does not otherwise where nothing moves."""
        for name in self.sources:
            await backfills.order(self.one.connection, name, "people", self.since, "once more")
        await self.moved_on(0)
        await self.wait_until(NOTHING_DUE)

    async def at_rest(self, still: datetime) -> None:
        """Until all four know what there was at `still`, when the world came to stand."""
        await self.wait_until(PAST, list(self.sources), still + OVERLAP + timedelta(seconds=5))
        await self.wait_until(AT_REST, list(self.sources), still + OVERLAP + timedelta(seconds=5))


@asynccontextmanager
async def story(
    database: str,
    folder: Path,
    *,
    leads: int,
    speed: float,
    seed: int,
    per_second: float = 1.5,
    weeks: int = 2,
    faults: FaultRates | None = None,
    patience: float = 60,
    aside: bool = True,
    simulated: Mapping[str, Any] | None = None,
) -> AsyncIterator[Story]:
    """A world that does not move yet, and no daemon yet."""
    since = (datetime.now(UTC) - timedelta(weeks=weeks)).replace(microsecond=0)
    settings: dict[str, Any] = {
        "latency": 0.2,
        "updated_since": since,
        "limits": Limits(soap_calls_per_day=50_000),
        "foreign": ForeignLoad(),
        "exports": ExportModel(overhead_seconds=5.0),
        "activities": ActivityModel(late_share=0.2, late_seconds=LATE, short_pages=0.3),
    }
    async with rehearsal(
        database, folder, leads=leads, changes=0, speed=speed, seed=seed, faults=faults, simulated=settings | dict(simulated or {})
    ) as one:
        for lead in one.simulator.world:
            if lead.values.get("title") == "null":
                lead.values.pop("title")  # which an extract can't tell from an empty one
        others = Others(one.simulator, one.clock, random.Random(seed), per_second)
        told = Story(one, others, since, patience, {}, aside)
        try:
            yield told
        finally:
            if told.moving is not None:
                told.moving.cancel()
                await asyncio.gather(told.moving, return_exceptions=True)


async def assert_all_agree(told: Story) -> None:
    """All mirrors are the same, and Marketo's."""
    connection = told.one.connection
    differing = await connection.fetch(DIFFERING, list(ASIDE), len(told.sources))
    assert not differing, f"{len(differing)} leads differ: " + "\n".join(f"{row['lead_id']}\n{row['sides']}" for row in differing[:3])
    gone = await connection.fetch(GONE_OTHERWISE)
    assert not gone, f"{len(gone)} leads are gone otherwise: " + "\n".join(f"{row['lead_id']}\n{row['sides']}" for row in gone[:3])
    truth = {}
    for lead_id, email, values in told.one.simulator.world.truth(list(BOTH)):
        truth[lead_id] = email, {name: canonical(name, text) for name, text in values.items()}
    mirror = {}
    for row in await connection.fetch(MIRROR, next(iter(told.sources)), list(ASIDE)):
        values = json.loads(row["attributes"], parse_int=Decimal, parse_float=Decimal)
        assert row["misfits"] is None, row
        mirror[row["lead_id"]] = row["email"], {name: canonical_json(name, value) for name, value in values.items()}
    wrong = [(lead_id, truth.get(lead_id), mirror.get(lead_id)) for lead_id in truth | mirror if truth.get(lead_id) != mirror.get(lead_id)]
    assert not wrong, (len(wrong), wrong[:3])


async def assert_no_second_export(told: Story) -> None:
    """Of each filter at most one export was queued that did not fail; nothing was asked for too often."""
    simulator = told.one.simulator
    report = simulator.report()
    good = Counter(view.filter for view in simulator.exports() if view.state in ("Queued", "Processing", "Completed"))
    twice = {text: count for text, count in good.items() if count > 1}
    assert twice == {}, twice
    failed = Counter(view.filter for view in simulator.exports() if view.state in ("Failed", "Cancelled"))
    assert all(count <= 1 + failed[text] for text, count in report.exports_by_filter.items()), report.exports_by_filter
    assert report.violations == {}, (report.violations, [event for event in report.events if "violation" in event])
