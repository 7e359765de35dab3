"""How `syncd status` shows an instance: who works for it, both directions, and what is under way, as tables."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.cli.render import ALIVE, NOTHING, coloured, pause_of, plain, table_with
from syncd.core.words import commands_of, megabytes, moment, span
from syncd.flows.attached import faults_of
from syncd.marketo.allowance import BLOCK
from syncd.store.attaching import Attached
from syncd.store.jobs import JobStatus
from syncd.store.pull_status import BackfillStatus, PullStatus
from syncd.store.status import BytesStatus, CensusStatus, ExportStatus, InstanceStatus, PushStatus, VerificationStatus
from syncd.store.usage import ApiUser


def status_of(instance: InstanceStatus, now: datetime) -> RenderableType:
    """One instance: who works for it, both directions, the jobs that are live."""
    facts = table_with("", "", title=instance.name, header=False)
    facts.add_row("daemon", _holder(instance))
    if instance.pauses:
        facts.add_row("paused", plain("; ".join(pause_of(each) for each in instance.pauses), "yellow"))
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
        return plain(f"{instance.holder}, last sign of life {instance.silent_for:.0f} s ago", "green")
    return plain(f"none; the last was {instance.holder}, silent for {span(timedelta(seconds=instance.silent_for))}", "red")


def _extract_bytes(found: BytesStatus) -> str:
    size = f"{megabytes(found.completed)} completed, {megabytes(found.under_way)} expected of exports under way"
    if found.allowed is None or found.left is None:
        return size
    return f"{size}, {megabytes(found.left)} of {megabytes(found.allowed)} left until midnight US Central"


def _census(census: CensusStatus, now: datetime) -> Text:
    if census.finished_at is None:
        return plain(f"the first one is under way for {span(now - census.started_at)}; {census.leads:,} leads so far")
    if census.message is not None:
        return plain(f"came to nothing {span(now - census.finished_at)} ago: {census.message}", "yellow")
    found = f"{census.missing:,} were missing from the mirror, {census.surplus:,} in it no longer at Marketo's"
    return plain(f"{span(now - census.finished_at)} ago: {census.leads:,} leads at Marketo's; {found}")


def _verification(found: VerificationStatus, now: datetime) -> Text:
    if found.finished_at is None:
        return plain(f"the first one is under way for {span(now - found.asked_at)}; {found.leads:,} leads so far")
    if found.message is not None:
        return plain(f"came to nothing {span(now - found.finished_at)} ago: {found.message}", "yellow")
    causes = ", ".join(f"{cause} {fields:,}" for cause, fields in sorted(found.causes.items()))
    drifted = f"{found.drifted:,} drifted ({causes})" if found.drifted else "all agree"
    return plain(f"{span(now - found.finished_at)} ago: {found.leads:,} leads read back, {drifted}", "yellow" if found.drifted else "")


def _pulls(pulls: Iterable[PullStatus], now: datetime) -> Table:
    pulls = list(pulls)
    drop, backfill = any(pull.leads_dropped for pull in pulls), any(pull.backfill for pull in pulls)
    more = [*(["leads dropped"] if drop else []), *(["backfill"] if backfill else [])]
    table = table_with("pull", "state", "up to", "lag", "windows open", "done", "leads left", *more, "message")
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
            plain(pull.message or ""),
        )
    return table


def _ways(pulls: Iterable[PullStatus], now: datetime) -> Table:
    table = table_with("pull", "source", "its leads come by", "leads due", "because")
    for pull in pulls:
        due = f"{pull.leads_due:,}, for {span(now - pull.due_since)}" if pull.due_since else f"{pull.leads_due:,}"
        route = pull.route or "not chosen yet"
        table.add_row(pull.name, plain(pull.source or NOTHING), plain(route), due, plain(pull.reason or ""))
    return table


def _exports(exports: Iterable[ExportStatus], now: datetime) -> Table:
    table = table_with("export", "pull", "at Marketo", "state", "leads", "bytes", "age", "message")
    for export in exports:
        part = f", part {export.part + 1} of {export.parts}" if export.parts > 1 else ""
        table.add_row(
            str(export.id),
            plain(f"{export.pull}{part}"),
            plain(export.export_id or ""),
            coloured(export.state),
            f"{export.records:,}" if export.records is not None else "",
            f"{export.bytes:,}" if export.bytes is not None else "",
            span(now - export.begun_at),
            plain(export.message or ""),
        )
    return table


def _backfill(backfill: BackfillStatus | None) -> str:
    if backfill is None:
        return ""
    return f"{backfill.done:,} of {backfill.windows:,} windows" if backfill.planned_at else "ordered"


def _pushes(pushes: Iterable[PushStatus], now: datetime) -> Table:
    table = table_with("push", "state", "live", "oldest pending", "settled", "message")
    for push in pushes:
        oldest = f"{span(now - push.oldest_pending_at)} ago" if push.oldest_pending_at else ""
        table.add_row(plain(push.name), _standing(push), _counts(push.live), oldest, _counts(push.settled), plain(push.message or ""))
    return table


def _tables(pushes: Iterable[PushStatus]) -> Table:
    table = table_with("push", "follows", "since", "left out or lost")
    for push in pushes:
        if push.table:
            faults = plain(faults_of(push.table), "red" if push.table.lost else "yellow")
            table.add_row(plain(push.name), plain(push.table.relation) + _followed(push.table), moment(push.table.attached_at), faults)
    return table


def _followed(table: Attached) -> Text:
    """How a table's triggers are, or how the last comparison of a view ended."""
    view = table.compared
    if view is None:
        return plain("") if table.fires else plain(", its triggers are missing or disabled", "red")
    if view.failed_at is not None:
        return plain(f", not compared at {moment(view.failed_at)}: {view.message}", "red")
    if view.based_at is None or view.compared_at is None:
        return plain(", its first snapshot is not complete", "red")
    return plain(f", {view.keys:,} keys, compared at {moment(view.compared_at)}: {view.changes:,} changes, {view.gone:,} gone")


def _holds(instance: InstanceStatus, now: datetime) -> Table:
    table = table_with("push", "held", "for", "why", "ids", "go on with")
    for hold in instance.holds:
        table.add_row(
            plain(hold.push if hold.plan_id is None else f"{hold.push}, plan {hold.plan_id}"),
            Text(f"{hold.changes:,}", "yellow"),
            span(now - hold.since) if hold.since else NOTHING,
            plain(hold.why or ""),
            ", ".join(map(str, hold.ids)) + (", …" if hold.changes > len(hold.ids) else ""),
            plain(", or ".join(commands_of(instance.name, hold.push, hold.plan_id))),
        )
    return table


def _jobs(jobs: Iterable[JobStatus], now: datetime) -> Table:
    table = table_with("job", "push", "batch", "state", "rows", "bytes", "attempt", "submitted", "message")
    for job in jobs:
        table.add_row(
            str(job.id),
            plain(job.push),
            str(job.batch_id or ""),
            coloured(job.state),
            f"{job.row_count:,}",
            f"{job.byte_count:,}",
            str(job.attempt),
            f"{span(now - job.submitted_at)} ago",
            plain(job.message or ""),
        )
    return table


def _api_users(users: Iterable[ApiUser], now: datetime) -> Table:
    table = table_with("API user", "REST calls today", "as of")
    for user in users:
        table.add_row(plain(user.user_id), f"{user.calls:,}", f"{span(now - user.seen_at)} ago")
    return table


def _standing(one: PullStatus | PushStatus) -> Text:
    state = coloured(one.state)
    if one.paused and one.state != "paused":
        state = state + plain(", paused", "yellow")
    return state + plain(f" until {moment(one.paused_until)}", "yellow") if one.paused_until else state


def _counts(counts: Mapping[str, int]) -> Text:
    return plain(", ".join(f"{state} {count:,}" for state, count in sorted(counts.items())) or "none")
