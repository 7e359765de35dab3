"""The ledger of our API calls per quota day (core/quota.py, CallLedger), and what each API user spends."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from syncd.core.quota import Api
from syncd.store.leases import Connection, Pool

PATIENCE = 3.0  # seconds for a connection: both are finished although cancelled, and a stop can't wait for long

# The day's rows are locked before their sum is read, so that two reservations cannot both take the last calls.
LOCK_DAY = """
INSERT INTO syncd.api_usage (instance, api, day, calls) VALUES ($1, 'rest', $2, 0), ($1, 'soap', $2, 0)
ON CONFLICT (instance, day, api) DO UPDATE SET calls = syncd.api_usage.calls
"""
RESERVE = """
WITH grant_of AS (
    SELECT greatest(0, least($4, $5 - sum(calls)))::bigint AS calls FROM syncd.api_usage WHERE instance = $1 AND day = $3
)
UPDATE syncd.api_usage u SET calls = u.calls + g.calls FROM grant_of g
 WHERE u.instance = $1 AND u.api = $2 AND u.day = $3 RETURNING g.calls
"""
GIVE_BACK = "UPDATE syncd.api_usage SET calls = calls - $4 WHERE instance = $1 AND api = $2 AND day = $3"
CALLS_OF_DAY = "SELECT api, calls FROM syncd.api_usage WHERE instance = $1 AND day = $2"

KEEP_USERS = timedelta(days=8)
REMEMBER_USERS = """
INSERT INTO syncd.api_user (instance, day, user_id, calls, seen_at)
SELECT $1, $2, u.user_id, u.calls, $5 FROM unnest($3::text[], $4::bigint[]) AS u (user_id, calls)
ON CONFLICT (instance, day, user_id) DO UPDATE SET calls = excluded.calls, seen_at = excluded.seen_at
"""
FORGET_USERS = "DELETE FROM syncd.api_user WHERE instance = $1 AND day < $2"
USERS_OF_DAY = "SELECT user_id, calls, seen_at FROM syncd.api_user WHERE instance = $1 AND day = $2 ORDER BY calls DESC, user_id"


@dataclass(frozen=True, slots=True)
class Ledger:
    instance: str
    pool: Pool

    async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
        """Charge up to `wanted` calls to `day` without its sum over all APIs passing `limit`; returns how many were granted."""
        async with self.pool.acquire(timeout=PATIENCE) as connection, connection.transaction():
            await connection.execute(LOCK_DAY, self.instance, day)
            granted: int = await connection.fetchval(RESERVE, self.instance, api, day, wanted, limit)
            return granted

    async def give_back(self, api: Api, day: date, unused: int) -> None:
        """Take calls that were reserved but not made off the day's count again."""
        async with self.pool.acquire(timeout=PATIENCE) as connection:
            await connection.execute(GIVE_BACK, self.instance, api, day, unused)

    async def calls_of(self, day: date) -> dict[str, int]:
        """Calls charged to `day`, by API."""
        return {row["api"]: row["calls"] for row in await self.pool.fetch(CALLS_OF_DAY, self.instance, day)}


@dataclass(frozen=True, slots=True)
class ApiUser:
    """What one API user spent of a day, strangers' and ours alike."""

    user_id: str
    calls: int
    seen_at: datetime


async def remember_users(connection: Connection, instance: str, day: date, calls: Mapping[str, int], seen_at: datetime) -> None:
    """Write down what each API user has spent of `day` by `seen_at`; forget the days before the last KEEP_USERS."""
    await connection.execute(REMEMBER_USERS, instance, day, list(calls), list(calls.values()), seen_at)
    await connection.execute(FORGET_USERS, instance, day - KEEP_USERS)


async def users_of(pool: Pool, instance: str, day: date) -> list[ApiUser]:
    """What each API user has spent of `day`, the greatest spender first."""
    return [ApiUser(**row) for row in await pool.fetch(USERS_OF_DAY, instance, day)]
