"""How findings and status look: tables on a terminal, the same without colours or folding elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.core.findings import Finding
from syncd.store.status import InstanceStatus, JobStatus, PullStatus, PushStatus

UNFOLDED = 10_000  # columns; whoever reads a pipe wants whole lines
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
    facts.add_row("leads in the mirror", f"{instance.leads:,}")
    calls = ", ".join(f"{api} {count:,}" for api, count in sorted(instance.calls_today.items()))
    facts.add_row("calls today (US Central)", calls or "none")
    parts: list[RenderableType] = [facts]
    if instance.pulls:
        parts.append(_pulls(instance.pulls, now))
    if instance.pushes:
        parts.append(_pushes(instance.pushes, now))
    if instance.live_jobs:
        parts.append(_jobs(instance.live_jobs, now))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _holder(instance: InstanceStatus) -> Text:
    if instance.holder is None or instance.silent_for is None:
        return Text("none has worked for it yet: start syncd run", "yellow")
    if instance.silent_for < ALIVE:
        return _plain(f"{instance.holder}, last sign of life {instance.silent_for:.0f} s ago", "green")
    return _plain(f"none; the last was {instance.holder}, silent for {_span(timedelta(seconds=instance.silent_for))}", "red")


def _pulls(pulls: Iterable[PullStatus], now: datetime) -> Table:
    table = _table("pull", "state", "up to", "lag", "windows open", "done", "leads left", "message")
    for pull in pulls:
        table.add_row(
            pull.name,
            _state(pull.state),
            _moment(pull.watermark),
            _span(now - pull.watermark),
            f"{pull.open_windows:,}",
            f"{pull.done_windows:,}",
            f"{pull.leads_left:,}",
            _plain(pull.message or ""),
        )
    return table


def _pushes(pushes: Iterable[PushStatus], now: datetime) -> Table:
    table = _table("push", "state", "live", "oldest pending", "settled", "message")
    for push in pushes:
        oldest = f"{_span(now - push.oldest_pending_at)} ago" if push.oldest_pending_at else ""
        table.add_row(_plain(push.name), _state(push.state), _counts(push.live), oldest, _counts(push.settled), _plain(push.message or ""))
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
            f"{_span(now - job.submitted_at)} ago",
            _plain(job.message or ""),
        )
    return table


def _table(*columns: str, title: str = "", header: bool = True) -> Table:
    table = Table(box=None, show_header=header, title=Text(title, "bold") if title else None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", header_style="dim")
    return table


def _state(state: str) -> Text:
    return _plain(state, "red" if state in ("blocked", "unconfirmed") else "yellow" if state in ("paused", "held") else "")


def _counts(counts: Mapping[str, int]) -> Text:
    return _plain(", ".join(f"{state} {count:,}" for state, count in sorted(counts.items())) or "none")


def _plain(text: str, style: str = "") -> Text:
    """Text that is only text: Marketo's messages must not steer the terminal."""
    return Text("".join(c if c.isprintable() else " " for c in text), style)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _span(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
