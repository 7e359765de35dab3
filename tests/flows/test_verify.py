"""Verifications: what Marketo says when it is asked again, beside the mirror and what pushes applied last."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.core.forget import Person
from syncd.core.settings import UpdatedSince
from syncd.core.values import ReadLeads
from syncd.flows.loop import Flow
from syncd.flows.verify import Verifier
from syncd.marketo.leads import Leads
from syncd.store import forgetting, verifying
from syncd.store.verifying import Verification
from tests.flows.conftest import FIELDS, PULL, PUSH, Build, House
from tests.flows.following import calls, flow, flows_of, gateway, refusal

PEOPLE = replace(PULL, select=UpdatedSince(datetime(2026, 1, 1, tzinfo=UTC)), window=timedelta(days=30), every=timedelta(minutes=1))
Found = dict[tuple[str, str], int]


async def with_verifier(home: House) -> list[Flow]:
    wire, dictionaries, lease = home.wire, home.dictionaries, home.lease
    assert wire is not None
    assert wire.leads is not None
    assert dictionaries is not None
    assert lease is not None
    verifier = Verifier(home.instance, wire.leads, dictionaries, lease, home.clock, home.metrics, random.Random(1))
    return [*await flows_of(home), verifier]


async def filled(house: Build, **changes: Any) -> House:
    """A house whose mirror has all 50 leads."""
    home = await house(pulls=[replace(PEOPLE, **changes)], pushes=[PUSH], leads=50, checked=True)
    home.also = with_verifier
    await home.restart(census=None)
    await home.run(100)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead") == 50
    return home


async def order(home: House, wanted: int | None = None) -> int:
    async with home.pool.acquire() as connection:
        ordered = await verifying.order(connection, "acme", wanted)
    assert ordered is not None
    return ordered


async def verified(home: House, wanted: int | None = None, seconds: float = 900) -> tuple[Verification, Found]:
    """One verification from its order to its end."""
    ordered = await order(home, wanted)

    async def finished() -> bool:
        row = await verifying.read(home.pool, ordered)
        return row is not None and row.finished_at is not None

    await home.run(seconds, finished)
    return await result(home, ordered)


async def result(home: House, ordered: int) -> tuple[Verification, Found]:
    row = await verifying.read(home.pool, ordered)
    assert row is not None
    assert row.finished_at is not None, row
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.verification_lead") == 0
    return row, {(each.cause, each.field): each.leads for each in await verifying.drift(home.pool, ordered)}


async def pushed(home: House, email: str, fields: str) -> None:
    await home.enqueue((email, fields))
    await home.run(900, home.all_ended)
    assert set(await home.states()) == {"applied"}


async def test_all_agree(house: Build) -> None:
    home = await filled(house)
    with capture_logs() as logs:
        row, found = await verified(home)
    assert found == {}
    assert (row.leads, row.drifted, row.calls, row.message) == (50, 0, 1, None)
    assert [line["log_level"] for line in logs if line["event"] == "verified"] == ["info"]
    assert calls(home, "leads") == 1
    for cause in ("mirror_behind", "mirror_wrong", "missing_in_mirror"):
        assert home.metrics.registry.get_sample_value("syncd_verify_drift", {"instance": "acme", "cause": cause}) == 0


async def test_the_mirror_was_changed_by_hand(house: Build) -> None:
    home = await filled(house)
    first, second, *_ = home.simulator.world
    await home.pool.execute("""UPDATE syncd.lead SET attributes = attributes || '{"firstName": "Mallory"}' WHERE lead_id = $1""", first.id)
    await home.pool.execute("UPDATE syncd.lead SET email = 'mallory@example.com' WHERE lead_id = $1", second.id)
    with capture_logs() as logs:
        row, found = await verified(home)
    assert found == {("mirror_wrong", "firstName"): 1, ("mirror_wrong", "email"): 1}
    assert (row.leads, row.drifted, row.calls) == (50, 2, 2)
    (told,) = [line for line in logs if line["event"] == "verified"]
    assert (told["log_level"], told["mirror_wrong"]) == ("warning", 2)
    assert home.metrics.registry.get_sample_value("syncd_verify_drift", {"instance": "acme", "cause": "mirror_wrong"}) == 2
    assert [each.examples for each in await verifying.drift(home.pool, row.id)] == [[second.id], [first.id]]


async def test_what_was_only_on_its_way_is_no_drift(house: Build) -> None:
    """Changed behind our back, and brought by the next pull: the second look waits for it."""
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    home.simulator.world.update(lead.id, {"company": "Behind our back"})
    row, found = await verified(home)
    assert found == {}
    assert row.calls == 2


async def test_the_mirror_is_behind(house: Build) -> None:
    """The pull does not run: the verification does not wait for it for ever."""
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    home.simulator.world.update(lead.id, {"company": "Behind our back"})
    await home.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    await order(home)
    await home.run(20)
    home.clock.advance(600)
    await home.run(20)
    under_way = await verifying.under_way(home.pool, "acme")
    assert under_way is not None
    assert await verifying.to_look_at_again(home.pool, under_way.id) == 1
    home.clock.advance(60)
    await home.run(20)
    row, found = await result(home, under_way.id)
    assert found == {("mirror_behind", "company"): 1}
    assert (row.leads, row.drifted) == (50, 1)


async def test_a_lead_that_moves_between_the_looks_is_read_once_more(house: Build) -> None:
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    await home.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    home.simulator.world.update(lead.id, {"company": "One"})
    ordered = await order(home)
    await home.run(20)
    home.simulator.world.update(lead.id, {"company": "Two"})
    home.clock.advance(660)
    await home.run(20)
    found = await home.row("SELECT looks FROM syncd.verification_lead")
    assert found["looks"] == 2
    await home.pool.execute("UPDATE syncd.pull SET state = 'running'")
    await home.run(200)
    row, drift = await result(home, ordered)
    assert drift == {}, "the pull has brought the second value"
    assert row.calls == 3


async def test_a_deletion_that_nobody_has_told_of(house: Build) -> None:
    home = await filled(house)
    first, second, *_ = home.simulator.world
    for lead in (first, second):
        home.simulator.world._remove(lead.id)
    row, found = await verified(home)
    assert found == {("missing_in_marketo", ""): 2}
    assert (row.leads, row.drifted) == (50, 2)


async def test_a_deletion_that_the_log_tells_meanwhile_is_no_drift(house: Build) -> None:
    home = await filled(house)
    home.simulator.world.delete(next(iter(home.simulator.world)).id)
    _, found = await verified(home)
    assert found == {}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE deleted_at IS NOT NULL") == 1


async def test_leads_that_the_mirror_has_lost(house: Build) -> None:
    """One is marked deleted and lives; of the one that is gone from the table nothing is known, unless Marketo tells when it came."""
    home = await filled(house)
    first, second, *_ = list(home.simulator.world)[5:]
    await home.pool.execute("DELETE FROM syncd.lead WHERE lead_id = $1", first.id)
    await home.pool.execute("UPDATE syncd.lead SET deleted_at = now() - interval '1 hour' WHERE lead_id = $1", second.id)
    row, found = await verified(home)
    assert found == {("missing_in_mirror", ""): 1}
    assert row.leads == 50


@pytest.mark.parametrize("by", ["id", "email"])
async def test_a_forgotten_person_whom_marketo_still_has_is_no_drift(house: Build, by: str) -> None:
    home = await filled(house)
    person = list(home.simulator.world)[5]
    await home.pool.execute("DELETE FROM syncd.lead WHERE lead_id = $1", person.id)
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        key = str(person.id) if by == "id" else str(person.values["email"]).upper()
        await forgetting.keep(connection, "acme", Person.of([(by, key)]))
    row, found = await verified(home)
    assert (found, row.drifted) == ({}, 0)


async def test_a_push_that_somebody_overwrote(house: Build) -> None:
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    await pushed(home, lead.email, '{"company": "Ours", "firstName": "Ada"}')
    await home.run(200)
    home.simulator.world.update(lead.id, {"company": "Theirs"})
    await home.run(200)
    row, found = await verified(home)
    assert found == {("push_overwritten", "company"): 1}
    assert row.drifted == 1


async def test_a_push_that_did_not_arrive(house: Build) -> None:
    """Marketo called it imported, and has the value of before."""
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    before = lead.values.get("company", "")
    await pushed(home, lead.email, '{"company": "Ours"}')
    lead.values["company"] = before
    await home.run(200)
    _, found = await verified(home)
    assert found == {("push_not_arrived", "company"): 1}


async def test_of_a_field_that_no_pull_brings_only_marketo_can_tell(house: Build) -> None:
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    await pushed(home, lead.email, '{"title": "Countess"}')
    _, found = await verified(home)
    assert found == {}
    home.simulator.world.update(lead.id, {"title": "Engineer"})
    await home.run(200)
    _, found = await verified(home)
    assert found == {("push_not_arrived", "title"): 1}, "the simulator has no updatedAt that would say more"


async def test_what_is_on_its_way_again_is_not_compared(house: Build) -> None:
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    await pushed(home, lead.email, '{"company": "Ours"}')
    await home.run(200)
    home.simulator.world.update(lead.id, {"company": "Theirs"})
    await home.run(200)
    await home.pool.execute("UPDATE syncd.push SET state = 'paused'")
    await home.enqueue((lead.email, '{"company": "Ours again"}'))
    _, found = await verified(home)
    assert found == {}


async def test_the_newest_of_several_changes_is_what_we_own(house: Build) -> None:
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    for company in ("One", "Two", "Three"):
        await pushed(home, lead.email, f'{{"company": "{company}", "leadScore": 7}}')
    await home.run(200)
    _, found = await verified(home)
    assert found == {}


async def test_a_sample_has_as_many_leads_as_were_asked_for(house: Build) -> None:
    home = await filled(house)
    row, found = await verified(home, 10)
    assert found == {}
    assert (row.leads, row.wanted, row.calls) == (10, 10, 1)
    row, _ = await verified(home, 1_000)
    assert row.leads == 50, "there are no more"


async def test_each_lead_is_as_likely_as_any_other(house: Build) -> None:
    home = await filled(house)
    drawn: Counter[int] = Counter()
    verifier = flow(home, "verify")
    for _ in range(60):
        ordered = await order(home, 10)
        await verifier.step()
        drawn.update(row["lead_id"] for row in await home.pool.fetch("SELECT lead_id FROM syncd.verification_lead"))
        async with home.pool.acquire() as connection:
            await verifying.finish(connection, "acme", ordered, home.clock.now())
    assert len(drawn) == 50
    assert sum(drawn.values()) == 600
    assert max(drawn.values()) <= 30


async def test_it_goes_on_where_it_was_after_a_restart(house: Build) -> None:
    home = await filled(house)
    lead = list(home.simulator.world)[3]
    await home.pool.execute("""UPDATE syncd.lead SET attributes = attributes || '{"firstName": "Mallory"}' WHERE lead_id = $1""", lead.id)
    ordered = await order(home)
    await home.run(10)
    assert await verifying.to_look_at_again(home.pool, ordered) == 1
    await home.restart()
    await home.run(200)
    row, found = await result(home, ordered)
    assert found == {("mirror_wrong", "firstName"): 1}
    assert (row.leads, row.calls) == (50, 2)


async def test_one_at_a_time(house: Build) -> None:
    home = await filled(house)
    await order(home)
    async with home.pool.acquire() as connection:
        assert await verifying.order(connection, "acme", 10) is None


async def test_a_refusal_ends_it_with_its_reason(house: Build) -> None:
    home = await filled(house)
    async with gateway(home, lambda path: refusal("603") if path.endswith("/leads.json") else None):
        row, found = await verified(home)
        assert found == {}
        assert row.message is not None
        assert "603" in row.message


async def test_a_spent_quota_makes_it_wait(house: Build) -> None:
    home = await filled(house)
    async with gateway(home, lambda path: refusal("607") if path.endswith("/leads.json") else None):
        ordered = await order(home)
        await home.run(60)
        row = await verifying.read(home.pool, ordered)
        assert row is not None
        assert row.finished_at is None
        assert "607" in (row.message or "")
    home.clock.advance(86_400)
    await home.run(60)
    row, _ = await result(home, ordered)
    assert (row.leads, row.message) == (50, None)


async def test_it_asks_for_no_more_fields_than_are_pulled_or_pushed(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await filled(house)
    asked: list[str] = []
    by_id = Leads.by_id

    async def spy(self: Leads, ids: Any, fields: Any) -> ReadLeads:
        asked.extend(fields)
        return await by_id(self, ids, fields)

    monkeypatch.setattr(Leads, "by_id", spy)
    await verified(home)
    assert len(asked) == len(FIELDS)
