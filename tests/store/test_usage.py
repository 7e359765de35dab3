"""The ledger of calls: never above the day's limit, however many ask at once; and what API users spend."""

import asyncio
from datetime import UTC, date, datetime, timedelta

from syncd.store.leases import Lease, Pool
from syncd.store.usage import ApiUser, Ledger, remember_users, users_of

DAY = date(2026, 3, 8)
NOON = datetime(2026, 3, 8, 17, tzinfo=UTC)


async def test_reservations_at_once_never_pass_the_limit_over_both_apis(pool: Pool) -> None:
    ledger = Ledger("acme", pool)
    granted = await asyncio.gather(*(ledger.reserve("soap" if n % 2 else "rest", DAY, 7, 50) for n in range(12)))
    assert sum(granted) == 50
    assert sorted(set(granted)) == [0, 1, 7]
    assert sum((await ledger.calls_of(DAY)).values()) == 50


async def test_what_is_given_back_can_be_reserved_again(pool: Pool) -> None:
    ledger = Ledger("acme", pool)
    assert await ledger.reserve("rest", DAY, 10, 10) == 10
    await ledger.give_back("rest", DAY, 4)
    assert [await ledger.reserve("soap", DAY, 9, 10) for _ in range(2)] == [4, 0]
    assert await ledger.calls_of(DAY) == {"rest": 6, "soap": 4}


async def test_a_limit_that_was_lowered_takes_no_calls_back(pool: Pool) -> None:
    ledger = Ledger("acme", pool)
    await ledger.reserve("rest", DAY, 10, 10)
    assert await ledger.reserve("rest", DAY, 1, 5) == 0
    assert (await ledger.calls_of(DAY))["rest"] == 10


async def test_days_and_instances_have_ledgers_of_their_own(pool: Pool) -> None:
    assert await Ledger("acme", pool).reserve("rest", DAY, 10, 10) == 10
    assert await Ledger("other", pool).reserve("rest", DAY, 10, 10) == 10
    assert await Ledger("acme", pool).reserve("rest", date(2026, 3, 9), 10, 10) == 10


async def test_what_api_users_spend_is_replaced_by_what_is_told_later(lease: Lease, pool: Pool) -> None:
    first, second = NOON, NOON + timedelta(minutes=10)
    async with lease.transaction() as connection:
        await remember_users(connection, "acme", DAY, {"crm": 5, "web": 9}, first)
        await remember_users(connection, "acme", DAY, {"crm": 12}, second)
        await remember_users(connection, "other", DAY, {"crm": 1}, first)
    assert await users_of(pool, "acme", DAY) == [ApiUser("crm", 12, second), ApiUser("web", 9, first)]


async def test_days_before_the_last_eight_are_forgotten(lease: Lease, pool: Pool) -> None:
    days = [DAY + timedelta(days=days) for days in (0, 1, 9)]
    async with lease.transaction() as connection:
        for day in days:
            await remember_users(connection, "acme", day, {"crm": 5}, NOON)
        await remember_users(connection, "acme", days[-1], {}, NOON)
    assert [len(await users_of(pool, "acme", day)) for day in days] == [0, 1, 1]
