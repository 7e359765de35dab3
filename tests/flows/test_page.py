"""The status page against the database: its numbers are those of the tables, and it says nothing of a person."""

import asyncio
import re
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import structlog
from lxml import html
from lxml.html import HtmlElement
from structlog.testing import capture_logs

from syncd.core.settings import Database, Settings
from syncd.core.words import counted
from syncd.flows.gauges import Beat
from syncd.ops.recent import Recent
from syncd.page import live
from syncd.page.live import LivePages
from syncd.simulator import ForeignLoad, ImportModel
from syncd.store import board, pauses, status
from syncd.store.leases import Pool
from syncd.store.pauses import Choice
from syncd.store.status import Counts
from tests.flows.conftest import PULL, PUSH, Build, House

SLOW = ImportModel(overhead_seconds=600, sigma=0)


def pages_of(home: House) -> LivePages:
    return LivePages(lambda: Settings(Database(), (home.instance,)), home.pool, home.clock, home.metrics, Recent(home.clock))


async def page_of(home: House) -> HtmlElement:
    shown = await pages_of(home).document()
    assert shown.ok
    return html.document_fromstring(shown.html)


def words(node: HtmlElement) -> str:
    return " ".join(" ".join(node.itertext()).split())


def card(page: HtmlElement, heading: str) -> dict[str, str]:
    """The terms and values of the card with that heading's first word."""
    (found,) = [each for each in page.iterfind(".//article") if words(each.find("h4")).split()[0] == heading]
    return dict(zip(map(words, found.iterfind("dl/dt")), map(words, found.iterfind("dl/dd")), strict=True))


def rows(page: HtmlElement, caption: str) -> list[dict[str, str]]:
    """The rows of a table, by its headings."""
    (found,) = [each for each in page.iterfind(".//table") if words(each.find("caption")) == caption]
    headings = [words(each) for each in found.iterfind("thead/tr/th")]
    return [dict(zip(headings, map(words, row), strict=True)) for row in found.iterfind("tbody/tr")]


async def a_job_is_live(home: House) -> bool:
    live = "SELECT EXISTS (SELECT FROM syncd.import_job WHERE state IN ('queued', 'importing'))"
    return await home.pool.fetchval(live) is True


async def busy(house: Build) -> House:
    """Half a pull, an import under way, some that ended in each way, and some that wait."""
    home = await house([PULL], [PUSH], imports=ImportModel(overhead_seconds=30, sigma=0))
    await home.run(60)
    await home.enqueue(*((f"a{number}@example.com", '{"firstName": "A", "company": "B"}') for number in range(30)))
    await home.enqueue(("no@example.com", '{"email": "not an address", "company": "B"}'))
    await home.run(300, home.all_ended)
    await home.enqueue(*((f"b{number}@example.com", '{"firstName": "A", "company": "B"}') for number in range(7)))
    await home.run(60, partial(a_job_is_live, home))
    await home.enqueue(("waits@example.com", '{"firstName": "W"}'), ("too@example.com", '{"firstName": "W"}'))
    return home


async def test_its_numbers_are_those_of_the_database(house: Build) -> None:
    home = await busy(house)
    page = await page_of(home)
    shown = card(page, "contacts")
    live = {row["state"]: row["n"] for row in await home.pool.fetch("SELECT state, count(*) AS n FROM syncd.outbox GROUP BY 1")}
    ended = {row["state"]: row["n"] for row in await home.pool.fetch("SELECT state, count(*) AS n FROM syncd.change_history GROUP BY 1")}
    assert live == {"in_chunk": 7, "pending": 2}
    assert sum(ended.values()) == 31
    assert {state: int(shown[state].replace(",", "")) for state in shown if state != "waits"} == {**live, **ended}
    leads = await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE deleted_at IS NULL")
    assert f"{leads:,} leads in the mirror" in words(page)
    pull = card(page, "people")
    counted = await home.row(
        "SELECT count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'open') AS open FROM syncd.pull_window"
    )
    assert (int(pull["windows walked"]), int(pull["windows to walk"])) == (counted["done"], counted["open"])
    calls = await home.pool.fetchval("SELECT sum(calls)::bigint FROM syncd.api_usage")
    assert f"{calls:,} of 30,000" in words(page)


async def test_imports_are_shown_with_their_counts(house: Build) -> None:
    home = await busy(house)
    told = rows(await page_of(home), "Imports that ended, the newest first")
    jobs = await home.pool.fetch("SELECT * FROM syncd.import_job WHERE state = 'settled' ORDER BY submitted_at DESC")
    assert len(told) == len(jobs) >= 1
    for row, job in zip(told, jobs, strict=True):
        assert (row["job"], row["batch"], row["state"]) == (str(job["id"]), str(job["batch_id"]), "settled")
        columns = ("applied", "warned", "rejected", "unverified", "retried")
        assert [int(row[name]) for name in columns] == [job[name] for name in columns]
        assert int(row["rows"]) == job["row_count"]


async def test_calls_of_sync_leads_are_counted(house: Build) -> None:
    home = await house(pushes=[PUSH])
    await home.enqueue_urgent("a@example.com", '{"firstName": "A"}')
    await home.enqueue_urgent("b@example.com", '{"firstName": "B"}')
    await home.run(60, home.all_ended)
    row = await home.row("SELECT count(*) AS calls, sum(applied) AS applied FROM syncd.sync_batch WHERE state = 'settled'")
    assert row["applied"] == 2
    assert f"Sync Leads answered {counted(row['calls'], 'call')}: applied 2." in words(await page_of(home))


async def test_the_slots_are_those_of_marketo(house: Build) -> None:
    home = await house(pushes=[PUSH], imports=SLOW, foreign=ForeignLoad(jobs_per_hour=360, job_seconds=1e6))
    await home.enqueue(("a@example.com", '{"company": "A"}'))
    await home.run(60, home.a_job_exists)
    await home.run(400)
    await home.enqueue(("b@example.com", '{"company": "A"}'))
    await home.run(60)
    page = await page_of(home)
    told = [words(each) for each in page.iterfind(".//ol/li")]
    actual = home.simulator.slots()
    assert len(told) == len(actual) == 10
    assert sum(each.startswith("ours") for each in told) == sum(slot.owner == "ours" for slot in actual) == 1
    assert sum(each.startswith("others") for each in told) == sum(slot.owner == "foreign" for slot in actual) == 9
    assert "1 row of contacts" in told[0]


async def test_a_job_is_expected_to_take_what_the_last_ones_took(house: Build) -> None:
    home = await busy(house)
    (found,) = await board.read(home.pool, {"acme": home.instance}, home.clock.now(), {})
    ours = [slot for slot in found.slots if slot.owner == "ours"]
    job = await home.row("SELECT * FROM syncd.import_job WHERE state IN ('queued', 'importing')")
    assert [slot.job for slot in ours] == [job["id"]]
    assert ours[0].expected_end is not None
    assert timedelta() <= ours[0].expected_end - job["submitted_at"] < timedelta(seconds=120)


async def test_windows_are_a_bar_in_order_of_time(house: Build) -> None:
    home = await house([PULL])
    await home.run(3)
    bar = (await page_of(home)).find(".//svg")
    assert bar is not None
    counted = {row["state"]: row["n"] for row in await home.pool.fetch("SELECT state, count(*) AS n FROM syncd.pull_window GROUP BY 1")}
    told = {state: int(count) for count, state in re.findall(r"([0-9,]+) (done|open)", bar.get("aria-label", ""))}
    assert told == {state: count for state, count in counted.items() if state in ("done", "open")}
    places = [float(each.get("x", "")) for each in bar.iterfind("rect")]
    assert places == sorted(places)


async def test_what_stands_still_is_said_first_with_its_remedy(house: Build) -> None:
    home = await house([PULL], [PUSH])
    await home.enqueue(("a@example.com", '{"firstName": "A"}'), ("b@example.com", '{"firstName": "B"}'))
    await home.pool.execute("UPDATE syncd.outbox SET state = 'held' WHERE key LIKE 'a%'")
    await home.pool.execute(
        """INSERT INTO syncd.guard (instance, push, digest, held_at, held_why)
           VALUES ('acme', 'contacts', '', $1, '2 changes are more than hold_above')""",
        home.clock.now(),
    )
    await home.pool.execute("UPDATE syncd.push SET state = 'blocked', message = '1003 no' WHERE push = 'contacts'")
    page = await page_of(home)
    told = [words(each) for each in page.iterfind(".//ul[@class='todo']/li")]
    assert "2 things need a person" in words(page.find(".//main/p"))
    assert any("The push contacts is blocked" in each and "1003 no" in each and "syncd check" in each for each in told)
    assert any("1 change of contacts held" in each and "syncd release -i acme --push contacts" in each for each in told)
    (held,) = rows(page, "Held until an operator decides")
    assert (held["push"], held["changes"], held["reason"]) == ("contacts", "1", "2 changes are more than hold_above")


async def test_a_pause_is_shown(house: Build) -> None:
    home = await house([PULL], [PUSH])
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        await pauses.pause(connection, "acme", Choice("in", "people"), None, home.clock.now())
    page = await page_of(home)
    (found,) = [each for each in page.iterfind(".//article/h4") if words(each).startswith("people")]
    assert words(found) == "people paused"


HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> ada.lovelace@example.com said "no" & left'


async def test_a_message_is_shown_and_does_nothing_and_names_nobody(house: Build) -> None:
    home = await house([PULL], [PUSH])
    await home.pool.execute("UPDATE syncd.pull SET state = 'blocked', message = $1", HOSTILE)
    pages = pages_of(home)
    for source in ((await pages.document()).html, await pages.main()):
        page = html.document_fromstring(source)
        assert not page.findall(".//img")
        assert all("alert(" not in (each.text or "") for each in page.iterfind(".//script"))
        assert '<script>alert(1)</script><img src=x onerror="alert(2)"> …@… said "no" & left' in words(page)
    assert "ada.lovelace" not in str(await pages.status())


async def test_it_holds_no_address_and_no_name(house: Build) -> None:
    home = await busy(house)
    await home.pool.execute("UPDATE syncd.change_history SET reason = 'Invalid email address: ' || key WHERE state = 'rejected'")
    pages = pages_of(home)
    people = await home.pool.fetch("SELECT email, attributes ->> 'lastName' AS last FROM syncd.lead WHERE email IS NOT NULL LIMIT 50")
    assert any(person["last"] for person in people)
    for source in ((await pages.document()).html, str(await pages.status())):
        assert not re.search(r"[\w.]+@[\w.]+", source)
        for person in people:
            assert person["email"] not in source
            assert person["last"] is None or not re.search(rf"\b{re.escape(person['last'])}\b", source)


async def test_status_json_tells_the_same(house: Build) -> None:
    home = await busy(house)
    found = await pages_of(home).status()
    assert found is not None
    (acme,) = found["instances"]
    page = await page_of(home)
    (push,) = acme["pushes"]
    shown = card(page, "contacts")
    assert {state: f"{count:,}" for state, count in (push["live"] | push["settled"]).items()} == {
        state: value for state, value in shown.items() if state != "waits"
    }
    assert len(acme["slots"]) == 10
    assert [job["id"] for job in acme["recent_jobs"]] == [int(row["job"]) for row in rows(page, "Imports that ended, the newest first")]
    assert acme["failures"]["changes"] == sum(int(row["changes"]) for row in rows(page, "By reason, of those that nobody has retried"))
    assert "api_users" not in acme


async def test_what_went_wrong_is_told_once_with_what_to_do(house: Build) -> None:
    home = await house([PULL], [PUSH])
    recent = Recent(home.clock)
    structlog.configure(processors=[recent, structlog.testing.LogCapture()])
    try:
        log = structlog.get_logger()
        for attempt in range(3):
            log.warning("pull_fault", instance="acme", pull="people", fault="soap: 20011 <b>internal</b>", attempt=attempt)
        log.error("lease_lost", instance="acme", remedy="another daemon works for this instance now; standing by")
        log.info("import_settled", instance="acme")
        log.warning("not_listening", reason="taken")
    finally:
        structlog.reset_defaults()
    pages = LivePages(lambda: Settings(Database(), (home.instance,)), home.pool, home.clock, home.metrics, recent)
    page = html.document_fromstring((await pages.document()).html)
    tables = [each for each in page.iterfind(".//table") if words(each.find("caption")).startswith("Warnings and errors")]
    told = [[words(cell) for cell in row] for each in tables for row in each.iterfind("tbody/tr")]
    assert [(row[0], row[3], row[6]) for row in told] == [
        ("lease_lost", "", "1"),
        ("pull_fault", "pull people", "3"),
        ("not_listening", "", "1"),
    ]
    assert told[1][4] == "soap: 20011 <b>internal</b>"
    assert told[0][5] == "another daemon works for this instance now; standing by"
    assert all(row[5] for row in told)


async def test_a_database_that_is_away_is_said(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house([PULL])
    pages = pages_of(home)

    async def away(*_: Any) -> None:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(board, "read", away)
    shown = await pages.document()
    assert not shown.ok
    assert "The database does not answer" in shown.html
    assert "The database does not answer" in await pages.main()
    assert await pages.status() is None


async def test_a_page_does_not_wait_for_what_takes_long_to_count(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house([PULL], [PUSH])
    counting, count_all = asyncio.Event(), status.count_all

    async def slowly(pool: Pool) -> dict[str, Counts]:
        await counting.wait()
        return await count_all(pool)

    monkeypatch.setattr(status, "count_all", slowly)
    monkeypatch.setattr(live, "COUNTING", 0.01)
    monkeypatch.setattr(live, "PATIENCE", 5.0)
    monkeypatch.setattr(live, "EVERY", 0.0)
    pages = pages_of(home)
    first = await pages.document()
    assert (first.ok, "counting the leads in the mirror" in first.html) == (True, True)
    told = await pages.status()
    assert told is not None
    assert told["instances"][0]["leads"] is None
    counting.set()
    async with asyncio.timeout(10):
        while "0 leads in the mirror" not in (await pages.document()).html:
            await asyncio.sleep(0)


async def test_the_beat_and_the_page_agree_on_slots(house: Build) -> None:
    home = await busy(house)
    assert home.lease is not None
    await Beat(home.instance, home.lease, home.clock, home.metrics).step()
    (found,) = await board.read(home.pool, {"acme": home.instance}, home.clock.now(), {})
    free = home.metrics.value("syncd_import_slots", instance="acme", owner="nobody", state="free")
    assert sum(slot.owner == "nobody" for slot in found.slots) == free == 9


async def test_nothing_is_logged_by_looking(house: Build) -> None:
    home = await house([PULL], [PUSH])
    with capture_logs() as events:
        await page_of(home)
    assert events == []
