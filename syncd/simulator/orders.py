"""What an export asks for, read from the body of its creation (protocol section 3.1)."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from syncd.simulator.exports import Order
from syncd.simulator.fields import Field
from syncd.simulator.settings import ExportModel
from syncd.simulator.wire import Call, MarketoFault, json_body
from syncd.simulator.world import Lead, World

_LONGEST_RANGE = timedelta(days=31)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)", re.ASCII)
_NOT_IN_EVERY = {"updatedAt": "updated_at_filter", "smartListId": "smart_lists", "smartListName": "smart_lists"}
Leads = Callable[[World], Iterable[Lead]]


def read_order(call: Call, model: ExportModel, world: World) -> Order:
    """The export asked for. Raises fault 609 or 612 for a body that is no JSON, 1003 for a wrong order, 1035 for a filter not to be had."""
    asked = json_body(call)
    if not isinstance(asked, dict):
        raise MarketoFault(1003, "Invalid export request")
    if str(asked.get("format", "CSV")).upper() != "CSV":
        raise MarketoFault(1003, f"Invalid format '{asked['format']}'")
    fields = _fields(asked.get("fields"), model, world)
    headers = asked.get("columnHeaderNames") or {}
    if not isinstance(headers, dict) or not all(isinstance(name, str) for name in headers.values()):
        raise MarketoFault(1003, "Invalid columnHeaderNames")
    given = asked.get("filter")
    if not isinstance(given, dict) or not given:
        raise MarketoFault(1003, "Export request has no filter: one is needed")
    if len(given) > 1:
        raise MarketoFault(1003, f"Export request has {len(given)} filters: only one is allowed")
    return Order(fields, headers, given, _leads(*next(iter(given.items())), model, world))


def _fields(names: Any, model: ExportModel, world: World) -> tuple[Field, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise MarketoFault(1003, "Export request has no fields")
    known = world.catalogue.by_rest
    for name in names:
        if name not in known:
            raise MarketoFault(1003, f"Invalid value for fields: unknown field '{name}'")
    kept, length = list[Field](), -1
    for name in names:
        length += len(name) + 1
        if length > model.field_list_chars:
            # Not a word about it: the list has been seen to be cut.
            break
        kept.append(known[name])
    return tuple(kept)


def _leads(kind: str, value: Any, model: ExportModel, world: World) -> Leads:
    if kind not in ("createdAt", "updatedAt", "staticListId", "staticListName", "smartListId", "smartListName"):
        raise MarketoFault(1003, f"Invalid filter type '{kind}'")
    if kind in _NOT_IN_EVERY and not getattr(model, _NOT_IN_EVERY[kind]):
        raise MarketoFault(1035, f"Unsupported filter type for target subscription: {kind}")
    if kind in ("createdAt", "updatedAt"):
        oldest, latest = _range(kind, value)
        if kind == "updatedAt":
            return lambda world: world.window(oldest, latest, None, len(world))[0]
        return lambda world: (lead for lead in world if oldest <= lead.created <= latest)
    if kind.startswith("static"):
        listed = world.list_named(str(value)) if kind.endswith("Name") else world.lists.get(_id(kind, value))
        if listed is None:
            raise MarketoFault(1003, f"List '{value}' not found")
        return lambda world: (lead for lead_id in listed.members if (lead := world.get(lead_id)) is not None)
    smart = world.smart_list_named(str(value)) if kind.endswith("Name") else world.smart_lists.get(_id(kind, value))
    if smart is None:
        raise MarketoFault(1003, f"Smart list '{value}' not found")
    return lambda world: (lead for lead in world if smart.holds(lead))


def _id(kind: str, value: Any) -> int:
    try:
        return int(value)
    except (ValueError, TypeError) as error:
        raise MarketoFault(1003, f"Invalid value for {kind}") from error


def _range(kind: str, value: Any) -> tuple[int, int]:
    """Both ends in unix seconds; both are inclusive."""
    if not isinstance(value, dict):
        raise MarketoFault(1003, f"Invalid value for {kind}: startAt and endAt are needed")
    starts, ends = _moment(kind, "startAt", value), _moment(kind, "endAt", value)
    if ends < starts:
        raise MarketoFault(1003, f"Invalid date range for {kind}: endAt is before startAt")
    if ends - starts > _LONGEST_RANGE:
        raise MarketoFault(1003, f"Invalid date range for {kind}: longer than 31 days")
    return int(starts.timestamp()), int(ends.timestamp())


def _moment(kind: str, end: str, value: dict[str, Any]) -> datetime:
    text = value.get(end)
    try:
        if isinstance(text, str) and _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise MarketoFault(1003, f"Invalid {end} '{text}' for {kind}: ISO-8601 without milliseconds and with a zone is needed")
