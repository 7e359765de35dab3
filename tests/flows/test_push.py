"""Pushing: every change ends somewhere known, within the slots, whatever Marketo answers or doesn't."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import orjson
import pytest

from syncd.core.settings import Limits, Push
from syncd.simulator import Fault, ImportModel
from syncd.simulator import Limits as MarketoLimits
from tests.flows.conftest import PUSH, Build, House
from tests.store.outgoing import until_blocked

SMALL = replace(PUSH, max_body_bytes=2_000, flush_after=timedelta())


def change(number: int, **fields: object) -> tuple[str, str]:
    """With a field of the company: so few would go by Sync Leads otherwise."""
    return f"person{number}@example.com", orjson.dumps({"firstName": f"P{number}", "company": "C", **fields}).decode()


def lead_by(house: House, email: str) -> dict[str, str]:
    (lead,) = house.simulator.world.by_email(email)
    return lead.values


def violations(house: House) -> tuple[object, ...]:
    report = house.simulator.report()
    assert report.most_slots_held <= 10
    assert report.most_running <= 2
    return report.violations, report.duplicate_live_keys, report.duplicate_leads_created


async def test_changes_reach_marketo_and_hear_of_it(house: Build) -> None:
    home = await house(pushes=[PUSH])
    ids = await home.enqueue(*(change(n, leadScore=n, unsubscribed=n % 2 == 0) for n in range(40)))
    await home.run(120, home.all_ended)
    assert await home.states() == {"applied": 40}
    values = lead_by(home, "person7@example.com")
    assert (values["firstName"], values["leadScore"], values["unsubscribed"]) == ("P7", "7", "false")
    assert lead_by(home, "person0@example.com")["leadScore"] == "0"
    job = await home.row("SELECT * FROM syncd.import_job")
    assert (job["state"], job["applied"], job["attempt"]) == ("settled", 40, 1)
    row = await home.row("SELECT import_job_id, settled_at FROM syncd.change WHERE id = $1", ids[0])
    assert (row["import_job_id"], row["settled_at"]) == (job["id"], job["settled_at"])
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.chunk_row") == 0
    assert violations(home) == ({}, (), 0)


async def test_refused_and_warned_rows_say_why(house: Build) -> None:
    home = await house(pushes=[PUSH])
    good, decimal, foreign, warned = await home.enqueue(
        change(1, leadScore=1),
        change(2, leadScore="1.5"),
        ("jürgen@example.com", '{"firstName": "Jürgen", "leadScore": 1, "company": "C"}'),
        ("not an address", '{"firstName": "Nobody", "leadScore": 1, "company": "C"}'),
    )
    await home.run(120, home.all_ended)
    assert (await home.fate(good))[0] == "applied"
    state, reason = await home.fate(decimal)
    assert state == "rejected"
    assert reason
    assert (await home.fate(foreign))[0] == "rejected"
    assert (await home.fate(warned))[0] == "warned"
    job = await home.row("SELECT applied, warned, rejected, unverified, retried FROM syncd.import_job")
    assert tuple(job) == (1, 1, 2, 0, 0)


@pytest.mark.parametrize(
    "fault", [Fault.RESULTS_SHORT_ROW, Fault.RESULTS_WITHOUT_EMPTY_COLUMN, Fault.RESULTS_404, Fault.TRUNCATED, Fault.JSON_GARBAGE]
)
async def test_odd_results_files_never_make_a_failure_a_success(house: Build, fault: Fault) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("failures", fault, 2)
    ids = await home.enqueue(*(change(n, leadScore="1.5" if n == 3 else n) for n in range(6)))
    await home.run(200, home.all_ended)
    assert (await home.fate(ids[3]))[0] == "rejected"
    assert (await home.states())["applied"] == 5


async def test_many_chunks_keep_both_workers_busy_and_no_more_slots_than_that_takes(house: Build) -> None:
    home = await house(pushes=[SMALL], imports=ImportModel(overhead_seconds=20, sigma=0))
    await home.enqueue(*(change(n, company="x" * 100) for n in range(200)))
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 200}
    report = home.simulator.report()
    assert report.most_running == 2
    assert 3 <= report.most_slots_held <= 6
    assert report.largest_import <= 2_000
    assert violations(home) == ({}, (), 0)


async def test_one_slot_of_ours_means_one_at_a_time(house: Build) -> None:
    home = await house(pushes=[SMALL], limits=Limits(calls_per_20s=100, import_running=1))
    await home.enqueue(*(change(n, company="x" * 100) for n in range(60)))
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 60}
    assert home.simulator.report().most_slots_held == 1


async def test_a_full_queue_is_waited_for(house: Build) -> None:
    home = await house(pushes=[SMALL])
    for _ in range(10):
        home.simulator.add_foreign_job(100)
    await home.enqueue(*(change(n) for n in range(30)))
    await home.run(60)
    refused = home.simulator.report().imports_refused
    assert 1 <= refused["1016"] <= 6, "probes become rarer"
    assert set(await home.job_states()) == {"refused"}
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 30}
    assert violations(home) == ({}, (), 0)


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.TRUNCATED, Fault.GATEWAY_504, Fault.JSON_GARBAGE, Fault.REST_604])
async def test_an_accepted_post_whose_reply_is_lost_is_not_repeated_while_it_may_live(house: Build, fault: Fault) -> None:
    home = await house(pushes=[SMALL], imports=ImportModel(overhead_seconds=5, sigma=0))
    home.simulator.script("import", fault)
    await home.enqueue(*(change(n, company="x" * 100) for n in range(60)))
    await home.run(4)
    assert "unconfirmed" in await home.job_states()
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 60}
    assert "absent" in await home.job_states()
    assert await home.pool.fetchval("SELECT max(attempt) FROM syncd.import_job") == 2
    assert violations(home) == ({}, (), 0)


async def test_the_only_job_with_a_lost_reply_is_given_up_after_a_while(house: Build) -> None:
    home = await house(pushes=[replace(SMALL, unconfirmed_after=timedelta(minutes=5))])
    home.simulator.script("import", Fault.RESET_AFTER)
    await home.enqueue(change(1))
    await home.run(290)
    assert await home.job_states() == ["unconfirmed"]
    await home.run(300, home.all_ended)
    assert await home.states() == {"applied": 1}
    assert await home.job_states() == ["absent", "settled"]


@pytest.mark.parametrize("fault", [Fault.REST_602, Fault.REST_606, Fault.IMPORT_1016])
async def test_a_refused_post_goes_again(house: Build, fault: Fault) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("import", fault)
    await home.enqueue(change(1))
    await home.run(120, home.all_ended)
    assert await home.states() == {"applied": 1}
    assert "unconfirmed" not in await home.job_states()


async def test_a_daemon_that_dies_amid_a_post_leaves_it_unconfirmed(house: Build) -> None:
    home = await house(pushes=[replace(SMALL, unconfirmed_after=timedelta(minutes=10))])
    await home.enqueue(change(1))
    await home.run(20, home.a_job_exists)
    await home.pool.execute(
        "UPDATE syncd.import_job SET state = 'submitting', batch_id = NULL WHERE id = (SELECT max(id) FROM syncd.import_job)"
    )
    await home.restart()
    assert await home.job_states() == ["unconfirmed"]
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 1}


async def test_a_failed_job_is_halved_until_its_rows_are_known(house: Build) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("import", Fault.JOB_FAILED, 2)
    await home.enqueue(*(change(n) for n in range(21)))
    await home.run(600, home.all_ended)
    assert await home.states() == {"applied": 21}
    jobs = await home.pool.fetch(
        "SELECT row_count, applied + warned + rejected + unverified + retried AS told, retried FROM syncd.import_job"
    )
    assert all(job["row_count"] == job["told"] for job in jobs)
    assert jobs[0]["retried"] == 21
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.chunk WHERE state = 'split'") == 2


async def test_a_single_row_that_fails_as_a_whole_ends_unverified(house: Build) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("import", Fault.JOB_FAILED, 1)
    (only,) = await home.enqueue(change(1))
    await home.run(120, home.all_ended)
    assert (await home.fate(only))[0] == "unverified"


async def test_a_file_over_marketos_limit_is_split_and_a_row_over_it_rejected(house: Build) -> None:
    home = await house(pushes=[PUSH], marketo=MarketoLimits(import_body_bytes=1_500))
    ids = await home.enqueue(*(change(n, company="x" * (2_000 if n == 5 else 20)) for n in range(40)))
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 39, "rejected": 1}
    state, reason = await home.fate(ids[5])
    assert state == "rejected"
    assert "413" in (reason or "")
    assert violations(home) == ({}, (), 0)


async def test_changes_of_a_key_that_is_under_way_wait_for_it_and_the_last_value_wins(house: Build) -> None:
    home = await house(pushes=[SMALL], imports=ImportModel(overhead_seconds=60, sigma=0))
    (first,) = await home.enqueue(change(1, company="first"))
    await home.run(5)
    assert await home.job_states() == ["queued"]
    second, third, other = await home.enqueue(
        ("PERSON1@example.com", '{"company": "second", "title": "Dr"}'), change(1, company="third"), change(2)
    )
    await home.run(20)
    waiting = await home.pool.fetch("SELECT id FROM syncd.outbox WHERE waits_for IS NOT NULL ORDER BY id")
    assert [row["id"] for row in waiting] == [second, third]
    await home.run(300, home.all_ended)
    assert {await home.fate(one) for one in (first, second, third, other)} == {("applied", None)}
    values = lead_by(home, "person1@example.com")
    assert (values["company"], values["title"]) == ("third", "Dr")
    assert violations(home) == ({}, (), 0)


async def test_results_that_can_no_longer_be_had_leave_the_changes_unverified(house: Build) -> None:
    home = await house(pushes=[PUSH])
    (only,) = await home.enqueue(change(1))
    await home.run(12)
    home.clock.advance(8 * 86400)
    await home.run(30)
    assert (await home.fate(only))[0] == "unverified"
    assert await home.job_states() == ["lost"]


async def test_missing_rights_block_the_push_and_keep_its_changes(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, list_id=99)])  # there is no such list
    (only,) = await home.enqueue(change(1))
    await home.run(60)
    push = await home.row("SELECT state, message FROM syncd.push")
    assert push["state"] == "blocked"
    assert "1003" in push["message"]
    assert (await home.fate(only))[0] == "in_chunk"
    assert await home.job_states() == ["refused"], "a blocked push must not hammer"


async def test_a_push_that_the_configuration_drops_gives_its_chunks_back(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, flush_after=timedelta(hours=1))])
    (only,) = await home.enqueue(change(1))
    await home.run(5)
    assert (await home.fate(only))[0] == "in_chunk"
    await home.restart(pushes=(Push("others"),))
    await home.run(15)
    assert await home.fate(only) == ("pending", "the configuration no longer has this push")
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0


async def test_keys_of_a_dropped_push_are_given_back_chunk_by_chunk(house: Build) -> None:
    """With those of one chunk held, and those of the next waited for, whoever locks them in their order would be waited for in a circle."""
    home = await house(pushes=[replace(PUSH, flush_after=timedelta(hours=1))])
    await home.enqueue(change(2))
    await home.run(2)
    await home.enqueue(change(1, leadScore=1))
    await home.run(2)
    first = await home.pool.fetchval("SELECT key_norm FROM syncd.key_claim ORDER BY chunk_id LIMIT 1")
    assert first == "person2@example.com"
    await home.restart(pushes=(Push("others"),))
    lock = "SELECT FROM syncd.key_claim WHERE key_norm = $1 FOR SHARE"
    async with home.pool.acquire() as claiming, claiming.transaction():
        await claiming.execute(lock, "person1@example.com")
        sweeping = asyncio.create_task(home.flows[0].step())
        await until_blocked(home.pool, sweeping)
        await asyncio.wait_for(claiming.execute(lock, "person2@example.com"), 10)
    await asyncio.wait_for(sweeping, 10)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0


async def test_clears_are_parked_until_sync_leads_is_there(house: Build) -> None:
    home = await house(pushes=[PUSH])
    cleared, empty = await home.enqueue(("a@example.com", '{"company": null}'), ("b@example.com", '{"company": ""}'))
    await home.run(60)
    for one in (cleared, empty):
        state, reason = await home.fate(one)
        assert state == "parked"
        assert "company" in (reason or "")


async def test_a_chunk_touched_by_hand_is_never_sent(house: Build) -> None:
    home = await house(pushes=[PUSH])
    for _ in range(10):
        home.simulator.add_foreign_job(60)
    await home.enqueue(change(1))
    await home.run(20)
    await home.pool.execute("UPDATE syncd.chunk_row SET line = replace(line, 'P1', 'P2')")
    await home.run(400, home.all_ended)
    assert await home.states() == {"applied": 1}
    assert lead_by(home, "person1@example.com")["firstName"] == "P1"


async def test_an_answer_that_could_not_be_written_is_written_later(house: Build) -> None:
    home = await house(pushes=[PUSH])
    (only,) = await home.enqueue(change(1))
    submitter = next(flow for flow in home.flows if flow.name == "submit")
    await home.run(12, home.a_chunk_is_sealed)
    # From now on the answer can't be written: a trigger stands for a database that is away at just that moment.
    await home.pool.execute(
        """CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'away'; END $$;
        CREATE TRIGGER away BEFORE UPDATE ON syncd.import_job FOR EACH ROW EXECUTE FUNCTION away()"""
    )
    for _ in range(2):
        with pytest.raises(asyncpg.PostgresError, match="away"):
            await submitter.step()
    assert await home.job_states() == ["submitting"]
    await home.pool.execute("DROP TRIGGER away ON syncd.import_job")
    await home.run(60, home.all_ended)
    assert (await home.fate(only))[0] == "applied"
    assert home.simulator.report().imports_accepted == 1


async def test_a_ledger_that_cannot_be_asked_means_that_nothing_was_sent(house: Build) -> None:
    home = await house(pushes=[PUSH])
    (only,) = await home.enqueue(change(1))
    await home.pool.execute("ALTER TABLE syncd.api_usage RENAME TO api_usage_away")
    await home.run(30, home.a_job_exists)
    assert await home.job_states() == ["refused"]
    await home.pool.execute("ALTER TABLE syncd.api_usage_away RENAME TO api_usage")
    await home.run(60, home.all_ended)
    assert (await home.fate(only))[0] == "applied"
