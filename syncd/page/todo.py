"""What of an instance needs a person, and what that person may do."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.words import commands_of, counted, span
from syncd.ops.events import remedy_of
from syncd.store.attaching import KEYLESS, Attached
from syncd.store.board import InstanceBoard

ALIVE = 15.0  # seconds of silence after which a holder counts as gone (architecture.md)
UNCONFIRMED_FOR = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Todo:
    """`level` is "bad" for what stands still, "warn" for what is to be looked at; `commands` are to be typed."""

    level: str
    what: str
    why: str
    remedy: str
    commands: tuple[str, ...] = ()


def todo_of(board: InstanceBoard, now: datetime) -> list[Todo]:
    """The worst first."""
    return sorted(_todo(board, now), key=lambda each: each.level != "bad")


def _todo(board: InstanceBoard, now: datetime) -> Iterator[Todo]:
    found = board.status
    if not board.configured and (found.silent_for is None or found.silent_for >= ALIVE):
        return  # it was taken out of the YAML, and no other daemon serves it: what stands still is meant to
    if found.holder is None or found.silent_for is None:
        yield Todo("bad", "No daemon works for this instance", "none has yet", "start it", ("syncd run",))
    elif found.silent_for >= ALIVE:
        silence = span(timedelta(seconds=found.silent_for))
        yield Todo(
            "bad", "No daemon works for this instance", f"the last was {found.holder}, silent for {silence}", "start it", ("syncd run",)
        )
    for pull in found.pulls:
        if pull.state == "blocked":
            yield Todo("bad", f"The pull {pull.name} is blocked", pull.message or "", remedy_of("pull_blocked"), ("syncd check",))
    for push in found.pushes:
        if push.state == "blocked":
            yield Todo("bad", f"The push {push.name} is blocked", push.message or "", remedy_of("push_blocked"), ("syncd check",))
        if push.state == "held":
            yield Todo("bad", f"The push {push.name} is held", push.message or "", remedy_of("push_held"))
        if push.table is not None:
            yield from _of_table(found.name, push.table)
        if push.state == "not in the configuration" and push.live:
            waiting = f"{counted(sum(push.live.values()), 'change')} enqueued for it"
            yield Todo("warn", f"The push {push.name} is not in the configuration", waiting, "add it to the YAML, or discard them")
    for hold in found.holds:
        what = f"{counted(hold.changes, 'change')} of {hold.push} held"
        commands = commands_of(found.name, hold.push, hold.plan_id)
        yield Todo("bad", what, hold.why or "", "see what they would do, then let them go, or cancel them", commands)
    for job in found.live_jobs:
        if job.state == "unconfirmed" and now - job.submitted_at > UNCONFIRMED_FOR:
            yield Todo("warn", f"The import {job.id} is unconfirmed", job.message or "", remedy_of("import_unconfirmed"))
    if board.failures.changes:
        unverified = f"{board.failures.unverified:,} of them unverified" if board.failures.unverified else ""
        what = f"{counted(board.failures.changes, 'change')} failed"
        command = f"syncd failures list --instance {found.name}"
        yield Todo("warn", what, unverified, "look at the reasons, mend them and send them again", (command,))


def _of_table(instance: str, table: Attached) -> Iterator[Todo]:
    """Of rows that were left out on purpose nothing is said."""
    attach, view = (f"syncd attach -i {instance} --push {table.push}",), table.compared
    followed = f"{table.relation}, which {table.push} follows"
    if view is not None and view.message is not None:
        yield Todo("bad", f"{followed}, can't be read", view.message, remedy_of("view_not_compared"))
    if view is not None and view.based_at is None:
        yield Todo(
            "bad",
            f"{followed}, is not compared",
            "its first snapshot is not complete",
            "unless syncd attach is at work, attach it again",
            attach,
        )
    if not table.fires:
        why = "its triggers are missing or disabled: what is written to it goes nowhere"
        yield Todo("bad", f"{followed}, is not followed", why, "attach it again: it backfills what was lost", attach)
    if table.lost:
        codes = ", ".join(sorted({fault.code for fault in table.faults if fault.code not in KEYLESS}))
        why = f"its triggers failed by error {codes}"
        remedy = "see to the cause, then attach it again: it backfills what was lost"
        yield Todo("bad", f"Changes of {counted(table.lost, 'row')} of {table.relation}, for {table.push}, were lost", why, remedy, attach)
