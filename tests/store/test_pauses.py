"""What operators have paused, and whom that covers."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from syncd.store import pauses, pulls, pushes, status
from syncd.store.leases import Lease, Pool
from syncd.store.pauses import Choice, Direction, Pause, Standing
from syncd.store.pull_status import PullStatus
from syncd.store.status import PushStatus
from tests.store.outgoing import NOW, started, table, until_blocked

HOUR = timedelta(hours=1)
PULLS, PUSHES = ("people", "guests"), ("contacts", "others")
STATES = """
SELECT pull, state FROM syncd.pull WHERE instance = 'acme' UNION ALL SELECT push, state FROM syncd.push WHERE instance = 'acme'
"""


@pytest.fixture
async def registered(lease: Lease) -> Lease:
    await register(lease)
    return lease


async def register(lease: Lease, to_pull: tuple[str, ...] = PULLS, to_push: tuple[str, ...] = PUSHES) -> None:
    """As the daemon does when it takes the instance."""
    async with lease.transaction() as connection:
        await pushes.register(connection, "acme", to_push)
        for pull in to_pull:
            await pulls.register(connection, "acme", pull, "s", NOW, NOW, False)
        await pauses.enforce(connection, "acme", NOW)


async def pause(pool: Pool, direction: Direction = "both", name: str = "", hours: int | None = None) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await pauses.pause(connection, "acme", Choice(direction, name), None if hours is None else NOW + hours * HOUR, NOW)


async def resume(pool: Pool, direction: Direction = "both", name: str = "") -> bool:
    async with pool.acquire() as connection, connection.transaction():
        return await pauses.resume(connection, "acme", Choice(direction, name))


async def enforce(lease: Lease, hours: float = 0) -> list[Pause]:
    async with lease.transaction() as connection:
        return await pauses.enforce(connection, "acme", NOW + hours * HOUR)


async def paused(pool: Pool) -> set[str]:
    return {name for name, state in await table(pool, STATES) if state == "paused"}


@pytest.mark.parametrize(
    ("direction", "name", "covered"),
    [
        ("both", "", {*PULLS, *PUSHES}),
        ("in", "", {*PULLS}),
        ("out", "", {*PUSHES}),
        ("in", "people", {"people"}),
        ("out", "others", {"others"}),
        ("out", "people", set()),
    ],
)
async def test_a_choice_is_paused_and_resumed(registered: Lease, pool: Pool, direction: Direction, name: str, covered: set[str]) -> None:
    await pool.execute("INSERT INTO syncd.push (instance, push) VALUES ('another', 'contacts')")
    await pause(pool, direction, name)
    assert await paused(pool) == covered
    assert await table(pool, "SELECT state FROM syncd.push WHERE instance = 'another'") == [("running",)]
    assert await resume(pool, direction, name)
    assert await paused(pool) == set()
    assert not await resume(pool, direction, name)


async def test_each_pause_is_lifted_by_itself(registered: Lease, pool: Pool) -> None:
    await pause(pool, "out", "contacts")
    await pause(pool)
    await pause(pool, "in", hours=1)
    assert not await resume(pool, "out", "others"), "it was paused with all the others, and nobody lifts that for one"
    assert await resume(pool)
    assert await paused(pool) == {"contacts", *PULLS}
    assert await pauses.read(pool, "acme") == [Pause("in", "", NOW + HOUR), Pause("out", "contacts", None)]


async def test_a_pause_ends_by_itself_and_another_time_replaces_the_first(registered: Lease, pool: Pool) -> None:
    await pause(pool, "out", hours=1)
    await pause(pool, "out", hours=2)
    assert await enforce(registered, 1.99) == []
    assert await paused(pool) == {*PUSHES}
    assert await enforce(registered, 2) == [Pause("out", "", NOW + 2 * HOUR)]
    assert await paused(pool) == set()


async def test_one_that_ends_leaves_what_another_covers(registered: Lease, pool: Pool) -> None:
    await pause(pool, "out", "contacts")
    await pause(pool, "both", hours=1)
    await enforce(registered, 1)
    assert await paused(pool) == {"contacts"}


async def test_what_is_registered_later_is_covered(registered: Lease, pool: Pool) -> None:
    await pause(pool, "out")
    await pause(pool, "in", "people")
    await register(registered, (*PULLS, "more"), ("contacts", "new"))
    assert await paused(pool) == {"contacts", "new", "people"}


async def test_what_leaves_the_configuration_and_comes_back_is_still_paused(registered: Lease, pool: Pool) -> None:
    await pause(pool, "out", "contacts")
    await register(registered, to_push=("others",))
    assert await paused(pool) == set()
    await register(registered)
    assert await paused(pool) == {"contacts"}


async def blocked(lease: Lease) -> None:
    async with lease.transaction() as connection:
        await pushes.block(connection, "acme", "contacts", NOW, "1003")
        await pulls.block(connection, "acme", "people", None, NOW, "603")


WHY = """
SELECT state, message, retry_at FROM syncd.pull WHERE pull = 'people'
UNION ALL SELECT state, message, retry_at FROM syncd.push WHERE push = 'contacts'
"""


async def test_a_blocked_one_keeps_its_reason_and_is_not_tried_before_it_is_resumed(registered: Lease, pool: Pool) -> None:
    await blocked(registered)
    await pause(pool)
    stays = [("blocked", "603", NOW), ("blocked", "1003", NOW)]
    assert await table(pool, WHY) == stays
    async with registered.transaction() as connection:
        assert await pushes.unblock_due(connection, "acme", NOW + HOUR) == []
    assert (await pulls.state(pool, "acme", "people")).paused
    await register(registered)
    assert await table(pool, WHY) == stays, "a restart tries blocked ones again, but not these"
    await resume(pool)
    assert await table(pool, WHY) == stays
    assert not (await pulls.state(pool, "acme", "people")).paused
    async with registered.transaction() as connection:
        assert await pushes.unblock_due(connection, "acme", NOW) == ["contacts"]
    await register(registered)
    assert await table(pool, WHY) == [("running", None, None)] * 2


async def test_one_that_comes_to_run_under_a_pause_is_caught(registered: Lease, pool: Pool) -> None:
    """As when it was unblocked at the same moment."""
    await pause(pool)
    await pool.execute("UPDATE syncd.push SET state = 'running'")
    await enforce(registered)
    assert await paused(pool) == {*PULLS, *PUSHES}


async def test_a_held_push_stays_held(registered: Lease, pool: Pool) -> None:
    await pool.execute("UPDATE syncd.push SET state = 'held' WHERE push = 'contacts'")
    await pause(pool)
    await resume(pool)
    assert await table(pool, "SELECT state FROM syncd.push WHERE push = 'contacts'") == [("held",)]


async def test_pausing_waits_for_resuming(registered: Lease, pool: Pool) -> None:
    """Else the one would pass over rows that the other has not paused yet."""
    await pause(pool)
    async with pool.acquire() as connection, connection.transaction():
        await pauses.resume(connection, "acme", Choice())
        second = started(pause(pool, "out", "contacts"))
        await until_blocked(pool, second)
    await asyncio.wait_for(second, 10)
    assert await paused(pool) == {"contacts"}


async def test_whole_directions_rest(registered: Lease, pool: Pool) -> None:
    async def resting() -> list[Direction]:
        return [each for each in ("both", "in", "out") if await pauses.rests(pool, "acme", each)]

    await pause(pool, "in", "people")
    assert await resting() == []
    await pause(pool, "in")
    assert await resting() == ["in"]
    await pause(pool)
    assert await resting() == ["both", "in", "out"]


async def test_standing_tells_of_what_the_configuration_has(registered: Lease, pool: Pool) -> None:
    await blocked(registered)
    await pool.execute(
        "INSERT INTO syncd.pull (instance, pull, selector, configured) VALUES ('acme', '#census', 's', true), ('acme', 'old', 's', false)"
    )
    async with pool.acquire() as connection:
        assert await pauses.standing(connection, "acme", Choice("in")) == [
            Standing("in", "guests", "running", None),
            Standing("in", "people", "blocked", "603"),
        ]
        assert await pauses.standing(connection, "acme", Choice("out", "others")) == [Standing("out", "others", "running", None)]


async def test_the_status_shows_what_is_paused_and_until_when(registered: Lease, pool: Pool) -> None:
    await blocked(registered)
    await pause(pool, "out", hours=2)
    await pause(pool, "out", "contacts", hours=1)
    await pause(pool, "in", "guests")
    (acme,) = await status.read(pool, NOW)
    assert acme.pauses == [Pause("in", "guests", None), Pause("out", "", NOW + 2 * HOUR), Pause("out", "contacts", NOW + HOUR)]
    both: list[PullStatus | PushStatus] = [*acme.pulls, *acme.pushes]
    assert [(each.name, each.state, each.paused, each.paused_until) for each in both] == [
        ("guests", "paused", True, None),
        ("people", "blocked", False, None),
        ("contacts", "blocked", True, NOW + 2 * HOUR),
        ("others", "paused", True, NOW + 2 * HOUR),
    ]
    assert status.as_json([acme])["instances"][0]["pauses"][0] == {"direction": "in", "name": "guests", "until": None}


async def test_a_name_needs_a_direction(pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("INSERT INTO syncd.pause (instance, direction, name) VALUES ('acme', 'both', 'people')")
