"""Reverts that `syncd revert` orders: what of our imports can be put back, a page of keys at a time, counted or held for a plan."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from syncd.core.following import readable
from syncd.core.mirror import Vocabulary
from syncd.core.preflight import Preflight
from syncd.core.revert import Before, Found, Frame, Reason, Sent, fields_of, names_of, revert
from syncd.core.rules import Rules
from syncd.core.settings import Instance, Push
from syncd.core.verify import Coverage, Sender
from syncd.store import fields, pull_status, reverting, ruling
from syncd.store.leases import Connection, Pool
from syncd.store.mirrored import LOOKUPS

BEFORE = timedelta(days=1)
"""How long before the imports other changes of ours are looked at: longer ago, a pull has seen what they did."""


class NotRevertable(Exception):  # noqa: N818 - of the configuration, not a mistake of ours
    """Nothing can be put back; the message says why, and what to do."""


class EndedError(Exception):
    """Somebody has ended the plan while it was made."""


@dataclass(slots=True)
class Tally:
    """Values by field: to be put back, and left for a reason. `changes` put the former back, of so many leads."""

    back: Counter[str] = field(default_factory=Counter)
    left: dict[Reason, Counter[str]] = field(default_factory=dict)
    leads: int = 0
    changes: int = 0

    def leave(self, reason: Reason, name: str, count: int = 1) -> None:
        """So many values of a field are left as they are."""
        self.left.setdefault(reason, Counter())[name] += count


@dataclass(frozen=True, slots=True)
class _Page:
    """What ours are about some keys: changes, and fields that are on their way."""

    changes: Mapping[str, list[Sent]]
    on_the_way: Mapping[str, set[str]]


async def frame_of(pool: Pool, instance: Instance, push: Push, since: datetime, until: datetime, wanted: frozenset[str] | None) -> Frame:
    """What is known beforehand. Raises NotRevertable."""
    if push.lookup_field not in LOOKUPS:
        raise NotRevertable(f"the mirror does not find leads by {push.lookup_field}: only pushes by email or id can be reverted")
    if instance.history is None:
        raise NotRevertable("there is no history of values: set history: 90d for the instance; what is sent from then on can be reverted")
    async with pool.acquire() as connection:
        kept_from = await reverting.history_from(connection, instance.name)
        described = await fields.read(connection, instance.name)
    if kept_from is None:
        raise NotRevertable("the history of the mirror is empty: it begins with the first pull, and goes back as far as history says")
    vocabulary = Vocabulary.of([each.as_described() for each in described if each.data_type is not None and not each.vanished])
    if not vocabulary.rest.names:
        raise NotRevertable("Marketo has not described its fields yet: start syncd run once")
    senders = {
        each.name: Sender(each.lookup_field, Preflight(described, each.lookup_field, each.mend), Rules(each)) for each in instance.pushes
    }
    covered = {pull.name: frozenset(readable(pull, vocabulary)) - {"id"} for pull in instance.pulls}
    stands = [await pull_status.one(pool, instance.name, pull.name) for pull in instance.pulls]
    brought_to = {each.name: each.watermark for each in stands if each is not None and each.watermark is not None and not each.backfill}
    return Frame(push, since, until, wanted, kept_from, senders, Coverage(covered, brought_to))


class Reverter:
    """Goes over all keys that a push has sent in a frame: once to count, once more to hold what is to go for a plan."""

    def __init__(self, instance: Instance, frame: Frame) -> None:
        self._instance = instance.name
        self._frame = frame
        self._lookups = {push.name: push.lookup_field for push in instance.pushes}

    async def go(self, connection: Connection, plan: int | None, now: datetime, tell: Callable[[int], None]) -> Tally:
        """Count, and with a plan insert its changes as of `now`; `tell` is given the number of keys after each page. Raises EndedError."""
        tally, frame, after, done = Tally(), self._frame, "", 0
        for name, count in (await reverting.erased(connection, self._instance, frame.push.name, frame.since, frame.until)).items():
            if frame.fields is None or name in frame.fields:
                tally.leave("erased", name, count)
        while True:
            # one view of all tables: what settles meanwhile is known by all of them, or by none
            async with connection.transaction(isolation="repeatable_read"):
                keys = await reverting.keys(connection, self._instance, frame.push.name, frame.since, after)
                if not keys:
                    return tally
                rows = await self._page(connection, keys, tally)
                if plan is not None and await reverting.insert(connection, self._instance, frame.push.name, plan, rows, now) is None:
                    raise EndedError
            after, done = keys[-1], done + len(keys)
            tell(done)

    async def _page(self, connection: Connection, keys: Sequence[str], tally: Tally) -> list[tuple[str, int, str]]:
        """Key, place and fields of the changes that put back what some keys had."""
        frame = self._frame
        own = await self._read(connection, {(frame.push.lookup_field, key): key for key in keys})
        meant = {key: [each for each in changes if frame.covers(each)] for key, changes in own.changes.items()}
        meant = {key: changes for key, changes in meant.items() if changes}
        names = sorted({name for changes in meant.values() for change in changes for name in names_of(frame, change)})
        if not names:
            return []
        leads, others = await self._leads(connection, list(meant), names)
        rows: list[tuple[str, int, str]] = []
        for key, changes in meant.items():
            known = [*own.changes[key], *others.changes.get(key, ())]
            on_the_way = own.on_the_way.get(key, set()) | others.on_the_way.get(key, set())
            before, left = revert(frame, known, leads[key], on_the_way)
            rows += [(changes[-1].key, place, text) for place, text in fields_of(before)]
            _count(tally, before, left)
        tally.changes += len(rows)
        return rows

    async def _leads(self, connection: Connection, keys: Sequence[str], names: Sequence[str]) -> tuple[dict[str, Found | Reason], _Page]:
        """The lead of each key, or why there is none, and what other keys of theirs have been used for."""
        instance, lookup = self._instance, self._frame.push.lookup_field
        found: dict[str, Found | Reason] = {}
        emails: dict[str, str | None] = {}
        for key, email, lead in await reverting.leads(connection, instance, lookup, keys, names):
            found[key], emails[key] = (lead if key not in found else "several"), email
        ids = {lead.lead_id: key for key, lead in found.items() if isinstance(lead, Found)}
        since = self._frame.since - BEFORE
        for lead_id, lines in (await reverting.lines(connection, instance, list(ids), names, since)).items():
            one = found[ids[lead_id]]
            assert isinstance(one, Found), "it has an id"
            found[ids[lead_id]] = replace(one, lines=lines)
        missing = [key for key in keys if key not in found]
        deleted = await ruling.deleted(connection, instance, lookup, missing) if missing else []
        for key in missing:
            found[key] = "deleted" if key in deleted else "no_lead"
        alternates = {
            ("email", (emails[key] or "").strip(" \t\r\n").lower()) if lookup == "id" else ("id", str(lead_id)): key
            for lead_id, key in ids.items()
            if lookup == "email" or emails[key]
        }
        return found, await self._read(connection, alternates)

    async def _read(self, connection: Connection, whose: Mapping[tuple[str, str], str]) -> _Page:
        """What is about keys, given as (lookup field, normal form) → the key of the page that they are another name of."""
        texts = list({key for _, key in whose})
        on_the_way: dict[str, set[str]] = {}
        for key_norm, push, name in await reverting.on_the_way(connection, self._instance, texts):
            sender = self._frame.senders.get(push)
            spelled = name if sender is None else sender.checks.spelled((name,)).get(name, name)
            for key in self._meant(whose, push, key_norm):
                on_the_way.setdefault(key, set()).add(spelled)
        changes: dict[str, list[Sent]] = {}
        for key_norm, change in await reverting.changes(connection, self._instance, texts, self._frame.since - BEFORE):
            for key in self._meant(whose, change.push, key_norm):
                changes.setdefault(key, []).append(change)
        for each in changes.values():
            each.sort(key=lambda change: (change.place, change.id))
        return _Page(changes, on_the_way)

    def _meant(self, whose: Mapping[tuple[str, str], str], push: str, key_norm: str) -> Iterable[str]:
        """Of a push that the YAML no longer has, nobody knows what its keys are values of."""
        lookups = (self._lookups[push],) if push in self._lookups else LOOKUPS
        return [whose[lookup, key_norm] for lookup in lookups if (lookup, key_norm) in whose]


def _count(tally: Tally, before: Mapping[str, Before], left: Mapping[str, Reason]) -> None:
    tally.leads += bool(before)
    tally.back.update(before.keys())
    for name, reason in left.items():
        tally.leave(reason, name)
