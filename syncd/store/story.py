"""What is known of one lead: as it is, and all that happened to it, in order of time. It only reads."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.store.leases import Pool

LARGEST_ID = 2**63 - 1

BY_ID = """
SELECT lead_id, email, attributes, misfits, first_seen_at, changed_at, asked_at, deleted_at, merged_into
  FROM syncd.lead WHERE instance = $1 AND lead_id = $2
"""
BY_EMAIL = """
SELECT lead_id, email, attributes, misfits, first_seen_at, changed_at, asked_at, deleted_at, merged_into
  FROM syncd.lead WHERE instance = $1 AND lower(email) = lower($2) ORDER BY lead_id
"""
# The text of attributes ->> is the one that people and files write: no quotes, all digits.
ATTRIBUTES = """
SELECT f.name, l.attributes ->> f.name AS value
  FROM syncd.lead l CROSS JOIN unnest($3::text[]) AS f (name)
 WHERE l.instance = $1 AND l.lead_id = $2 AND l.attributes ->> f.name IS NOT NULL
"""
CHANGED = """
SELECT seen_at, pull, array_agg(field ORDER BY field) AS fields, array_agg(old::text ORDER BY field) AS old,
       array_agg(new::text ORDER BY field) AS new
  FROM syncd.lead_history WHERE instance = $1 AND lead_id = $2 AND pull <> '#deletions'
 GROUP BY seen_at, pull ORDER BY seen_at DESC, pull LIMIT $3
"""
CHANGED_COUNT = """
SELECT count(DISTINCT (seen_at, pull)) FROM syncd.lead_history WHERE instance = $1 AND lead_id = $2 AND pull <> '#deletions'
"""
DELETED = """
SELECT DISTINCT (new #>> '{}')::timestamptz AS deleted_at
  FROM syncd.lead_history WHERE instance = $1 AND lead_id = $2 AND pull = '#deletions' AND field = 'deleted_at' AND new IS NOT NULL
"""
LISTS = "SELECT list, joined_at, left_at FROM syncd.list_membership WHERE instance = $1 AND lead_id = $2"
# By no index but the one of settled changes: one on the outbox by key would cost each enqueue, claim and settlement for this
# command's sake, and nothing else would use it. So it walks the outbox once, which holds what has not gone yet: 0.4 s for a million.
# The same normal form as outbox.key_norm.
LIVE = """
WITH k AS MATERIALIZED (
    SELECT k.push, lower(btrim(k.key, E' \\t\\r\\n')) AS key_norm FROM unnest($2::text[], $3::text[]) AS k (push, key)
)
SELECT o.id, o.push, o.key, o.fields, o.state, o.reason, j.id AS import_job_id, j.batch_id, o.sync_batch_id, o.created_at,
       NULL::timestamptz AS settled_at, NULL::text[] AS erased, o.total
  FROM (SELECT o.*, count(*) OVER () AS total FROM syncd.outbox o
         WHERE o.instance = $1 AND o.key_norm = ANY (ARRAY(SELECT key_norm FROM k))
           AND EXISTS (SELECT FROM k WHERE k.push = o.push AND k.key_norm = o.key_norm)
         ORDER BY o.id DESC LIMIT $4) o
  LEFT JOIN LATERAL (
       SELECT id, batch_id FROM syncd.import_job j WHERE j.chunk_id = o.chunk_id ORDER BY id DESC LIMIT 1
       ) j ON true
"""
SETTLED = """
SELECT h.id, h.push, h.key, h.fields, h.state, h.reason, h.import_job_id, j.batch_id, h.sync_batch_id, h.created_at, h.settled_at,
       h.erased
  FROM (SELECT h.* FROM (SELECT DISTINCT push, lower(btrim(key, E' \\t\\r\\n')) AS key_norm
                           FROM unnest($2::text[], $3::text[]) AS k (push, key)) k
         CROSS JOIN LATERAL (
               SELECT * FROM syncd.change_history h
                WHERE h.instance = $1 AND h.key_norm = k.key_norm AND h.push = k.push ORDER BY h.id DESC LIMIT $4) h
         ORDER BY h.id DESC LIMIT $4) h
  LEFT JOIN syncd.import_job j ON j.id = h.import_job_id
"""
SETTLED_COUNT = """
SELECT coalesce(sum(n.changes), 0)::bigint
  FROM (SELECT DISTINCT push, lower(btrim(key, E' \\t\\r\\n')) AS key_norm FROM unnest($2::text[], $3::text[]) AS k (push, key)) k
 CROSS JOIN LATERAL (
       SELECT count(*) AS changes FROM syncd.change_history h
        WHERE h.instance = $1 AND h.key_norm = k.key_norm AND h.push = k.push) n
"""
OF_A_CHANGE = ("id", "push", "key", "fields", "state", "reason", "import_job_id", "batch_id", "sync_batch_id", "settled_at", "erased")


@dataclass(frozen=True, slots=True)
class Present:
    """The lead as the mirror has it; `attributes` and `misfits` are JSON texts, all digits kept."""

    lead_id: int
    email: str | None
    attributes: str
    misfits: str | None
    first_seen_at: datetime
    changed_at: datetime
    asked_at: datetime
    deleted_at: datetime | None
    merged_into: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """The lead came into the mirror."""

    at: datetime


@dataclass(frozen=True, slots=True)
class FieldChange:
    """JSON texts; None for no value."""

    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """Fields whose other value a pull saw in one answer."""

    at: datetime
    pull: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    at: datetime
    list: str


@dataclass(frozen=True, slots=True)
class Left:
    at: datetime
    list: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A change that an application enqueued, and what became of it.

    `fields` is a JSON text, empty once the values of the fields `erased` are no longer kept.
    """

    at: datetime
    id: int
    push: str
    key: str
    fields: str
    state: str
    reason: str | None
    import_job_id: int | None
    batch_id: int | None
    sync_batch_id: int | None
    settled_at: datetime | None
    erased: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Deleted:
    """Marketo no longer had the lead."""

    at: datetime
    merged_into: int | None


Event = Seen | Changed | Joined | Left | Sent | Deleted


@dataclass(frozen=True, slots=True)
class Story:
    """`lead` is None when only changes are known of it. `events` are the latest, oldest first; `older` have been left out."""

    lead: Present | None
    events: tuple[Event, ...]
    older: int


async def stories(pool: Pool, instance: str, who: str, lookup_fields: Mapping[str, str], last: int) -> list[Story]:
    """What is known of the leads with the email or id `who`, each with its last `last` events; none when nothing is.

    `lookup_fields` says of each push what the keys of its changes are values of. Changes by an address that several leads share are
    told of each: which of them Marketo took, nobody knows.
    """
    who = who.strip()
    by_id = who.isascii() and who.isdigit() and len(who) <= 19
    rows = await pool.fetch(BY_EMAIL, instance, who) if not by_id else []
    if by_id and int(who) <= LARGEST_ID:
        rows = await pool.fetch(BY_ID, instance, int(who))
    if rows:
        return [await _story_of(pool, instance, Present(**row), lookup_fields, last) for row in rows]
    keys = [(push, who) for push, lookup_field in lookup_fields.items() if lookup_field.lower() == ("id" if by_id else "email")]
    events, count = await _sent(pool, instance, keys, last)
    return [_story(None, events, count, last)] if events else []


async def _story_of(pool: Pool, instance: str, lead: Present, lookup_fields: Mapping[str, str], last: int) -> Story:
    keys = await _keys(pool, instance, lead, lookup_fields)
    sent, sent_count = await _sent(pool, instance, keys, last)
    changed = [_changed(*row.values()) for row in await pool.fetch(CHANGED, instance, lead.lead_id, last)]
    changed_count = await pool.fetchval(CHANGED_COUNT, instance, lead.lead_id)
    once: list[Event] = [Seen(lead.first_seen_at)]
    for row in await pool.fetch(LISTS, instance, lead.lead_id):
        once.append(Joined(row["joined_at"], row["list"]))
        if row["left_at"] is not None:
            once.append(Left(row["left_at"], row["list"]))
    deletions = [row["deleted_at"] for row in await pool.fetch(DELETED, instance, lead.lead_id)]
    once += [Deleted(deleted_at, None) for deleted_at in deletions if deleted_at != lead.deleted_at]  # it came back since
    if lead.deleted_at is not None:
        once.append(Deleted(lead.deleted_at, lead.merged_into))
    return _story(lead, [*once, *changed, *sent], len(once) + sent_count + changed_count, last)


def _story(lead: Present | None, events: Sequence[Event], count: int, last: int) -> Story:
    kept = heapq.nlargest(last, events, key=_order)
    return Story(lead, tuple(reversed(kept)), count - len(kept))


def _order(event: Event) -> tuple[datetime, bool, int]:
    """By time; what happened to the lead at the moment it was first seen comes after that."""
    return event.at, not isinstance(event, Seen), event.id if isinstance(event, Sent) else 0


async def _keys(pool: Pool, instance: str, lead: Present, lookup_fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """Push and key of the changes that are about the lead."""
    values = {"id": str(lead.lead_id)} | ({"email": lead.email} if lead.email else {})
    others = [name for name in lookup_fields.values() if name.lower() not in ("id", "email")]
    if others:
        values |= {row["name"]: row["value"] for row in await pool.fetch(ATTRIBUTES, instance, lead.lead_id, others)}
    named = [(push, name.lower() if name.lower() in ("id", "email") else name) for push, name in lookup_fields.items()]
    return [(push, values[name]) for push, name in named if name in values]


async def _sent(pool: Pool, instance: str, keys: Sequence[tuple[str, str]], last: int) -> tuple[list[Sent], int]:
    """The latest changes with these keys, and how many there are."""
    if not keys:
        return [], 0
    pushes, texts = [push for push, _ in keys], [key for _, key in keys]
    # in this order: what is settled in between is found twice, not missed
    live = await pool.fetch(LIVE, instance, pushes, texts, last)
    settled = await pool.fetch(SETTLED, instance, pushes, texts, last)
    count = await pool.fetchval(SETTLED_COUNT, instance, pushes, texts)
    found = {row["id"]: Sent(at=row["created_at"], **{name: row[name] for name in OF_A_CHANGE}) for row in [*live, *settled]}
    twice = len(live) + len(settled) - len(found)
    return list(found.values()), count + (live[0]["total"] - twice if live else 0)


def _changed(seen_at: datetime, pull: str, fields: Sequence[str], old: Sequence[str | None], new: Sequence[str | None]) -> Changed:
    return Changed(seen_at, pull, tuple(FieldChange(*change) for change in zip(fields, old, new, strict=True)))
