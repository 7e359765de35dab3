"""`syncd release`: what a guard holds, or a plan, goes on; counted first, and only then asked."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.cli.render import printable
from syncd.core.settings import Database, Push
from syncd.store import discarding, guards, holding, pauses, pushes, reverting
from syncd.store.holding import Hold
from syncd.store.leases import Connection
from syncd.store.pauses import Choice

PATIENCE = 50  # tries
TRY_AGAIN_AFTER = 0.2  # seconds, real


@dataclass(frozen=True, slots=True)
class Found:
    """What would be released; `stopped` is why the push itself is held, None where it is not, or is not meant."""

    holds: Sequence[Hold]
    stopped: str | None

    @property
    def anything(self) -> bool:
        return bool(self.holds) or self.stopped is not None


async def look(database: Database, instance: str, push: str, plan: int | None, everything: bool) -> Found:
    """What is held of the choice. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    if plan is not None and everything:
        raise Refused("syncd release: give --plan or --all, not both", USAGE)
    async with open_pool(database, "syncd release") as pool, pool.acquire() as connection:
        holds = [each for each in await holding.holds(connection, instance, push) if everything or each.plan_id == plan]
        if plan is not None and not holds:
            raise Refused(f"syncd release: {push} has nothing held for a plan {plan}; syncd status shows what is held", USAGE)
        standing = await pauses.standing(connection, instance, Choice("out", push))
        stopped = [each.message or "" for each in standing if each.state == "held" and plan is None]
        return Found(holds, stopped[0] if stopped else None)


def lines_of(push: str, found: Found) -> list[str]:
    """What is there, in numbers, and why."""
    lines = [f"{push}: held as a whole: {printable(found.stopped)}"] if found.stopped is not None else []
    for hold in found.holds:
        what = f"{hold.changes:,} to be released" + ("" if hold.plan_id is None else f", of plan {hold.plan_id}")
        ids = ", ".join(map(str, hold.ids)) + (", …" if hold.changes > len(hold.ids) else "")
        lines.append(f"{push}: {what}, ids {ids}; {printable(hold.why or 'held')}")
    return lines or [f"{push}: nothing is held"]


@dataclass(frozen=True, slots=True)
class Done:
    """How many changes were released, how many could not be, as something held their rows, and how many reverts had become untrue."""

    released: int
    left: int
    overtaken: int


async def release(database: Database, instance: str, push: Push, found: Found) -> Done:
    """Release what was found."""
    done = left = overtaken = 0
    async with open_pool(database, "syncd release") as pool, pool.acquire() as connection:
        now = await discarding.time(connection)
        for hold in found.holds:
            cancelled = 0
            if hold.plan_id is not None:
                by_email = push.lookup_field == "email"
                cancelled = await reverting.cancel_overtaken(connection, instance, push.name, hold.plan_id, by_email, now)
            released = await _release(connection, instance, push.name, hold, hold.changes - cancelled)
            done, left = done + released, left + max(0, hold.changes - cancelled - released)
            overtaken += cancelled
        async with connection.transaction():
            for hold in found.holds:
                if hold.plan_id is not None:
                    await holding.plan_released(connection, instance, push.name, hold.plan_id, now)
            await holding.settle_holds(connection, instance, push.name)
        if found.stopped is not None:
            async with connection.transaction():
                await connection.execute(pauses.LOCK, instance)  # first, as whoever pauses has it first
                await guards.known(connection, instance, push.name)
                await guards.trust(connection, instance, push.name, now)
                await pushes.let_go(connection, instance, push.name)
                await pauses.enforce(connection, instance, now)
    return Done(done, left, overtaken)


async def _release(connection: Connection, instance: str, push: str, hold: Hold, changes: int) -> int:
    done = 0
    for _ in range(PATIENCE):
        done += await holding.release(connection, instance, push, hold.plan_id, hold.newest)
        if done >= changes:
            break
        await asyncio.sleep(TRY_AGAIN_AFTER)
    return done


def done_lines(push: str, found: Found, done: Done) -> list[str]:
    """What became of it."""
    lines = [f"{push}: {done.released:,} released"] if found.holds else []
    if done.overtaken:
        lines.append(f"{push}: {done.overtaken:,} reverts cancelled: their leads have changed in Marketo, or gone, since the plan was made")
    if found.stopped is not None:
        lines.append(f"{push}: goes on")
    if done.left:
        lines.append(f"{push}: {done.left:,} could not be, or were discarded meanwhile; run it again")
    return lines


async def after_discard(connection: Connection, instance: str, push: str, begin_anew: bool) -> None:
    """What follows from a discard: plans of which nothing is left are discarded.

    `begin_anew`: a push that was held goes on, with a canary first; not after the discard of a plan or of some keys.
    """
    now = await discarding.time(connection)
    async with connection.transaction():
        await holding.plans_discarded(connection, instance, push, now)
        await holding.settle_holds(connection, instance, push)
    if not begin_anew:
        return
    async with connection.transaction():
        await connection.execute(pauses.LOCK, instance)
        await guards.known(connection, instance, push)
        if await guards.try_again(connection, instance, push):
            await pushes.let_go(connection, instance, push)
            await pauses.enforce(connection, instance, now)
