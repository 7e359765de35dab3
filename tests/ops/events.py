"""Reads the log calls off the code, and makes docs/events.md of them: `python -m tests.ops.events`."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from syncd.ops.events import EVENTS

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "events.md"
LEVELS = ("debug", "info", "warning", "error")
LOGGERS = {"log", "_log", "_later", "bound", "logger"}
WRAPPERS = {"_tell_once": "warning", "LastWrite": "warning"}
"""What is given an event's name to log it."""
INSIDE = {"_tell_once", "close"}
"""Where such a name is logged."""
OUTSIDE = ("simulator", "demo")  # they have logs of their own

HEAD = """# Events of the log

Made from the code by `python -m tests.ops.events`; a test keeps it so. Each line of the log is one event: `time` (UTC), `level`, `event`,
and the fields below, as JSON, as logfmt or for the console (`logging.format`). **error**: a person must act. **warning**: look at it
today. **info**: a window, a job or a state has changed. **debug**: the rest. Fields in italics are in some of its lines only.
What to do about alerts: [operations.md](operations.md).

Each `logging.metrics_every`, and once at the end, every sample of `/metrics` is a line `event=metrics`: `name`, `value` and its labels.
So whatever Prometheus would draw can be drawn from the log: the last value of each name and labels is what `/metrics` showed. Where
`logging.level` is above info there are none.

Under systemd the journal gets the fields as its own: `journalctl -u syncd SYNCD_EVENT=import_settled SYNCD_INSTANCE=acme`.

| event | level | fields | means | what to do |
| --- | --- | --- | --- | --- |
"""


@dataclass
class Event:
    """All calls that log it: `everywhere` are the fields that each has, None before the first."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    everywhere: set[str] | None = None

    def add(self, levels: set[str], fields: set[str]) -> None:
        self.levels |= levels
        self.fields |= fields
        self.everywhere = fields if self.everywhere is None else self.everywhere & fields


@dataclass(frozen=True)
class Call:
    event: str | None
    levels: frozenset[str]
    fields: frozenset[str]
    place: str


def scan() -> dict[str, Event]:
    """The events of all of syncd, by their names. Raises ValueError where a name can't be read off the code."""
    found: dict[str, Event] = {}
    for file in sorted((ROOT / "syncd").rglob("*.py")):
        if file.relative_to(ROOT / "syncd").parts[0] in OUTSIDE:
            continue
        for call in _Scanner(ast.parse(file.read_text("utf-8")), str(file.relative_to(ROOT))).calls():
            if call.event is None:
                raise ValueError(f"{call.place}: the event's name is no constant, so that no table can hold it")
            found.setdefault(call.event, Event()).add(set(call.levels), set(call.fields))
    return found


def document() -> str:
    """docs/events.md as it should be."""
    rows = []
    for name, event in sorted(scan().items()):
        levels = ", ".join(level for level in reversed(LEVELS) if level in event.levels)
        always = event.everywhere or set()
        fields = ", ".join(
            f"`{each}`" if each in always else f"*{each}*" for each in sorted(event.fields, key=lambda f: (f not in always, f))
        )
        means, remedy = EVENTS.get(name, ("", ""))
        rows.append(f"| `{name}` | {levels} | {fields} | {means} | {remedy} |\n")
    return HEAD + "".join(rows)


class _Scanner:
    def __init__(self, tree: ast.Module, file: str) -> None:
        self._file = file
        self._tree = tree
        self._attributes = {
            target.attr: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Attribute)
        }

    def calls(self) -> Iterator[Call]:
        for node in ast.walk(self._tree):
            if _is_function(node):
                yield from self._calls_of(node)

    def _calls_of(self, function: ast.AST) -> Iterator[Call]:
        """Those that stand in it, but not in functions within it."""
        names = {
            target.id: node.value
            for node in _own(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in _own(function):
            if isinstance(node, ast.Call):
                yield from self._call(node, names, getattr(function, "name", ""))

    def _call(self, node: ast.Call, names: dict[str, ast.expr], function: str) -> Iterator[Call]:
        target, arguments = node.func, node.args
        name = target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""
        if name in WRAPPERS and arguments and isinstance(arguments[0], ast.Constant):
            yield self._made(arguments[0], {WRAPPERS[name]}, node, {"instance"} | ({"error"} if name == "LastWrite" else set()))
        elif isinstance(target, ast.Name) and target.id in names:
            levels, bound = self._chosen(names[target.id], names)
            if levels:
                yield from (self._made(each, levels, node, bound) for each in _choices(arguments[0]))
        elif isinstance(target, ast.Attribute) and self._is_logger(target.value) and arguments:
            if name == "log":
                yield self._made(arguments[1], {"warning", "error"}, node, set())
            elif name in LEVELS and function not in INSIDE:
                yield from (self._made(each, {name}, node, self._bound(target.value, names)) for each in _choices(arguments[0]))
            elif name in LEVELS and not isinstance(arguments[0], ast.Name | ast.Attribute):
                yield self._made(arguments[0], {name}, node, self._bound(target.value, names))

    def _chosen(self, value: ast.expr, names: dict[str, ast.expr]) -> tuple[set[str], set[str]]:
        """`level = log.warning if … else log.info`."""
        options = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
        methods = [each for each in options if isinstance(each, ast.Attribute) and each.attr in LEVELS and self._is_logger(each.value)]
        fields = set().union(*(self._bound(each.value, names) for each in methods)) if methods else set()
        return {each.attr for each in methods}, fields

    def _is_logger(self, node: ast.expr) -> bool:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return name in LOGGERS
            case ast.Call(func=ast.Attribute(attr="get_logger")):
                return True
            case ast.Call(func=ast.Attribute(attr="bind", value=inner)):
                return self._is_logger(inner)
        return False

    def _bound(self, node: ast.expr, names: dict[str, ast.expr]) -> set[str]:
        """The fields that a logger was bound to."""
        match node:
            case ast.Call(func=ast.Name(id="_AfterCommit"), args=[inner]):
                return self._bound(inner, names)
            case ast.Call(func=ast.Attribute(attr="bind", value=inner), keywords=keywords):
                return {each.arg for each in keywords if each.arg} | self._bound(inner, names)
            case ast.Name(id=name) if name in names:
                return self._bound(names[name], {key: value for key, value in names.items() if key != name})
            case ast.Attribute(attr=name) if name in self._attributes:
                return self._bound(self._attributes[name], names)
        return set()

    def _made(self, event: ast.expr, levels: set[str], node: ast.Call, bound: set[str]) -> Call:
        given = {each.arg or "…" for each in node.keywords}
        name = event.value if isinstance(event, ast.Constant) and isinstance(event.value, str) else None
        return Call(name, frozenset(levels), frozenset(given | bound), f"{self._file}:{node.lineno}")


def _choices(node: ast.expr) -> list[ast.expr]:
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _own(function: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not _is_function(child):
            yield child
            yield from _own(child)


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(document(), "utf-8")
