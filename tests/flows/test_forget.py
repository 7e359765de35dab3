"""Must show 6 of issue 6: after a person is forgotten nothing names them but a hash, and neither pulls nor pushes bring them back."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from syncd.core.forget import Person
from syncd.core.settings import Keys, StaticList
from syncd.core.windows import Window
from syncd.flows.forget import Forgetter
from syncd.flows.loop import Flow
from syncd.marketo.deleting import LeadDeletion
from syncd.simulator import Fault, ImportModel
from syncd.store import census, erasing, forget_requests
from syncd.store.forget_requests import Receipt
from tests.flows import exporting
from tests.flows.conftest import PULL, PUSH, Build, House
from tests.flows.following import flows_of, follow
from tests.store.test_erasing import found

NAME, COMPANY = "Xanthippe", "Symposion Ltd"
FIELDS = f'{{"firstName": "{NAME}", "company": "{COMPANY}"}}'


def forgetter(house: House) -> Forgetter:
    assert house.lease is not None
    assert house.wire is not None
    assert house.wire.rest is not None
    api = LeadDeletion(house.wire.rest)
    return Forgetter(house.instance, api, house.lease, house.clock, house.metrics, random.Random(1))


async def with_forgetter(house: House) -> list[Flow]:
    return [*await flows_of(house), forgetter(house)]


async def only_forgetter(house: House) -> list[Flow]:
    return [forgetter(house)]


def somebody(house: House) -> tuple[int, str]:
    """A lead of the simulated Marketo with an address of her own, renamed so that her names stand nowhere else."""
    lead = next(lead for lead in house.simulator.world if lead.email and len(house.simulator.world.by_email(lead.email)) == 1)
    house.simulator.world.write(lead, {"firstName": NAME, "company": COMPANY})
    assert lead.email is not None
    return lead.id, lead.email


@dataclass
class Her:
    id: int
    email: str

    @property
    def words(self) -> Sequence[str]:
        return str(self.id), re.escape(self.email), NAME, COMPANY


async def begin(house: House, key: tuple[str, str], delete: bool = False) -> int:
    pushes = {push.name: push.lookup_field for push in house.instance.pushes}
    async with house.pool.acquire() as connection, connection.transaction():
        person = await erasing.person_of(connection, "acme", key, pushes)
        return await forget_requests.begin(connection, "acme", person, delete)


async def receipt(house: House, receipt_id: int) -> Receipt:
    return await forget_requests.receipt(house.pool, receipt_id)


async def forget(house: House, key: tuple[str, str], delete: bool = False) -> Receipt:
    receipt_id = await begin(house, key, delete)
    await house.run(20)
    return await receipt(house, receipt_id)


def refused(house: House) -> dict[str, float]:
    samples = house.metrics.samples()
    return {labels["way"]: value for name, labels, value in samples if name == "syncd_forgotten_refused_total"}


def named_in(texts: str, her: Her) -> list[str]:
    return [word for word in her.words if re.search(rf"\b{word}\b", texts, re.IGNORECASE)]


def metrics_of(house: House) -> str:
    return "\n".join(f"{name} {dict(labels)} {value}" for name, labels, value in house.metrics.samples())


async def a_live_job(house: House) -> bool:
    return any(state in ("queued", "importing") for state in await house.job_states())


async def test_the_whole_story(house: Build) -> None:
    """Pulled, pushed, half-way in an import: forgotten, and deleted in Marketo; then pulled and pushed again, in vain."""
    with capture_logs() as logs:
        home = await house(pulls=[PULL], pushes=[PUSH], leads=60, imports=ImportModel(overhead_seconds=120, sigma=0.0))
        her = Her(*somebody(home))
        home.also = with_forgetter
        await home.restart()
        await home.enqueue((her.email, FIELDS), ("other@example.com", '{"firstName": "Other"}'))
        await home.run(600)
        assert await home.all_ended()
        home.simulator.world.update(her.id, {"firstName": "X."})
        await home.run(400)
        before = await found(home.pool, *her.words)
        assert {"lead", "lead_history", "change_history"} <= set(before)

        # one change is in an import that Marketo has, another waits behind it
        (in_flight,) = await home.enqueue((her.email, FIELDS))
        await home.run(60, until=lambda: a_live_job(home))
        (waiting,) = await home.enqueue((her.email.upper(), FIELDS))
        await home.run(3)
        receipt_id = await begin(home, ("email", her.email), delete=True)
        await home.run(10)
        early = await receipt(home, receipt_id)
        assert (early.finished_at, early.in_marketo) == (None, "waits"), "the import would make her anew"
        assert home.simulator.world.get(her.id) is not None
        assert (await home.fate(waiting))[0] == "cancelled"
        assert (await home.fate(in_flight))[0] == "in_chunk"
        assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE lead_id = $1", her.id) == 0
        await home.run(300)
        done = await receipt(home, receipt_id)
        assert done.finished_at is not None
        assert (done.in_marketo, done.deleted) == ("deleted", 1)
        assert home.simulator.world.get(her.id) is None
        assert (await home.fate(in_flight))[0] == "applied"
        assert {"lead": 1, "outbox": 1, "change_history": 2}.items() <= dict(done.erased).items()
        assert await found(home.pool, *her.words) == {}
        log_of_before = json.dumps(logs, default=str)

        # somebody types her address into a form, and an application sends it
        born = home.simulator.world.create({"email": her.email, "firstName": NAME, "company": COMPANY})
        again = await home.enqueue((f" {her.email.upper()}", FIELDS))
        urgent = await home.enqueue_urgent(her.email, FIELDS)
        await home.run(900)
        ways = refused(home)
        assert ways["page"] >= 1
        assert (ways["push"], ways["urgent"]) == (1, 1)
        for change in (*again, urgent):
            state, reason = await home.fate(change)
            assert (state, reason) == ("rejected", "it is about a person who is forgotten")
        assert await found(home.pool, *her.words, str(born.id)) == {}
        assert named_in(json.dumps(logs, default=str) + log_of_before, her) == []
        assert named_in(metrics_of(home), her) == []
        assert len(home.simulator.world.by_email(her.email)) == 1, "no push reached Marketo; what others do there is theirs"
        hashes = await home.pool.fetch("SELECT hash FROM syncd.forgotten")
        assert sorted(row["hash"] for row in hashes) == sorted(done.hashes)
        assert any(entry["event"] == "person_forgotten" for entry in logs)


async def test_an_extract_brings_nobody_back(house: Build) -> None:
    home = await exporting.built(house, leads=40)
    her = Her(*somebody(home))
    await exporting.filled(home)
    home.flows.append(forgetter(home))
    assert (await forget(home, ("id", str(her.id)))).erased["lead"] == 1
    await home.pool.execute("INSERT INTO syncd.backfill (instance, pull, reason) VALUES ('acme', 'people', 'a test')")
    await home.run(7200)
    assert await exporting.nothing_is_open(home)
    assert refused(home) == {"extract": 1}
    assert await found(home.pool, *her.words) == {}
    assert len(await exporting.mirror(home)) == 39
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE walks > 1 OR state = 'open'") == 0


async def test_the_activity_log_and_reads_by_id_bring_nobody_back(house: Build) -> None:
    home = await follow(house)
    her = Her(*somebody(home))
    home.simulator.world.update(her.id, {"lastName": "X."})
    await home.run(900)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE lead_id = $1", her.id) == 1
    home.flows.append(forgetter(home))
    await forget(home, ("email", her.email))
    home.simulator.world.update(her.id, {"lastName": COMPANY})
    twin = home.simulator.world.create({"email": her.email, "firstName": NAME})
    await home.run(1200)
    assert refused(home) == {"activity": 1, "id": 1}, "her by her id, the twin by the address"
    home.simulator.world.delete(her.id)
    home.simulator.world.merge(next(lead.id for lead in home.simulator.world if lead.id != twin.id), [twin.id])
    await home.run(1200)
    assert await found(home.pool, str(her.id), re.escape(her.email)) == {}


async def test_lists_and_keys_bring_nobody_back(house: Build) -> None:
    guests = replace(PULL, name="guests", select=StaticList("VIPs"), every=timedelta(minutes=5))
    keyed = replace(PULL, name="keyed", select=Keys("EMAIL", ("a@x", "b@x")), every=timedelta(minutes=5))
    home = await house(leads=20)
    her = Her(*somebody(home))
    other = next(lead for lead in home.simulator.world if lead.id != her.id and lead.email)
    home.simulator.world.create_list("VIPs", [her.id, other.id])
    await home.restart(pulls=(guests, replace(keyed, select=Keys("EMAIL", (her.email.upper(), other.email or "")))))
    await home.run(60)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead") == 2
    home.flows.append(forgetter(home))
    await forget(home, ("email", her.email))
    await home.run(900)
    assert await found(home.pool, *her.words) == {}
    assert await home.pool.fetchval("SELECT array_agg(lead_id) FROM syncd.list_membership") == [other.id]
    assert refused(home)["page"] >= 2, "of the list; the keys were not asked for"
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.pull WHERE state <> 'running'") == 0


async def test_a_census_hears_of_nobody(house: Build) -> None:
    hooks = exporting.Hooks(census=True)
    home = await exporting.built(house, hooks=hooks, leads=20)
    her = Her(*somebody(home))
    await exporting.filled(home)
    home.flows.append(forgetter(home))
    await forget(home, ("id", str(her.id)))
    start, end = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    async with home.pool.acquire() as connection, connection.transaction():
        await census.start(connection, "acme", [Window(start, end)], home.clock.now())
    await exporting.filled(home)
    listed = {lead_id for _, ids in hooks.listed for lead_id in ids}
    created = {lead.id for lead in home.simulator.world if start.timestamp() <= lead.created <= end.timestamp()}
    assert listed == created - {her.id}
    assert her.id in created
    assert refused(home) == {"census": 1}
    assert await found(home.pool, *her.words) == {}


async def test_marketo_is_asked_until_it_has_deleted(house: Build) -> None:
    home = await house(pulls=[PULL], leads=20)
    her = Her(*somebody(home))
    home.also = only_forgetter
    await home.restart()
    await home.run(60)
    home.simulator.script("delete_leads", Fault.RESET_AFTER)
    home.simulator.script("delete_leads", Fault.REST_611)
    receipt_id = await begin(home, ("id", str(her.id)), delete=True)
    await home.run(2)
    with capture_logs() as logs:
        await home.run(60)
    done = await receipt(home, receipt_id)
    assert done.finished_at is not None
    assert (done.in_marketo, done.deleted) == ("deleted", 0), "its answer was lost: it was not there any more when asked again"
    assert home.simulator.world.get(her.id) is None
    assert [entry["event"] for entry in logs if entry["event"].startswith("person")][-2:] == [
        "person_deleted_in_marketo",
        "person_forgotten",
    ]
    assert named_in(json.dumps(logs, default=str), her) == []


async def test_what_marketo_refuses_for_good_is_told_meanwhile(house: Build) -> None:
    home = await house(pulls=[PULL], leads=20)
    her = Her(*somebody(home))
    home.also = only_forgetter
    await home.restart()
    home.simulator.script("delete_leads", Fault.REST_603)
    receipt_id = await begin(home, ("id", str(her.id)), delete=True)
    await home.run(60)
    waiting = await receipt(home, receipt_id)
    assert (waiting.finished_at, waiting.in_marketo) == (None, "waits")
    assert "603" in (waiting.message or "")
    await home.run(700)
    assert (await receipt(home, receipt_id)).deleted == 1


async def test_one_that_waits_holds_up_no_other(house: Build) -> None:
    home = await house(pushes=[PUSH], leads=20, imports=ImportModel(overhead_seconds=600, sigma=0.0))
    home.also = only_forgetter
    await home.restart()
    await home.enqueue(("a@example.com", FIELDS))
    await home.run(60, until=lambda: a_live_job(home))
    first = await begin(home, ("email", "a@example.com"))
    second = await begin(home, ("email", "b@example.com"))
    await home.run(30)
    assert [(await receipt(home, one)).finished_at is not None for one in (first, second)] == [False, True]
    await home.run(1200)
    assert (await receipt(home, first)).finished_at is not None
    assert await found(home.pool, "a@example.com", "b@example.com", NAME) == {}


async def test_whom_a_restored_backup_brings_back_is_forgotten_again(house: Build) -> None:
    home = await house(pulls=[PULL], pushes=[PUSH], leads=20)
    her = Her(*somebody(home))
    home.also = only_forgetter
    await home.restart()
    await home.run(60)
    (backup,) = await home.pool.fetch("SELECT * FROM syncd.lead WHERE lead_id = $1", her.id)
    await forget(home, ("email", her.email))
    await home.pool.copy_records_to_table("lead", schema_name="syncd", records=[tuple(backup)])
    async with home.pool.acquire() as connection, connection.transaction():
        person = await forget_requests.found_again(connection, "acme", {"contacts": "email"})
        receipt_id = await forget_requests.begin(connection, "acme", person, False, again=True)
    assert person == Person.of([("email", her.email), ("id", str(her.id))])
    await home.run(20)
    again = await receipt(home, receipt_id)
    assert (again.again, again.erased, again.finished_at is not None) == (True, {"lead": 1}, True)
    assert await found(home.pool, *her.words) == {}
