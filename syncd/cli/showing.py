"""How failures look, to people and to programs."""

import orjson
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from syncd.cli.advice import advice
from syncd.cli.deadletters import cells_of
from syncd.cli.render import NOTHING, printable
from syncd.core.words import moment
from syncd.store.deadletters import Failure, Fate, Summary


def list_of(summary: Summary, found: list[Failure], retried_too: bool) -> RenderableType:
    """How many by reason, then one by one."""
    if not summary.changes:
        return Text("no failures")
    heads = Table(box=None, pad_edge=False, title=_title(summary), title_justify="left")
    for heading in ("changes", "push", "state", "latest", "reason"):
        heads.add_column(heading, overflow="fold", header_style="dim", justify="right" if heading == "changes" else "left")
    for each in summary.by_reason:
        heads.add_row(f"{each.changes:,}", _text(each.push), each.state, moment(each.latest), _text(each.reason))
    if not found:
        return heads
    rows = Table(box=None, pad_edge=False)
    for heading in ("change", "when", "push", "key", "state", "reason", *(["retried as"] if retried_too else [])):
        rows.add_column(heading, overflow="fold", header_style="dim")
    for row in found:
        again = [] if not retried_too else [_again(row)]
        rows.add_row(str(row.id), moment(row.settled_at), _text(row.push), _text(row.key), row.state, _text(row.reason), *again)
    older = [Text(f"… {summary.changes - len(found):,} older ones; --limit shows more")] if summary.changes > len(found) else []
    return Group(heads, Text(), rows, *older)


def _title(summary: Summary) -> Text:
    more = summary.reasons - len(summary.by_reason)
    rest = f"; the {len(summary.by_reason)} most frequent of {summary.reasons:,} reasons" if more else ""
    unverified = f", {summary.unverified:,} of them unverified" if summary.unverified else ""
    return Text(f"{summary.changes:,} failures{unverified}{rest}", "bold")


def _again(row: Failure | Fate) -> str:
    return NOTHING if row.retried_at is None else str(row.retried_as or "nothing was left of it")


def fate_of(found: Fate) -> RenderableType:
    """One change: what it was to do, how it went, why, and what to do now."""
    table = Table(box=None, pad_edge=False, show_header=False, title=Text(f"change {found.id}", "bold"), title_justify="left")
    table.add_column("", style="dim")
    table.add_column("", overflow="fold")
    table.add_row("state", found.state)
    table.add_row("reason", _text(found.reason))
    table.add_row("what to do", _todo(found))
    table.add_row("push", _text(found.push))
    table.add_row("key", _text(found.key))
    try:
        for name, cell in cells_of(found.fields).items():
            table.add_row(_text(f"field {name}"), _text(cell) if cell else "cleared")
        for name in found.erased or ():
            table.add_row(_text(f"field {name}"), "value no longer kept")
    except RecursionError:
        table.add_row("fields", "nested too deep to be shown")
    table.add_row("enqueued", moment(found.created_at))
    if found.settled_at is not None:
        table.add_row("ended", moment(found.settled_at))
    table.add_row("import job", _job(found))
    if found.retry_of is not None:
        table.add_row("retry or revert of", str(found.retry_of))
    if found.retried_at is not None:
        table.add_row("retried", f"{moment(found.retried_at)}, as {_again(found)}")
    return table


def _todo(found: Fate) -> str:
    if found.retried_as is not None:
        return f"nothing: it went again as change {found.retried_as}; see syncd failures show {found.retried_as}"
    if found.retried_at is not None:
        return "nothing: later changes have set all its fields"
    return advice(found.state, found.reason)


def _job(found: Fate) -> str:
    if found.import_job_id is None or found.submitted_at is None:
        return "none: it was in no file"
    batch = f", Marketo's batch {found.batch_id}" if found.batch_id is not None else ""
    finished = f", finished {moment(found.finished_at)}" if found.finished_at else ""
    sent = f"submitted {moment(found.submitted_at)} (attempt {found.attempt})"
    return f"{found.import_job_id} of chunk {found.chunk_id}{batch}: {found.job_state}, {sent}{finished}"


def as_json(summary: Summary, found: list[Failure]) -> str:
    """The same for programs: values as they are in the database, times in ISO 8601."""
    rows = [{name: getattr(row, name) for name in Failure.__slots__} | {"fields": orjson.Fragment(row.fields)} for row in found]
    plain = {"changes": summary.changes, "unverified": summary.unverified, "reasons": summary.reasons, "by_reason": summary.by_reason}
    return orjson.dumps(plain | {"failures": rows}, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()


def fate_as_json(found: Fate) -> str:
    """The same for programs."""
    plain = {name: getattr(found, name) for name in Fate.__slots__} | {"fields": orjson.Fragment(found.fields), "what_to_do": _todo(found)}
    return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()


def _text(text: str | None) -> Text:
    return Text(printable(text or NOTHING))
