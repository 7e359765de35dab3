"""The status page as Chromium shows it, on a phone and a desktop, light and dark: its numbers, and for eyes, fingers and ears.

Pictures of it stay in the folder that the test prints.
"""

import importlib.util
import io
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog

from syncd.core.settings import Database, Guard, Http, Logging, Settings
from syncd.flows.gauges import Beat
from syncd.ops import http, logs
from syncd.ops.clock import ManualClock
from syncd.ops.recent import Recent
from syncd.page.live import LivePages
from syncd.simulator import Fault, ImportModel
from tests.flows.conftest import PULL, PUSH, Build, House
from tests.flows.test_page import busy
from tests.ops.test_http import free_port, yes
from tests.system import browser
from tests.system.browser import DESKTOP, PHONE, Screen, Tab
from tests.system.reading import BEYOND, CUT, FAINT, SEEN, SMALL, heard

NARROW = Screen("narrow", 320, 640, 2.0, fingers=True)  # to this width, WCAG 1.4.10 wants it whole
ALIVE = "UPDATE syncd.lease SET heartbeat_at = clock_timestamp() + interval '1 hour'"  # nobody beats here
BY_STATE = "SELECT state, count(*) AS n FROM syncd.change WHERE push = $1 GROUP BY state"
NO_REDRAW = "window.EventSource = undefined"


def installed() -> Path | None:
    """axe-core, as its Python package brings it."""
    found = importlib.util.find_spec("axe_core_python")
    return None if found is None or found.origin is None else Path(found.origin).parent / "axe.min.js"


AXE = installed()

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def chromium() -> Iterator[str]:
    why = browser.missing()
    if why is not None:
        pytest.skip(f"the page is not looked at: {why}")
    with (
        tempfile.TemporaryDirectory(prefix="syncd-test-", ignore_cleanup_errors=True) as profile,
        browser.chromium(Path(profile)) as address,
    ):
        yield address


@pytest.fixture
async def tab(chromium: str) -> AsyncIterator[Tab]:
    async with browser.tab(chromium) as found:
        yield found


@pytest.fixture
def pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Where they are kept; the terminal says where that is."""
    with capsys.disabled():
        print(f"\npictures: {tmp_path}")
    return tmp_path


@asynccontextmanager
async def served(home: House, recent: Recent | None = None) -> AsyncIterator[str]:
    """The page's address, as the daemon would serve it."""
    await home.pool.execute(ALIVE)
    pages = LivePages(lambda: Settings(Database(), (home.instance,)), home.pool, home.clock, home.metrics, recent or Recent(home.clock))
    port = free_port()
    async with http.serve(Http("127.0.0.1", port), home.metrics, lambda: True, yes, pages):
        yield f"http://127.0.0.1:{port}/"


async def axe(tab: Tab) -> list[str]:
    """What axe-core finds."""
    assert AXE is not None
    await tab.read(AXE.read_text("utf-8") + ";0")
    return [f"{each['impact']}: {each['id']}" for each in await tab.read("axe.run().then(found => found.violations)")]


async def look(tab: Tab, address: str, folder: Path, state: str) -> dict[str, Any]:
    """Shoot it with each screen and scheme, let nothing be hard to read, and tell what is seen."""
    await tab.call("Page.addScriptToEvaluateOnNewDocument", source=NO_REDRAW)
    wrong: dict[str, Any] = {}
    for screen, scheme in itertools.product((PHONE, DESKTOP), ("light", "dark")):
        await tab.look_with(screen, scheme)  # type: ignore[arg-type] # of product's texts
        await tab.open(address)
        await tab.shoot(folder / f"{state}-{screen.name}-{scheme}.png")
        found = {"faint": await tab.read(FAINT), "beyond": await tab.read(BEYOND), "cut": await tab.read(CUT)}
        found["small"] = await tab.read(SMALL) if screen.fingers else []
        found["axe"] = await axe(tab) if AXE is not None else []
        wrong |= {f"{name} on a {screen.name}, {scheme}": each for name, each in found.items() if each}
    await tab.look_with(NARROW, "light")
    wrong |= {f"beyond {NARROW.width}": beyond for beyond in [await tab.read(BEYOND)] if beyond}
    await tab.look_with(DESKTOP, "light")
    assert (wrong, tab.console) == ({}, [])
    seen: dict[str, Any] = await tab.read(SEEN)
    return seen


async def assert_heard(tab: Tab) -> None:
    """A screen reader finds its way: landmarks, headings, and a name for whatever needs one."""
    told = await heard(tab)
    for landmark in ("banner", "main", "contentinfo"):
        assert len([each for each in told if each.role == landmark]) == 1, landmark
    levels = [each.level or 0 for each in told if each.role == "heading"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    nameless = [each for each in told if each.role in NAMED and not each.name.strip()]
    assert nameless == []
    assert len([each for each in told if each.role == "status"]) == 1


NAMED = {"RootWebArea", "heading", "link", "image", "meter", "region", "table", "columnheader", "rowheader", "button"}


def number(text: str) -> int:
    return int(text.replace(",", ""))


async def assert_numbers(seen: dict[str, Any], home: House) -> None:
    """What is seen is what the database holds."""
    for name in (push.name for push in home.instance.pushes):
        counts = {state: number(value) for state, value in seen["cards"][name].items() if state != "waits"}
        assert counts == {row["state"]: row["n"] for row in await home.pool.fetch(BY_STATE, name)}
    windows = {row["state"]: row["n"] for row in await home.pool.fetch("SELECT state, count(*) AS n FROM syncd.pull_window GROUP BY 1")}
    pull = seen["cards"]["people"]
    walked, to_walk = windows.get("done", 0), sum(count for state, count in windows.items() if state in ("open", "blocked"))
    assert (number(pull["windows walked"]), number(pull["windows to walk"])) == (walked, to_walk)
    leads = await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE deleted_at IS NULL")
    assert f"{leads:,} leads in the mirror" in seen["words"]
    calls = await home.pool.fetchval("SELECT sum(calls)::bigint FROM syncd.api_usage")
    assert seen["meters"]["Our calls today"] == [calls, home.instance.limits.daily_calls]
    jobs = await home.pool.fetch("SELECT * FROM syncd.import_job WHERE state NOT IN ('submitting', 'queued', 'importing', 'unconfirmed')")
    told = {row["job"]: row for row in seen["tables"].get("Imports that ended, the newest first", ())}
    assert set(told) == {str(job["id"]) for job in jobs if job["state"] == "settled"}
    for job in (job for job in jobs if job["state"] == "settled"):
        columns = ("applied", "warned", "rejected", "unverified", "retried")
        assert [number(told[str(job["id"])][name]) for name in columns] == [job[name] for name in columns]
    ours = "SELECT count(*) FROM syncd.import_job WHERE state IN ('submitting', 'queued', 'importing', 'unconfirmed', 'complete', 'failed')"
    assert len(seen["slots"]) == 10
    assert sum(each.startswith("ours") for each in seen["slots"]) == await home.pool.fetchval(ours)


@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed (make install): only our own checks of accessibility were made")
async def test_axe_finds_what_is_wrong(tab: Tab) -> None:
    await tab.open("data:text/html,<html><img src=x><p style='color:%23ccc'>faint</p>")
    assert {"critical: image-alt", "serious: color-contrast", "serious: html-has-lang"} <= set(await axe(tab))


async def test_busy(house: Build, tab: Tab, pictures: Path) -> None:
    home = await busy(house)
    assert home.lease is not None
    await Beat(home.instance, home.lease, home.clock, home.metrics).step()
    async with served(home) as address:
        seen = await look(tab, address, pictures, "busy")
        await assert_heard(tab)
    await assert_numbers(seen, home)
    assert sum(each.startswith("ours") for each in seen["slots"]) == 1
    assert seen["cards"]["contacts"]["pending"] == "2"


async def test_idle(house: Build, tab: Tab, pictures: Path) -> None:
    home = await house([PULL], [PUSH], imports=ImportModel(overhead_seconds=5, sigma=0))
    await home.enqueue(*((f"a{each}@example.com", '{"company": "B"}') for each in range(3)))
    await home.run(1200)
    async with served(home) as address:
        seen = await look(tab, address, pictures, "idle")
        await assert_heard(tab)
    await assert_numbers(seen, home)
    assert seen["todo"] == []
    assert seen["words"].startswith("All is well")
    assert seen["cards"]["people"]["expected end"] == "caught up"


async def failing(house: Build) -> House:
    """A pull without its right, a push that a guard holds, refused changes, an import whose answer was lost for long."""
    guarded = replace(PUSH, guard=Guard(canary=5, hold_above=50))
    home = await house([PULL], [guarded, replace(PUSH, name="guests")], imports=ImportModel(overhead_seconds=5, sigma=0))
    await home.run(30)
    await home.enqueue(("no@example.com", '{"email": "not an address", "company": "B"}'), ("a@example.com", '{"company": "B"}'))
    await home.run(120, home.all_ended)
    home.simulator.script("soap", Fault.SOAP_20014, 20)
    home.simulator.script("import", Fault.RESET_AFTER, 1)
    await home.pool.execute("SELECT syncd.enqueue('acme', 'guests', 'g@example.com', '{\"company\": \"G\"}')")
    await home.run(400)
    await home.pool.execute(
        "INSERT INTO syncd.outbox (instance, push, key, fields, created_at) "
        "SELECT 'acme', 'contacts', format('s%s@example.com', n), '{\"company\": \"\"}', $1 FROM generate_series(1, 120) AS n",
        home.clock.now(),
    )
    await home.run(400)
    return home


async def test_failing(house: Build, tab: Tab, pictures: Path, manual_clock: ManualClock) -> None:
    recent = Recent(manual_clock)
    logs.configure(Logging(), manual_clock, io.StringIO(), recent)
    try:
        home = await failing(house)
    finally:
        structlog.reset_defaults()
    async with served(home, recent) as address:
        seen = await look(tab, address, pictures, "failing")
        await assert_heard(tab)
    await assert_numbers(seen, home)
    told = " ".join(seen["todo"])
    for needed in ("The pull people is blocked", "The push contacts is held", "syncd release", "syncd failures list"):
        assert needed in told
    lately = {row["event"] for row in seen["tables"]["Warnings and errors since the daemon started, the newest first"]}
    assert lately >= {"pull_blocked", "push_held", "import_unconfirmed"}
    counted = await home.pool.fetchval("SELECT count(*) FROM syncd.change WHERE state IN ('rejected', 'unverified')")
    assert sum(number(row["changes"]) for row in seen["tables"]["By reason, of those that nobody has retried"]) == counted >= 1


async def test_it_moves_by_itself_and_keeps_its_place(house: Build, tab: Tab) -> None:
    home = await busy(house)
    async with served(home) as address:
        await tab.look_with(DESKTOP, "light")
        await tab.open(address)
        await tab.until("document.querySelector('#live').innerText === 'updates live'")
        await tab.read("window.stayed = true; document.querySelector('.wide').focus(); window.scrollTo(0, 200)")
        await home.enqueue(("more@example.com", '{"company": "C"}'))
        await home.run(600, home.all_ended)
        await home.pool.execute(ALIVE)
        await tab.until("!document.querySelector('main').innerText.includes('in_chunk')")
        assert await tab.read("window.stayed"), "it was not loaded anew"
        assert await tab.read("document.activeElement.className") == "wide"
        await assert_numbers(await tab.read(SEEN), home)
        assert await tab.read("document.querySelector('#live').innerText") == "updates live"
    await tab.until("document.querySelector('#live').innerText === 'connection lost, trying again'")


async def test_without_javascript_it_tells_the_same_and_is_loaded_anew(house: Build, tab: Tab) -> None:
    home = await busy(house)
    async with served(home) as address:
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.open(address)
        before = await tab.source()
        assert "loaded anew each 10 s" in before
        assert "1003 no" not in before
        await home.pool.execute("UPDATE syncd.push SET state = 'blocked', message = '1003 no'")
        await tab.opened_again()
        assert "1003 no" in await tab.source()
