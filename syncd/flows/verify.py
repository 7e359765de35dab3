"""Verifications that `syncd verify` orders: leads read back from Marketo, and held against the mirror and what pushes applied last.

What differs is looked at again once the pulls have come past the time of the first look: a difference may only have been on its way.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from syncd.core.batch import BatchSize
from syncd.core.clock import Clock
from syncd.core.drift import KnownField
from syncd.core.faults import Fault
from syncd.core.following import readable
from syncd.core.forget import EMAIL, ID
from syncd.core.mirror import Vocabulary
from syncd.core.preflight import Preflight
from syncd.core.retry import Block, decide
from syncd.core.rules import Rules
from syncd.core.settings import Instance, UpdatedSince
from syncd.core.values import ReadLeads
from syncd.core.verify import (
    BESIDE,
    CAUSES,
    Cause,
    Coverage,
    Differences,
    Held,
    Owned,
    Read,
    Sender,
    causes,
    compare,
    digest_of,
    owned_of,
    read_of,
    together,
)
from syncd.flows.drawing import draw
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.flows.preflight import Book
from syncd.flows.reading import SLICE, TOO_MUCH
from syncd.marketo.leads import MOST_IDS, Leads
from syncd.ops.metrics import Metrics
from syncd.store import activities, evidence, forgetting, gone, pull_status, verifying
from syncd.store.evidence import Key
from syncd.store.leases import Lease
from syncd.store.verifying import Seen, Verification

log = structlog.get_logger()

MOST_LOOKS = 3
"""At a lead that moves between them."""
GONE = digest_of(None, ())
LOOK_EVERY = timedelta(seconds=5)
LATENESS, PATIENCE = timedelta(minutes=10), timedelta(hours=1)
"""How much longer than its `every` a pull is waited for, and how long all of them at most."""


@dataclass(frozen=True, slots=True)
class _Sides:
    """What is known of some leads, on both sides; `found` is how they differ."""

    held: Mapping[int, Held]
    owned: Mapping[int, Mapping[str, Owned]]
    read: Mapping[int, Read]
    asked_at: datetime
    coverage: Coverage
    found: Mapping[int, Differences]


class Verifier:
    """Works off what is ordered, a call at a time; its faults hold up nothing else."""

    name = "verify"

    def __init__(
        self, instance: Instance, api: Leads, book: Book, lease: Lease, clock: Clock, metrics: Metrics, jitter: random.Random
    ) -> None:
        self.instance = instance.name
        self._pulls = instance.pulls
        self._pushes = [push for push in instance.pushes if push.lookup_field in ("email", "id")]
        self._history = instance.history is not None
        self._values_kept = instance.keep.payloads + timedelta(days=1)
        self._since = {pull.name: pull.select.since for pull in self._pulls if isinstance(pull.select, UpdatedSince) and not pull.where}
        self._patience = min(PATIENCE, LATENESS + max((pull.every for pull in self._pulls), default=timedelta()))
        self._api = api
        self._book = book
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._random = jitter
        self._batch = BatchSize(MOST_IDS)
        self._described: Sequence[KnownField] | None = None
        self._senders: Mapping[str, Sender] = {}
        self._faults = 0
        self._has_told = False
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """Draw leads, look at some, or wait."""
        verification = await verifying.under_way(self._lease.pool, self.instance)
        if verification is None:
            if not self._has_told:
                await self._tell(await verifying.last(self._lease.pool, self.instance))
            return Idle(self._clock.now() + SECOND)
        try:
            outcome = await self._go_on(verification)
        except Fault as fault:
            return await self._met(verification, fault)
        self._faults = 0
        return outcome

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _go_on(self, verification: Verification) -> Outcome:
        most, pool = min(self._batch.size, MOST_IDS), self._lease.pool
        if verification.wanted is not None and verification.drawn_at is None:
            return await self._draw(verification, verification.wanted)
        if verification.wanted is None and verification.read_at is None:
            ids: Sequence[int] = await verifying.behind(pool, self.instance, verification.read_to, most)
            if not ids:
                async with self._lease.transaction() as connection:
                    await verifying.all_read(connection, verification.id, self._clock.now())
                return Worked(0)
            ids = together(ids, verification.read_to, most) if self._since else ids
            return await self._look(verification, [Seen(lead_id, 0) for lead_id in ids], await self._coverage(), ids[-1])
        due = await verifying.to_look_at(pool, verification.id, most)
        if not due:
            return await self._finish(verification)
        coverage = await self._coverage()
        if due[0].looks:
            seen_at, now = max(each.seen_at for each in due if each.seen_at is not None), self._clock.now()
            coverage = Coverage(coverage.fields, await self._brought_to(), coverage.since)
            told = coverage.is_past(seen_at) and (all(each.digest != GONE for each in due) or await self._log_is_past(seen_at))
            if not told and seen_at <= now < seen_at + self._patience:
                return Idle(now + LOOK_EVERY)
        return await self._look(verification, due, coverage)

    async def _draw(self, verification: Verification, wanted: int) -> Outcome:
        async with self._lease.transaction() as connection:
            ids = await draw(connection, self.instance, wanted, self._random, others_too=bool(self._since))
            await verifying.add(connection, verification.id, ids)
            await verifying.drawn(connection, verification.id, self._clock.now())
        return Worked(0)

    async def _look(self, verification: Verification, due: Sequence[Seen], coverage: Coverage, read_to: int = 0) -> Outcome:
        sides = await self._sides([each.lead_id for each in due], coverage)
        suspects: dict[int, bytes] = {}
        done: list[int] = []
        final: list[tuple[int, bool]] = []
        for each in due:
            lead_id, found = each.lead_id, sides.found[each.lead_id]
            digest = _digest(lead_id, sides)
            moved = each.digest is not None and each.digest != digest
            if found and (each.looks == 0 or (moved and each.looks < MOST_LOOKS - 1)):
                suspects[lead_id] = digest
                continue
            done.append(lead_id)
            if found:
                final.append((lead_id, moved))
        seen = {each.lead_id: each.seen_at or sides.asked_at for each in due}
        drifted = await self._causes(final, sides, seen)
        new = sum(each.looks == 0 and _is_lead(each.lead_id, sides) for each in due)
        async with self._lease.transaction() as connection:
            looks = due[0].looks + 1
            await verifying.looked(connection, verification.id, looks, sides.asked_at, suspects, done, drifted, new=new, read_to=read_to)
        return Worked(len(due))

    async def _sides(self, ids: Sequence[int], coverage: Coverage) -> _Sides:
        """Ask Marketo for the leads, for the fields that are held or owned of them. Raises Fault."""
        vocabulary = await self._book.vocabulary()
        held = await evidence.held(self._lease.pool, self.instance, ids)
        owned = await self._owned(held)
        names = {name for each in held.values() for name in coverage.known(each.pulls)} | {name for own in owned.values() for name in own}
        names |= {"email"} if len(held) < len(ids) else set()  # by which people are known who are forgotten
        fields = [name for name in vocabulary.rest.names if name in names or name in BESIDE]
        try:
            answer = await self._api.by_id(ids, fields)
        except Fault as fault:
            if fault.code in TOO_MUCH:
                self._batch = self._batch.failed(len(ids))
            raise
        self._batch = self._batch.answered(len(ids), len(ids), self._clock.now() - answer.asked_at)
        read = await self._without_forgotten(await _in_form(answer, vocabulary), held)
        found = {lead_id: compare(held.get(lead_id), read.get(lead_id), owned.get(lead_id, {}), coverage) for lead_id in ids}
        return _Sides(held, owned, read, answer.asked_at, coverage, found)

    async def _without_forgotten(self, read: Mapping[int, Read], held: Mapping[int, Held]) -> Mapping[int, Read]:
        """People who are forgotten are in Marketo perhaps, and in the mirror never: that is no drift."""
        strangers = {lead_id: each for lead_id, each in read.items() if lead_id not in held}
        keys = {(ID, str(lead_id)): lead_id for lead_id in strangers}
        for lead_id, each in strangers.items():
            if isinstance(email := each.values.get("email"), str):
                keys[EMAIL, email] = lead_id
        async with self._lease.pool.acquire() as connection:
            forgotten = {keys[key] for key in await forgetting.known(connection, self.instance, keys)}
        return {lead_id: each for lead_id, each in read.items() if lead_id not in forgotten}

    async def _owned(self, held: Mapping[int, Held]) -> dict[int, dict[str, Owned]]:
        """What pushes applied last. By an address that several leads have, nobody knows to which."""
        senders, keys = await self._push_checks(), []
        for lead_id, lead in held.items():
            email = lead.values.get("email")
            for push in self._pushes if not lead.deleted else ():
                if push.lookup_field == "id":
                    keys.append(Key(lead_id, push.name, str(lead_id)))
                elif isinstance(email, str) and not lead.namesakes:
                    keys.append(Key(lead_id, push.name, email.strip(" \t\r\n").lower()))
        if not keys:
            return {}
        pool, since = self._lease.pool, self._clock.now() - self._values_kept
        on_the_way = await evidence.on_the_way(pool, self.instance, keys)
        # in this order: what is settled in between is known by both, not by neither
        settled = await evidence.settled(pool, self.instance, keys, since)
        return {lead_id: owned_of(changes, senders, on_the_way.get(lead_id, ())) for lead_id, changes in settled.items()}

    async def _push_checks(self) -> Mapping[str, Sender]:
        fields = await self._book.fields()
        if fields is not self._described:
            self._senders = {
                push.name: Sender(
                    push.lookup_field, Preflight(fields, push.lookup_field, push.mend), Rules(push), push.clear_with == "sync"
                )
                for push in self._pushes
            }
            self._described = fields
        return self._senders

    async def _coverage(self) -> Coverage:
        """Of formulas nobody hears when they change."""
        vocabulary = await self._book.vocabulary()
        kinds = vocabulary.rest.kinds
        fields = {
            pull.name: frozenset(name for name in readable(pull, vocabulary) if name != "id" and kinds.get(name) != "formula")
            for pull in self._pulls
        }
        return Coverage(fields, since=self._since)

    async def _brought_to(self) -> dict[str, datetime]:
        """One that is being filled once more may lack what it has come past."""
        stands = [await pull_status.one(self._lease.pool, self.instance, pull.name) for pull in self._pulls]
        return {each.name: each.watermark for each in stands if each is not None and each.watermark is not None and each.backfill is None}

    async def _log_is_past(self, moment: datetime) -> bool:
        """Whether the activity log, which tells what has gone, has been read beyond then."""
        looks = [await activities.last_look(self._lease.pool, self.instance, stream) for stream in gone.STREAMS]
        return all(look is not None and look >= moment for look in looks)

    async def _causes(self, final: Sequence[tuple[int, bool]], sides: _Sides, seen: Mapping[int, datetime]) -> list[tuple[Cause, str, int]]:
        pushed = {lead_id: sides.found[lead_id].pushes for lead_id, _ in final if sides.found[lead_id].pushes}
        told: Mapping[int, Mapping[str, datetime]] = {}
        if pushed and self._history:
            names = {name for own in pushed.values() for name in own}
            told = await evidence.told(self._lease.pool, self.instance, list(pushed), names)
        return [
            (cause, name, lead_id)
            for lead_id, moved in final
            for cause, name in causes(
                sides.found[lead_id],
                sides.held.get(lead_id),
                sides.read.get(lead_id),
                sides.owned.get(lead_id, {}),
                sides.coverage,
                seen[lead_id],
                moved,
                told.get(lead_id, {}) if self._history else None,
            )
        ]

    async def _finish(self, verification: Verification) -> Outcome:
        async with self._lease.transaction() as connection:
            await verifying.finish(connection, self.instance, verification.id, self._clock.now())
        counts = await self._tell(verification)
        level = self._log.warning if verification.drifted else self._log.info
        level("verified", leads=verification.leads, drifted=verification.drifted, calls=verification.calls, **counts)
        return Worked(0)

    async def _tell(self, verification: Verification | None) -> dict[str, int]:
        self._has_told = True
        found = [] if verification is None else await verifying.drift(self._lease.pool, verification.id)
        counts = {cause: sum(each.leads for each in found if each.cause == cause) for cause in CAUSES}
        if verification is not None:
            self._metrics.verified(self.instance, counts)
        return {cause: count for cause, count in counts.items() if count}

    async def _met(self, verification: Verification, fault: Fault) -> Outcome:
        self._faults += 1
        self._metrics.fault(self.instance, fault)
        now = self._clock.now()
        decision = decide(fault, self._faults, now, self._random.random())
        async with self._lease.transaction() as connection:
            if isinstance(decision, Block):
                await verifying.finish(connection, self.instance, verification.id, now, str(fault))
            else:
                await verifying.met(connection, verification.id, str(fault))
        level = self._log.warning if self._faults > 1 or isinstance(decision, Block) else self._log.info
        level("verify_fault", fault=str(fault), attempt=self._faults)
        if isinstance(decision, Block):
            self._faults = 0
            return Worked(0)
        return Idle(decision.at)


async def _in_form(answer: ReadLeads, vocabulary: Vocabulary) -> dict[int, Read]:
    read: dict[int, Read] = {}
    for number, lead in enumerate(answer.leads):
        if number % SLICE == 0:
            await asyncio.sleep(0)  # wide leads must not hold up the rest of the daemon
        read[lead.lead_id] = read_of(lead, vocabulary.rest)
    return read


def _digest(lead_id: int, sides: _Sides) -> bytes:
    """Of all that was compared."""
    held = sides.held.get(lead_id)
    names: Iterable[str] = sides.coverage.known(held.pulls if held is not None else ())
    return digest_of(sides.read.get(lead_id), {*names, *sides.owned.get(lead_id, ())})


def _is_lead(lead_id: int, sides: _Sides) -> bool:
    held = sides.held.get(lead_id)
    return lead_id in sides.read or (held is not None and not held.deleted)
