"""What a push's guard lets be packed, asked in the transaction of the claim: no later look could tell what a claim has seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from syncd.core.guard import HOUR, Arrival, Known, Waiting, beyond_room, canary_is_due, digest_of, may_go, not_of_a_surge, surge_from
from syncd.core.pack import Packing
from syncd.core.settings import Push
from syncd.store import guards
from syncd.store.holding import PIECE
from syncd.store.leases import Connection

DAY = timedelta(days=1)
NEVER = datetime.min.replace(tzinfo=UTC)
A_TENTH = 10
"""Of a canary, in a column set of its own, is worth a file at once; rarer ones wait and share a call of Sync Leads, as ever."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Changes that may be packed. `before`: what urgent ones may take along was made before then, or admitted already."""

    ids: Sequence[int]
    before: datetime | None = None
    canary: int = 0
    made_at: Mapping[int, datetime] = field(default_factory=dict)
    creating: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beyond:
    """The surge in what waits: from when on, and how it begins."""

    since: datetime
    first_id: int
    changes: int


async def admitted(
    connection: Connection, instance: str, push: Push, limit: int, now: datetime, *, urgent: bool = False
) -> Admitted | None:
    """The oldest changes that the guard lets go, `limit` at most; None where there is no guard."""
    if push.guard is None:
        return None
    known = await guards.known(connection, instance, push.name, share=True)
    if known is None or (not urgent and (known.canary in ("none", "bad") or known.digest != digest_of(push))):
        return Admitted(())
    waiting = await _waiting(connection, instance, push, known, limit, urgent)
    if not waiting:
        return Admitted(())
    # after what waits: it counts all that is among that
    beyond = await surging(connection, instance, push, known)
    if beyond is not None and not urgent and canary_is_due(known, True, now):
        return Admitted(())
    since = None if beyond is None else beyond.since
    ids = (not_of_a_surge if urgent else may_go)(known, waiting, since)
    canary = 0 if urgent or known.canary != "under_way" else len(ids)
    going = frozenset(ids)
    over, creating = await creations(connection, instance, push, [each for each in waiting if each.id in going], now)
    if not canary:
        ids = [each for each in ids if each not in over]
    return Admitted(ids, _company(known, since), canary, {each.id: each.made_at for each in waiting if not each.admitted}, creating)


async def let_go(connection: Connection, instance: str, push: Push, admitted: Admitted, packing: Packing, now: datetime) -> None:
    """Count what a claim has packed, and let the files of a canary be full."""
    sent = [each for each in _sent(packing) if each in admitted.made_at]
    gone = [*sent, *(each for each, _, _ in packing.ended if each in admitted.made_at)]
    creating = len({admitted.creating[each] for each in sent if each in admitted.creating})
    minutes = guards.minutes_of(admitted.made_at[each] for each in gone)
    created = {minute: creating for minute in guards.minutes_of([now]) if creating}
    if minutes or created:
        await guards.count(connection, instance, push.name, minutes, created)
    if admitted.canary:
        for chunk in packing.chunks:
            chunk.full = chunk.full or chunk.row_count * A_TENTH >= admitted.canary


async def surging(connection: Connection, instance: str, push: Push, known: Known) -> Beyond | None:
    """The surge in what waits, beside one that is being held; None: there is none."""
    if push.guard is None or push.guard.hold_above is None:
        return None
    # behind each change that a claim could take, as many as make a surge, however many others' ids are amid its own
    arrivals = await guards.arrivals(connection, instance, push.name, push.guard.hold_above + 2 * PIECE, known.surge)
    if not arrivals:
        return None
    gone = await guards.counted(connection, instance, push.name, arrivals[0].made_at - HOUR, arrivals[-1].made_at)
    since = surge_from(arrivals, gone, push.guard.hold_above)
    return None if since is None else _beyond(since, arrivals)


async def creations(
    connection: Connection, instance: str, push: Push, waiting: Sequence[Waiting], now: datetime
) -> tuple[frozenset[int], Mapping[int, str]]:
    """Of the waiting those that would create one lead too many today, and the keys of those that create one."""
    if push.guard is None or push.guard.max_created is None or not waiting:
        return frozenset(), {}
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    unknown = await guards.unknown(connection, instance, [each.id for each in waiting], now - DAY)
    free = {each.id for each in waiting if each.admitted}
    room = push.guard.max_created - await guards.created(connection, instance, push.name, today)
    over, _ = beyond_room(((change, key) for change, key in unknown if change not in free), room)
    return over, {change: key for change, key in unknown if change not in over}


async def _waiting(connection: Connection, instance: str, push: Push, known: Known, limit: int, urgent: bool) -> list[Waiting]:
    if urgent:
        return await guards.oldest_urgent(connection, instance, push.name, limit)
    if known.canary == "under_way":
        return await guards.waiting_of(connection, known.canary_ids)
    return await guards.oldest(connection, instance, push.name, limit)


def _company(known: Known, since: datetime | None) -> datetime | None:
    if known.canary != "good":
        return NEVER
    bounds = [each for each in (since, known.surge.since if known.surge is not None else None) if each is not None]
    return min(bounds, default=None)


def _beyond(since: datetime, arrivals: Sequence[Arrival]) -> Beyond:
    later = [each for each in arrivals if each.made_at >= since]
    return Beyond(since, min(each.first_id for each in later), sum(each.changes for each in later))


def _sent(packing: Packing) -> Iterator[int]:
    for chunk in packing.chunks:
        for row in chunk.rows:
            yield from row.change_ids
    for batch in packing.batches:
        for row in batch.rows:
            yield from row.change_ids
