"""The guard of a push: no mistake reaches more people than the canary, what is older goes on, and nothing is lost for it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from syncd.core.forget import Person
from syncd.core.settings import Guard, Hours
from syncd.simulator import Fault, ImportModel
from syncd.store import discarding, forgetting, guards, holding, pushes
from syncd.store.discarding import Chosen
from tests.flows.conftest import PULL, PUSH, Build, House

GUARD = Guard(canary=20, hold_above=400)
GUARDED = replace(PUSH, guard=GUARD, flush_after=timedelta(minutes=2))
SOON, LONG = 10.0, 3600.0
# As an application's trigger would: one statement, so one moment.
UPDATE_ALL = """
INSERT INTO syncd.outbox (instance, push, key, fields, created_at, priority)
SELECT 'acme', 'contacts', format('%s%s@example.com', $3::text, n), jsonb_build_object('leadScore', $4::text), $2, $5
  FROM generate_series(1, $1) AS n
"""
MADE = "UPDATE syncd.outbox SET created_at = $1 WHERE id = ANY ($2::bigint[])"


async def surge(home: House, count: int, who: str = "surge", score: str = "0", priority: str = "normal") -> None:
    await home.pool.execute(UPDATE_ALL, count, home.clock.now(), who, score, priority)


async def trickle(home: House, *who: str, score: str = "7") -> list[int]:
    ids = await home.enqueue(*((f"{each}@example.com", f'{{"leadScore": "{score}"}}') for each in who))
    await home.pool.execute(MADE, home.clock.now(), ids)
    return ids


def names(count: int, prefix: str = "old") -> Sequence[str]:
    return [f"{prefix}{n}" for n in range(count)]


async def guard(home: House) -> dict[str, object]:
    return dict(await home.row("SELECT canary, why, failed, cardinality(canary_ids) AS size, surge_since, held_at FROM syncd.guard"))


async def push(home: House) -> tuple[str, str | None]:
    row = await home.row("SELECT state, message FROM syncd.push")
    return row["state"], row["message"]


async def let_go(home: House) -> None:
    """What `syncd release` does for a push that is held."""
    async with home.pool.acquire() as connection, connection.transaction():
        await guards.trust(connection, "acme", "contacts", home.clock.now())
        await pushes.let_go(connection, "acme", "contacts")


async def release(home: House) -> None:
    """What `syncd release` does for changes that are held."""
    async with home.pool.acquire() as connection:
        await holding.release(connection, "acme", "contacts", None, 10**9)
        await holding.settle_holds(connection, "acme", "contacts")


async def discard_held(home: House) -> int:
    """What `syncd discard --held` does."""
    async with home.pool.acquire() as connection:
        chosen = Chosen("acme", "contacts", datetime.max.replace(tzinfo=UTC), held=True)
        return await discarding.cancel(connection, chosen, 10**9, home.clock.now())


async def until_quiet(home: House) -> None:
    """Until all that may go has ended, and a little longer."""

    async def quiet() -> bool:
        moving = "SELECT NOT EXISTS (SELECT FROM syncd.outbox WHERE state NOT IN ('held', 'parked'))"
        return await home.pool.fetchval(moving) is True

    await home.run(LONG, quiet)
    await home.run(SOON)


async def until_held(home: House) -> None:
    """Until the push is held, and a little longer."""

    async def held() -> bool:
        return (await push(home))[0] == "held"

    await home.run(LONG, held)
    await home.run(SOON)


def scored(home: House, score: str) -> int:
    """How many of those that tests make up have the score at Marketo's."""
    theirs = [lead.values for lead in home.simulator.world if re.match(r"(surge|new|old|later|same)\d*@", lead.values.get("email") or "")]
    return sum(values.get("leadScore") == score for values in theirs)


async def trusted(house: Build, **settings: object) -> House:
    """A house whose push has had its canary, two hours ago."""
    home = await house(pushes=[replace(GUARDED, **settings)])  # type: ignore[arg-type]
    await trickle(home, "first")
    await home.run(600, home.all_ended)
    await home.run(5)  # for its verdict
    assert (await guard(home))["canary"] == "good"
    home.clock.advance(7200)
    return home


# ── The canary ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_oldest_go_first_and_alone_and_the_rest_when_they_have_ended_well(house: Build) -> None:
    home = await house(pushes=[GUARDED], imports=ImportModel(overhead_seconds=60, sigma=0))
    ids = await trickle(home, *names(100))
    await home.run(30, home.a_job_exists)
    assert home.clock.now() < datetime(2026, 3, 2, 12, 1, tzinfo=UTC), "it does not wait for a file to fill"
    found = await home.pool.fetch("SELECT id FROM syncd.outbox WHERE state = 'in_chunk' ORDER BY id")
    assert [row["id"] for row in found] == ids[:20]
    await home.run(30)
    assert await home.states() == {"in_chunk": 20, "pending": 80}
    assert await guard(home) == {"canary": "under_way", "why": "first", "failed": 0, "size": 20, "surge_since": None, "held_at": None}
    await home.run(LONG, home.all_ended)
    await home.run(5)
    assert await home.states() == {"applied": 100}
    assert (await guard(home))["canary"] == "good"


async def test_a_bad_canary_holds_the_push_and_says_why(house: Build) -> None:
    home = await house(pushes=[GUARDED])
    await trickle(home, *names(19))
    await trickle(home, *names(81, "wrong"), score="1.5")
    home.instance = replace(home.instance, pushes=(replace(GUARDED, guard=replace(GUARD, canary=50)),))
    await home.restart()
    await until_held(home)
    assert await home.states() == {"applied": 19, "rejected": 31, "pending": 50}
    state, message = await push(home)
    assert state == "held"
    assert message is not None
    assert message.startswith("of a canary of 50 changes 31 failed (rejected 31), of which 2% may: 31 times ")
    assert message.endswith("syncd release -i acme --push contacts lets them go, syncd discard -i acme --push contacts cancels them")
    assert (await guard(home))["failed"] == 31
    await home.restart()
    await home.run(SOON)
    assert (await home.states())["pending"] == 50, "no restart lets it go"


async def test_an_operator_lets_go_on_what_a_bad_canary_has_stopped(house: Build) -> None:
    home = await house(pushes=[GUARDED])
    await trickle(home, *names(30, "wrong"), score="1.5")
    await trickle(home, *names(10))
    await until_held(home)
    assert (await push(home))[0] == "held"
    await let_go(home)
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"applied": 10, "rejected": 30}


async def test_other_settings_have_a_canary_of_their_own_and_end_a_hold(house: Build) -> None:
    home = await trusted(house)
    await home.restart(pushes=(replace(GUARDED, clear_with="blank"),))
    await trickle(home, *names(30, "wrong"), score="1.5")
    await until_held(home)
    assert (await home.states())["pending"] == 10
    assert (await push(home))[0] == "held"
    await home.restart(pushes=(GUARDED,))
    await home.run(LONG, home.all_ended)
    await home.run(SOON)
    found = await guard(home)
    assert (found["why"], found["failed"]) == ("mapping", 10)
    assert (await push(home))[0] == "held", "the others are wrong, too"
    await home.restart(pushes=(replace(GUARDED, flush_after=timedelta(minutes=1)),))
    await home.run(SOON)
    assert (await push(home))[0] == "held", "that changes nothing of what it does"


async def test_forgotten_people_do_not_make_a_canary_bad(house: Build) -> None:
    home = await house(pushes=[GUARDED])
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        await forgetting.keep(connection, "acme", Person.of([("email", f"old{n}@example.com") for n in range(5)]))
    await trickle(home, *names(30))
    await until_quiet(home)
    assert await home.states() == {"applied": 25, "rejected": 5}
    assert (await guard(home))["canary"] == "good"


async def test_a_canary_that_is_discarded_has_no_say(house: Build) -> None:
    home = await house(pushes=[GUARDED], checked=False)
    await trickle(home, *names(40))
    guarding = next(flow for flow in home.flows if flow.name == "guard")
    for _ in range(2):
        await guarding.step()
    assert (await guard(home))["canary"] == "under_way"
    async with home.pool.acquire() as connection:
        await discarding.cancel(connection, Chosen("acme", "contacts", datetime.max.replace(tzinfo=UTC)), 20, home.clock.now())
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"cancelled": 20, "applied": 20}
    assert (await guard(home))["size"] == 20


async def test_rare_column_sets_of_a_canary_take_no_file_each(house: Build) -> None:
    home = await house(pushes=[replace(GUARDED, guard=replace(GUARD, canary=50))])
    ids = await home.enqueue(
        *((f"p{n}@example.com", f'{{"{field}": "x", "leadScore": 1}}') for n, field in enumerate(["firstName"] * 47 + ["lastName"] * 3))
    )
    await home.pool.execute(MADE, home.clock.now(), ids)
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"applied": 50}
    assert home.simulator.report().imports_accepted == 1
    assert await home.pool.fetchval("SELECT sum(row_count) FROM syncd.sync_batch") == 3


# ── The surge ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("everybody", [20_000, pytest.param(1_000_000, marks=pytest.mark.prove)])
async def test_an_update_of_everybody_reaches_no_more_than_the_canary_and_what_was_before_goes_on(house: Build, everybody: int) -> None:
    """The story of the README."""
    home = await trusted(house, guard=Guard(canary=200, hold_above=1_000))
    old = await trickle(home, *names(300))
    home.clock.advance(60)
    await surge(home, everybody)
    await until_quiet(home)
    found = await home.states()
    assert found == {"applied": 301, "held": everybody}, "the canary were the oldest, of which there were enough"
    assert {(await home.fate(change))[0] for change in old} == {"applied"}
    assert scored(home, "0") == 0
    assert (await push(home))[0] == "running"
    (hold,) = await holding.holds(home.pool, "acme")
    assert (hold.changes, len(hold.ids)) == (everybody, 5)
    assert hold.why == "the guard holds it: more than 1,000 changes came within an hour (hold_above)"
    assert hold.since is not None
    later = await trickle(home, *names(5, "later"))
    await until_quiet(home)
    assert {(await home.fate(change))[0] for change in later} == {"applied"}, "what comes after goes on, too"
    assert await discard_held(home) == everybody
    assert await home.states() == {"applied": 306, "cancelled": everybody}
    assert scored(home, "0") == 0


async def test_a_surge_alone_loses_its_canary_and_nothing_else(house: Build) -> None:
    home = await trusted(house)
    await surge(home, 2_000)
    await until_quiet(home)
    assert await home.states() == {"applied": 21, "held": 1_980}
    assert scored(home, "0") == 20
    assert (await guard(home))["why"] == "surge"


async def test_a_surge_that_commits_late_amid_the_ids_of_others_is_one(house: Build) -> None:
    """Its ids were taken before those of what has gone meanwhile: no bound of ids would stop it."""
    home = await trusted(house)
    async with home.pool.acquire() as connection:
        statement = connection.transaction()
        await statement.start()
        await connection.execute(UPDATE_ALL, 2_000, home.clock.now(), "surge", "0", "normal")
        beside = await trickle(home, *names(30, "beside"))
        await until_quiet(home)
        assert {(await home.fate(change))[0] for change in beside} == {"applied"}
        await statement.commit()
    await until_quiet(home)
    assert await home.states() == {"applied": 31 + 20, "held": 1_980}
    assert scored(home, "0") == 20


async def test_many_small_transactions_are_held_from_the_rate_on(house: Build) -> None:
    home = await trusted(house)
    for n in range(10):
        await surge(home, 100, f"part{n}at")
        await home.run(5)
    await until_quiet(home)
    found = await home.states()
    assert found["applied"] + found["held"] == 1_001
    # what goes by the rate, and the one canary of the surge
    assert 400 <= found["applied"] - 1 <= 400 + 20


async def test_what_gathered_slowly_while_paused_is_no_surge(house: Build) -> None:
    home = await trusted(house)
    await home.pool.execute("UPDATE syncd.push SET state = 'paused'")
    for n in range(5):
        await surge(home, 390, f"hour{n}at")
        home.clock.advance(3700)
    await home.pool.execute("UPDATE syncd.push SET state = 'running'")
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"applied": 1 + 5 * 390}


async def test_what_is_released_goes_at_once_and_is_not_held_again(house: Build) -> None:
    home = await trusted(house)
    await surge(home, 1_000)
    await until_quiet(home)
    assert (await home.states())["held"] == 980
    await release(home)
    assert (await guard(home))["held_at"] is None
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"applied": 1_001}
    assert scored(home, "0") == 1_000


async def test_a_newer_change_of_a_key_is_not_overwritten_by_a_surge_that_is_released_later(house: Build) -> None:
    home = await trusted(house)
    await surge(home, 1_000)
    await until_quiet(home)
    await trickle(home, "surge999", score="42")
    await until_quiet(home)
    assert scored(home, "42") == 1
    await release(home)
    await home.run(LONG, home.all_ended)
    assert scored(home, "42") == 1
    assert await home.states() == {"applied": 1_001, "superseded": 1}


async def test_a_surge_of_a_held_push_is_held_and_its_canary_is_bad(house: Build) -> None:
    home = await trusted(house)
    await surge(home, 1_000, score="1.5")
    await until_held(home)
    assert await home.states() == {"applied": 1, "rejected": 20, "held": 980}
    assert (await push(home))[0] == "held"


# ── Urgent changes ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_urgent_change_goes_beside_a_surge_but_takes_nothing_of_it_along(house: Build) -> None:
    home = await trusted(house)
    await surge(home, 1_000)
    home.clock.advance(1)
    packer, syncer = (next(flow for flow in home.flows if flow.name == name) for name in ("pack", "sync"))
    urgent = await home.enqueue_urgent("surge500@example.com", '{"firstName": "Urgent"}')
    await home.pool.execute(MADE, home.clock.now() - timedelta(minutes=5), [urgent])
    await packer.step()
    await syncer.step()
    assert (await home.fate(urgent))[0] in ("in_batch", "applied"), "made before the surge"
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.outbox WHERE state = 'pending'") == 1_000
    await until_quiet(home)
    assert (await home.fate(urgent))[0] == "applied"
    assert scored(home, "0") <= 20


async def test_a_surge_of_urgent_changes_is_held(house: Build) -> None:
    home = await trusted(house)
    await surge(home, 1_000, priority="urgent")
    await until_quiet(home)
    assert await home.states() == {"applied": 1, "held": 1_000}, "nothing of it waits for a file, so there is no canary"


async def test_an_urgent_change_passes_the_hours_but_not_a_hold(house: Build) -> None:
    home = await trusted(house)
    await home.restart(pushes=(replace(GUARDED, hours=Hours(time(22), time(23), ZoneInfo("UTC"))),))
    assert home.clock.now().hour < 20
    normal = (await trickle(home, "normal"))[0]
    urgent = await home.enqueue_urgent("urgent@example.com", '{"firstName": "U"}')
    await home.run(20)
    assert ((await home.fate(urgent))[0], (await home.fate(normal))[0]) == ("applied", "pending")
    async with home.pool.acquire() as connection:
        await pushes.hold(connection, "acme", "contacts", "why")
    urgent = await home.enqueue_urgent("urgent2@example.com", '{"firstName": "U"}')
    await home.run(20)
    assert (await home.fate(urgent))[0] == "pending"


# ── Leads to be created ───────────────────────────────────────────────────────────────────────────────────────────────────


async def mirrored(house: Build, **settings: object) -> House:
    """A house whose mirror has all leads."""
    most = Guard(canary=5, hold_above=None, max_created=30)
    home = await house(pulls=[PULL], pushes=[replace(GUARDED, guard=most, **settings)], leads=100)  # type: ignore[arg-type]
    await home.run(600)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead") == 100
    return home


async def test_those_who_would_be_created_beyond_the_days_number_are_held(house: Build) -> None:
    home = await mirrored(house)
    known = {lead.values["email"].lower() for lead in home.simulator.world if lead.values.get("email")}
    await trickle(home, *names(50, "new"))
    await home.enqueue(*((email, '{"leadScore": 9}') for email in known))
    await until_quiet(home)
    assert await home.states() == {"applied": 30 + len(known), "held": 20}
    assert len(list(home.simulator.world)) == 130
    assert sum(lead.values.get("leadScore") == "9" for lead in home.simulator.world) >= len(known), "whom the mirror knows goes on"
    (hold,) = await holding.holds(home.pool, "acme")
    assert hold.why == "the guard holds it: more than 30 leads would be created in a day (max_created)"
    await trickle(home, "new1", score="3")
    await until_quiet(home)
    assert scored(home, "3") == 1, "whom we have created counts once, whether or not the pull has brought it"
    home.clock.advance(86400)
    await trickle(home, *names(3, "tomorrow"))
    await until_quiet(home)
    assert len(list(home.simulator.world)) == 133
    await release(home)
    await home.run(LONG, home.all_ended)
    assert len(list(home.simulator.world)) == 153


async def test_urgent_changes_that_would_create_too_many_are_held_as_well(house: Build) -> None:
    """They would be passed over for ever, and the urgent changes behind them with them."""
    home = await mirrored(house)
    await surge(home, 40, priority="urgent")
    await home.run(600)
    assert await home.states() == {"applied": 30, "held": 10}
    assert len(list(home.simulator.world)) == 130


async def test_changes_of_one_new_lead_create_one(house: Build) -> None:
    home = await mirrored(house)
    for n in range(40):
        await trickle(home, "same", score=str(n))
    await home.run(LONG, home.all_ended)
    assert (await home.states()).keys() == {"applied", "superseded"}
    assert await home.pool.fetchval("SELECT sum(created) FROM syncd.guard_count") == 1


# ── Hours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_outside_its_hours_a_push_packs_and_submits_nothing(house: Build) -> None:
    night = Hours(time(20), time(6), ZoneInfo("America/Chicago"))
    home = await house(pushes=[replace(PUSH, hours=night)])  # it is 12:00 in UTC, 6:00 there
    await trickle(home, *names(30))
    await home.enqueue(("cleared@example.com", '{"firstName": null}'))
    await home.run(20)
    assert await home.states() == {"pending": 31}
    home.clock.advance((datetime(2026, 3, 3, 1, 59, 30, tzinfo=UTC) - home.clock.now()).total_seconds())
    await home.run(25)
    assert await home.states() == {"pending": 31}
    await home.run(600, home.all_ended)
    assert await home.states() == {"applied": 31}
    assert home.clock.now() >= datetime(2026, 3, 3, 2, tzinfo=UTC)


async def test_what_is_packed_when_the_hours_end_waits_for_the_next(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, flush_after=timedelta(), hours=Hours(time(11), time(13), ZoneInfo("UTC")))])
    for _ in range(10):
        home.simulator.add_foreign_job(3600)
    await home.enqueue(*((f"p{n}@example.com", '{"company": "C"}') for n in range(5)))
    await home.run(30)
    assert set(await home.job_states()) == {"refused"}
    home.clock.advance((datetime(2026, 3, 2, 13, tzinfo=UTC) - home.clock.now()).total_seconds())
    jobs = len(await home.job_states())
    home.clock.advance(4 * LONG)
    await home.run(30)
    assert len(await home.job_states()) == jobs
    assert await home.states() == {"in_chunk": 5}
    home.clock.advance(18 * LONG)
    await home.run(600, home.all_ended)
    assert await home.states() == {"applied": 5}


# ── Restarts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seconds", [1, 4])
async def test_restarts_amid_a_canary_and_a_surge_change_nothing(house: Build, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setattr(holding, "PIECE", 150)
    home = await trusted(house)
    old = await trickle(home, *names(40))
    home.clock.advance(60)
    await surge(home, 1_000)
    for _ in range(8):
        await home.run(seconds)
        await home.restart()
    await until_quiet(home)
    assert await home.states() == {"applied": 41, "held": 1_000}
    assert {(await home.fate(change))[0] for change in old} == {"applied"}
    assert scored(home, "0") == 0


async def test_a_crash_amid_a_canary_of_which_nobody_knows_the_answer(house: Build) -> None:
    home = await house(pushes=[GUARDED])
    home.simulator.script("import", Fault.RESET_AFTER, 1)
    await trickle(home, *names(50))
    await home.run(60)
    assert await home.states() == {"in_chunk": 20, "pending": 30}, "alone as long as it takes"
    await home.restart()
    home.clock.advance(6 * LONG)
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"applied": 50}


async def test_without_a_guard_nothing_is_held(house: Build) -> None:
    home = await house(pushes=[PUSH])
    await surge(home, 2_000)
    await home.run(LONG, home.all_ended)
    assert await home.states() == {"applied": 2_000}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.guard") == 0
