"""The first snapshot of a view: what it has already, held as a plan, or noted without being sent."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from syncd.cli.failures import Refused
from syncd.core.mapping import Layout, Relation
from syncd.core.settings import Push
from syncd.store import attaching, comparing
from syncd.store.comparing import Followed, Found, NotComparable, Tally
from syncd.store.leases import Connection

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Reading:
    """A view that has been read, and is to be written down."""

    view: Followed
    found: Found


async def begin(connection: Connection, instance: str, push: Push, layout: Layout, at: Relation, why: str | None, now: datetime) -> Reading:
    """Attach the view and read it, with a plan for the reason `why` (None: without); when it can't be read, nothing is changed.

    Triggers of a table that the push followed before are not touched. Raises Refused.
    """
    async with connection.transaction():
        await attaching.attach(connection, instance, push.name, layout, at, why, now)
        return await read(connection, instance, push)


async def read(connection: Connection, instance: str, push: Push) -> Reading:
    """Read an attached view. Raises Refused."""
    view = await comparing.of_push(connection, instance, push.name)
    assert view is not None
    try:
        return Reading(view, await comparing.read(connection, view))
    except NotComparable as error:
        raise Refused(f"syncd attach: {push.name}: {view.relation} can't be read, {error}; nothing was sent") from None


async def write(connection: Connection, instance: str, push: Push, reading: Reading, now: Clock) -> tuple[int | None, Tally]:
    """Write it down, page after page; returns how many changes its plan holds, None without one. Raises Refused."""
    assert push.from_table is not None
    view, found, tally, more = reading.view, reading.found, Tally(), True
    while more:
        async with connection.transaction():
            before = tally.changes
            more = await comparing.write(connection, instance, push, view, found, tally, sends=view.plan_id is not None)
            if view.plan_id is not None and not await attaching.progress(connection, view.plan_id, tally.changes - before):
                raise Refused(f"plan {view.plan_id} was ended by somebody: syncd attach --backfill begins another")
    changes = None
    async with connection.transaction():
        await comparing.done(connection, view, found, tally, now(), push.from_table.every)
        if view.plan_id is not None:
            changes = await attaching.to_waiting(connection, view.plan_id) or 0
    if view.plan_id is not None and not changes:  # nothing to decide on
        await attaching.abandon(connection, view.plan_id, now())
    await comparing.forget_temporary(connection)
    return changes, tally
