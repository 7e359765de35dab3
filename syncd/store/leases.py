"""One daemon per instance (architecture.md, Rulings): a lease by the database's clock, and a fence that every write passes.

The holder keeps a session-level advisory lock on a connection of its own: when that session is gone, a standby takes over at
once; when the session lives but its heartbeat has stopped for 15 seconds, the standby ends it.
"""

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

SURE_FOR = 10.0  # seconds, real, since the last heartbeat: well below the silence after which a standby takes over

LOCK_SPACE = 0x73796E63  # "sync": keeps our advisory locks apart from others'


class LeaseLost(Exception):  # noqa: N818 - the word of the house
    """Another daemon works for the instance now; this one must not write any more."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has an instance's lease; `silent_for` is the age of its last heartbeat in seconds."""

    host: str
    pid: int
    silent_for: float


TRY_LOCK = "SELECT pg_try_advisory_lock($1, hashtext($2))"
UNLOCK = "SELECT pg_advisory_unlock($1, hashtext($2))"

END_SILENT_HOLDER = """
SELECT pg_terminate_backend(a.pid)
  FROM syncd.lease l
  JOIN pg_stat_activity a ON a.application_name = 'syncd ' || l.holder
 WHERE l.instance = $1 AND l.heartbeat_at < clock_timestamp() - make_interval(secs => $2)
"""

TAKE = """
WITH taken AS (
    INSERT INTO syncd.lease AS l (instance, epoch, holder, host, pid, since, heartbeat_at)
    VALUES ($1, 1, $2, $3, $4, clock_timestamp(), clock_timestamp())
    ON CONFLICT (instance) DO UPDATE
       SET epoch = l.epoch + 1, holder = excluded.holder, host = excluded.host, pid = excluded.pid,
           since = excluded.since, heartbeat_at = excluded.heartbeat_at
    RETURNING epoch
)
INSERT INTO syncd.lease_fence AS f (instance, epoch)
SELECT $1, epoch FROM taken
ON CONFLICT (instance) DO UPDATE SET epoch = excluded.epoch
RETURNING epoch
"""

HEARTBEAT = "UPDATE syncd.lease SET heartbeat_at = clock_timestamp() WHERE instance = $1 AND epoch = $2 RETURNING epoch"

HOLDER = """
SELECT host, pid, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_for FROM syncd.lease WHERE instance = $1
"""

PASS_FENCE = "SELECT epoch FROM syncd.lease_fence WHERE instance = $1 AND epoch = $2 FOR SHARE"  # noqa: S105 - no password


def application_name(holder: UUID) -> str:
    """What the sessions of a daemon are called in `pg_stat_activity`, so that a standby can end those of a hung holder."""
    return f"syncd {holder}"


class Lease:
    """The right to work for an instance, as long as nobody holds a newer epoch."""

    def __init__(self, instance: str, epoch: int, pool: Pool, session: Connection, confirmed_at: float) -> None:
        self.instance = instance
        self.epoch = epoch
        self.pool = pool
        self._session = session
        self._confirmed_at = confirmed_at

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A writing transaction behind the fence; raises LeaseLost when another daemon has taken the instance."""
        async with self.pool.acquire() as connection, self.transaction_on(connection):
            yield connection

    @asynccontextmanager
    async def transaction_on(self, connection: Connection) -> AsyncIterator[None]:
        """The same on a connection that the caller has."""
        async with connection.transaction():
            if await connection.fetchval(PASS_FENCE, self.instance, self.epoch) is None:
                raise LeaseLost(self.instance)
            yield

    async def heartbeat(self, connection: Connection) -> None:
        """Say that we live; raises LeaseLost when another daemon has taken the instance."""
        asked_at = _real_seconds()
        if await connection.fetchval(HEARTBEAT, self.instance, self.epoch) is None:
            raise LeaseLost(self.instance)
        self._confirmed_at = asked_at

    def is_sure(self) -> bool:
        """Whether no standby can have taken over: asked right before anything is sent to Marketo.

        The fence keeps a daemon that hung, or lost its session, from writing to the database; it can't keep a request back.
        """
        return not self._session.is_closed() and _real_seconds() - self._confirmed_at < SURE_FOR


def _real_seconds() -> float:
    """Goes on while the process is stopped, and where the system has such a clock, while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def acquire(connection: Connection, pool: Pool, instance: str, holder: UUID, silence: float) -> Lease | None:
    """Take the lease of `instance` if nobody has it, or its holder has been silent for `silence` seconds; else None.

    `connection` must stay open as long as the lease is held, and be used for nothing else.
    """
    if not await connection.fetchval(TRY_LOCK, LOCK_SPACE, instance):
        await connection.execute(END_SILENT_HOLDER, instance, silence)
        if not await connection.fetchval(TRY_LOCK, LOCK_SPACE, instance):
            return None
    asked_at = _real_seconds()
    epoch = await connection.fetchval(TAKE, instance, holder, socket.gethostname(), os.getpid())
    return Lease(instance, epoch, pool, connection, asked_at)


async def release(connection: Connection, instance: str) -> None:
    """Let a standby take over at once."""
    await connection.execute(UNLOCK, LOCK_SPACE, instance)


async def current_holder(connection: Connection, instance: str) -> Holder | None:
    """Who had the lease last, None if nobody ever had."""
    row = await connection.fetchrow(HOLDER, instance)
    return Holder(row["host"], row["pid"], row["silent_for"]) if row else None
