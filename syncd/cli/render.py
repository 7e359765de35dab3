"""How findings, status and leads look: tables on a terminal, the same without colours or folding elsewhere."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.core.findings import Finding
from syncd.core.words import commands_of
from syncd.core.words import megabytes as megabytes
from syncd.core.words import moment as moment
from syncd.core.words import span as span
from syncd.flows.attached import faults_of
from syncd.marketo.allowance import BLOCK
from syncd.store.attaching import Attached
from syncd.store.jobs import JobStatus
from syncd.store.pauses import Choice, Pause
from syncd.store.pull_status import BackfillStatus, PullStatus
from syncd.store.status import (
    BytesStatus,
    CensusStatus,
    ExportStatus,
    InstanceStatus,
    PushStatus,
    VerificationStatus,
)
from syncd.store.story import Changed, Deleted, Joined, Left, Present, Seen, Sent, Story
from syncd.store.usage import ApiUser

UNFOLDED = 10_000  # columns; whoever reads a pipe wants whole lines
NOTHING = "\N{EN DASH}"
LONGEST_VALUE = 300  # characters
ALIVE = 15.0  # seconds of silence after which a holder counts as gone (architecture.md)


def show(renderable: RenderableType) -> None:
    """Print to stdout."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(renderable)
        return
    console = Console(highlight=False, width=UNFOLDED)
    with console.capture() as captured:
        console.print(renderable)
    print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n", flush=True)  # noqa: T201 - this is the output


def findings_table(heading: str, findings: Sequence[Finding]) -> Table:
    """✓ or ✗, what was tried, what happened, and below it the remedy."""
    table = _table("", "", "", title=heading, header=False)
    for finding in findings:
        table.add_row(Text("✓", "green") if finding.ok else Text("✗", "bold red"), _plain(finding.what), _plain(finding.detail))
        if finding.remedy and not finding.ok:
            table.add_row("", "", _plain(f"→ {finding.remedy}", "bold"))
    return table


def status_of(instance: InstanceStatus, now: datetime) -> RenderableType:
    """One instance: who works for it, both directions, the jobs that are live."""
    facts = _table("", "", title=instance.name, header=False)
    facts.add_row("daemon", _holder(instance))
    if instance.pauses:
        facts.add_row("paused", _plain("; ".join(pause_of(each) for each in instance.pauses), "yellow"))
    facts.add_row("leads in the mirror", f"{instance.leads:,}")
    calls = ", ".join(f"{api} {count:,}" for api, count in sorted(instance.calls_today.items()))
    facts.add_row("calls today (US Central)", f"{calls} (charged ahead in blocks of {BLOCK} at most)" if calls else "none")
    if instance.exports or instance.extract_bytes.completed or any(pull.source not in (None, "soap") for pull in instance.pulls):
        facts.add_row("extract bytes today", _extract_bytes(instance.extract_bytes))
    if instance.census:
        facts.add_row("last census", _census(instance.census, now))
    if instance.verification:
        facts.add_row("last verify", _verification(instance.verification, now))
    parts: list[RenderableType] = [facts]
    if instance.pulls:
        parts += [_pulls(instance.pulls, now), _ways(instance.pulls, now)]
    if instance.exports:
        parts.append(_exports(instance.exports, now))
    if instance.pushes:
        parts.append(_pushes(instance.pushes, now))
    if any(push.table for push in instance.pushes):
        parts.append(_tables(instance.pushes))
    if instance.holds:
        parts.append(_holds(instance, now))
    if instance.live_jobs:
        parts.append(_jobs(instance.live_jobs, now))
    if instance.api_users:
        parts.append(_api_users(instance.api_users, now))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _holder(instance: InstanceStatus) -> Text:
    if instance.holder is None or instance.silent_for is None:
        return Text("none has worked for it yet: start syncd run", "yellow")
    if instance.silent_for < ALIVE:
        return _plain(f"{instance.holder}, last sign of life {instance.silent_for:.0f} s ago", "green")
    return _plain(f"none; the last was {instance.holder}, silent for {span(timedelta(seconds=instance.silent_for))}", "red")


def _extract_bytes(found: BytesStatus) -> str:
    size = f"{megabytes(found.completed)} completed, {megabytes(found.under_way)} expected of exports under way"
    if found.allowed is None or found.left is None:
        return size
    return f"{size}, {megabytes(found.left)} of {megabytes(found.allowed)} left until midnight US Central"


def _census(census: CensusStatus, now: datetime) -> Text:
    if census.finished_at is None:
        return _plain(f"the first one is under way for {span(now - census.started_at)}; {census.leads:,} leads so far")
    if census.message is not None:
        return _plain(f"came to nothing {span(now - census.finished_at)} ago: {census.message}", "yellow")
    found = f"{census.missing:,} were missing from the mirror, {census.surplus:,} in it no longer at Marketo's"
    return _plain(f"{span(now - census.finished_at)} ago: {census.leads:,} leads at Marketo's; {found}")


def _verification(found: VerificationStatus, now: datetime) -> Text:
    if found.finished_at is None:
        return _plain(f"the first one is under way for {span(now - found.asked_at)}; {found.leads:,} leads so far")
    if found.message is not None:
        return _plain(f"came to nothing {span(now - found.finished_at)} ago: {found.message}", "yellow")
    causes = ", ".join(f"{cause} {fields:,}" for cause, fields in sorted(found.causes.items()))
    drifted = f"{found.drifted:,} drifted ({causes})" if found.drifted else "all agree"
    return _plain(f"{span(now - found.finished_at)} ago: {found.leads:,} leads read back, {drifted}", "yellow" if found.drifted else "")


def _pulls(pulls: Iterable[PullStatus], now: datetime) -> Table:
    pulls = list(pulls)
    drop, backfill = any(pull.leads_dropped for pull in pulls), any(pull.backfill for pull in pulls)
    more = [*(["leads dropped"] if drop else []), *(["backfill"] if backfill else [])]
    table = _table("pull", "state", "up to", "lag", "windows open", "done", "leads left", *more, "message")
    for pull in pulls:
        table.add_row(
            pull.name,
            _standing(pull),
            moment(pull.watermark) if pull.watermark else NOTHING,
            span(now - pull.watermark) if pull.watermark else NOTHING,
            f"{pull.open_windows:,}",
            f"{pull.done_windows:,}",
            f"{pull.leads_left:,}",
            *([f"{pull.leads_dropped:,}"] if drop else []),
            *([_backfill(pull.backfill)] if backfill else []),
            _plain(pull.message or ""),
        )
    return table


def _ways(pulls: Iterable[PullStatus], now: datetime) -> Table:
    table = _table("pull", "source", "its leads come by", "leads due", "because")
    for pull in pulls:
        due = f"{pull.leads_due:,}, for {span(now - pull.due_since)}" if pull.due_since else f"{pull.leads_due:,}"
        route = pull.route or "not chosen yet"
        table.add_row(pull.name, _plain(pull.source or NOTHING), _plain(route), due, _plain(pull.reason or ""))
    return table


def _exports(exports: Iterable[ExportStatus], now: datetime) -> Table:
    table = _table("export", "pull", "at Marketo", "state", "leads", "bytes", "age", "message")
    for export in exports:
        part = f", part {export.part + 1} of {export.parts}" if export.parts > 1 else ""
        table.add_row(
            str(export.id),
            _plain(f"{export.pull}{part}"),
            _plain(export.export_id or ""),
            _state(export.state),
            f"{export.records:,}" if export.records is not None else "",
            f"{export.bytes:,}" if export.bytes is not None else "",
            span(now - export.begun_at),
            _plain(export.message or ""),
        )
    return table


def _backfill(backfill: BackfillStatus | None) -> str:
    if backfill is None:
        return ""
    return f"{backfill.done:,} of {backfill.windows:,} windows" if backfill.planned_at else "ordered"


def _pushes(pushes: Iterable[PushStatus], now: datetime) -> Table:
    table = _table("push", "state", "live", "oldest pending", "settled", "message")
    for push in pushes:
        oldest = f"{span(now - push.oldest_pending_at)} ago" if push.oldest_pending_at else ""
        table.add_row(_plain(push.name), _standing(push), _counts(push.live), oldest, _counts(push.settled), _plain(push.message or ""))
    return table


def _tables(pushes: Iterable[PushStatus]) -> Table:
    table = _table("push", "follows", "since", "left out or lost")
    for push in pushes:
        if push.table:
            faults = _plain(faults_of(push.table), "red" if push.table.lost else "yellow")
            table.add_row(_plain(push.name), _plain(push.table.relation) + _followed(push.table), moment(push.table.attached_at), faults)
    return table


def _followed(table: Attached) -> Text:
    """How a table's triggers are, or how the last comparison of a view ended."""
    view = table.compared
    if view is None:
        return _plain("") if table.fires else _plain(", its triggers are missing or disabled", "red")
    if view.failed_at is not None:
        return _plain(f", not compared at {moment(view.failed_at)}: {view.message}", "red")
    if view.based_at is None or view.compared_at is None:
        return _plain(", its first snapshot is not complete", "red")
    return _plain(f", {view.keys:,} keys, compared at {moment(view.compared_at)}: {view.changes:,} changes, {view.gone:,} gone")


def _holds(instance: InstanceStatus, now: datetime) -> Table:
    table = _table("push", "held", "for", "why", "ids", "go on with")
    for hold in instance.holds:
        table.add_row(
            _plain(hold.push if hold.plan_id is None else f"{hold.push}, plan {hold.plan_id}"),
            Text(f"{hold.changes:,}", "yellow"),
            span(now - hold.since) if hold.since else NOTHING,
            _plain(hold.why or ""),
            ", ".join(map(str, hold.ids)) + (", …" if hold.changes > len(hold.ids) else ""),
            _plain(", or ".join(commands_of(instance.name, hold.push, hold.plan_id))),
        )
    return table


def _jobs(jobs: Iterable[JobStatus], now: datetime) -> Table:
    table = _table("job", "push", "batch", "state", "rows", "bytes", "attempt", "submitted", "message")
    for job in jobs:
        table.add_row(
            str(job.id),
            _plain(job.push),
            str(job.batch_id or ""),
            _state(job.state),
            f"{job.row_count:,}",
            f"{job.byte_count:,}",
            str(job.attempt),
            f"{span(now - job.submitted_at)} ago",
            _plain(job.message or ""),
        )
    return table


def _api_users(users: Iterable[ApiUser], now: datetime) -> Table:
    table = _table("API user", "REST calls today", "as of")
    for user in users:
        table.add_row(_plain(user.user_id), f"{user.calls:,}", f"{span(now - user.seen_at)} ago")
    return table


def stories_of(stories: Sequence[Story]) -> RenderableType:
    """Leads: what each is now, and what happened to it, in order of time."""
    parts: list[RenderableType] = []
    if len(stories) > 1:
        note = "what was sent by this address is shown with each, as only Marketo knows which of them it took"
        parts.append(Text(f"{len(stories)} leads have this address; {note}", "yellow"))
    for story in stories:
        parts += [_present(story.lead), *_attributes(story.lead)] if story.lead else [Text("not in the mirror", "yellow")]
        parts.append(_events(story))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _present(lead: Present) -> Table:
    table = _table("", "", title=f"lead {lead.lead_id}", header=False)
    table.add_row("email", _cut(lead.email or NOTHING))
    table.add_row("first seen", moment(lead.first_seen_at))
    table.add_row("last changed", moment(lead.changed_at))
    table.add_row("as of", moment(lead.asked_at))
    if lead.deleted_at:
        table.add_row("deleted", Text(moment(lead.deleted_at), "red"))
    if lead.merged_into:
        table.add_row("merged into", Text(str(lead.merged_into), "red"))
    return table


def _attributes(lead: Present) -> list[Table]:
    table = _table("field", "value", "")
    for name, value in sorted(_values(lead.attributes).items()):
        table.add_row(_plain(name), _cut(value))
    for name, value in sorted(_values(lead.misfits or "{}").items()):
        table.add_row(_plain(name), _cut(value), Text("does not fit the type of its field", "yellow"))
    return [table] if table.row_count else []


def _events(story: Story) -> Table:
    table = _table("when", "what", "")
    if story.older:
        table.add_row(f"… {story.older:,} older {'one' if story.older == 1 else 'ones'}")
    for event in story.events:
        match event:
            case Seen():
                table.add_row(moment(event.at), "first seen")
            case Changed():
                changes = [_plain(f"{each.field}: ") + _cut(_value(each.old)) + " → " + _cut(_value(each.new)) for each in event.fields]
                table.add_row(moment(event.at), _plain(f"changed, seen by {event.pull}"), Text("\n").join(changes))
            case Joined():
                table.add_row(moment(event.at), "joined list", _plain(event.list))
            case Left():
                table.add_row(moment(event.at), "left list", _plain(event.list))
            case Deleted():
                table.add_row(moment(event.at), Text("deleted", "red"), f"merged into {event.merged_into}" if event.merged_into else "")
            case Sent():
                table.add_row(moment(event.at), _plain(f"sent, by {event.push}"), _sent(event))
    return table


def _sent(event: Sent) -> Text:
    carrier = [f"import job {event.import_job_id}"] if event.import_job_id else []
    carrier += [f"batch {event.batch_id}"] if event.batch_id else []
    carrier += [f"sync batch {event.sync_batch_id}"] if event.sync_batch_id else []
    settled = [f"settled {moment(event.settled_at)}"] if event.settled_at else []
    fate = _plain(", ".join([f"change {event.id}", event.state, *carrier, *settled]))
    reason = [_cut(event.reason)] if event.reason else []
    fields = [_plain(f"{name} = ") + _cut(value) for name, value in _values(event.fields).items()]
    fields += [_plain(f"{name}: value no longer kept") for name in event.erased or ()]
    return Text("\n").join([fate, *reason, *fields])


def _values(text: str) -> dict[str, str]:
    """The values of a JSON object, as they are shown."""
    return {name: _shown(value) for name, value in json.loads(text, parse_int=str, parse_float=str).items()}


def _value(text: str | None) -> str:
    return _shown(None if text is None else json.loads(text, parse_int=str, parse_float=str))


def _shown(value: object) -> str:
    """Numbers are texts here, with all their digits; no value and an empty one are the same to Marketo."""
    return (value or NOTHING) if isinstance(value, str) else NOTHING if value is None else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> Text:
    return _plain(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…")


def _table(*columns: str, title: str = "", header: bool = True) -> Table:
    table = Table(box=None, show_header=header, title=Text(title, "bold") if title else None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", header_style="dim")
    return table


def _state(state: str) -> Text:
    return _plain(state, "red" if state in ("blocked", "unconfirmed") else "yellow" if state in ("paused", "held") else "")


def _standing(one: PullStatus | PushStatus) -> Text:
    state = _state(one.state)
    if one.paused and one.state != "paused":
        state = state + _plain(", paused", "yellow")
    return state + _plain(f" until {moment(one.paused_until)}", "yellow") if one.paused_until else state


def pause_of(pause: Pause) -> str:
    """What is paused, until when."""
    until = f"until {moment(pause.until)}" if pause.until else "until it is resumed"
    return f"{choice_of(pause.choice)}, {until}"


def choice_of(choice: Choice) -> str:
    """What a pause is about."""
    if choice.name:
        return f"the {'pull' if choice.direction == 'in' else 'push'} {choice.name}"
    return {"both": "everything", "in": "all pulls", "out": "all pushes"}[choice.direction]


def _counts(counts: Mapping[str, int]) -> Text:
    return _plain(", ".join(f"{state} {count:,}" for state, count in sorted(counts.items())) or "none")


def _plain(text: str, style: str = "") -> Text:
    """Text that is only text: Marketo's messages must not steer the terminal."""
    return Text(printable(text), style)


def printable(text: str) -> str:
    """`text` with a space for each character that could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
