"""Sync Leads: clears, urgent changes, and column sets too rare to fill a file."""

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from structlog.testing import capture_logs

from syncd.core.settings import Limits, Push
from syncd.flows.sync import Syncer
from syncd.simulator import Fault, ImportModel
from tests.flows.conftest import PUSH, Build, House

LIST = 1_001
SMALL = replace(PUSH, max_body_bytes=2_000, flush_after=timedelta(), list_id=LIST)
"""Of a push with a list nothing goes by Sync Leads that need not."""


def value(house: House, email: str, name: str) -> str | None:
    (lead,) = house.simulator.world.by_email(email)
    return lead.values.get(name)


def assert_well(house: House) -> None:
    report = house.simulator.report()
    assert (report.violations, report.duplicate_live_keys, report.duplicate_leads_created) == ({}, (), 0)
    assert report.synced_live_keys == ()


async def syncer(house: House) -> Syncer:
    (flow,) = [flow for flow in house.flows if isinstance(flow, Syncer)]
    return flow


async def test_three_verbs(house: Build) -> None:
    """A value sets, null, an empty text and `clear` empty a field, and what is absent is left alone; 0 and false are values."""
    home = await house(pushes=[PUSH])
    (lead, *_) = home.simulator.world
    before = {"title": "CEO", "notes": "old", "lastName": "Ada", "leadScore": "7", "unsubscribed": "true", "email": "ada@example.org"}
    home.simulator.world.write(lead, before)
    change = await home.pool.fetchval(
        "SELECT syncd.enqueue('acme', 'contacts', 'ada@example.org', $1, clear => '{title}')",
        '{"notes": "", "leadScore": 0, "unsubscribed": false, "firstName": null}',
    )
    await home.run(60, home.all_ended)
    assert await home.fate(change) == ("applied", None)
    wanted = {"title": None, "notes": None, "firstName": None, "lastName": "Ada", "leadScore": "0", "unsubscribed": "false"}
    assert {name: lead.values.get(name) or None for name in wanted} == wanted
    report = home.simulator.report()
    assert (report.sync_calls, report.exports_created) == (1, 0)
    assert await home.job_states() == []
    batch = await home.row("SELECT state, row_count, applied, submitted_at, request_id FROM syncd.sync_batch")
    assert (batch["state"], batch["row_count"], batch["applied"]) == ("settled", 1, 1)
    assert batch["request_id"]
    assert await home.pool.fetchval("SELECT sync_batch_id IS NOT NULL FROM syncd.change WHERE id = $1", change)
    assert_well(home)


@pytest.mark.parametrize(("clear_with", "cell"), [("blank", '""'), ("NULL", "NULL")])
async def test_who_knows_what_a_cell_clears_with_needs_no_sync_leads(house: Build, clear_with: str, cell: str) -> None:
    home = await house(pushes=[replace(PUSH, clear_with=clear_with, list_id=LIST)])  # type: ignore[arg-type]
    await home.enqueue(("new@example.org", '{"title": null, "firstName": "N"}'))
    await home.run(5)
    assert await home.pool.fetchval("SELECT line FROM syncd.chunk_row") == f"new@example.org,N,{cell}\n"


@pytest.mark.parametrize(("push", "fields"), [(replace(PUSH, list_id=LIST), '{"title": null}'), (PUSH, '{"company": null}')])
async def test_what_sync_leads_cannot_clear_waits_for_somebody(house: Build, push: object, fields: str) -> None:
    home = await house(pushes=[push])  # type: ignore[list-item]
    (change,) = await home.enqueue(("a@example.org", fields))
    await home.run(20)
    state, reason = await home.fate(change)
    assert state == "parked"
    assert reason is not None
    assert "clear_with" in reason


async def test_a_clear_and_what_sync_leads_does_not_write_go_one_after_the_other(house: Build) -> None:
    home = await house(pushes=[PUSH])
    await home.enqueue(("a@example.org", '{"title": "x"}'), ("a@example.org", '{"title": null}'), ("a@example.org", '{"company": "C"}'))
    await home.run(200, home.all_ended)
    assert await home.states() == {"applied": 2, "superseded": 1}
    assert (value(home, "a@example.org", "title") or None, value(home, "a@example.org", "company")) == (None, "C")
    assert_well(home)


async def test_the_last_value_wins_across_files_and_calls(house: Build) -> None:
    home = await house(static_lists=(("L", 0),), pushes=[replace(PUSH, list_id=LIST)], imports=ImportModel(overhead_seconds=20, sigma=0))
    key = "a@example.org"
    for number in range(6):
        fields = orjson.dumps({"title": f"t{number}", "leadScore": number}).decode()
        await (home.enqueue_urgent(key, fields) if number % 2 else home.enqueue((key, fields)))
        await home.run(15)
    await home.run(600, home.all_ended)
    assert set(await home.states()) <= {"applied", "superseded"}
    assert (value(home, key, "title"), value(home, key, "leadScore")) == ("t5", "5")
    assert_well(home)


async def test_an_urgent_change_does_not_wait_behind_others(house: Build) -> None:
    home = await house(static_lists=(("L", 0),), pushes=[SMALL], imports=ImportModel(overhead_seconds=60, sigma=0))
    await home.enqueue(*((f"p{number}@example.org", f'{{"notes": "{"x" * 100}"}}') for number in range(300)))
    await home.run(60)
    await home.enqueue_urgent("ada@example.org", '{"unsubscribed": true}')
    began = home.clock.now()

    async def ended() -> bool:
        return await home.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.change_history WHERE key = 'ada@example.org')") is True

    await home.run(30, ended)
    assert home.clock.now() - began < timedelta(seconds=6)
    assert value(home, "ada@example.org", "unsubscribed") == "true"
    assert set(await home.states()) - {"applied"}, "others are on their way still"
    assert_well(home)


async def test_an_urgent_change_takes_with_it_what_is_pending_of_its_key(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, flush_after=timedelta(hours=1))])
    await home.enqueue(("a@example.org", '{"title": "t", "leadScore": 1}'), ("b@example.org", '{"title": "t", "leadScore": 1}'))
    await home.run(5)  # into an open chunk
    await home.enqueue(("a@example.org", '{"leadScore": 2}'))
    await home.run(5)  # waits for it
    await home.enqueue_urgent("a@example.org", '{"unsubscribed": true}')
    await home.run(20)
    assert await home.states() == {"applied": 3, "in_chunk": 1}
    assert [value(home, "a@example.org", name) for name in ("title", "leadScore", "unsubscribed")] == ["t", "2", "true"]
    chunk = await home.row("SELECT state, row_count, byte_count, octet_length(header) AS header FROM syncd.chunk")
    line = await home.pool.fetchval("SELECT string_agg(line, '') FROM syncd.chunk_row")
    assert (chunk["state"], chunk["row_count"], chunk["byte_count"]) == ("open", 1, chunk["header"] + len(line))
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 1


async def test_an_urgent_change_is_not_refused_for_what_sync_leads_does_not_write(house: Build) -> None:
    """Neither for what it would take along, nor for its own fields: such go by a file."""
    home = await house(pushes=[PUSH])
    await home.enqueue(("a@example.org", '{"company": "C", "firstName": "old"}'))
    await home.run(2)  # into an open chunk
    urgent = await home.enqueue_urgent("a@example.org", '{"firstName": "new"}')
    own = await home.enqueue_urgent("b@example.org", '{"company": "C", "title": "t"}')
    await home.pool.execute("UPDATE syncd.outbox SET created_at = $1", home.clock.now())
    await home.run(10)
    assert await home.fate(urgent) == ("applied", None)
    await home.run(200, home.all_ended)
    assert await home.fate(own) == ("applied", None)
    assert await home.states() == {"applied": 3}
    assert [value(home, "a@example.org", name) for name in ("company", "firstName")] == ["C", "new"]
    assert value(home, "b@example.org", "company") == "C"
    assert_well(home)


@pytest.mark.parametrize("clear_with", ["blank", "NULL"])
async def test_sync_leads_clears_with_null_whatever_cells_clear_with(house: Build, clear_with: str) -> None:
    home = await house(static_lists=(("L", 0),), pushes=[replace(SMALL, clear_with=clear_with)])  # type: ignore[arg-type]
    home.simulator.world.create({"email": "a@example.org", "title": "old"})
    change = await home.enqueue_urgent("a@example.org", '{"title": null}')
    await home.run(20, home.all_ended)
    assert await home.fate(change) == ("applied", None)
    assert (value(home, "a@example.org", "title") or None) is None
    assert_well(home)


async def mirrored(home: House, email: str) -> int:
    """A lead of Marketo's that the mirror knows, and nothing else does."""
    lead = home.simulator.world.create({"email": email, "unsubscribed": "false"})
    await home.pool.execute(
        """INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
           VALUES ('acme', $1, $2, '{}', '{}', now(), now(), now())""",
        lead.id,
        email,
    )
    return lead.id


@pytest.mark.parametrize("known", [True, False])
async def test_an_urgent_change_passes_a_live_chunk_by_its_leads_id_and_goes_once_more(house: Build, known: bool) -> None:
    home = await house(
        static_lists=(("L", 0),), pushes=[replace(SMALL, max_body_bytes=9_000)], imports=ImportModel(overhead_seconds=120, sigma=0)
    )
    if known:
        await mirrored(home, "a@example.org")
    await home.enqueue(("a@example.org", '{"unsubscribed": false, "title": "file"}'))
    await home.run(10, home.a_job_exists)
    await home.run(3)
    change = await home.enqueue_urgent("a@example.org", '{"unsubscribed": true}')
    await home.run(10)
    found = home.simulator.world.by_email("a@example.org")
    assert [lead.values.get("unsubscribed") for lead in found] == (["true"] if known else [])
    assert (await home.fate(change))[0] == ("in_batch" if known else "pending")
    await home.run(600, home.all_ended)
    assert await home.states() == {"applied": 2}
    assert (value(home, "a@example.org", "unsubscribed"), value(home, "a@example.org", "title")) == ("true", "file")
    assert home.simulator.report().sync_calls == (2 if known else 1)
    assert_well(home)


async def test_what_comes_after_a_call_without_an_answer_is_not_overtaken_by_it(house: Build) -> None:
    """The call has passed a chunk, which settles at once: for ten minutes Marketo may still execute the call."""
    home = await house(
        static_lists=(("L", 0),), pushes=[replace(SMALL, max_body_bytes=9_000)], imports=ImportModel(overhead_seconds=120, sigma=0)
    )
    await mirrored(home, "a@example.org")
    await home.enqueue(("a@example.org", '{"title": "file"}'))
    await home.run(10, home.a_job_exists)
    await home.run(3)
    home.simulator.script("sync_leads", Fault.RESET_AFTER)
    await home.enqueue_urgent("a@example.org", '{"unsubscribed": true}')
    await home.run(10)
    await home.enqueue_urgent("a@example.org", '{"unsubscribed": false}')
    await home.run(400)
    assert await home.states() == {"applied": 1, "in_batch": 2}
    await home.run(400, home.all_ended)
    assert value(home, "a@example.org", "unsubscribed") == "false"
    assert await home.states() == {"applied": 2, "superseded": 1}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0
    assert_well(home)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RESET_BEFORE,
        Fault.RESET_AFTER,
        Fault.TRUNCATED,
        Fault.GATEWAY_504,
        Fault.REST_604,
        Fault.REST_602,
        Fault.REST_606,
        Fault.REST_615,
    ],
)
async def test_no_change_is_lost_whatever_the_answer(house: Build, fault: Fault) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("sync_leads", fault)
    ids = await home.enqueue(*((f"p{number}@example.org", '{"title": null, "firstName": "P"}') for number in range(20)))
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": len(ids)}
    assert {value(home, f"p{number}@example.org", "firstName") for number in range(20)} == {"P"}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.sync_record") == 0
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0
    assert_well(home)


async def test_a_death_amid_a_call_leaves_it_unconfirmed_for_ten_minutes(house: Build) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("sync_leads", Fault.RESET_AFTER)
    await home.enqueue(("a@example.org", '{"title": null, "firstName": "P"}'))
    await home.run(12)
    await home.pool.execute("UPDATE syncd.sync_batch SET state = 'submitting', message = NULL")
    await home.restart()
    assert await home.pool.fetchval("SELECT state FROM syncd.sync_batch") == "unconfirmed"
    await home.run(580)
    assert await home.states() == {"in_batch": 1}
    await home.run(60, home.all_ended)
    assert await home.batch_states() == ["absent", "settled"]
    assert await home.states() == {"applied": 1}


async def test_a_push_that_the_configuration_drops_gives_its_open_batch_back(house: Build) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("sync_leads", Fault.REST_606)
    (only,) = await home.enqueue(("a@example.com", '{"title": null}'))
    await home.run(60, lambda: home.one_is_open_after(refused=1))
    await home.restart(pushes=(Push("others"),))
    with capture_logs() as logs:
        await home.run(15)
    assert await home.fate(only) == ("pending", "the configuration no longer has this push")
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["batch_given_up"]
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0
    assert home.simulator.report().sync_calls == 0


async def test_each_record_has_an_end_of_its_own(house: Build) -> None:
    home = await house(pushes=[PUSH])
    twins = [home.simulator.world.create({"email": "twin@example.org"}) for _ in range(2)]
    assert len(twins) == 2
    good, twin, odd = await home.enqueue(
        ("good@example.org", '{"title": null, "leadScore": 3}'),
        ("twin@example.org", '{"title": null}'),
        ("odd@example.org", '{"title": null, "leadScore": "many"}'),
    )
    await home.run(60, home.all_ended)
    assert await home.fate(good) == ("applied", None)
    assert [(await home.fate(change))[0] for change in (twin, odd)] == ["rejected", "rejected"]
    assert "1007" in str((await home.fate(twin))[1])
    assert "1001" in str((await home.fate(odd))[1])
    batch = await home.row("SELECT applied, rejected, unverified, retried FROM syncd.sync_batch")
    assert tuple(batch) == (1, 2, 0, 0)


@pytest.mark.parametrize("urgent", [False, True])
async def test_what_only_a_file_can_do_goes_by_one_after_all(house: Build, urgent: bool) -> None:
    """Of several leads with one address an import takes the one last updated, where Sync Leads refuses to choose."""
    home = await house(pushes=[PUSH])
    first, second = (home.simulator.world.create({"email": "twin@example.org"}) for _ in range(2))
    if urgent:
        change = await home.enqueue_urgent("twin@example.org", '{"title": "t"}')
    else:
        (change,) = await home.enqueue(("twin@example.org", '{"title": "t"}'))
    await home.run(200, home.all_ended)
    assert (await home.fate(change))[0] == "applied"
    assert sorted(lead.values.get("title", "") for lead in (first, second)) == ["", "t"]
    assert await home.job_states() == ["settled"]
    assert await home.pool.fetchval("SELECT retried FROM syncd.sync_batch") == 1


async def test_passing_trouble_of_a_record_goes_again_a_bounded_number_of_times(house: Build) -> None:
    home = await house(pushes=[PUSH])
    home.simulator.script("sync_leads", Fault.SYNC_SKIPPED, 2)
    (change,) = await home.enqueue(("a@example.org", '{"title": null}'))
    await home.run(100, home.all_ended)
    assert await home.fate(change) == ("applied", None)
    home.simulator.script("sync_leads", Fault.SYNC_SKIPPED, 50)
    (change,) = await home.enqueue(("b@example.org", '{"title": null}'))
    await home.run(300, home.all_ended)
    state, reason = await home.fate(change)
    assert (state, str(reason)[:20]) == ("rejected", "Marketo skipped it: ")
    assert home.simulator.report().sync_calls == 3 + 5


async def test_rare_column_sets_share_calls_and_take_no_slots(house: Build) -> None:
    home = await house(pushes=[PUSH], limits=Limits(calls_per_20s=100))
    names = ("title", "notes", "firstName", "lastName", "leadScore", "phone")
    await home.enqueue(
        *(
            (f"p{n}@example.org", orjson.dumps({name: "7" for at, name in enumerate(names) if (n % 63 + 1) >> at & 1}).decode())
            for n in range(630)
        )
    )
    await home.run(200, home.all_ended)
    assert await home.states() == {"applied": 630}
    assert await home.job_states() == []
    assert home.simulator.report().sync_calls == 3
    assert value(home, "p62@example.org", "phone") == "7"
    assert await home.pool.fetchval("SELECT max(attempt) FROM syncd.change_history") == 0
    assert_well(home)
