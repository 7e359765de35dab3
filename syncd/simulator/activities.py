"""The activity log over REST: paging tokens, lead changes, deletions, any types (protocol section 3.2)."""

import base64
import hashlib
import hmac
import json
import math
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from syncd.simulator.clock import seeded
from syncd.simulator.lead_reads import rest_fields
from syncd.simulator.log import DELETION, MERGE, NEW_LEAD, SCORE_CHANGE, VALUE_CHANGE, Activity, Place
from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import JSON, Call, MarketoFault, Reply, parameters
from syncd.simulator.world import World

_PAGE = 300
_MOST_TYPES = 10
_PLACE = struct.Struct(">qqQ")
_SEAL_BYTES = 12
_PADDING = "."
_SOURCE = [{"name": "Reason", "value": "Web service API"}, {"name": "Source", "value": "Web service API"}]


class Tokens:
    """Paging tokens: opaque, never the same twice, and always with a character that must be encoded in an address."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._secret = hashlib.sha256(f"paging tokens of {settings.seed}".encode()).digest()
        self._chars = settings.activities.token_chars
        self._issued = 0

    def issue(self, place: Place) -> str:
        """A text that stands for a place in the log."""
        text = ""
        while "+" not in text:
            self._issued += 1
            packed = _PLACE.pack(*place, self._issued)
            text = base64.b64encode(self._seal(packed) + packed).decode()
        return text if len(text) >= self._chars else (text + _PADDING).ljust(self._chars, "x")

    def open(self, token: str) -> Place:
        """The place that a token stands for. Raises fault 1003 for anything we did not issue."""
        try:
            raw = base64.b64decode(token.partition(_PADDING)[0], validate=True)
        except ValueError as error:
            raise _bad_token() from error
        seal, packed = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if len(packed) != _PLACE.size or not hmac.compare_digest(seal, self._seal(packed)):
            raise _bad_token()
        at, activity_id, _ = _PLACE.unpack(packed)
        return at, activity_id

    def _seal(self, packed: bytes) -> bytes:
        return hmac.digest(self._secret, packed, "sha256")[:_SEAL_BYTES]


class ActivityApi:
    """Answers pagingtoken, leadchanges, deletedleads and activities."""

    def __init__(self, settings: SimulatorSettings, world: World, recorder: Recorder) -> None:
        self._settings, self._world, self._recorder = settings, world, recorder
        self._tokens = Tokens(settings)
        self._chance = seeded(settings.seed, "short activity pages")

    def answer(self, call: Call) -> Reply:
        """A token, or the page behind one. Raises fault 603 without the right to read, 1003 for a wrong request."""
        if not self._settings.activities_allowed:
            raise MarketoFault(603, "Access denied")
        asked = parameters(call)
        if "listId" in asked:
            raise MarketoFault(1003, "listId is not supported")
        if call.endpoint == "paging_token":
            return _reply(call, {"nextPageToken": self._tokens.issue((_since(asked.get("sinceDatetime", "")), 0))})
        if call.endpoint == "deleted_leads":
            return self._page(call, asked, (DELETION,))
        if call.endpoint == "activities":
            return self._page(call, asked, _types(asked.get("activityTypeIds", "")))
        fields = rest_fields(self._world, asked.get("fields", ""))
        if not fields:
            raise MarketoFault(1003, "fields not specified")
        return self._page(call, asked, (NEW_LEAD, VALUE_CHANGE), frozenset(field.key for field in fields))

    def _page(self, call: Call, asked: dict[str, str], types: Iterable[int], keys: frozenset[str] | None = None) -> Reply:
        token = asked.get("nextPageToken")
        if not token:
            raise MarketoFault(1003, "nextPageToken not specified")
        place, log = self._tokens.open(token), self._world.log
        wanted = (entry for entry in log.after(place, types, call.now) if keys is None or _concerns(entry, keys))
        found = list(islice(wanted, _PAGE + 1))
        more, found = len(found) > _PAGE, found[:_PAGE]
        scripted = "short_activity_page" in call.oddities
        if scripted or (found and self._chance.random() < self._settings.activities.short_pages):
            more, found = True, found[: self._chance.randrange(len(found)) if found else 0]
        if not more:
            place = max(place, log.end(call.now))
        elif found:
            place = found[-1].place
        self._recorder.activities_served += len(found)
        shown = [self._shown(entry, keys) for entry in found]
        return _reply(call, {"nextPageToken": self._tokens.issue(place), "moreResult": more, "result": shown})

    def _shown(self, entry: Activity, keys: frozenset[str] | None) -> dict[str, Any]:
        item: dict[str, Any] = {
            "id": entry.id,
            "marketoGUID": str(entry.id),
            "leadId": entry.lead_id,
            "activityDate": f"{datetime.fromtimestamp(entry.at, UTC):%Y-%m-%dT%H:%M:%S+0000}",
            "activityTypeId": entry.type,
        }
        return item | _DETAILS[entry.type](self._world, entry, keys)


def _concerns(entry: Activity, keys: frozenset[str]) -> bool:
    return entry.type == NEW_LEAD or any(key in keys for key, _, _ in entry.changes)


def _born(_: World, entry: Activity, keys: frozenset[str] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"fields": []} if keys is not None else {}
    return fields | {"attributes": [*_SOURCE, {"name": "Lead ID", "value": entry.lead_id}]}


def _changed(world: World, entry: Activity, keys: frozenset[str] | None) -> dict[str, Any]:
    known, fields = world.catalogue.by_key, list[dict[str, Any]]()
    for key, old, new in entry.changes:
        field = known.get(key)
        if field is not None and field.rest is not None and (keys is None or key in keys):
            fields.append({"id": field.id, "name": field.rest, "newValue": new, "oldValue": old})
    return {"fields": fields, "attributes": [*_SOURCE, {"name": "Lead ID", "value": entry.lead_id}]}


def _scored(world: World, entry: Activity, _: frozenset[str] | None) -> dict[str, Any]:
    ((key, old, new),) = entry.changes
    field = world.catalogue.by_key.get(key)
    return {
        "primaryAttributeValueId": field.id if field else None,
        "primaryAttributeValue": field.display_name if field else key,
        "attributes": [{"name": "New Value", "value": new}, {"name": "Old Value", "value": old}, *_SOURCE],
    }


def _gone(_: World, entry: Activity, __: frozenset[str] | None) -> dict[str, Any]:
    return {"primaryAttributeValueId": entry.lead_id, "primaryAttributeValue": entry.name, "attributes": []}


def _merged(_: World, entry: Activity, __: frozenset[str] | None) -> dict[str, Any]:
    attributes = [
        {"name": "Master Updated", "value": True},
        {"name": "Merge IDs", "value": str(list(entry.merged))},
        {"name": "Merge Source", "value": "Marketo"},
    ]
    return {"primaryAttributeValueId": entry.lead_id, "primaryAttributeValue": entry.name, "attributes": attributes}


_DETAILS: dict[int, Callable[[World, Activity, frozenset[str] | None], dict[str, Any]]] = {
    NEW_LEAD: _born,
    VALUE_CHANGE: _changed,
    SCORE_CHANGE: _scored,
    DELETION: _gone,
    MERGE: _merged,
}


def _since(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        return math.ceil((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise MarketoFault(1003, f"Invalid sinceDatetime '{text}'") from error


def _types(text: str) -> list[int]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not all(name.isascii() and name.isdigit() and len(name) < 10 for name in names):
        raise MarketoFault(1003, f"Invalid activityTypeIds '{text}'" if names else "activityTypeIds not specified")
    if len(names) > _MOST_TYPES:
        raise MarketoFault(1003, f"Too many activityTypeIds: {len(names)}, at most {_MOST_TYPES}")
    return [int(name) for name in names]


def _bad_token() -> MarketoFault:
    return MarketoFault(1003, "Invalid nextPageToken")


def _reply(call: Call, body: dict[str, Any]) -> Reply:
    """Success in the order of keys that the documentation shows for activities."""
    return Reply(200, json.dumps({"requestId": call.request_id, "success": True, **body}, ensure_ascii=False).encode(), JSON)
