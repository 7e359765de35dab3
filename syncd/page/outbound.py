"""The pushes of an instance: Marketo's queue, the outbox, what is held, imports that ended, failures by reason."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from syncd.core.words import commands_of, counted, moment, span
from syncd.page.html import Html, element, joined, table
from syncd.page.words import ago, entry, number, standing, state
from syncd.store.batches import Synced
from syncd.store.board import InstanceBoard, Slot
from syncd.store.jobs import JobStatus
from syncd.store.status import PushStatus

LIVE = ("pending", "in_chunk", "in_batch", "held", "parked")
ENDED = ("applied", "warned", "rejected", "unverified", "superseded", "noop", "cancelled")


def pushes_of(board: InstanceBoard, now: datetime) -> Html:
    """All of that direction."""
    cards = [_push(push, now) for push in board.status.pushes]
    return joined(
        element("h3", "Pushes"),
        element("div", *cards, class_="cards"),
        _held(board, now) if board.status.holds else None,
        element("h3", "Marketo's import queue"),
        _strangers(board, now),
        element("ol", *(_slot(slot, now) for slot in board.slots), class_="slots"),
        element("h3", "The last 24 hours"),
        _jobs(board, now) if board.recent_jobs else element("p", "No import has ended.", class_="soft"),
        element("p", _synced(board.synced)) if board.synced.calls else None,
        joined(element("h3", "Failures"), _failures(board, now)) if board.failures.changes else None,
    )


def _push(push: PushStatus, now: datetime) -> Html:
    waits = f"{span(now - push.oldest_pending_at)} for the oldest" if push.oldest_pending_at else None
    message = element("p", push.message, class_="warn") if push.message else None
    facts = [entry("waits", waits), *_counts(push.live, LIVE), *_counts(push.settled, ENDED)]
    return element("article", element("h4", push.name, " ", standing(push)), element("dl", *facts), message, class_="card")


def _counts(counts: Mapping[str, int], order: tuple[str, ...]) -> list[Html | None]:
    return [entry(each, number(counts[each])) for each in order if counts.get(each)]


def _slot(slot: Slot, now: datetime) -> Html:
    if slot.owner == "nobody":
        return element("li", element("span", "free", class_="soft"))
    if slot.owner == "others":
        return element("li", element("span", "others'"), element("span", "what it does, nobody tells", class_="soft"), class_="others")
    rows = f"{counted(slot.rows, 'row')} of {slot.push}" if slot.rows is not None else None
    end = f"until {slot.expected_end:%H:%M:%S}Z or so" if slot.expected_end else "its end is not known"
    age = ago(slot.since, now)
    return element(
        "li",
        element("span", f"ours, job {slot.job}"),
        element("span", state(slot.state)),
        element("span", rows),
        element("span", age, class_="soft"),
        element("span", end, class_="soft"),
        class_="ours",
    )


def _strangers(board: InstanceBoard, now: datetime) -> Html:
    if board.strangers is None:
        return element("p", "Others' imports show only when they leave us no room; none have lately.", class_="soft")
    seen = ago(board.strangers.seen_at, now)
    return element("p", f"{board.strangers.slots} slots were others' when Marketo last told, ", seen, class_="soft")


def _held(board: InstanceBoard, now: datetime) -> Html:
    rows: list[list[object]] = []
    for hold in board.status.holds:
        commands = [element("code", command) for command in commands_of(board.status.name, hold.push, hold.plan_id)]
        plan = f"plan {hold.plan_id}" if hold.plan_id is not None else None
        some = ", ".join(map(str, hold.ids)) + (", …" if hold.changes > len(hold.ids) else "")
        rows.append([hold.push, number(hold.changes), some, plan, ago(hold.since, now) if hold.since else None, hold.why, *commands])
    headings = ["push", "changes", "ids", "of", "since", "reason", "what they would do", "to let them go", "to cancel them"]
    return table("Held until an operator decides", headings, rows, frozenset({1}))


def _jobs(board: InstanceBoard, now: datetime) -> Html:
    headings = [
        "job",
        "push",
        "batch",
        "state",
        "rows",
        "applied",
        "warned",
        "rejected",
        "unverified",
        "retried",
        "submitted",
        "took",
        "message",
    ]
    rows: list[list[object]] = [_job(job, now) for job in board.recent_jobs]
    return table("Imports that ended, the newest first", headings, rows, frozenset({0, 2, *range(4, 10)}))


def _job(job: JobStatus, now: datetime) -> list[object]:
    took: timedelta | None = job.finished_at - job.submitted_at if job.finished_at else None
    counts = (job.row_count, job.applied, job.warned, job.rejected, job.unverified, job.retried)
    told = [number(count) for count in counts]
    return [job.id, job.push, job.batch_id, state(job.state), *told, ago(job.submitted_at, now), span(took) if took else None, job.message]


def _synced(synced: Synced) -> str:
    counts = {name: getattr(synced, name) for name in ("applied", "rejected", "unverified", "retried")}
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "nothing"
    return f"Sync Leads answered {counted(synced.calls, 'call')}: {told}."


def _failures(board: InstanceBoard, now: datetime) -> Html:
    rows: list[list[object]] = [
        [number(each.changes), each.push, each.state, each.reason, element("time", moment(each.latest), datetime=each.latest.isoformat())]
        for each in board.failures.by_reason
    ]
    more = board.failures.reasons - len(rows)
    rest = element("p", f"and {more:,} more reasons", class_="soft") if more > 0 else None
    return joined(
        table("By reason, of those that nobody has retried", ["changes", "push", "state", "reason", "latest"], rows, frozenset({0})), rest
    )
