"""`syncd attach` and `syncd detach`: triggers on a table of the user's, or comparisons of a view, and a backfill of what it has already."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import asyncpg

from syncd.cli import attach_view
from syncd.cli.failures import Refused
from syncd.cli.opening import open_pool
from syncd.config.values import duration_text
from syncd.core.mapping import Layout, Relation, Unmappable, layout_of
from syncd.core.settings import Database, FromTable, Push
from syncd.store import attaching, comparing, relations
from syncd.store.attaching import Attached
from syncd.store.leases import Connection
from syncd.store.relations import NotAttachable

TRIES = 20  # of a second each, that others may have the table
BETWEEN = 0.5  # seconds, real, in which whoever waited for us gets on
LOOK_EVERY = 0.02  # seconds, real
TELL_AFTER = 500  # looks

T = TypeVar("T")
Clock = Callable[[], datetime]
Tell = Callable[[str], None]


@dataclass(slots=True)
class Done:
    """What `attach` did: `fresh` says that it was attached anew, `plan` which backfill was made; `former` ones wait as well."""

    relation: str
    fresh: bool
    plan: int | None = None
    changes: int = 0
    no_keys: int = 0
    long_keys: int = 0
    duplicates: int = 0
    compared: bool = False
    former: tuple[tuple[int, int], ...] = ()


async def attach(database: Database, instance: str, push: Push, backfill: bool | None, now: Clock, tell: Tell) -> Done:
    """Attach the push to its table, as the configuration has it. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    source = push.from_table
    if source is None:
        raise Refused(f"syncd attach: {push.name} takes its changes from the outbox: give it from: {{table: …}} in the YAML")
    async with _alone(database, "attach", instance, push.name) as connection:
        layout, relation = await _layout(connection, push.name, source, reads=backfill is not False)
        before = (await attaching.attachments(connection, instance)).get(push.name)
        stands = before is not None and _stands(before, layout)
        if before is not None and stands and backfill is None and before.plan_id is None:
            await comparing.due(connection, before.id, now())
            return Done(relation.name, fresh=False, compared=relation.compared)
        former = tuple(await attaching.waiting(connection, instance, push.name))
        resumed = before.plan_id if before is not None and stands and backfill is not False else None
        if before is not None and before.plan_id is not None and resumed is None:
            await attaching.abandon(connection, before.plan_id, now())
        why = None if backfill is False else _reason(before, layout, relation)
        if relation.compared:
            table = before.relation if before is not None and before.compared is None else relation.name
            return await _attach_view(connection, instance, push, layout, relation, table, resumed, why, former, now, tell)
        if resumed is not None:
            plan, behind = resumed, await attaching.reached(connection, resumed)
        else:
            made = await _patiently(
                relation.name, tell, lambda: attaching.attach(connection, instance, push.name, layout, relation, why, now())
            )
            if made is None:
                return Done(relation.name, fresh=True, former=former)
            plan, behind = made, None
        return await _backfill(connection, instance, push.name, layout, Done(relation.name, True, plan, former=former), behind, now, tell)


async def detach(database: Database, instance: str, push: str, now: Clock, tell: Tell) -> str | None:
    """Remove what was attached; returns the table, None when there was none."""
    async with _alone(database, "detach", instance, push) as connection:
        found = (await attaching.attachments(connection, instance)).get(push)
        if found is None:
            return None
        attached: Attached = found
        if attached.plan_id is not None:
            await attaching.abandon(connection, attached.plan_id, now())
        await _patiently(attached.relation, tell, lambda: attaching.detach(connection, instance, attached))
        return attached.relation


def lines_of(instance: str, push: Push, done: Done) -> list[str]:
    """What became of it."""
    assert push.from_table is not None
    if not done.fresh:
        lines = [f"{instance}: {push.name} is attached to {done.relation} already, as the YAML has it"]
        return [*lines, "the daemon compares it at once"] if done.compared else lines
    lines = [f"{instance}: {push.name} is attached to {done.relation}: {len(push.from_table.fields)} fields, key {push.from_table.key}"]
    if done.compared:
        lines.append(f"it is compared every {duration_text(push.from_table.every)}, by the daemon")
    if done.plan is None:
        then = "it has already goes when it changes" if done.compared else "the table has already goes when it is written again"
        lines.append(f"no backfill: what {then}")
    elif done.changes:
        lines.append(f"plan {done.plan}: {done.changes:,} changes of what it has already are held; syncd release lets them go")
    else:
        lines.append("it has nothing to send yet")
    if done.no_keys or done.long_keys:
        lines.append(f"left out: {done.no_keys:,} rows without a key, {done.long_keys:,} whose key has more than 1,000 bytes")
    if done.duplicates:
        lines.append(f"left out: {done.duplicates:,} keys that are in several rows with other values")
    lines += [f"plan {plan}, a backfill of before with {changes:,} changes, waits as well" for plan, changes in done.former]
    return lines


@asynccontextmanager
async def _alone(database: Database, command: str, instance: str, push: str) -> AsyncIterator[Connection]:
    async with (
        open_pool(database, f"syncd {command}") as pool,
        pool.acquire() as connection,
        attaching.alone(connection, instance, push) as alone,
    ):
        if not alone:
            raise Refused(
                f"syncd {command}: another syncd attach or detach of {push}, or a comparison of its view, is at work; wait for it"
            )
        yield connection


async def _layout(connection: Connection, push: str, source: FromTable, reads: bool) -> tuple[Layout, Relation]:
    try:
        relation = await relations.relation(connection, source.table)
        layout = layout_of(source, relation)
        await relations.probe(connection, layout, reads or relation.compared)
    except (NotAttachable, Unmappable) as error:
        raise Refused(f"syncd attach: {push}: {error}") from None
    return layout, relation


async def _attach_view(
    connection: Connection,
    instance: str,
    push: Push,
    layout: Layout,
    relation: Relation,
    table: str,
    resumed: int | None,
    why: str | None,
    former: tuple[tuple[int, int], ...],
    now: Clock,
    tell: Tell,
) -> Done:
    """Attach a view in place of a `table`, unless that was done and only broke off, and take its first snapshot.

    Until the snapshot is written the attachment is not whole, so that whatever breaks off here is done again.
    """
    if resumed is None:
        reading = await attach_view.begin(connection, instance, push, layout, relation, why, now())
    else:
        reading = await attach_view.read(connection, instance, push)
    left = "its triggers are still there"
    await _patiently(table, tell, lambda: attaching.let_go(connection, instance, push.name, reading.view.id), left)
    changes, _ = await attach_view.write(connection, instance, push, reading, now)
    plan, found = reading.view.plan_id, reading.found
    return Done(relation.name, True, plan, changes or 0, found.no_keys, found.long_keys, found.duplicates, True, former)


def _stands(before: Attached, layout: Layout) -> bool:
    """Whether what is attached works as the configuration has it, or is on its way there."""
    whole = before.compared is None or before.compared.based_at is not None or before.plan_id is not None
    return before.fires and before.digest == layout.digest and not before.lost and whole


def _reason(before: Attached | None, layout: Layout, relation: Relation) -> str:
    if before is None:
        return f"{relation.name} was attached for the first time"
    if before.digest != layout.digest:
        return f"{relation.name} was attached with another mapping"
    if before.compared is not None and before.compared.based_at is None:
        return f"the first snapshot of {relation.name} was not completed"
    return f"changes of {relation.name} had been lost" if before.lost or not before.fires else "asked for by an operator"


async def _patiently(relation: str, tell: Tell, work: Callable[[], Awaitable[T]], left: str = "nothing was changed") -> T:
    """Try for a second at a time, so that writers don't wait for long behind us while we wait for somebody."""
    for attempt in range(TRIES):
        try:
            return await work()
        except asyncpg.LockNotAvailableError:
            if not attempt:
                tell(f"{relation} is in use by a transaction; waiting for its end")
            await asyncio.sleep(BETWEEN)
    raise Refused(f"{relation} is in use by a transaction that does not end: {left}; look into pg_stat_activity, and try again")


async def _backfill(
    connection: Connection, instance: str, push: str, layout: Layout, done: Done, behind: Sequence[str] | None, now: Clock, tell: Tell
) -> Done:
    """Page after page, until nothing is left; what is written meanwhile is the triggers'."""
    assert done.plan is not None
    while True:
        ids = await attaching.new_ids(connection)
        await _writers_of_now(connection, done.relation, tell)
        page = await attaching.page(connection, instance, push, layout, done.plan, ids, behind)
        if page is None:
            raise Refused(f"plan {done.plan} was ended by somebody: the triggers stay; syncd attach --backfill begins another")
        done.no_keys += page.no_keys
        done.long_keys += page.long_keys
        if page.reached is None:
            break
        behind = page.reached
    done.changes = await attaching.to_waiting(connection, done.plan) or 0
    if not done.changes:  # nothing to decide on
        await attaching.abandon(connection, done.plan, now())
    return done


async def _writers_of_now(connection: Connection, relation: str, tell: Tell) -> None:
    """Wait until all who have written to the table are done."""
    before = await attaching.writers(connection, relation)
    looks = 0
    while before and any(writer in before or writer.startswith("-1/") for writer in await attaching.writers(connection, relation)):
        looks += 1
        if looks == TELL_AFTER:
            tell(f"waiting for a transaction that has written to {relation}")
        await asyncio.sleep(LOOK_EVERY)
