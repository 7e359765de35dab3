"""What the tests of the store share: a lease, whose transactions are those of the daemon."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from syncd.store import leases
from syncd.store.leases import Lease, Pool


@pytest.fixture
async def lease(database: str, pool: Pool) -> AsyncIterator[Lease]:
    connection = await asyncpg.connect(database)
    lease = await leases.acquire(connection, pool, "acme", uuid4(), 15.0)
    assert lease is not None
    yield lease
    await connection.close()
