"""The page as a whole: a pure function of what was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.settings import Limits
from syncd.core.words import megabytes, moment, span
from syncd.ops.recent import Trouble
from syncd.page.assets import SCRIPT, STYLE
from syncd.page.html import Html, element, joined, table, text
from syncd.page.inbound import pulls_of
from syncd.page.outbound import pushes_of
from syncd.page.todo import ALIVE, Todo, todo_of
from syncd.page.words import ago
from syncd.store.board import InstanceBoard

AGAIN = 10  # seconds: how often a browser without JavaScript loads the page anew
TROUBLES = 12


@dataclass(frozen=True, slots=True)
class Look:
    """What is shown. `brakes` are shares of the configured pace and concurrency, by instance, where this daemon works for it."""

    as_of: datetime
    version: str
    boards: Sequence[InstanceBoard]
    limits: Mapping[str, Limits]
    brakes: Mapping[str, tuple[float, float]]
    paused_apis: Mapping[str, Sequence[str]]
    troubles: Mapping[str | None, Sequence[Trouble]]


def document(look: Look) -> str:
    """The whole page."""
    return _document(main(look), f"syncd {look.version}")


def unavailable(version: str, reason: str) -> str:
    """The page while there is nothing to read: the daemon is there, its database is not."""
    return _document(away(reason), f"syncd {version}")


def away(reason: str) -> Html:
    """The part of it that changes."""
    told = element("p", f"The database does not answer: {reason}", class_="bad")
    return joined(told, element("p", "syncd goes on once it is back; this page tells."))


def _document(content: Html, version: str) -> str:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("noscript", element("meta", http_equiv="refresh", content=str(AGAIN))),
        element("title", "syncd status"),
        Html(f"<style>{STYLE}</style>"),
    )
    live = element("span", f"loaded anew each {AGAIN} s", id="live", class_="soft", role="status")
    page = (
        element("header", element("h1", "syncd"), live),
        element("main", content),
        element("footer", element("span", version, class_="soft"), element("a", "status.json", href="/status.json"), _link("metrics")),
        Html(f"<script>{SCRIPT}</script>"),
    )
    return f"<!doctype html>\n{element('html', head, element('body', *page), lang='en')}\n"


def _link(name: str) -> Html:
    return element("a", name, href=f"/{name}")


def main(look: Look) -> Html:
    """What is replaced as time goes by."""
    every = [(board, todo_of(board, look.as_of)) for board in look.boards]
    lists = [todo for _, todo in every]
    parts = [_instance(board, todo, look) for board, todo in every]
    nobody = element("p", "No daemon has worked for any instance yet, and no changes wait.") if not parts else None
    return joined(_verdict(lists, look), nobody, *parts, _daemon(look))


def _verdict(lists: Sequence[Sequence[Todo]], look: Look) -> Html:
    wanted = sum(map(len, lists))
    bad = any(each.level == "bad" for todo in lists for each in todo)
    words = "All is well" if not wanted else f"{wanted} {'thing needs' if wanted == 1 else 'things need'} a person"
    verdict = element("strong", words, class_="bad" if bad else "warn" if wanted else "good")
    return element("p", verdict, element("span", f" as of {moment(look.as_of)}", class_="soft"))


def _instance(board: InstanceBoard, todo: Sequence[Todo], look: Look) -> Html:
    found = board.status
    heading = element("h2", found.name, id=f"instance-{found.name}")
    return element(
        "section",
        heading,
        _facts(board, look.as_of),
        joined(element("h3", "Needs a person"), element("ul", *map(_todo, todo), class_="todo")) if todo else None,
        pulls_of(board, look.as_of) if found.pulls else None,
        pushes_of(board, look.as_of) if found.pushes or found.live_jobs or board.recent_jobs else None,
        _quota(board, look),
        _troubles(look.troubles.get(found.name, ()), look.as_of, "h3"),
        aria_labelledby=f"instance-{found.name}",
    )


def _facts(board: InstanceBoard, now: datetime) -> Html:
    found = board.status
    alive = found.silent_for is not None and found.silent_for < ALIVE
    gone = "bad" if board.configured else "soft"
    if found.holder is None or found.silent_for is None:
        holder = element("span", "no daemon", class_=gone)
    else:
        words = f"{found.holder}, {'alive' if alive else 'silent for ' + span(timedelta(seconds=found.silent_for))}"
        holder = element("span", words, class_="good" if alive else gone)
    leads = "counting the" if found.leads is None else f"{found.leads:,}"
    outside = None if board.configured else "; not in the configuration"
    pauses = [f"; paused: {each.name or each.direction}" + (f" until {moment(each.until)}" if each.until else "") for each in found.pauses]
    return element("p", "daemon ", holder, f", {leads} leads in the mirror", outside, *pauses, _census(board, now))


def _census(board: InstanceBoard, now: datetime) -> Html | None:
    census = board.status.census
    if census is None:
        return None
    if census.finished_at is None:
        return joined("; the first census began ", ago(census.started_at, now))
    if census.message is not None:
        return joined("; the last census came to nothing ", ago(census.finished_at, now), ": ", census.message)
    found = f": {census.leads:,} leads at Marketo's, {census.missing:,} missing here, {census.surplus:,} surplus"
    return joined("; last census ", ago(census.finished_at, now), found)


def _todo(todo: Todo) -> Html:
    commands = [joined(" ", element("code", each)) for each in todo.commands]
    why = element("span", todo.why) if todo.why else None
    return element("li", element("strong", todo.what, class_=todo.level), why, element("div", "→ ", todo.remedy, *commands))


def _quota(board: InstanceBoard, look: Look) -> Html:
    quota, name, size = board.quota, board.status.name, board.status.extract_bytes
    limits = look.limits.get(name)
    cards = [_gauge("Our calls today", quota.rest + quota.soap, quota.daily_calls, f"REST {quota.rest:,}, SOAP {quota.soap:,}")]
    if quota.others is not None:
        told = f"ours {quota.rest:,}, others' {quota.others:,}"
        cards.append(_gauge("REST calls of all today", quota.rest + quota.others, quota.subscription_calls, told))
    if limits is not None and name in look.brakes:
        pace, concurrency = look.brakes[name]
        calls = f"{pace * limits.calls_per_20s:.0f} of {limits.calls_per_20s} calls in 20 s"
        told = f"{calls}, {max(1, int(concurrency * limits.concurrency))} of {limits.concurrency} at a time"
        cards.append(_gauge("Pace that Marketo allows, in %", round(pace * 100), 100, told))
    if size.allowed is not None and (size.completed or size.under_way):
        told = f"{megabytes(size.completed)} completed, {megabytes(size.under_way)} under way"
        cards.append(_gauge("Extract bytes today", size.completed + size.under_way, size.allowed, told))
    spent = [
        element("p", f"the {api.upper()} API waits for its quota to be reset", class_="warn") for api in look.paused_apis.get(name, ())
    ]
    return joined(element("h3", "Quotas and pace"), *spent, element("div", *cards, class_="cards"))


def _gauge(title: str, value: int, limit: int | None, told: str) -> Html:
    meter = element("meter", f"{value:,}", min="0", max=str(limit), value=str(min(value, limit)), aria_label=title) if limit else None
    of = f" of {limit:,}" if limit else ""
    return element("div", element("h4", title), meter, element("p", f"{value:,}{of}"), element("p", told, class_="soft"), class_="card")


def _troubles(troubles: Sequence[Trouble], now: datetime, heading: str) -> Html | None:
    if not troubles:
        return None
    rows: list[list[object]] = [
        [each.event, ago(each.at, now), text(each.level), each.about, each.said, each.remedy, f"{each.times:,}"]
        for each in troubles[:TROUBLES]
    ]
    headings = ["event", "last", "level", "about", "what it said", "what to do", "times"]
    shown = table("Warnings and errors since the daemon started, the newest first", headings, rows, frozenset({6}))
    return joined(element(heading, "What went wrong lately"), shown)


def _daemon(look: Look) -> Html | None:
    troubles = _troubles(look.troubles.get(None, ()), look.as_of, "h3")
    if troubles is None:
        return None
    return element("section", element("h2", "The daemon", id="daemon"), troubles, aria_labelledby="daemon")
