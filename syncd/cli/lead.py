"""`syncd lead show`: all that is known of a lead, as text or as JSON. It shows personal data, to whoever may read the database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import orjson

from syncd.cli.failures import Refused
from syncd.cli.opening import open_pool
from syncd.core.settings import Database, Instance
from syncd.store.story import Changed, Event, Present, Sent, Story, stories

JSON_TEXTS = {Present: ("attributes", "misfits"), Sent: ("fields",)}


async def read(database: Database, instance: Instance, who: str, last: int) -> list[Story]:
    """The leads with the email or id `who`. Raises Refused when there are none, DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(database, "syncd lead") as pool:
        found = await stories(pool, instance.name, who, {push.name: push.lookup_field for push in instance.pushes}, last)
    if not found:
        raise Refused(f"syncd lead show: {instance.name} has no such lead, and no changes for one")
    return found


def as_json(found: Sequence[Story]) -> str:
    """The stories as JSON: values as they are in the database, times in ISO 8601, no character that could steer a terminal."""
    leads = [
        {
            "lead": _plain(story.lead) if story.lead else None,
            "older_events": story.older,
            "events": [{"event": type(event).__name__.lower(), **_event(event)} for event in story.events],
        }
        for story in found
    ]
    text = orjson.dumps({"leads": leads}, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] if ord(c) > 0x7F else f"\\u{ord(c):04x}" for c in text)


def _event(event: Event) -> Mapping[str, Any]:
    if isinstance(event, Changed):
        changes = [{"field": each.field, "old": _value(each.old), "new": _value(each.new)} for each in event.fields]
        return asdict(event) | {"fields": changes}
    return _plain(event)


def _plain(of: Present | Event) -> dict[str, Any]:
    texts = JSON_TEXTS.get(type(of), ())
    return {each.name: _value(getattr(of, each.name)) if each.name in texts else getattr(of, each.name) for each in fields(of)}


def _value(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
