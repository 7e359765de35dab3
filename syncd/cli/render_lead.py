"""How `syncd lead show` tells of leads: what each is now, and its story as a table."""

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.cli.render import NOTHING, plain, table_with
from syncd.core.words import moment
from syncd.store.story import Changed, Deleted, Joined, Left, Present, Seen, Sent, Story

LONGEST_VALUE = 300  # characters


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
    table = table_with("", "", title=f"lead {lead.lead_id}", header=False)
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
    table = table_with("field", "value", "")
    for name, value in sorted(_values(lead.attributes).items()):
        table.add_row(plain(name), _cut(value))
    for name, value in sorted(_values(lead.misfits or "{}").items()):
        table.add_row(plain(name), _cut(value), Text("does not fit the type of its field", "yellow"))
    return [table] if table.row_count else []


def _events(story: Story) -> Table:
    table = table_with("when", "what", "")
    if story.older:
        table.add_row(f"… {story.older:,} older {'one' if story.older == 1 else 'ones'}")
    for event in story.events:
        match event:
            case Seen():
                table.add_row(moment(event.at), "first seen")
            case Changed():
                changes = [plain(f"{each.field}: ") + _cut(_value(each.old)) + " → " + _cut(_value(each.new)) for each in event.fields]
                table.add_row(moment(event.at), plain(f"changed, seen by {event.pull}"), Text("\n").join(changes))
            case Joined():
                table.add_row(moment(event.at), "joined list", plain(event.list))
            case Left():
                table.add_row(moment(event.at), "left list", plain(event.list))
            case Deleted():
                table.add_row(moment(event.at), Text("deleted", "red"), f"merged into {event.merged_into}" if event.merged_into else "")
            case Sent():
                table.add_row(moment(event.at), plain(f"sent, by {event.push}"), _sent(event))
    return table


def _sent(event: Sent) -> Text:
    carrier = [f"import job {event.import_job_id}"] if event.import_job_id else []
    carrier += [f"batch {event.batch_id}"] if event.batch_id else []
    carrier += [f"sync batch {event.sync_batch_id}"] if event.sync_batch_id else []
    settled = [f"settled {moment(event.settled_at)}"] if event.settled_at else []
    fate = plain(", ".join([f"change {event.id}", event.state, *carrier, *settled]))
    reason = [_cut(event.reason)] if event.reason else []
    fields = [plain(f"{name} = ") + _cut(value) for name, value in _values(event.fields).items()]
    fields += [plain(f"{name}: value no longer kept") for name in event.erased or ()]
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
    return plain(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…")
