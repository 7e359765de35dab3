"""Pulls by extract: windows asked for and loaded, each once, whatever happens on the way."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.core import extract
from syncd.core.route import Route
from syncd.core.settings import StaticList
from syncd.core.values import UpdatedBetween
from syncd.core.windows import Window
from syncd.flows.exporting import CENSUS
from syncd.flows.loop import Idle
from syncd.simulator import Fault, Movement
from syncd.store import backfills, cursors, due
from tests.flows.conftest import Build, House
from tests.flows.exporting import (
    FIELDS,
    LIMITS,
    PULL,
    QUICK,
    Hooks,
    built,
    exports_of,
    filled,
    loader,
    mirror,
    nothing_is_open,
    poller,
    starter,
    truth,
)

HOUR = timedelta(hours=1)


def asked_twice(house: House) -> dict[str, int]:
    """The filters that were queued more than once."""
    return {text: count for text, count in house.simulator.report().exports_by_filter.items() if count > 1}


async def windows_of(house: House) -> list[tuple[Any, ...]]:
    rows = await house.pool.fetch("SELECT state, starts_at, ends_at FROM syncd.pull_window ORDER BY starts_at, id")
    return [tuple(row) for row in rows]


async def test_a_pull_is_filled_window_by_window_with_several_in_flight(house: Build) -> None:
    one = await built(house, replace(PULL, window=timedelta(days=4)), leads=400)
    await filled(one)
    assert await mirror(one) == truth(one)
    report = one.simulator.report()
    assert report.violations == {}
    assert report.most_exports_running_ours == 2
    assert (report.exports_failed, report.exports_refused, asked_twice(one)) == (0, {}, {})
    assert {state for (state,) in await exports_of(one)} == {"loaded"}
    assert await one.pool.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'staging\\_%'") == 0


async def test_what_changes_comes_with_the_next_increment(house: Build) -> None:
    one = await built(house, leads=60)
    await filled(one)
    before = await one.pool.fetch("SELECT lead_id, xmin::text FROM syncd.lead ORDER BY 1")
    await one.run(10)
    changed = next(iter(one.simulator.world)).id
    one.simulator.world.update(changed, {"company": "moved", "notes": 'a "note",\nof two lines'})
    await one.run(2 * 3600)
    assert await mirror(one) == truth(one)
    after = await one.pool.fetch("SELECT lead_id, xmin::text FROM syncd.lead ORDER BY 1")
    assert [row["lead_id"] for row, old in zip(after, before, strict=True) if row != old] == [changed]


async def test_the_first_window_is_a_probe_and_others_grow(house: Build) -> None:
    one = await built(house, replace(PULL, window=timedelta(days=31)), leads=200)
    await filled(one)
    done = [ends - starts for state, starts, ends in await windows_of(one) if state == "done"]
    assert done[0] == extract.PROBE
    assert set(done[1:-1]) == {8 * extract.PROBE}


async def test_strangers_have_the_queue_and_get_their_turn(house: Build) -> None:
    one = await built(house, replace(PULL, window=timedelta(days=4)), leads=100)
    for _ in range(10):
        one.simulator.add_foreign_export(900)
    await one.run(300)
    assert set(one.simulator.report().exports_refused) == {"1029"}
    await filled(one)
    assert await mirror(one) == truth(one)
    assert asked_twice(one) == {}


async def test_a_broken_download_goes_on_where_it_was(house: Build) -> None:
    one = await built(house, leads=300)
    one.simulator.script("export_file", Fault.FILE_BROKEN_OFF, 2)
    await filled(one)
    assert await mirror(one) == truth(one)
    report = one.simulator.report()
    assert max(report.downloads.values()) == 3 or sorted(report.downloads.values())[-2:] == [2, 2]
    assert {attempts for (attempts,) in await exports_of(one, "attempts")} == {0}
    assert report.downloaded_bytes < 1.5 * sum(report.export_bytes.values())


async def test_bytes_that_are_off_by_one_are_found_out(house: Build) -> None:
    one = await built(house, leads=300)
    one.simulator.script("export_file", Fault.FILE_BROKEN_OFF)
    one.simulator.script("export_file", Fault.RANGE_OFF_BY_ONE)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert sum(attempts for (attempts,) in await exports_of(one, "attempts")) == 1
    assert asked_twice(one) == {}


async def test_a_wrong_checksum_is_asked_for_anew(house: Build) -> None:
    one = await built(house, leads=100)
    one.simulator.script("export_status", Fault.WRONG_CHECKSUM, 2)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert asked_twice(one) == {}
    assert one.simulator.report().violations == {}


@pytest.mark.parametrize("fault", [Fault.FILE_NUL, Fault.FILE_STRAY_CR, Fault.FILE_BAD_QUOTES, Fault.FILE_U2028])
async def test_odd_files_are_read_all_the_same(house: Build, fault: Fault) -> None:
    one = await built(house, leads=200)
    one.simulator.script("export_file", fault, 9)
    await filled(one)
    ours, theirs = await mirror(one), truth(one)
    assert ours.keys() == theirs.keys()
    marks = {Fault.FILE_STRAY_CR: "\r", Fault.FILE_BAD_QUOTES: '"', Fault.FILE_U2028: "\u2028", Fault.FILE_NUL: ""}
    spoilt = 0
    for lead_id, (email, attributes) in ours.items():
        other = theirs[lead_id]
        differ = {name for name in attributes.keys() | other[1].keys() if attributes.get(name) != other[1].get(name)}
        assert email == other[0]
        assert len(differ) <= 1
        for name in differ:
            spoilt += 1
            cut = str.maketrans("", "", ',"\r\n' + marks[fault])
            assert attributes[name].translate(cut) == other[1][name].translate(cut)
            assert marks[fault] in attributes[name]
    assert spoilt > 0 or fault is Fault.FILE_NUL
    nuls = one.metrics.registry.get_sample_value("syncd_export_nuls_total", {"instance": "acme", "pull": "people"})
    assert bool(nuls) is (fault is Fault.FILE_NUL)
    assert asked_twice(one) == {}


async def test_a_header_of_other_fields_is_not_believed(house: Build) -> None:
    one = await built(house, leads=50)
    one.simulator.script("export_file", Fault.FILE_HEADER_CHANGED)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert ("expired", 3) in await exports_of(one, "state, attempts")


@pytest.mark.parametrize("fault", [Fault.FILE_404, Fault.FILE_JSON_200, Fault.HTML_200, Fault.RESET_AFTER, Fault.REST_606])
async def test_a_file_that_is_not_to_be_had_yet_is_waited_for(house: Build, fault: Fault) -> None:
    one = await built(house, leads=50)
    one.simulator.script("export_file", fault, 4)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert asked_twice(one) == {}


async def test_a_file_that_is_late_is_waited_for(house: Build) -> None:
    one = await built(house, leads=50, exports=replace(QUICK, not_ready_seconds=400))
    await filled(one)
    assert await mirror(one) == truth(one)
    assert asked_twice(one) == {}


async def in_state(house: House, state: str) -> bool:
    return await house.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.export WHERE state = $1)", state) is True


@pytest.mark.parametrize("state", ["queued", "processing", "completed"])
async def test_a_restart_goes_on_with_what_marketo_has(house: Build, state: str) -> None:
    one = await built(house, leads=100, exports=replace(QUICK, overhead_seconds=200))
    while not await in_state(one, state):
        for flow in (starter(one), poller(one)):
            await flow.step()
            one.clock.advance(7)
    await one.restart()
    await filled(one)
    assert await mirror(one) == truth(one)
    assert asked_twice(one) == {}
    assert {state for (state,) in await exports_of(one)} == {"loaded"}


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.GATEWAY_504, Fault.JSON_GARBAGE, Fault.REST_604])
async def test_a_creation_without_an_answer_is_found_in_the_list(house: Build, fault: Fault) -> None:
    one = await built(house, leads=100)
    one.simulator.script("export_create", fault)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert (True, "loaded") in await exports_of(one, "adopted, state")
    assert asked_twice(one) == {}
    assert one.simulator.report().exports_created == len(await exports_of(one))


async def test_a_creation_that_never_came_to_marketo_is_made_again(house: Build) -> None:
    one = await built(house, leads=100)
    one.simulator.script("export_create", Fault.RESET_BEFORE)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert "absent" in {state for (state,) in await exports_of(one)}
    assert asked_twice(one) == {}


@pytest.mark.parametrize("faults", [(Fault.RESET_BEFORE, Fault.RESET_AFTER), (Fault.RESET_AFTER, Fault.RESET_BEFORE)])
async def test_of_two_creations_in_doubt_neither_takes_the_job_of_the_other(house: Build, faults: Sequence[Fault]) -> None:
    """One never came to Marketo, of the other the answer was lost: the job in the list is that one's, also once it was given up."""
    one = await built(house, replace(PULL, window=timedelta(days=4)), leads=100)

    async def one_is_loaded() -> bool:
        return "loaded" in {state for (state,) in await exports_of(one)}

    await one.run(3600, one_is_loaded)
    for fault in faults:
        one.simulator.script("export_create", fault)
    await filled(one)
    assert await mirror(one) == truth(one)
    assert "expired" not in {state for (state,) in await exports_of(one)}
    assert asked_twice(one) == {}


async def test_a_crash_in_the_middle_of_a_creation_makes_no_second_job(house: Build) -> None:
    one = await built(house, leads=100)
    answered = await one.wire.exports.create(FIELDS, _anything())  # type: ignore[union-attr] # a stranger's, of the same user
    assert answered.state == "created"
    while not await in_state(one, "queued"):
        await starter(one).step()
        one.clock.advance(1)
    # as if the daemon had died while it waited for the answer to the creation
    await one.pool.execute("UPDATE syncd.export SET state = 'creating', export_id = NULL, created_at = NULL, enqueued_at = NULL")
    await one.restart()
    await filled(one)
    assert await mirror(one) == truth(one)


def _anything() -> Any:
    return UpdatedBetween(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    "fault", [Fault.RESET_AFTER, Fault.GATEWAY_504, Fault.REST_604, Fault.RESET_BEFORE, Fault.REST_1029_QUEUE, Fault.REST_611]
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_no_window_is_queued_twice_whatever_the_answer_to_its_queueing(house: Build, fault: Fault, restarted: bool) -> None:
    one = await built(house, leads=100)
    one.simulator.script("export_enqueue", fault)
    while not await in_state(one, "created"):
        await starter(one).step()
        one.clock.advance(1)
    if restarted:
        await one.restart()
    await filled(one)
    assert await mirror(one) == truth(one)
    assert asked_twice(one) == {}
    assert one.simulator.report().exports_created == len(await exports_of(one))
    assert {state for (state,) in await exports_of(one)} == {"loaded"}


async def test_a_job_that_is_queued_already_is_queued(house: Build) -> None:
    one = await built(house, leads=100)
    one.simulator.script("export_enqueue", Fault.REST_1029_QUEUE)
    while not await in_state(one, "created"):
        await starter(one).step()
        one.clock.advance(1)
    await one.wire.exports.enqueue(await one.pool.fetchval("SELECT export_id FROM syncd.export"))  # type: ignore[union-attr]
    await filled(one)
    assert asked_twice(one) == {}
    assert await mirror(one) == truth(one)


async def test_a_job_that_is_not_queued_though_marketo_said_so_is_queued_again(house: Build) -> None:
    one = await built(house, leads=100)
    one.simulator.script("export_enqueue", Fault.REST_1029_ALREADY)
    with capture_logs() as logs:
        await filled(one, 3600)
    assert [line["log_level"] for line in logs if line["event"] == "export_queued_again"] == ["warning"]
    assert asked_twice(one) == {}
    assert await mirror(one) == truth(one)


async def test_a_failed_export_is_asked_for_in_halves(house: Build) -> None:
    one = await built(house, leads=200)
    one.simulator.script("export_create", Fault.EXPORT_FAILED)
    await filled(one)
    assert await mirror(one) == truth(one)
    windows = await windows_of(one)
    halved = [(starts, ends) for state, starts, ends in windows if state == "split" and ends - starts == extract.PROBE]
    assert len(halved) == 1
    assert [state for (state,) in await exports_of(one)].count("failed") == 1


async def test_a_list_whose_exports_always_fail_blocks_its_pull(house: Build) -> None:
    lists = replace(PULL, select=StaticList("Webinar"))
    one = await built(house, lists, leads=50, static_lists=(("Webinar", 20),))
    one.simulator.script("export_create", Fault.EXPORT_FAILED, 3)
    await one.run(3600, lambda: _blocked(one))
    assert await _blocked(one)
    await filled(one)
    assert len(await mirror(one)) == 20


async def _blocked(house: House) -> bool:
    return await house.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.pull WHERE state = 'blocked')") is True


async def test_a_file_that_was_not_read_in_seven_days_is_asked_for_anew(house: Build) -> None:
    one = await built(house, leads=100)
    while not await in_state(one, "completed"):
        for flow in (starter(one), poller(one)):
            await flow.step()
            one.clock.advance(7)
    await one.stop()
    one.clock.advance(8 * 86_400)
    await one.start()
    await filled(one)
    assert await mirror(one) == truth(one)
    assert "expired" in {state for (state,) in await exports_of(one)}


async def test_a_job_that_marketo_has_forgotten_is_asked_for_anew(house: Build) -> None:
    one = await built(house, leads=100)
    while not await in_state(one, "queued"):
        await starter(one).step()
        one.clock.advance(1)
    await one.stop()
    one.clock.advance(8 * 86_400)
    await one.start()
    await filled(one)
    assert await mirror(one) == truth(one)
    assert "cancelled" in {state for (state,) in await exports_of(one)}


async def test_a_static_list_keeps_its_members(house: Build) -> None:
    lists = replace(PULL, select=StaticList("Webinar"))
    one = await built(house, lists, leads=50, static_lists=(("Webinar", 20),))
    await filled(one)
    members = one.simulator.world.list_named("Webinar")
    assert members is not None
    gone = next(iter(members.members))
    members.members.discard(gone) if hasattr(members.members, "discard") else members.members.remove(gone)
    await one.run(2 * 3600)
    rows = await one.pool.fetch("SELECT lead_id, left_at IS NULL AS member FROM syncd.list_membership WHERE list = 'Webinar' ORDER BY 1")
    assert {row["lead_id"] for row in rows if row["member"]} == set(members.members)
    assert [row["lead_id"] for row in rows if not row["member"]] == [gone]


async def test_fields_too_many_for_one_call_come_in_parts(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "LONGEST_LIST", 70)
    one = await built(house, leads=150)
    await filled(one)
    assert await mirror(one) == truth(one)
    parts = await exports_of(one, "part, parts, cardinality(fields)")
    assert {of for _, of, _ in parts} == {3}
    assert {part for part, _, _ in parts} == {0, 1, 2}
    report = one.simulator.report()
    assert set(report.exports_by_filter.values()) == {3}
    assert report.exports_created == report.exports_enqueued == len(parts)


async def test_a_part_that_fails_is_asked_for_alone_and_what_moved_on_comes_later(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "LONGEST_LIST", 120)
    one = await built(house, leads=80, movement=_moving())
    await filled(one)
    await one.run(3 * 3600)
    quiet = {lead.id for lead in one.simulator.world if lead.updated_at < one.clock.now() - 2 * HOUR}
    ours, theirs = await mirror(one), truth(one)
    assert len(quiet) > 20
    assert {lead_id: ours[lead_id] for lead_id in quiet} == {lead_id: theirs[lead_id] for lead_id in quiet}


def _moving() -> Movement:
    return Movement(updates_per_second=0.003)


async def test_where_keeps_leads_out(house: Build) -> None:
    one = await built(house, replace(PULL, where={"unsubscribed": ("1",)}), leads=200)
    await filled(one)
    wanted = {lead_id: lead for lead_id, lead in truth(one).items() if lead[1]["unsubscribed"]}
    assert 0 < len(wanted) < 100
    assert await mirror(one) == wanted
    assert await one.pool.fetchval("SELECT sum(dropped) FROM syncd.pull_window") == 200 - len(wanted)


async def test_all_fields_are_named_where_the_pull_names_none(house: Build) -> None:
    one = await built(house, replace(PULL, fields=()), leads=30)
    await filled(one)
    every = list(one.simulator.world.catalogue.by_rest)
    ours, theirs = await mirror(one), truth(one, every)
    assert ours.keys() == theirs.keys()
    assert {len(attributes) for _, attributes in ours.values()} == {len(attributes) for _, attributes in theirs.values()}


async def test_ids_are_due_until_they_are_read(house: Build) -> None:
    one = await built(house, hooks=Hooks(route=Route(False, True, "windows", "a test")), leads=100)
    await one.run(6 * 3600)
    ids = {lead.id for lead in one.simulator.world}
    rows = await one.pool.fetch("SELECT lead_id, window_id, reason, noted_at FROM syncd.lead_due")
    assert {row["lead_id"] for row in rows} == ids
    assert {row["reason"] for row in rows} == {"listed"}
    assert all(row["window_id"] for row in rows)
    assert {fields for (fields,) in await exports_of(one, "fields::text")} == {"{id}"}
    open_before = [window for window in await windows_of(one) if window[0] == "open"]
    assert open_before
    assert asked_twice(one) == {}
    async with one.lease.transaction() as connection:  # type: ignore[union-attr]
        taken = [due.Due(row["noted_at"], row["lead_id"]) for row in rows]
        for window in await due.read(connection, "acme", "people", taken, one.clock.now()):
            await cursors.finish_if_read(connection, window, one.clock.now())
    assert not [window for window in await windows_of(one) if window[0] == "open"]


async def test_an_instance_without_updated_at_is_told_and_rerouted(house: Build) -> None:
    hooks = Hooks(reroutes=True)
    one = await built(house, hooks=hooks, leads=80, exports=replace(QUICK, updated_at_filter=False))
    await filled(one)
    assert [pull for pull, _ in hooks.rerouted] == ["people"]
    assert await mirror(one) == truth(one)
    first = await one.pool.fetchval("SELECT min(starts_at) FROM syncd.pull_window WHERE by_creation")
    assert first == extract.BEGINNING
    before = await one.pool.fetchval("SELECT count(*) FROM syncd.pull_window")
    await one.run(5 * 3600)
    assert await one.pool.fetchval("SELECT count(*) FROM syncd.pull_window") == before, "activities tell what is new"


async def test_without_another_way_the_pull_is_blocked_and_others_go_on(house: Build) -> None:
    lists = replace(PULL, name="members", select=StaticList("Webinar"))
    one = await built(house, PULL, lists, leads=80, static_lists=(("Webinar", 20),), exports=replace(QUICK, updated_at_filter=False))
    await one.run(1800)
    row = await one.row("SELECT state, message FROM syncd.pull WHERE pull = 'people'")
    assert row["state"] == "blocked"
    assert "1035" in row["message"]
    assert "source" in row["message"]
    assert len(await mirror(one)) == 20


async def test_a_fill_waits_for_what_is_to_follow_it(house: Build) -> None:
    hooks = Hooks(route=Route(False, False, "activities", "a test"), may_fill=False)
    one = await built(house, hooks=hooks, leads=50)
    await one.run(600)
    assert await windows_of(one) == []
    hooks.may_fill = True
    await filled(one)
    assert await mirror(one) == truth(one)


async def test_the_census_hands_on_its_ids_in_the_transaction_of_its_window(house: Build) -> None:
    hooks = Hooks(census=True)
    one = await built(house, hooks=hooks, leads=60)
    await filled(one)
    async with one.lease.transaction() as connection:  # type: ignore[union-attr]
        start = datetime(2026, 2, 1, tzinfo=UTC)
        await connection.execute(
            "INSERT INTO syncd.pull (instance, pull, selector, planned_until, planned_at) VALUES ('acme', $1, '{}', $2, $2)", CENSUS, start
        )
        windows = [Window(start - timedelta(days=31 * back + 31), start - timedelta(days=31 * back)) for back in range(-1, 2)]
        await connection.execute(
            "INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at, by_creation, ids_only) "
            "SELECT 'acme', $1, 'bulk_extract', w.a, w.b, $2, true, true FROM unnest($3::timestamptz[], $4::timestamptz[]) w (a, b)",
            CENSUS,
            start,
            [window.starts_at for window in windows],
            [window.ends_at for window in windows],
        )
    await filled(one)
    created = {
        lead.id for lead in one.simulator.world if windows[-1].starts_at.timestamp() <= lead.created <= windows[0].ends_at.timestamp()
    }
    assert {lead_id for _, ids in hooks.listed for lead_id in ids} == created
    assert await one.pool.fetchval("SELECT count(*) FROM syncd.lead_due") == 0


async def test_a_selector_that_changes_leaves_its_exports_behind(house: Build) -> None:
    one = await built(house, leads=100, exports=replace(QUICK, overhead_seconds=2000))
    while not await in_state(one, "queued"):
        await starter(one).step()
        one.clock.advance(1)
    await one.restart(pulls=(replace(PULL, fields=("company",)),))
    await filled(one)
    states = [state for (state,) in await exports_of(one)]
    assert states.count("cancelled") == 1
    assert one.simulator.report().exports_cancelled == 1
    assert await mirror(one) == truth(one, ["company"])


async def test_two_loaders_never_load_the_same_window(house: Build) -> None:
    one = await built(house, leads=100)
    while not await in_state(one, "completed"):
        for flow in (starter(one), poller(one)):
            await flow.step()
            one.clock.advance(7)
    first = loader(one)
    await first._tidy_up()
    load = await first._next()
    assert not isinstance(load, Idle)
    first._shared.loading.add(load.window.id)
    assert isinstance(await one.flows[-1].step(), Idle)
    first._shared.loading.clear()


async def test_what_moves_out_of_a_window_before_its_turn_comes_all_the_same(house: Build) -> None:
    """Where the activity log tells the news, there are no later windows but these; and of such a move the log tells nothing."""
    one = await built(house, replace(PULL, window=timedelta(days=4)), hooks=Hooks(Route(False, False, "activities", "a test")), leads=200)
    one.simulator.world.create({"company": "the latest"})

    async def has_begun() -> bool:
        return "queued" in {state for (state,) in await exports_of(one)}

    await one.run(3600, has_begun)
    world = one.simulator.world
    moved = [lead for lead in world if lead.updated > one.clock.now().timestamp() - 86_400 * 5]
    assert moved
    world.touch(moved, one.clock.now().timestamp())

    async def closed() -> bool:
        return await nothing_is_open(one) and await one.pool.fetchval("SELECT closings = 0 FROM syncd.pull") is True

    await one.run(7_200, closed)
    assert await mirror(one) == truth(one)
    windows = await one.pool.fetchval("SELECT count(*) FROM syncd.pull_window")
    await one.run(1_800)
    assert await one.pool.fetchval("SELECT count(*) FROM syncd.pull_window") == windows, "the log goes on alone"


async def test_a_backfill_moves_on_beside_news_that_come_more_often_than_an_export_takes(house: Build) -> None:
    one = await built(house, replace(PULL, every=timedelta(seconds=30)), limits=replace(LIMITS, export_slots=2), leads=60)
    await one.run(3_600)
    async with one.pool.acquire() as connection:
        backfill = await backfills.order(connection, "acme", PULL.name, None, "a test")
    asked = await one.pool.fetchval("SELECT count(*) FROM syncd.export")

    async def done() -> bool:
        progress = await backfills.progress(one.pool, backfill)
        return progress is not None and progress.finished_at is not None

    await one.run(3_600, done)
    assert await done(), await one.pool.fetch("SELECT state, count(*) FROM syncd.pull_window WHERE backfill_id IS NOT NULL GROUP BY 1")
    news = await one.pool.fetchval("SELECT count(*) - $1 FROM syncd.export e JOIN syncd.pull_window w ON w.id = e.window_id", asked)
    assert news > 4, "news came too"


async def test_news_wait_an_hour_at_most_for_an_export_that_gets_stuck(house: Build) -> None:
    one = await built(house, replace(PULL, every=timedelta(minutes=2)), leads=60)
    await filled(one)
    await one.run(600)
    one.simulator.script("export_status", Fault.REST_1029_QUOTA)  # nobody knows what that means there
    refused = "SELECT count(*) = 1 FROM syncd.export WHERE message LIKE '%1029%'"

    async def met() -> bool:
        return await one.pool.fetchval(refused) is True

    await one.run(3600, met)
    new = one.simulator.world.create({"company": "the latest"}).id
    await one.run(2 * 3600)
    assert new in await mirror(one)
    assert await met(), "it is looked at again only after midnight"
