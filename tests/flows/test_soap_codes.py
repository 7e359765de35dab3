"""Each code of the protocol's SOAP table (section 1.5), and each mischief on the wire, met in the middle of a window."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from syncd.core.faults import Nature
from syncd.core.retry import SLOW_RETRY, UNKNOWN_TRIES
from syncd.core.settings import Keys, Network
from syncd.flows.loop import Flow, Idle, Outcome, Worked
from syncd.marketo.errors import SOAP_NATURES
from syncd.marketo.session import PIECE
from syncd.marketo.soap import MAX_REPLY
from syncd.marketo.soap_reply import ReplyParser
from syncd.simulator import Fault
from tests.flows.conftest import PULL, Build, House
from tests.flows.test_pull import mirror, soap_calls, truth, windows

LEADS = 400
PEOPLE = replace(PULL, window=timedelta(days=30))  # one window of eight pages
OTHERS = replace(PEOPLE, name="others", fields=("FirstName", "Company"))
MIDNIGHT = datetime(2026, 3, 3, 6, tzinfo=UTC)  # US Central, the first after the tests begin
WINDOW = (
    "SELECT state, position, leads, expected, restarts, walks, message FROM syncd.pull_window WHERE pull = 'people' ORDER BY id LIMIT 1"
)
WRITTEN = "SELECT count(*) FROM syncd.lead WHERE digests ? 'people'"


@dataclass
class Walk:
    """A pull that has written the first page of its window, and another pull of the same instance that has not begun."""

    home: House
    stream: Flow
    other: Flow

    def sample(self, name: str, **labels: str) -> float:
        found = [value for sample, of, value in self.home.metrics.samples() if sample == name and labels.items() <= dict(of).items()]
        return sum(found)

    def faults(self, code: str) -> float:
        return self.sample("syncd_faults_total", instance="acme", code=code)

    def calls(self, code: str) -> float:
        return self.sample("syncd_api_calls_total", instance="acme", api="soap", code=code)

    async def window(self) -> asyncpg.Record:
        return await self.home.row(WINDOW)

    async def pull(self) -> asyncpg.Record:
        return await self.home.row("SELECT state, message, retry_at FROM syncd.pull WHERE pull = 'people'")

    async def meet(self, fault: Fault, code: str, times: int = 1) -> Outcome:
        """Let requests meet `fault`; what the step comes to that has to act on it. That step stores nothing."""
        for _ in range(50):  # what an earlier fault let go of arrives all the same, and must not use the script up
            await asyncio.sleep(0)
        before = self.faults(code)
        self.home.simulator.script("soap", fault, times)
        for _ in range(12):
            written = await self.home.pool.fetchval(WRITTEN)
            outcome = await self.stream.step()
            if self.faults(code) > before:
                assert await self.home.pool.fetchval(WRITTEN) == written
                return outcome
        met = {of["code"]: value for name, of, value in self.home.metrics.samples() if name == "syncd_faults_total"}
        raise AssertionError(f"the pull met no {code}, but {met}")

    async def meet_in_mid_window(self, fault: Fault, code: str, times: int = 1) -> Outcome:
        """`meet`, with pages written before; of the window all is as it was before the fault, its place in the stream too."""
        outcome = await self.meet(fault, code, times)
        window = await self.window()
        assert (window["restarts"], window["walks"], window["expected"]) == (0, 1, LEADS)
        assert window["position"] is not None
        assert 50 <= window["leads"] < LEADS
        assert await self.home.pool.fetchval(WRITTEN) == window["leads"]
        return outcome

    async def goes_on(self) -> None:
        """The next step writes the page that the fault was met at, and no window was begun anew."""
        before = await self.window()
        assert isinstance(await self.stream.step(), Worked)
        after = await self.window()
        assert (after["walks"], after["restarts"]) == (1, 0)
        assert before["leads"] < after["leads"] <= before["leads"] + PEOPLE.batch_size
        assert after["position"] != before["position"]

    async def to_the_end(self) -> None:
        """With the fault over the mirror becomes the truth, and no lead shows that a page of it came twice."""
        await self.home.run(90)
        assert set(await windows(self.home)) <= {"done", "split"}
        assert await mirror(self.home) == truth(self.home)
        assert await self.home.pool.fetchval("SELECT count(*) FROM syncd.lead_history") == 0
        assert self.sample("syncd_leads_changed_total", pull="people") == LEADS
        assert await self.home.pool.fetchval("SELECT bool_and(state = 'running') FROM syncd.pull")


async def begun(house: Build, clock_skew: float = 0.0) -> Walk:
    home = await house(pulls=[PEOPLE, OTHERS], leads=LEADS, clock_skew=clock_skew)
    return await with_a_page(home)


async def with_a_page(home: House) -> Walk:
    stream, other = (flow for flow in home.flows if flow.name.startswith("pull"))
    walk = Walk(home, stream, other)
    await stream.step()  # plans
    await stream.step()
    assert (await walk.window())["leads"] == 50
    return walk


async def backs_off(walk: Walk, fault: Fault, code: str) -> None:
    outcome = await walk.meet_in_mid_window(fault, code)
    assert isinstance(outcome, Idle)
    assert walk.home.clock.now() < outcome.until <= walk.home.clock.now() + timedelta(seconds=2)
    await walk.goes_on()


async def brakes(walk: Walk, fault: Fault, code: str) -> None:
    kind, free = ("pace", "concurrency") if code == "20023" else ("concurrency", "pace")
    assert walk.sample("syncd_brake", instance="acme", kind=kind) == 1.0
    await backs_off(walk, fault, code)
    assert walk.sample("syncd_brake", instance="acme", kind=kind) == 0.5
    assert walk.sample("syncd_brake", instance="acme", kind=free) == 1.0
    await walk.home.run(200)
    assert walk.sample("syncd_brake", instance="acme", kind=kind) == 1.0


async def waits_for_midnight(walk: Walk, fault: Fault, code: str) -> None:
    home = walk.home
    outcome = await walk.meet_in_mid_window(fault, code)
    assert outcome == Idle(MIDNIGHT)
    await walk.other.step()  # plans
    assert await walk.other.step() == Idle(MIDNIGHT)
    assert walk.sample("syncd_api_paused", instance="acme", api="soap") == 1
    calls, window = soap_calls(home), await walk.window()
    home.clock.advance((MIDNIGHT - home.clock.now()).total_seconds() - 5)
    await home.run(4)
    assert (soap_calls(home), await walk.window()) == (calls, window)
    home.clock.advance(10)
    assert walk.sample("syncd_api_paused", instance="acme", api="soap") == 0
    await walk.goes_on()


async def signs_anew(walk: Walk, fault: Fault, code: str) -> None:
    outcome = await walk.meet_in_mid_window(fault, code)
    assert outcome == Idle(walk.home.clock.now()), "signed anew at once"
    again = await walk.meet_in_mid_window(fault, code)
    assert isinstance(again, Idle)
    assert again.until > walk.home.clock.now(), "and when that was of no use, no more at once"
    await walk.goes_on()


async def blocks(walk: Walk, fault: Fault, code: str) -> None:
    with capture_logs() as events:
        assert await walk.meet_in_mid_window(fault, code) == Worked(0)
    await is_blocked(walk, code, events)


async def is_blocked(walk: Walk, code: str, events: Sequence[Mapping[str, Any]]) -> None:
    home, met_at = walk.home, walk.home.clock.now()
    loud = [event for event in events if event["log_level"] == "error"]
    assert [(event["event"], code in str(event["fault"])) for event in loud] == [("pull_blocked", True)]
    pull, window = await walk.pull(), await walk.window()
    assert (pull["state"], pull["retry_at"], window["state"]) == ("blocked", met_at + SLOW_RETRY, "blocked")
    assert code in pull["message"]
    assert code in window["message"]
    await home.run(60)
    others = "SELECT leads FROM syncd.pull_window WHERE pull = 'others' AND state = 'done' ORDER BY id LIMIT 1"
    assert await home.pool.fetchval(others) == LEADS, "the other pull went on"
    home.clock.advance((pull["retry_at"] - home.clock.now()).total_seconds() - 1)
    calls = soap_calls(home)
    assert isinstance(await walk.stream.step(), Idle), "a blocked pull waits"
    assert (await walk.window(), soap_calls(home)) == (window, calls)
    home.clock.advance(1)
    await walk.goes_on()


async def is_tried_and_blocks(walk: Walk, fault: Fault, code: str) -> None:
    for _ in range(UNKNOWN_TRIES - 1):
        outcome = await walk.meet_in_mid_window(fault, code)
        assert isinstance(outcome, Idle)
        assert (await walk.pull())["state"] == "running"
        walk.home.clock.advance(60)
    with capture_logs() as events:
        assert await walk.meet_in_mid_window(fault, code) == Worked(0)
    await is_blocked(walk, code, events)


async def begins_anew_and_splits(walk: Walk, fault: Fault, code: str) -> None:
    for restarts in (1, 2, 3):
        outcome = await walk.meet(fault, code)
        assert isinstance(outcome, Idle)
        assert walk.home.clock.now() < outcome.until <= walk.home.clock.now() + timedelta(minutes=5)
        window = await walk.window()
        assert (window["state"], window["restarts"]) == ("split" if restarts == 3 else "open", restarts)
        if restarts < 3:
            assert (window["position"], window["leads"], window["expected"]) == (None, 0, None)
            await walk.stream.step()
            assert (await walk.window())["leads"] >= 50
    halves = "SELECT count(*) FROM syncd.pull_window WHERE state = 'open' AND parent_id = (SELECT min(id) FROM syncd.pull_window)"
    assert await walk.home.pool.fetchval(halves) == 2


async def splits_at_once(walk: Walk, fault: Fault, code: str) -> None:
    assert isinstance(await walk.meet(fault, code), Idle)
    assert (await walk.window())["state"] == "split"


async def ends_the_stream(walk: Walk, fault: Fault, code: str) -> None:
    """A normal end; what the first page promised is short by some pages, so the window is walked once more."""
    walk.home.simulator.script("soap", fault)
    for _ in range(10):
        await walk.stream.step()
        if (await walk.window())["walks"] == 2:
            break
    window = await walk.window()
    assert (window["state"], window["walks"], window["position"], window["leads"]) == ("open", 2, None, 0)
    assert "promised" in window["message"]
    assert (await walk.pull())["state"] == "running"


Effect = Callable[[Walk, Fault, str], Awaitable[None]]
ACTED, ENDED = "syncd_faults_total", "syncd_api_calls_total"  # a normal end is no fault that a flow had to act on
CODES: list[tuple[str, Nature, Effect, str]] = [
    ("10001", Nature.TRANSIENT, backs_off, ACTED),
    ("20011", Nature.TRANSIENT, backs_off, ACTED),
    ("20012", Nature.PERMANENT, blocks, ACTED),
    ("20013", Nature.CONFIGURATION, blocks, ACTED),
    ("20014", Nature.CONFIGURATION, blocks, ACTED),
    ("20015", Nature.QUOTA, waits_for_midnight, ACTED),
    ("20016", Nature.SIGNATURE, signs_anew, ACTED),
    ("20017", Nature.PERMANENT, blocks, ACTED),
    ("20019", Nature.PERMANENT, blocks, ACTED),
    ("20022", Nature.PERMANENT, splits_at_once, ACTED),
    ("20023", Nature.RATE, brakes, ACTED),
    ("20024", Nature.RATE, brakes, ACTED),
    ("20102", Nature.PERMANENT, blocks, ACTED),  # of a bad key, see below
    ("20103", Nature.EMPTY, ends_the_stream, ENDED),
    ("20109", Nature.PERMANENT, blocks, ACTED),
    ("20110", Nature.PERMANENT, blocks, ACTED),
    ("20111", Nature.CONFIGURATION, blocks, ACTED),
    ("20114", Nature.PERMANENT, blocks, ACTED),
    ("20122", Nature.POSITION, begins_anew_and_splits, ACTED),
    ("20123", Nature.EMPTY, ends_the_stream, ENDED),
    ("29999", Nature.UNKNOWN, is_tried_and_blocks, ACTED),
]


def test_no_code_is_left_out() -> None:
    assert {code for code, *_ in CODES} == {*SOAP_NATURES, "29999"}


@pytest.mark.parametrize(("code", "nature", "effect", "metric"), CODES, ids=[f"{code}-{effect.__name__}" for code, _, effect, _ in CODES])
async def test_a_code_in_mid_window(house: Build, code: str, nature: Nature, effect: Effect, metric: str) -> None:
    walk = await begun(house)
    await effect(walk, Fault(f"soap_{code}"), code)
    injected = walk.home.simulator.report().faults_injected[f"soap_{code}"]
    acted = walk.sample("syncd_faults_total", instance="acme", nature=nature.value, code=code)
    assert walk.calls(code) == injected
    if metric == ACTED:
        assert acted >= injected, "pulls that a pause keeps from calling meet it too"
    else:
        assert acted == 0
    await walk.to_the_end()


async def test_a_refused_signature_tells_that_the_clocks_differ(house: Build) -> None:
    walk = await begun(house, clock_skew=100.0)
    with capture_logs() as events:
        await walk.meet_in_mid_window(Fault.SOAP_20016, "20016")
    (told,) = [event for event in events if event["event"] == "pull_fault"]
    assert "the clocks differ by 100 s" in told["fault"]
    assert told["clock_skew"] == 100
    assert walk.sample("syncd_clock_skew_seconds", instance="acme") == 100
    await walk.to_the_end()


def by_keys(ids: range) -> Keys:
    return Keys("IDNUM", tuple(str(lead_id) for lead_id in ids))


async def test_a_bad_key_in_mid_window_is_halved_until_it_is_alone_and_passed_over(house: Build) -> None:
    """20102, and which key is meant is not said: the simulator's script refuses whatever asks for the last of eight."""
    asked = range(1001, 1009)
    home = await house(pulls=[replace(PULL, select=by_keys(asked), batch_size=1, every=timedelta(days=1))], leads=20)
    (stream,) = (flow for flow in home.flows if flow.name.startswith("pull"))
    walk = Walk(home, stream, stream)
    await stream.step()
    await stream.step()
    assert (await walk.window())["leads"] == 1
    refused: list[int] = []
    with capture_logs() as events:
        while isinstance(await stream.step() if refused else Worked(0), Worked):
            keys = await home.pool.fetchval("SELECT keys FROM syncd.pull_window WHERE state = 'open' ORDER BY id LIMIT 1")
            if keys and "1008" in keys:
                refused.append(len(keys))
                assert await walk.meet(Fault.SOAP_20102, "20102") == Worked(0)
    assert refused == [8, 4, 2, 1]
    assert walk.sample("syncd_faults_total", nature="permanent", code="20102") == walk.calls("20102") == 4
    assert [event["event"] for event in events if event["log_level"] == "warning"] == ["key_refused"]
    passed = await home.pool.fetch("SELECT leads, message FROM syncd.pull_window WHERE state = 'done' AND message IS NOT NULL")
    assert [(row["leads"], "passed over" in row["message"], "20102" in row["message"]) for row in passed] == [(0, True, True)]
    assert await windows(home) == {"split": 3, "done": 4}
    assert await mirror(home) == {lead_id: values for lead_id, values in truth(home).items() if lead_id in asked[:-1]}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_history") == 0


async def test_keys_of_nobody_are_an_empty_result(house: Build) -> None:
    """20103, once as the answer to all of the keys, and once in the midst of an answer, where it is short of what was promised."""
    nobody = replace(PULL, name="nobody", select=by_keys(range(5_000_000, 5_000_003)), every=timedelta(days=1))
    home = await house(pulls=[replace(PULL, select=by_keys(range(1001, 1021)), batch_size=2, every=timedelta(days=1)), nobody], leads=20)
    stream, empty = (flow for flow in home.flows if flow.name.startswith("pull"))
    walk = Walk(home, stream, empty)
    await empty.step()
    assert await empty.step() == Worked(0)
    walked = await home.row("SELECT state, leads, expected, walks, message FROM syncd.pull_window WHERE pull = 'nobody'")
    assert tuple(walked) == ("done", 0, 0, 1, None)
    await stream.step()
    while (await walk.window())["leads"] == 0:
        await stream.step()
    await ends_the_stream(walk, Fault.SOAP_20103, "20103")
    await home.run(60)
    assert walk.calls("20103") == 2
    assert walk.faults("20103") == 0
    assert await mirror(home) == truth(home)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_history") == 0


# Requests that meet it, until the flow does: a connection that fails before any byte of a reply is tried once more by the session,
# and of three requests that are under way each may take its share of the script.
MISCHIEF: list[tuple[Fault, Nature, str, int]] = [
    (Fault.HTML_200, Nature.TRANSIENT, "garbled", 1),
    (Fault.HTML_500, Nature.TRANSIENT, "http_500", 1),
    (Fault.HTML_503, Nature.TRANSIENT, "http_503", 1),
    (Fault.GATEWAY_502, Nature.TRANSIENT, "http_502", 1),
    (Fault.GATEWAY_504, Nature.TRANSIENT, "http_504", 1),
    (Fault.RESET_BEFORE, Nature.TRANSIENT, "connection", 6),
    (Fault.RESET_AFTER, Nature.TRANSIENT, "connection", 6),
    (Fault.TRUNCATED, Nature.TRANSIENT, "connection", 1),
    (Fault.WRONG_LENGTH, Nature.TRANSIENT, "connection", 1),
    (Fault.WRONG_LENGTH_CUT, Nature.TRANSIENT, "garbled", 1),
    (Fault.REDIRECT, Nature.TRANSIENT, "redirect", 1),
    (Fault.SLOW_DRIP, Nature.TRANSIENT, "timeout", 1),
    (Fault.GZIP_BOMB, Nature.TRANSIENT, "garbled", 1),  # the XML parser has enough of white space before the session has
    (Fault.GARBLED_XML, Nature.TRANSIENT, "garbled", 1),
]


@pytest.mark.parametrize(("fault", "nature", "code", "times"), MISCHIEF, ids=[f"{fault}-{code}" for fault, _, code, _ in MISCHIEF])
async def test_mischief_on_the_wire_in_mid_window(
    house: Build, fault: Fault, nature: Nature, code: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await house(pulls=[PEOPLE, OTHERS], leads=LEADS)
    await home.restart(network=Network(timeout=timedelta(seconds=2 if fault is Fault.SLOW_DRIP else 60)))
    walk = await with_a_page(home)
    pieces: list[int] = []
    feed = ReplyParser.feed

    def counted(self: ReplyParser[Any], piece: bytes) -> None:
        pieces.append(len(piece))
        feed(self, piece)

    monkeypatch.setattr(ReplyParser, "feed", counted)
    with capture_logs() as events:
        outcome = await walk.meet_in_mid_window(fault, code, times)
    assert isinstance(outcome, Idle)
    (told,) = [event for event in events if event["event"] == "pull_fault"]
    assert code in told["fault"]
    assert walk.sample("syncd_faults_total", instance="acme", nature=nature.value, code=code) == 1
    assert walk.calls(code) >= 1
    if fault is Fault.GZIP_BOMB:
        assert max(pieces) <= PIECE
        assert sum(pieces) <= MAX_REPLY, "of a gigabyte"
    await walk.to_the_end()
    assert home.simulator.report().violations == {}, "a redirect is not followed"
