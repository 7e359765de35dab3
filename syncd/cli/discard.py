"""`syncd discard`: changes that are on no way yet are cancelled; counted first, and only then asked."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from syncd.cli import releasing
from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.config import values
from syncd.core.settings import Database
from syncd.store import discarding
from syncd.store.discarding import Chosen, Found
from syncd.store.leases import Connection

SHOWN = 5  # ids
PATIENCE = 50  # tries
TRY_AGAIN_AFTER = 0.2  # seconds, real: a claim holds its rows for a second or two


def before_of(older_than: str | None, before: str | None, now: datetime) -> datetime:
    """The time before which changes are meant. Raises Refused."""
    if older_than is not None and before is not None:
        raise Refused("syncd discard: give --older-than or --before, not both", USAGE)
    try:
        if older_than is not None:
            return now - values.duration(older_than)
        return now if before is None else values.moment(before)
    except values.NotAllowed as error:
        given = f"--older-than {older_than}" if older_than is not None else f"--before {before}"
        raise Refused(f"syncd discard: {given} is not allowed; {error}", USAGE) from None
    except OverflowError:
        raise Refused(f"syncd discard: --older-than {older_than} is longer ago than there are times", USAGE) from None


def like(pattern: str | None) -> str | None:
    """A pattern of keys, `*` for any text and `?` for one character, as SQL's LIKE has it; upper and lower case are one."""
    if pattern is None:
        return None
    escaped = pattern.strip(" \t\r\n").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_").lower()


def lines_of(push: str, found: Found, ids: list[int]) -> list[str]:
    """What is there: how many changes, some of their ids, and how many it is too late for. No keys: they are people's addresses."""
    lines = []
    if found.count:
        states = ", ".join(f"{state} {count:,}" for state, count in found.states.items())
        more = ", …" if found.count > len(ids) else ""
        lines.append(f"{push}: {found.count:,} to be cancelled ({states}), ids {', '.join(map(str, ids))}{more}")
    else:
        lines.append(f"{push}: nothing to cancel")
    if found.carried:
        lines.append(f"{push}: {found.carried:,} more in a chunk already, which may be at Marketo: they go on")
    return lines


def done_lines(push: str, found: Found, done: int, left: int) -> list[str]:
    """What became of it."""
    lines = [f"{push}: {done:,} cancelled"]
    if left:
        lines.append(f"{push}: {left:,} could not be: something holds their rows; run it again")
    elif done < found.count:
        lines.append(f"{push}: {found.count - done:,} were packed or ended meanwhile: they go on")
    return lines


async def look(
    database: Database,
    instance: str,
    push: str,
    before: Callable[[datetime], datetime],
    key: str | None,
    held: bool = False,
    plan: int | None = None,
) -> tuple[Chosen, Found, list[int]]:
    """What would be cancelled, and the ids of some of it; `before` is given the database's time.

    Raises Refused, DatabaseUnavailable, SchemaMismatch.
    """
    async with open_pool(database, "syncd discard") as pool, pool.acquire() as connection:
        chosen = Chosen(instance, push, before(await discarding.time(connection)), like(key), held or plan is not None, plan)
        return chosen, await discarding.find(connection, chosen), await discarding.first_ids(connection, chosen, SHOWN)


async def cancel(database: Database, chosen: Chosen, found: Found) -> tuple[int, int]:
    """Cancel what was found; returns how many were, and how many could not be, as something held them all the time."""
    done = 0
    async with open_pool(database, "syncd discard") as pool, pool.acquire() as connection:
        for _ in range(PATIENCE):
            done += await discarding.cancel(connection, chosen, found.newest, await discarding.time(connection))
            left = await _left(connection, chosen, found.newest)
            if not left:
                break
            await asyncio.sleep(TRY_AGAIN_AFTER)
        of_all = chosen.plan_id is None and chosen.key_like is None
        await releasing.after_discard(connection, chosen.instance, chosen.push, begin_anew=of_all)
        return done, left


async def _left(connection: Connection, chosen: Chosen, upto: int) -> int:
    return len([one for one in await discarding.first_ids(connection, chosen, discarding.BATCH) if one <= upto])
