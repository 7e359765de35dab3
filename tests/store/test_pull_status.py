"""How the status tells of a pull: its way, and up to when its leads have come."""

from datetime import datetime, timedelta

import pytest

from syncd.core.route import Follows, Route
from syncd.core.settings import Source
from syncd.store import due, planning, pull_status, pulls, routes, switching
from syncd.store.leases import Lease, Pool
from syncd.store.pull_status import PullStatus
from tests.store.outgoing import NOW

HOUR = timedelta(hours=1)
SINCE = '{"kind": "updated_since"}'


async def pull_through(
    lease: Lease, source: Source, follows: Follows = "windows", selector: str = SINCE, by_creation: bool = False, ids_only: bool = False
) -> None:
    """A pull `people` that has come up to an hour ago, its way chosen, through REST at least."""
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", selector, NOW - 9 * HOUR, NOW, False)
        await switching.register(connection, "acme", "people", source, NOW - 9 * HOUR, NOW)
        if source != "soap":
            await routes.choose(connection, "acme", "people", Route(by_creation, ids_only, follows, "why"), NOW)
        await planning.plan(connection, "acme", "people", "bulk_extract", [], NOW - HOUR, NOW)


async def read_pull(pool: Pool) -> PullStatus:
    found = await pull_status.one(pool, "acme", "people")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("way", "shown"),
    [
        ({"source": "soap"}, ("pages of getMultipleLeads", None)),
        ({"source": "activities", "follows": "activities"}, ("the activity log", "why")),
        ({"source": "bulk_extract"}, ("extracts by updatedAt", "why")),
        ({"source": "auto", "follows": "activities"}, ("extracts by updatedAt, then the activity log", "why")),
        (
            {"source": "auto", "follows": "activities", "by_creation": True, "ids_only": True},
            ("extracts by createdAt of ids, whose leads are read by them, then the activity log", "why"),
        ),
        ({"source": "auto", "selector": '{"kind": "static_list"}'}, ("an extract of the list at each walk", "why")),
    ],
)
async def test_the_way_of_a_pull_is_told(pool: Pool, lease: Lease, way: dict[str, object], shown: tuple[str, str | None]) -> None:
    await pull_through(lease, **way)  # type: ignore[arg-type]
    found = await read_pull(pool)
    assert (found.source, found.route, found.reason) == (way["source"], *shown)


async def test_a_way_that_is_to_be_chosen_anew_is_not_told(pool: Pool, lease: Lease) -> None:
    await pull_through(lease, "auto", "activities")
    async with lease.transaction() as connection:
        await routes.forget(connection, "acme", "people")
    found = await read_pull(pool)
    assert (found.source, found.route, found.reason) == ("auto", None, None)


async def note(lease: Lease, lead: int, at: datetime, pull: str = "people") -> None:
    async with lease.transaction() as connection:
        await due.note(connection, "acme", pull, [lead], "changed", at)


async def test_who_follows_the_log_has_come_as_far_as_its_leads_are_read(pool: Pool, lease: Lease) -> None:
    await pull_through(lease, "auto", "activities")
    assert (await read_pull(pool)).watermark == NOW - HOUR, "as far as the log was read"
    await note(lease, 1, NOW)
    assert (await read_pull(pool)).watermark == NOW - HOUR, "a lead that became due later holds nothing up"
    await note(lease, 2, NOW - 3 * HOUR)
    await note(lease, 3, NOW - 2 * HOUR)
    await note(lease, 9, NOW - 5 * HOUR, "another")
    found = await read_pull(pool)
    assert (found.watermark, found.leads_due, found.due_since) == (NOW - 3 * HOUR, 3, NOW - 3 * HOUR)


@pytest.mark.parametrize("source", ["bulk_extract", "soap"])
async def test_due_leads_do_not_hold_up_who_walks_windows(pool: Pool, lease: Lease, source: Source) -> None:
    await pull_through(lease, "auto", "activities")
    await pull_through(lease, source)
    await note(lease, 1, NOW - 3 * HOUR)
    found = await read_pull(pool)
    assert (found.watermark, found.leads_due) == (NOW - HOUR, 1)
