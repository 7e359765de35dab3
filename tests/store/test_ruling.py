"""What the mirror knows of the leads that rules are about."""

import pytest

from syncd.core.pending import PendingChange
from syncd.core.rules import Known
from syncd.core.settings import FieldRule, Push
from syncd.store import ruling
from syncd.store.leases import Pool
from tests.store.test_verifying import LEADS

BY_EMAIL = Push("contacts", rules={"firstName": FieldRule(owner="marketo"), "title": FieldRule(owner="marketo")})
BY_ID = Push("contacts", "id", rules=BY_EMAIL.rules)


async def known(pool: Pool, push: Push, *keys: str) -> dict[str, Known]:
    async with pool.acquire() as connection:
        return await ruling.known(connection, "acme", push, [PendingChange(1, key, key, "{}") for key in keys])


@pytest.fixture
async def leads(pool: Pool) -> None:
    """One that lives, one that is deleted, two with one address of which one is deleted, two of which both are."""
    await pool.execute(LEADS, "acme", list(range(1, 7)))
    await pool.execute(LEADS, "other", [7])
    await pool.execute("UPDATE syncd.lead SET email = 'Twins@example.com' WHERE lead_id IN (3, 4)")
    await pool.execute("UPDATE syncd.lead SET email = 'gone@example.com' WHERE lead_id IN (5, 6)")
    await pool.execute("UPDATE syncd.lead SET deleted_at = now() WHERE lead_id IN (2, 4, 5, 6, 7)")


@pytest.mark.usefixtures("leads")
async def test_by_address(pool: Pool) -> None:
    keys = [f"{name}@example.com" for name in ("lead1", "lead2", "twins", "gone", "lead7", "nobody")]
    found = await known(pool, BY_EMAIL, *keys)
    assert found == {
        "lead1@example.com": Known(has=frozenset({"firstName"})),
        "lead2@example.com": Known(deleted=True),
        "twins@example.com": Known(has=frozenset({"firstName"})),
        "gone@example.com": Known(deleted=True),
    }
    recreating = Push("contacts", deleted_in_marketo="recreate")
    assert await known(pool, recreating, *keys) == {}
    assert set(await known(pool, Push("contacts"), *keys)) == {"lead2@example.com", "gone@example.com"}


@pytest.mark.usefixtures("leads")
async def test_by_id(pool: Pool) -> None:
    found = await known(pool, BY_ID, "1", "2", "7", "8", "no number")
    assert found == {"1": Known(has=frozenset({"firstName"})), "2": Known(deleted=True)}


@pytest.mark.usefixtures("leads")
async def test_the_one_lead_that_may_be_updated(pool: Pool) -> None:
    await pool.execute("UPDATE syncd.lead SET email = 'pair@example.com', deleted_at = NULL WHERE lead_id IN (5, 6)")
    keys = [f"{name}@example.com" for name in ("lead1", "lead2", "twins", "pair", "nobody")]
    assert await known(pool, Push("contacts", mode="update_only"), *keys) == {
        "lead1@example.com": Known(lead_id=1),
        "lead2@example.com": Known(deleted=True),
        "twins@example.com": Known(lead_id=3),
        "pair@example.com": Known(lead_id=5, several=True),
    }
    assert await known(pool, Push("contacts", "id", mode="update_only"), "1", "8") == {"1": Known(lead_id=1)}


@pytest.mark.usefixtures("leads")
async def test_by_other_keys_nobody_can_tell(pool: Pool) -> None:
    assert await known(pool, Push("contacts", "customerNumber"), "2") == {}
