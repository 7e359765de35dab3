"""`syncd plan --push`: what waits is packed by the very code that packs, page after page, and nothing of it is written or sent."""

import asyncio
import bisect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from syncd.core.batching import GATHER, MOST_RECORDS
from syncd.core.dryrun import Course, Page, SampleRow
from syncd.core.forecast import Forecast, forecast
from syncd.core.guard import digest_of, guard_notes
from syncd.core.hours import may_import
from syncd.core.mirror import Vocabulary
from syncd.core.pack import pack
from syncd.core.pending import PendingChange, Target
from syncd.core.preflight import Preflight
from syncd.core.settings import Instance, Push
from syncd.core.tally import Fate, Tally
from syncd.flows import gate
from syncd.flows.preflight import all_by_index, echoes, owned_by, ruled, target_for
from syncd.store import batches, dryrun, fields, forgetting, guards, imports, outbox, pauses, ruling
from syncd.store.dryrun import Counts, Section
from syncd.store.leases import Connection, Pool
from syncd.store.mirrored import LOOKUPS
from syncd.store.outbox import Claimable, kin_of
from syncd.store.pauses import Choice

CLAIM = 20_000
"""As the packer's: what is packed together is coalesced together."""
DAY = timedelta(days=1)
NOT_DESCRIBED = (
    "Marketo has not described its fields yet: nothing is checked against them (start syncd run once; until then it packs nothing)"
)
BY_NOTHING = "the mirror has no leads by {}: whether a row creates or updates one can't be told"

Tell = Callable[[int, int], None]
"""How many changes have been looked at, of how many."""


@dataclass(frozen=True, slots=True)
class Old:
    """What the mirror has of a lead, as texts."""

    lead_id: int
    values: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Planned:
    """What becomes of one section of what waits; `rounds` is how often keys have to settle before their next changes go."""

    of: str
    tally: Tally
    rounds: int
    forecast: Forecast
    sample: Sequence[SampleRow]
    olds: Mapping[str, Old]


@dataclass(frozen=True, slots=True)
class PushPlan:
    """The whole plan."""

    waits: Counts
    sections: Sequence[Planned]
    guard: Sequence[str]
    notes: Sequence[str]


async def plan(pool: Pool, instance: Instance, push: Push, plan_id: int | None, now: datetime, tell: Tell) -> PushPlan | str:
    """The plan of all that waits, or of what is held for one plan; a text says why there is none for that one."""
    async with dryrun.snapshot(pool) as connection:
        if plan_id is not None and (state := await dryrun.plan_state(connection, instance.name, push.name, plan_id)) != "waiting":
            return f"has no plan {plan_id}" if state is None else f"has a plan {plan_id} that is {state}"
        waits = await dryrun.counts(connection, instance.name, push.name)
        rehearsal = await _Rehearsal.of(connection, instance, push, now, tell, waits.pending + waits.held)
        courses = await rehearsal.all(waits) if plan_id is None else {f"plan {plan_id}": await rehearsal.alone(plan_id)}
        lately = await imports.recent_sizes(connection, instance.name, instance.limits.import_running)
        ahead = await dryrun.files_ahead(connection, instance.name)
        sections = []
        for of, course in courses.items():
            sample = course.sample()
            olds = await _olds(connection, instance.name, push, sample)
            expected = forecast(course.tally, course.rounds, push, instance.limits, lately, ahead, course.opened)
            sections.append(Planned(of, course.tally, course.rounds, expected, sample, olds))
            ahead += course.tally.files
        pending = courses.get("pending")
        guard = await _guard(connection, instance.name, push, pending.tally, waits, now) if pending is not None else []
        return PushPlan(waits, sections, guard, await _notes(connection, instance, push, rehearsal.described, now))


class _Rehearsal:
    """Packs as the packer and the syncer do, over one moment of the database."""

    def __init__(
        self, connection: Connection, instance: Instance, push: Push, checks: Preflight | None, owned: Mapping[str, frozenset[str]]
    ) -> None:
        self._connection = connection
        self._instance = instance.name
        self._push = push
        self._kin = kin_of(push, instance.pushes)
        self._checks = checks
        self._owned = owned if all_by_index(instance.pushes) and checks is not None else {}
        self._now = datetime.min.replace(tzinfo=UTC)
        self._tell: Tell = lambda done, total: None
        self._done = self._total = 0
        self._first = True  # whether the keys are as they are in the database

    @classmethod
    async def of(cls, connection: Connection, instance: Instance, push: Push, now: datetime, tell: Tell, total: int) -> "_Rehearsal":
        """With describe's last answer."""
        known = await fields.read(connection, instance.name)
        described = any(field.data_type is not None for field in known)
        vocabulary = Vocabulary.of([field.as_described() for field in known if field.data_type is not None and not field.vanished])
        checks = Preflight(known, push.lookup_field, push.mend) if described else None
        made = cls(connection, instance, push, checks, owned_by(instance.pulls, vocabulary))
        made._now, made._tell, made._total = now, tell, total
        return made

    @property
    def described(self) -> bool:
        """Whether Marketo has ever described its fields."""
        return self._checks is not None

    async def all(self, waits: Counts) -> dict[str, Course]:
        """What is pending; and what is held, as if it were released once that has gone."""
        pending = await self._course(await self._opened(), Section("pending"))
        courses = {"pending": pending}
        if waits.held:
            held = self._new() if pending.tally.changes else await self._opened()
            held.after(pending)
            making = await dryrun.making(self._connection, self._instance, self._push.name)
            courses["held"] = await self._course(held, Section("held", None, making))
        return courses

    async def alone(self, plan_id: int) -> Course:
        """What is held for a plan, as if it were released now."""
        return await self._course(await self._opened(), Section("held", plan_id))

    def _new(self) -> Course:
        return Course(self._push.list_id, self._checks.vanished if self._checks is not None else (), self._push.format)

    async def _opened(self) -> Course:
        """With the chunks that are open now."""
        course = self._new()
        chunks = await outbox.open_chunks(self._connection, self._instance, self._push, lock=False)
        by_file = await dryrun.by_file(self._connection, [chunk.id for chunk in chunks if chunk.id is not None])
        course.open_with(chunks, await batches.open_one(self._connection, self._instance, self._push, lock=False), by_file)
        return course

    async def _course(self, course: Course, section: Section) -> Course:
        """All rounds of a section: the urgent ones, then the others by claims, then again what had to wait for its key."""
        self._first = True
        along = await self._urgent(course, section)
        moved = course.normal
        await self._ids(course, moved)
        after = 0
        while rows := await dryrun.oldest(self._connection, self._instance, self._push.name, section, "normal", after, CLAIM):
            after = rows[-1]["id"]
            fresh = [row for row in rows if row["id"] not in along]
            course.tally.changes += len(fresh)
            await self._page(course, fresh, after)
        await self._flush(course)
        waited: list[int] = []
        if section.state == "pending":
            waited = await dryrun.waiting(self._connection, self._instance, self._push.name)
            course.tally.changes += len(waited)
        self._first = False
        while later := sorted([*waited, *course.next_round()]):
            waited = []
            course.rounds += 1
            await self._ids(course, later)
            await self._flush(course)
        return course

    async def _ids(self, course: Course, ids: Sequence[int]) -> None:
        begin = 0
        while begin < len(ids) and (rows := await dryrun.these(self._connection, ids[begin : begin + CLAIM])):
            begin = bisect.bisect_right(ids, rows[-1]["id"])
            await self._page(course, rows, rows[-1]["id"])

    async def _page(self, course: Course, rows: Sequence[asyncpg.Record], after: int) -> None:
        """One claim (flows/push.py)."""
        rows = await self._not_forgotten(course, rows)
        if not rows:
            return
        keys = list({row["key_norm"] for row in rows})
        claimed = await self._claimed(rows) | course.claimed(keys)
        changes = await self._changes(course, rows, claimed)
        mirror = None
        if self._first and self._checks is not None:
            seen = Claimable(changes, claimed)
            gone = course.gone(keys)
            mirror = await echoes(self._connection, self._instance, self._push, seen, self._owned, self._checks.kinds, gone)
        target = await self._target(changes)
        packing = await asyncio.to_thread(pack, changes, claimed, course.chunks, target, course.batch, mirror)
        course.take(await self._seen(changes, rows, after), packing)
        self._progress(len(rows))

    async def _urgent(self, course: Course, section: Section) -> set[int]:
        """What goes by Sync Leads at once (flows/sync.py); returns what was taken along."""
        along: set[int] = set()
        after, name = 0, self._push.name
        while rows := await dryrun.oldest(self._connection, self._instance, name, section, "urgent", after, MOST_RECORDS):
            after = rows[-1]["id"]
            rows = [row for row in rows if row["id"] not in along]
            keys, ids = list({row["key_norm"] for row in rows}), [row["id"] for row in rows]
            others = [
                row for row in await dryrun.of_keys(self._connection, self._instance, name, section, keys, ids) if row["id"] not in along
            ]
            along.update(row["id"] for row in others)
            course.tally.changes += len(rows) + len(others)
            await self._gather(course, [*rows, *others])
        return along

    async def _gather(self, course: Course, rows: Sequence[asyncpg.Record]) -> None:
        rows = await self._not_forgotten(course, rows)
        keys = list({row["key_norm"] for row in rows})
        withdrawn = await dryrun.in_open_chunks(self._connection, self._instance, self._push.lookup_field, keys)
        carried = {key: chunk for key, chunk in (await self._claimed(rows)).items() if key not in withdrawn}
        claimed = carried | course.claimed(keys)
        changes = await self._changes(course, rows, claimed)
        target = replace(await self._target(changes), by_sync=True)
        if carried and self._push.lookup_field == "email":
            ids = await dryrun.passable(self._connection, self._instance, list(carried))
            course.ahead(pack([change for change in changes if change.key_norm in ids], {}, (), replace(target, ids=ids)))
        packing = await asyncio.to_thread(pack, changes, claimed, (), target)
        course.take(await self._seen(changes, rows, 0), packing, urgent=True)
        self._progress(len(rows))

    async def _flush(self, course: Course) -> None:
        """`flush_after` has passed."""
        if self._push.flush_after > GATHER:
            course.batch = None
        for rare in course.flush(CLAIM):
            rows = await dryrun.rare(self._connection, rare.ids, rare.chunks)
            changes = await self._changes(course, rows, {})
            target = replace(await self._target(changes), by_sync=True)
            packing = await asyncio.to_thread(pack, changes, {}, (), target, course.batch)
            course.take_rare(packing, await self._seen(changes, rows, rows[-1]["id"]), frozenset(rare.ids))

    async def _not_forgotten(self, course: Course, rows: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
        forgotten = await forgetting.changes(self._connection, self._instance, self._push.lookup_field, [row["id"] for row in rows])
        if forgotten:
            course.tally.rejected[forgetting.REFUSED] += len(forgotten)
        return [row for row in rows if row["id"] not in forgotten] if forgotten else rows

    async def _claimed(self, rows: Sequence[asyncpg.Record]) -> dict[str, int]:
        if not self._first:
            return {}
        return await outbox.claimed_keys(self._connection, self._instance, self._push.lookup_field, rows, lock=False)

    async def _changes(self, course: Course, rows: Sequence[asyncpg.Record], claimed: Mapping[str, int]) -> list[PendingChange]:
        return course.overwritten(await outbox.changes_of(self._connection, self._instance, self._push, rows, claimed, self._kin))

    async def _target(self, changes: Sequence[PendingChange]) -> Target:
        known = await ruling.known(self._connection, self._instance, self._push, changes)
        return ruled(target_for(self._push, self._checks), self._push, known)

    async def _seen(self, changes: Sequence[PendingChange], rows: Sequence[asyncpg.Record], after: int) -> Page:
        keys = list({change.key_norm for change in changes})
        again = await dryrun.again(self._connection, self._instance, self._push.name, keys, after)
        by_file = frozenset(row["id"] for row in rows if row["by_file"])
        return Page(changes, again, await self._fates(changes, keys), by_file)

    async def _fates(self, changes: Sequence[PendingChange], keys: Sequence[str]) -> dict[str, Fate]:
        """Of keys whose rows update nobody, or of which that can't be told; what had to wait comes after a row of its key."""
        push = self._push
        if push.mode == "update_only":
            return {}
        if push.lookup_field not in LOOKUPS:
            return dict.fromkeys(keys, "unknown")
        if not self._first:
            return {}
        if push.lookup_field == "id":
            known = await dryrun.known_ids(self._connection, self._instance, keys)
            return {key: "unknown" for key in keys if key not in known}
        unknown = await guards.unknown(self._connection, self._instance, [change.id for change in changes], self._now - DAY)
        return {key: "created" for _, key in unknown}

    def _progress(self, changes: int) -> None:
        self._done += changes
        self._tell(min(self._done, self._total), self._total)


async def _guard(connection: Connection, instance: str, push: Push, tally: Tally, waits: Counts, now: datetime) -> list[str]:
    if push.guard is None or not waits.pending:
        return []
    known = await guards.look(connection, instance, push.name)
    beyond = None if known is None else await gate.surging(connection, instance, push, known)
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    created = await guards.created(connection, instance, push.name, today)
    surge = None if beyond is None else (beyond.since, beyond.changes)
    return guard_notes(push.guard, known, digest_of(push), surge, waits.pending, tally.created, created, now)


async def _notes(connection: Connection, instance: Instance, push: Push, described: bool, now: datetime) -> list[str]:
    notes = [] if described else [NOT_DESCRIBED]
    if push.lookup_field not in LOOKUPS and push.mode != "update_only":
        notes.append(BY_NOTHING.format(push.lookup_field))
    standing = await pauses.standing(connection, instance.name, Choice("out", push.name))
    notes += [f"the push is {each.state}: nothing goes until it runs" for each in standing if each.state != "running"]
    if not may_import(push, now):
        notes.append("it is outside the push's hours: the time counts from when they begin")
    return notes


async def _olds(connection: Connection, instance: str, push: Push, sample: Sequence[SampleRow]) -> dict[str, Old]:
    found = await dryrun.leads(connection, instance, push.lookup_field, [row.key for row in sample])
    return {row["key_norm"]: Old(row["lead_id"], _values(row)) for row in found}


def _values(row: asyncpg.Record) -> dict[str, str | None]:
    values: dict[str, Any] = json.loads(row["attributes"], parse_int=str, parse_float=str)
    texts = {name: value if value is None or isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return {"email": row["email"], **texts}
