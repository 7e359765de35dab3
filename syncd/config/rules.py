"""The rules that tie keys together, read off the tree, so that they are told even when other values are wrong too."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TypeVar

from syncd.config import values
from syncd.config.problems import Report, shown
from syncd.config.tree import MapNode, Node, ScalarNode
from syncd.config.values import NotAllowed
from syncd.core import settings

T = TypeVar("T")

SELECTS = ("updated_since", "static_list", "static_list_id", "smart_list", "smart_list_id", "keys")
LISTS = SELECTS[1:5]
SELECTED_BY = {
    "soap": ("updated_since", "static_list", "static_list_id", "keys"),
    "bulk_extract": ("updated_since", *LISTS),
    "activities": ("updated_since",),
    "auto": ("updated_since", *LISTS),
}
"""What each source can select by (protocol 1.3, 3.1, 3.2)."""

DEFAULT_STREAMS = next(int(str(field.default)) for field in fields(settings.Pull) if field.name == "streams")


def check(root: MapNode, report: Report) -> None:
    """Reports what is wrong between keys of `root`, whose instances are already laid over the defaults."""
    database, instances, http = root.given("database"), root.given("instances"), root.given("http")
    if isinstance(http, MapNode):
        _token(http, report)
    if isinstance(database, MapNode):
        _exactly_one(database, ("dsn", "embedded"), report)
    if not isinstance(instances, MapNode):
        return
    if not instances.items:
        report.add(instances.line, instances.path, "needs at least one instance")
    for name, instance in instances.items.items():
        if isinstance(instance, MapNode):
            _instance(name, instance, report)


def _token(http: MapNode, report: Report) -> None:
    """Where others can get to, the page asks who they are."""
    listen = _value(http, "listen", values.listen, None)
    if listen is None or values.is_loopback(listen[0]) or http.given("token") is not None:
        return
    node = http.items["listen"]
    report.add(node.line, node.path, f"{listen[0]} is not loopback: others could read the page; give http.token, too")


def _exactly_one(section: MapNode, keys: Sequence[str], report: Report) -> None:
    if sum(section.given(key) is not None for key in keys) != 1:
        report.add(section.line, section.path, f"needs exactly one of {', '.join(keys[:-1])} and {keys[-1]}")


def _instance(name: str, instance: MapNode, report: Report) -> None:
    rest, soap = instance.given("rest"), instance.given("soap")
    if not rest and not soap:
        report.add(instance.line, instance.path, "needs at least one of rest and soap")
    for pull in _entries(instance, "pulls"):
        _source(name, pull, rest, soap, report)
        _streams(name, instance, pull, report)
        _one_select(pull, report)
    _one_column_per_field(instance, report)
    _reserve(name, instance, report)
    _keep(name, instance, report)
    for push in _entries(instance, "pushes"):
        if not rest:
            report.add(push.line, push.path, f"a push needs instances.{name}.rest, which is missing")
        _from_table(push, report)
        _mode(push, report)
        poll = push.given("poll")
        if isinstance(poll, MapNode):
            _poll(poll, report)
        _created(instance, push, report)


def _source(name: str, pull: MapNode, rest: Node | None, soap: Node | None, report: Report) -> None:
    source, select = pull.given("source"), pull.given("select")
    if not isinstance(source, ScalarNode) or source.value not in SELECTED_BY:
        return
    needed = "soap" if source.value == "soap" else "rest"
    if not (soap if needed == "soap" else rest):
        report.add(source.line, source.path, f"{source.value} needs instances.{name}.{needed}, which is missing")
    if not isinstance(select, MapNode):
        return
    for key, node in select.items.items():
        if key in SELECTS and select.given(key) is not None and key not in SELECTED_BY[source.value]:
            able = [each for each, keys in SELECTED_BY.items() if key in keys]
            report.add(node.line, node.path, f"is not known to {source.value}: use source: {' or '.join(able)}")


def _entries(instance: MapNode, key: str) -> Iterator[MapNode]:
    section = instance.given(key)
    for node in section.items.values() if isinstance(section, MapNode) else ():
        if isinstance(node, MapNode):
            yield node


def _streams(name: str, instance: MapNode, pull: MapNode, report: Report) -> None:
    limits = instance.given("limits")
    streams = _value(pull, "streams", values.streams, DEFAULT_STREAMS)
    concurrency = _value(limits, "concurrency", values.concurrency, settings.Limits().concurrency)
    if streams and concurrency and streams > concurrency:
        why = f"at most {concurrency}, for instances.{name}.limits.concurrency lets no more calls go at once"
        _too_much(pull, "streams", str(streams), why, report)


def _one_select(pull: MapNode, report: Report) -> None:
    select = pull.given("select")
    if not isinstance(select, MapNode):
        return
    _exactly_one(select, SELECTS, report)
    keys = select.given("keys")
    if isinstance(keys, MapNode):
        _exactly_one(keys, ("values", "file"), report)


def _one_column_per_field(instance: MapNode, report: Report) -> None:
    """All pulls of an instance fill one view, so what they name there must agree."""
    columns: dict[str, tuple[str, int]] = {}
    fields: dict[str, tuple[str, int]] = {}
    for pull in _entries(instance, "pulls"):
        named = pull.given("fields")
        for column, node in named.items.items() if isinstance(named, MapNode) else ():
            if not isinstance(node, ScalarNode) or node.value is None or node.broken:
                continue
            other_column, line = columns.setdefault(node.value, (column, node.line))
            if other_column != column:
                report.add(node.line, node.path, f"{shown(node.value)} is already the column {shown(other_column)}, on line {line}")
            other_field, line = fields.setdefault(column, (node.value, node.line))
            if other_field != node.value:
                report.add(node.line, node.path, f"{shown(column)} is already the column of {shown(other_field)}, on line {line}")


def _reserve(name: str, instance: MapNode, report: Report) -> None:
    limits = instance.given("limits")
    if not isinstance(limits, MapNode):
        return
    reserve = _value(limits, "urgent_reserve", values.urgent_reserve, settings.Limits().urgent_reserve)
    calls = _value(limits, "subscription_calls", values.subscription_calls, settings.Limits().subscription_calls)
    if reserve is not None and calls is not None and reserve >= calls:
        why = f"less than instances.{name}.limits.subscription_calls, which is {calls:,}"
        _too_much(limits, "urgent_reserve", str(reserve), why, report)


def _keep(name: str, instance: MapNode, report: Report) -> None:
    keep = instance.given("keep")
    if not isinstance(keep, MapNode):
        return
    payloads = _value(keep, "payloads", values.duration, settings.Keep().payloads)
    outcomes = _value(keep, "outcomes", values.duration, settings.Keep().outcomes)
    if payloads and outcomes and payloads > outcomes:
        why = f"at most instances.{name}.keep.outcomes, which is {values.duration_text(outcomes)}"
        _too_much(keep, "payloads", values.duration_text(payloads), why, report)


def _from_table(push: MapNode, report: Report) -> None:
    """Fields are mapped where there are columns to map; rows of the outbox bring their own."""
    source, fields = push.given("from"), push.given("fields")
    if not isinstance(source, MapNode):
        if fields is not None and (source is None or (isinstance(source, ScalarNode) and source.value == "outbox")):
            report.add(fields.line, fields.path, "goes with from: {table: …} only; rows of the outbox bring their own fields")
        return
    if fields is None or (isinstance(fields, MapNode) and not fields.items):
        place = (source.line, (*push.path, "fields")) if fields is None else (fields.line, fields.path)
        report.add(*place, "needs at least one field and its column, such as {firstName: first_name}")
    if not isinstance(fields, MapNode):
        return
    lookup = push.items.get("lookup_field")
    key = lookup.value if isinstance(lookup, ScalarNode) else settings.Push("").lookup_field
    for name, node in fields.items.items():
        if name == key:
            report.add(node.line, node.path, "is the push's lookup_field, which from.key fills: leave it out")
        elif isinstance(node, MapNode):
            _exactly_one(node, ("column", "const"), report)
    on_delete = source.given("on_delete")
    for name, node in on_delete.items.items() if isinstance(on_delete, MapNode) else ():
        if name not in fields.items:
            report.add(node.line, node.path, "is not among the push's fields: a row that comes back could not set it again")


def _mode(push: MapNode, report: Report) -> None:
    """The mirror finds leads by these keys alone."""
    lookup_field = _value(push, "lookup_field", values.text, settings.Push("").lookup_field)
    if _value(push, "mode", values.text, "upsert") == "update_only" and lookup_field not in (None, "email", "id"):
        mode = push.items["mode"]
        report.add(mode.line, mode.path, "update_only is for a lookup_field of email or id, by which the mirror finds the leads")


def _poll(poll: MapNode, report: Report) -> None:
    shortest = _value(poll, "min", values.duration, settings.Poll().min)
    longest = _value(poll, "max", values.duration, settings.Poll().max)
    if shortest and longest and shortest > longest:
        why = f"at most poll.max, which is {values.duration_text(longest)}"
        _too_much(poll, "min", values.duration_text(shortest), why, report)


def _created(instance: MapNode, push: MapNode, report: Report) -> None:
    """Whether a change will create a lead is told by the mirror, which knows leads by their addresses."""
    guard, lookup = push.given("guard"), push.given("lookup_field")
    limit = guard.given("max_created") if isinstance(guard, MapNode) else None
    if limit is None:
        return
    if isinstance(lookup, ScalarNode) and lookup.value != "email":
        report.add(limit.line, limit.path, "needs lookup_field: email, for the mirror does not tell by other keys who is new")
    if not next(_entries(instance, "pulls"), None):
        report.add(limit.line, limit.path, "needs a pull: without one everybody counts as new")


def _value(section: Node | None, key: str, read: Callable[[str], T], default: T) -> T | None:
    """What `key` is set to; None when that is not valid, which is another's to report."""
    node = section.items.get(key) if isinstance(section, MapNode) else None
    if node is None:
        return default
    try:
        return read(node.value) if isinstance(node, ScalarNode) and node.value is not None and not node.broken else None
    except NotAllowed:
        return None


def _too_much(section: MapNode, key: str, value: str, why: str, report: Report) -> None:
    node = section.items.get(key)
    if node is None:
        report.add(section.line, (*section.path, key), f"{value}, the default, is not allowed here; {why}")
    else:
        report.add(node.line, node.path, f"{value} is not allowed; {why}")
