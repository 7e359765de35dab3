"""Operators' brakes: what is paused, until when, and the pulls and pushes that a pause covers.

A pause is kept as it was asked for, apart from the states that it causes: so it also covers what is registered later, and one that
is blocked stays blocked, with its reason, and is not tried again before the pause is over.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from syncd.store.leases import Connection, Pool

Direction = Literal["both", "in", "out"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a pause is about: `name` is one pull (in) or push (out); without one all of the direction."""

    direction: Direction = "both"
    name: str = ""

    def covers(self, direction: str, name: str) -> bool:
        """Whether that pull (in) or push (out) is one of those meant."""
        return self.direction in ("both", direction) and self.name in ("", name)


@dataclass(frozen=True, slots=True)
class Pause:
    """One that is not over."""

    direction: Direction
    name: str
    until: datetime | None

    @property
    def choice(self) -> Choice:
        return Choice(self.direction, self.name)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a pull (in) or push (out) stands."""

    direction: Direction
    name: str
    state: str
    message: str | None


# One after the other: a pause that ends while another begins must not leave running what the other covers.
LOCK = "SELECT pg_advisory_xact_lock(hashtext('syncd pause'), hashtext($1))"
PAUSES = "SELECT direction, name, until FROM syncd.pause WHERE instance = $1 ORDER BY direction, name"
KEEP = """
INSERT INTO syncd.pause (instance, direction, name, until, paused_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (instance, direction, name) DO UPDATE SET until = excluded.until, paused_at = excluded.paused_at
"""
END = "DELETE FROM syncd.pause WHERE instance = $1 AND direction = $2 AND name = $3 RETURNING direction, name, until"
END_DUE = "DELETE FROM syncd.pause WHERE instance = $1 AND until <= $2 RETURNING direction, name, until"
PAUSE_PULLS = """
UPDATE syncd.pull p SET state = 'paused'
 WHERE p.instance = $1 AND p.state = 'running'
   AND EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'in') AND s.name IN ('', p.pull))
"""
PAUSE_PUSHES = """
UPDATE syncd.push p SET state = 'paused'
 WHERE p.instance = $1 AND p.state = 'running'
   AND EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'out') AND s.name IN ('', p.push))
"""
RESUME_PULLS = """
UPDATE syncd.pull p SET state = 'running'
 WHERE p.instance = $1 AND p.state = 'paused' AND $2 IN ('both', 'in') AND $3 IN ('', p.pull)
   AND NOT EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'in') AND s.name IN ('', p.pull))
"""
RESUME_PUSHES = """
UPDATE syncd.push p SET state = 'running'
 WHERE p.instance = $1 AND p.state = 'paused' AND $2 IN ('both', 'out') AND $3 IN ('', p.push)
   AND NOT EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'out') AND s.name IN ('', p.push))
"""
RESTS = "SELECT EXISTS (SELECT FROM syncd.pause WHERE instance = $1 AND direction IN ('both', $2) AND name = '')"
STANDING = """
SELECT 'in' AS direction, pull AS name, state, message FROM syncd.pull WHERE instance = $1 AND configured AND pull NOT LIKE '#%'
UNION ALL
SELECT 'out', push, state, message FROM syncd.push WHERE instance = $1 ORDER BY 1, 2
"""


async def read(pool: Pool, instance: str) -> list[Pause]:
    """The pauses of the instance, the wider ones first."""
    return [Pause(**row) for row in await pool.fetch(PAUSES, instance)]


async def pause(connection: Connection, instance: str, choice: Choice, until: datetime | None, now: datetime) -> None:
    """running → paused, for all of the choice. One that was paused so before is paused until then instead."""
    await connection.execute(LOCK, instance)
    await connection.execute(KEEP, instance, choice.direction, choice.name, until, now)
    await _pause_what_is_covered(connection, instance)


async def resume(connection: Connection, instance: str, choice: Choice) -> bool:
    """paused → running, for those of the choice that no other pause covers. False when there was no pause of just this choice."""
    await connection.execute(LOCK, instance)
    ended = await connection.fetch(END, instance, choice.direction, choice.name)
    await _resume(connection, instance, choice)
    return bool(ended)


async def enforce(connection: Connection, instance: str, now: datetime) -> list[Pause]:
    """paused → running where the time of a pause has come, running → paused where one covers what has come to run since.

    Returns the pauses that ended.
    """
    await connection.execute(LOCK, instance)
    ended = [Pause(**row) for row in await connection.fetch(END_DUE, instance, now)]
    for each in ended:
        await _resume(connection, instance, each.choice)
    await _pause_what_is_covered(connection, instance)
    return ended


async def rests(pool: Pool, instance: str, direction: Direction) -> bool:
    """Whether a whole direction, or the instance, is paused."""
    return await pool.fetchval(RESTS, instance, direction)  # type: ignore[no-any-return]


async def standing(connection: Connection, instance: str, choice: Choice) -> list[Standing]:
    """How the pulls and pushes of the choice stand; a daemon must have registered them."""
    found = [Standing(**row) for row in await connection.fetch(STANDING, instance)]
    return [each for each in found if choice.covers(each.direction, each.name)]


def over(pauses: Iterable[Pause], direction: str, name: str) -> Sequence[Pause]:
    """Those that cover a pull (in) or a push (out)."""
    return [each for each in pauses if each.choice.covers(direction, name)]


def until(pauses: Sequence[Pause]) -> datetime | None:
    """When the last of them ends by itself; None where one does not, or where there is none."""
    ends = [each.until for each in pauses if each.until is not None]
    return max(ends) if ends and len(ends) == len(pauses) else None


async def _pause_what_is_covered(connection: Connection, instance: str) -> None:
    await connection.execute(PAUSE_PULLS, instance)
    await connection.execute(PAUSE_PUSHES, instance)


async def _resume(connection: Connection, instance: str, choice: Choice) -> None:
    await connection.execute(RESUME_PULLS, instance, choice.direction, choice.name)
    await connection.execute(RESUME_PUSHES, instance, choice.direction, choice.name)
