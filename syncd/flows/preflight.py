"""What the packer holds changes against: describe's dictionary, and the mirror. Changes that lack a field wait for it here."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from syncd.core.clock import Clock
from syncd.core.drift import KnownField
from syncd.core.faults import Fault
from syncd.core.merge import Mirror
from syncd.core.mirror import Vocabulary
from syncd.core.pack import Packing
from syncd.core.pending import Target
from syncd.core.preflight import Preflight
from syncd.core.rules import Known, Rules
from syncd.core.settings import Instance, Pull, Push
from syncd.flows.loop import Idle
from syncd.flows.unpack import unpack
from syncd.marketo.imports import envelope_bytes
from syncd.ops.metrics import Metrics
from syncd.store import batches, chunks, mirrored, parked
from syncd.store.leases import Connection, Lease
from syncd.store.outbox import Claimable

HELD_FOR = timedelta(seconds=30)
"""How soon describe is asked again as long as it has never answered."""
ASK_AFTER = timedelta(minutes=5)
"""How soon it is asked again for the sake of a field that it does not know."""
AT_A_TIME = 20_000  # changes

log = structlog.get_logger()


class Book(Protocol):
    """Describe's dictionary (flows/dictionary.py)."""

    async def vocabulary(self) -> Vocabulary: ...
    async def fields(self) -> Sequence[KnownField]: ...
    async def refresh(self) -> None: ...


class Checks:
    """The checks of an instance's pushes, made anew with each answer of describe."""

    def __init__(self, instance: Instance, book: Book, lease: Lease, clock: Clock, metrics: Metrics) -> None:
        self._instance = instance.name
        self._pulls = instance.pulls
        self._pushes = {push.name: push for push in instance.pushes}
        self._book = book
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._fields: Sequence[KnownField] | None = None
        self._owned: Mapping[str, frozenset[str]] = {}
        self._checks: Mapping[str, Preflight] = {}
        self._awaited: set[str] = set()  # fields that parked changes wait for
        self._told: set[str] = set()
        self._to_unpark: list[tuple[str, str | None]] = [(name, None) for name in self._pushes]  # the settings may be others now
        self._ask_at = datetime.min.replace(tzinfo=clock.now().tzinfo)
        self._all_by_index = all_by_index(instance.pushes)
        self._turn = asyncio.Lock()  # the packer's and the syncer's
        self._log = log.bind(instance=instance.name)

    async def take_up(self) -> Idle | None:
        """Follow the dictionary. Until there was one nothing is packed: what is not checked would cost a slot to be refused."""
        async with self._turn:
            return await self._take_up(self._clock.now())

    async def _take_up(self, now: datetime) -> Idle | None:
        try:
            if self._fields is not None and now >= self._ask_at and self._awaits_unknown():
                self._ask_at = now + ASK_AFTER
                await self._book.refresh()
            fields = await self._book.fields()
            vocabulary = await self._book.vocabulary()
        except Fault as fault:
            self._log.warning("packing_held", fault=str(fault), reason="describe has never answered", again_at=(now + HELD_FOR).isoformat())
            return Idle(now + HELD_FOR)
        if fields is not self._fields:
            await self._turn_to(fields, vocabulary)
        await self._unpark()
        return None

    def of(self, push: Push) -> Preflight:
        """The checks of a push."""
        return self._checks[push.name]

    async def mirror(self, connection: Connection, push: Push, seen: Claimable) -> Mirror | None:
        """What Marketo has already of what was claimed; None where that can't be told, or is to be sent anyway.

        An import for a list also puts its leads on that list. Where keys are other than addresses and ids, nobody can tell by them
        when a lead was last changed.
        """
        if not self._all_by_index:
            return None
        return await echoes(connection, self._instance, push, seen, self._owned, self.of(push).kinds)

    def note(self, packing: Packing) -> None:
        """Tell of the fields that changes have come to wait for, each once."""
        self._await_fields(name for _, name, _ in packing.lacking)

    def _await_fields(self, names: Iterable[str]) -> None:
        self._awaited.update(names)
        vanished = self._vanished()
        for name in sorted(self._awaited - self._told):
            reason = "it has vanished from describe" if name in vanished else "describe does not know it; asked once more before it rejects"
            self._log.warning("changes_parked", field=name[:100], reason=reason, remedy="syncd discard, or bring the field back in Marketo")
        self._told = set(self._awaited)
        self._metrics.awaited(self._instance, len(self._awaited))

    def _vanished(self) -> frozenset[str]:
        return next(iter(self._checks.values())).vanished if self._checks else frozenset()

    def _awaits_unknown(self) -> bool:
        return not self._awaited <= self._vanished()

    async def _turn_to(self, fields: Sequence[KnownField], vocabulary: Vocabulary) -> None:
        """Another answer of describe: what is packed already may have lost its field, and what waits may have it."""
        self._checks = {name: Preflight(fields, push.lookup_field, push.mend) for name, push in self._pushes.items()}
        self._owned = owned_by(self._pulls, vocabulary)
        vanished = self._vanished()
        if vanished:
            await self._unpack(sorted(vanished))
        lacking = {name: await parked.lacking(self._lease.pool, self._instance, name) for name in self._pushes}
        self._to_unpark = [(push, None) for push, name in self._to_unpark if name is None]
        self._to_unpark += [(push, name) for push, names in lacking.items() for name in names if name not in vanished]
        self._awaited = {name for names in lacking.values() for name in names if name in vanished}
        self._await_fields(())
        self._fields = fields

    async def _unpack(self, vanished: Sequence[str]) -> None:
        """What is packed with these fields: the next claims park its changes."""
        async with self._lease.pool.acquire() as connection:
            packed = await chunks.with_columns(connection, self._instance, vanished)
            gathered = await batches.with_fields(connection, self._instance, vanished)
        reason = "a field that it was packed with has vanished from Marketo"
        await unpack(self._lease, self._instance, packed, gathered, reason, self._clock.now())

    async def _unpark(self) -> None:
        """Some of what has not to wait any more: it is judged anew at the next claim."""
        if not self._to_unpark:
            return
        push, field = self._to_unpark[0]
        async with self._lease.transaction() as connection:
            count = await parked.unpark(connection, self._instance, push, field, AT_A_TIME)
        if count < AT_A_TIME:
            self._to_unpark.pop(0)
        if count:
            self._log.info("changes_unparked", push=push, field=field, changes=count)


def all_by_index(pushes: Iterable[Push]) -> bool:
    """Whether the mirror can tell by the keys of all pushes when a lead was last changed."""
    return all(push.lookup_field in mirrored.LOOKUPS for push in pushes)


def owned_by(pulls: Iterable[Pull], vocabulary: Vocabulary) -> dict[str, frozenset[str]]:
    """The fields that each pull asks for."""
    return {pull.name: frozenset(vocabulary.owned(pull) or ()) for pull in pulls}


async def echoes(
    connection: Connection,
    instance: str,
    push: Push,
    seen: Claimable,
    owned: Mapping[str, frozenset[str]],
    kinds: Mapping[str, str],
    gone: Mapping[str, int] | None = None,
) -> Mirror | None:
    """What Marketo has already of what was seen, of keys by which the mirror can tell (store/mirrored.py)."""
    if not owned or push.list_id is not None:
        return None
    changes = [change for change in seen.changes if change.key_norm and change.key_norm not in seen.claimed]
    leads = await mirrored.mirrored(connection, instance, push.lookup_field, changes, gone)
    mirror = Mirror(leads, owned, kinds)
    candidates = await asyncio.to_thread(mirror.candidates, changes, push.lookup_field)
    if not candidates:
        return None
    return mirror.only(await mirrored.untouched(connection, instance, candidates))


def ruled(target: Target, push: Push, known: Mapping[str, Known]) -> Target:
    """The same, with what the mirror knows of the keys; leads that may only be updated are named by their ids."""
    ids = {key: lead.lead_id for key, lead in known.items() if lead.lead_id is not None} if push.mode == "update_only" else {}
    return replace(target, known=known, ids=ids)


def target_of(push: Push, checks: Checks | None) -> Target:
    """What the push packs for."""
    return target_for(push, checks.of(push) if checks is not None else None)


def target_for(push: Push, against: Preflight | None) -> Target:
    """The same, by its checks themselves."""
    size, around = push.max_body_bytes, envelope_bytes(push.format)
    return Target(push.lookup_field, push.format, size, around, push.clear_with, push.list_id, checks=against, rules=Rules(push))
