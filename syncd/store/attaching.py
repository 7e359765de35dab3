"""Tables that pushes follow: what they are, the triggers on them, and their backfills, a page a transaction. Views: see comparing.

A backfill's rows have ids that are lower than those of whatever their page did not see: they are drawn first, then all who wrote to the
table at that moment are waited for, and only then the page is read. So per key the order of ids is that of the row's versions, nobody
waits for a backfill, and what is released late sets nothing that a later change has set.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from syncd.core.mapping import Layout, Relation
from syncd.store import comparing
from syncd.store.comparing import Compared
from syncd.store.enqueue import NEW_IDS
from syncd.store.history import ensure_partition
from syncd.store.leases import Connection, Pool

PAGE = 10_000  # rows
BATCH = 20_000  # changes
LOCKS: Final = 0x61747463  # "attc": keeps our advisory locks apart from others'
KEYLESS: Final = frozenset({"no_key", "long_key"})
"""Codes of rows that could not go; all others are SQLSTATEs, of changes that were lost."""

# Whoever comes to write waits behind this lock meanwhile.
WAIT_A_SECOND = "SET LOCAL lock_timeout = '1s'"
REMEMBER = """
INSERT INTO syncd.attachment AS a (instance, push, relation, digest, attached_at, plan_id, triggers) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (instance, push) DO UPDATE
   SET relation = excluded.relation, digest = excluded.digest, attached_at = excluded.attached_at, plan_id = excluded.plan_id,
       backfilled_to = NULL, triggers = excluded.triggers
RETURNING id
"""
ATTACH = "SELECT syncd.attach($1, $2, $3, $4::text::jsonb)"
DETACH = "SELECT syncd.detach($1)"
FORGET_FAULTS = "DELETE FROM syncd.attach_fault WHERE instance = $1 AND push = $2"
FORGET = "DELETE FROM syncd.attachment WHERE instance = $1 AND push = $2"
TRY_LOCK = "SELECT pg_try_advisory_lock($1, hashtext($2 || ' ' || $3))"
UNLOCK = "SELECT pg_advisory_unlock($1, hashtext($2 || ' ' || $3))"
# By the catalogs, as to_regclass fails where a right on the schema is gone.
ATTACHMENTS = """
SELECT a.id, a.push, a.relation, a.digest, a.attached_at, a.plan_id,
       a.triggers = (
           SELECT count(*) FROM pg_trigger t
            WHERE t.tgrelid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                WHERE n.nspname = (parse_ident(a.relation))[1] AND c.relname = (parse_ident(a.relation))[2])
              AND t.tgfoid = to_regproc('syncd.attached_' || a.id) AND t.tgenabled IN ('O', 'A')
       ) AS fires
  FROM syncd.attachment a WHERE a.instance = $1 ORDER BY a.push
"""
FAULTS = """
SELECT push, code, sum(writes)::bigint AS writes, sum(changes)::bigint AS changes, max(last_at) AS last_at
  FROM syncd.attach_fault WHERE instance = $1 GROUP BY push, code ORDER BY push, code
"""
WRITERS = """
SELECT DISTINCT l.virtualtransaction AS writer
  FROM pg_locks l
 WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
   AND (l.relation = $1::text::regclass OR l.relation IN (SELECT relid FROM pg_partition_tree($1::text::regclass)))
"""
ATTACH_PAGE = "SELECT * FROM syncd.attach_page($1, $2, $3::text::jsonb, $4, $5::bigint[], $6::text[])"
PROGRESS = "UPDATE syncd.plan SET changes = changes + $2 WHERE id = $1 AND state = 'making' RETURNING id"
REACHED = "SELECT backfilled_to FROM syncd.attachment WHERE plan_id = $1"
REACH = "UPDATE syncd.attachment SET backfilled_to = $2 WHERE plan_id = $1"
BEGIN_PLAN = """
INSERT INTO syncd.plan (instance, push, kind, reason, made_at) VALUES ($1, $2, 'backfill', $3, $4) RETURNING id
"""
COMPLETE = "UPDATE syncd.plan SET state = 'waiting' WHERE id = $1 AND state = 'making' AND changes > 0 RETURNING changes"
COMPLETED = "UPDATE syncd.attachment SET plan_id = NULL, backfilled_to = NULL WHERE plan_id = $1"
ABANDON = "UPDATE syncd.plan SET state = 'discarded', decided_at = $2 WHERE id = $1 AND state = 'making' RETURNING id"
CANCEL = """
WITH chosen AS MATERIALIZED (
    SELECT id FROM syncd.outbox WHERE plan_id = $1 AND state = 'held' ORDER BY id LIMIT $3 FOR UPDATE
), ended AS (
    DELETE FROM syncd.outbox o USING chosen c WHERE o.id = c.id RETURNING o.*
)
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at, retry_of)
SELECT id, instance, push, key, key_norm, fields, 'cancelled', $4, attempt, created_at, $2, retry_of FROM ended
"""
WAITING = "SELECT id, changes FROM syncd.plan WHERE instance = $1 AND push = $2 AND kind = 'backfill' AND state = 'waiting' ORDER BY id"


@dataclass(frozen=True, slots=True)
class FaultCount:
    """Rows that did not become changes, by KEYLESS or SQLSTATE."""

    code: str
    writes: int
    changes: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Attached:
    """A table that a push follows. `plan_id` is a backfill that is not complete; `fires`: all its triggers are there and enabled.

    Of a view, which has none, `compared` tells how it stands.
    """

    id: int
    push: str
    relation: str
    digest: str
    attached_at: datetime
    plan_id: int | None
    fires: bool
    faults: Sequence[FaultCount] = ()
    compared: Compared | None = None

    @property
    def lost(self) -> int:
        """Rows whose changes an error has lost."""
        return sum(fault.changes for fault in self.faults if fault.code not in KEYLESS)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page has inserted and left out; `reached` is None behind the last row."""

    changes: int
    no_keys: int
    long_keys: int
    reached: Sequence[str] | None


@asynccontextmanager
async def alone(connection: Connection, instance: str, push: str) -> AsyncIterator[bool]:
    """Keep other commands off the push's table meanwhile, or as long as the session lasts; False when one is at work."""
    had = await connection.fetchval(TRY_LOCK, LOCKS, instance, push)
    try:
        yield had
    finally:
        if had and not connection.is_closed():
            await connection.execute(UNLOCK, LOCKS, instance, push)


async def attach(
    connection: Connection, instance: str, push: str, layout: Layout, at: Relation, why: str | None, now: datetime
) -> int | None:
    """Make the triggers, in place of former ones, and begin a backfill for the reason `why` (None: without); returns its plan.

    Of a view, begin its comparisons; triggers of before stay until `let_go`.

    Raises asyncpg.LockNotAvailableError when others have the table for longer than a second.
    """
    async with connection.transaction():
        if not at.compared:
            await connection.execute(WAIT_A_SECOND)
        plan = await connection.fetchval(BEGIN_PLAN, instance, push, why, now) if why is not None else None
        attachment = await connection.fetchval(REMEMBER, instance, push, at.name, layout.digest, now, plan, layout.triggers)
        if at.compared:
            await comparing.begin(connection, attachment, layout, now)
        else:
            await comparing.remove(connection, attachment)
            await connection.execute(ATTACH, attachment, instance, push, layout.text)
            await connection.execute(FORGET_FAULTS, instance, push)
        return plan


async def let_go(connection: Connection, instance: str, push: str, attachment: int) -> None:
    """Remove the triggers that a view has taken the place of. Raises asyncpg.LockNotAvailableError as `attach`.

    In a transaction of its own, as it locks the table: nobody is to wait for the reading of a view.
    """
    async with connection.transaction():
        await connection.execute(WAIT_A_SECOND)
        await connection.execute(DETACH, attachment)
        await connection.execute(FORGET_FAULTS, instance, push)


async def detach(connection: Connection, instance: str, attached: Attached) -> None:
    """Remove the triggers, or the snapshot, and all that is known of them. Raises asyncpg.LockNotAvailableError as `attach`."""
    async with connection.transaction():
        await connection.execute(WAIT_A_SECOND)
        await connection.execute(DETACH, attached.id)
        await comparing.remove(connection, attached.id)
        await connection.execute(FORGET_FAULTS, instance, attached.push)
        await connection.execute(FORGET, instance, attached.push)


async def attachments(connection: Connection | Pool, instance: str) -> dict[str, Attached]:
    """What is attached, by push."""
    faults: dict[str, list[FaultCount]] = {}
    for row in await connection.fetch(FAULTS, instance):
        faults.setdefault(row["push"], []).append(FaultCount(row["code"], row["writes"], row["changes"], row["last_at"]))
    views = await comparing.compared(connection, instance)
    return {
        row["push"]: Attached(**row, faults=faults.get(row["push"], ()), compared=views.get(row["push"]))
        for row in await connection.fetch(ATTACHMENTS, instance)
    }


async def writers(connection: Connection, table: str) -> set[str]:
    """The transactions that have written to the table and are not over; those prepared for two-phase commit have names like -1/7."""
    return {row["writer"] for row in await connection.fetch(WRITERS, table)}


async def new_ids(connection: Connection) -> list[int]:
    """Ids for the next page of a backfill."""
    return [row["id"] for row in await connection.fetch(NEW_IDS, PAGE)]


async def page(
    connection: Connection, instance: str, push: str, layout: Layout, plan: int, ids: Sequence[int], behind: Sequence[str] | None
) -> Page | None:
    """Insert the next page of a backfill, held for its plan; None when somebody has ended that.

    `ids` are from before all who then wrote to the table had ended.
    """
    async with connection.transaction():
        row = await connection.fetchrow(ATTACH_PAGE, instance, push, layout.text, plan, ids, behind)
        assert row is not None
        done = Page(**row)
        if not await progress(connection, plan, done.changes):
            return None
        if done.reached is not None:
            await connection.execute(REACH, plan, done.reached)
        return done


async def progress(connection: Connection, plan: int, changes: int) -> bool:
    """The plan that is being made has so many changes more. False: somebody has ended it."""
    return await connection.fetchval(PROGRESS, plan, changes) is not None


async def reached(connection: Connection, plan: int) -> Sequence[str] | None:
    """How far a backfill has come; None: to no row yet."""
    return await connection.fetchval(REACHED, plan)  # type: ignore[no-any-return]


async def to_waiting(connection: Connection, plan: int) -> int | None:
    """making → waiting; returns how many changes it holds, None when it holds none."""
    async with connection.transaction():
        changes: int | None = await connection.fetchval(COMPLETE, plan)
        if changes is not None:
            await connection.execute(COMPLETED, plan)
        return changes


async def abandon(connection: Connection, plan: int, now: datetime, why: str = "its backfill was not completed") -> None:
    """making → discarded; its changes held → cancelled, a batch a transaction. What was broken off half way can be done again."""
    while True:
        async with connection.transaction():
            await ensure_partition(connection, now.date())
            if (await connection.execute(CANCEL, plan, now, BATCH, why)).endswith(" 0"):
                await connection.execute(ABANDON, plan, now)
                await connection.execute(COMPLETED, plan)
                return


async def waiting(connection: Connection, instance: str, push: str) -> list[tuple[int, int]]:
    """Complete backfills of the push that wait for an operator's word, with the number of their changes."""
    return [(row["id"], row["changes"]) for row in await connection.fetch(WAITING, instance, push)]
