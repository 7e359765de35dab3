"""docs/configuration.md: keys from the models, defaults from the settings, words from the example.

`python -m tests.docs.reference` writes it.
"""

import dataclasses
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from syncd.config import model
from syncd.config.values import duration_text
from syncd.core import settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = (ROOT / "config" / "syncd.example.yaml").read_text("utf-8")

RATES = {"hold_above": "/h"}

HEAD = """# Configuration

<!-- made by `python -m tests.docs.reference` from the models and config/syncd.example.yaml: change those -->

One YAML file, `/etc/syncd/syncd.yaml` unless `-c` names another. [config/syncd.example.yaml](../config/syncd.example.yaml) shows all keys
in their places; `syncd check` tries what is written. Every mistake is told at once, with its line (exit code 78).

"""
TAIL = """## When it is read

At the start, and again at `systemctl reload syncd` (SIGHUP). A file with mistakes is refused then, with each of them in the log
(`event=reload_refused`), and all goes on as before. Otherwise the log names the keys that were taken up (`event=reloaded`):

| what | is taken up |
| --- | --- |
| `instances`: new ones, gone ones, and everything below them | by a reload: those that differ let steps end, 5 s at most, and begin anew |
| `logging` | by a reload |
| `database`, `http` | by a restart (`event=reload_incomplete` says so) |
| the text of a secret's file | when it is asked for next; systemd's credentials at a restart |
| `${VAR}` | from the environment of the start |
"""


@dataclasses.dataclass
class Key:
    """A key as the example shows it: the words above it and behind it."""

    path: tuple[str, ...]
    above: str
    behind: str


def shown() -> dict[tuple[str, ...], Key]:
    """The keys of the example, commented ones too; the names that the user chooses are NAME."""
    found: dict[tuple[str, ...], Key] = {}
    parents: list[tuple[int, str]] = []
    words: list[tuple[int, str]] = []
    for line in EXAMPLE.splitlines():
        match = re.match(r"^( *)(# +)?([A-Za-z_0-9]+): ?(.*)$", line)
        if match is None or (match[2] and not re.match(r"\S*(?: #|$)|[\[{].*[\]}](?: #|$)|.* # ", match[4])):
            depth = len(line) - len(line.lstrip())
            words = [*words, (depth, line.strip().removeprefix("#").strip())] if line.strip() else []
            continue
        indent, name, rest = len(match[1]) + len(match[2] or "# ") - 2, match[3], match[4]
        parents = [(depth, parent) for depth, parent in parents if depth < indent]
        above_it = parents[-1][1] if parents else ""
        chosen = ("instances", "pulls", "pushes", *(("fields", "rules") if ("pushes" in dict(parents).values()) else ()))
        parents.append((indent, "NAME" if above_it in chosen else name))
        path = tuple(parent for _, parent in parents)
        if (inner := re.match(r"\{([a-z_]+): .*\}", rest)) and parents[-1][1] == "NAME":  # one of the keys that such an entry may have
            path = (*path, inner[1])
        behind = rest.partition("# ")[2] if " # " in f" {rest}" else ""
        found.setdefault(path, Key(path, " ".join(text for depth, text in words if depth == indent), behind.removesuffix(" Or:")))
        words = []
    return found


def sections(kind: type[model.Section], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[model.Section]]]:
    """The sections of the YAML by their paths, outer ones first."""
    yield path, kind
    for name, field in kind.model_fields.items():
        for inner in _sections_of(field.annotation) if name != "defaults" else ():  # which is an instance once more
            of_many = get_origin(field.annotation) is dict
            outer = (*path, field.alias or name)
            yield from sections(inner, (*outer, "NAME") if of_many else outer)


def _sections_of(annotation: Any) -> Iterator[type[model.Section]]:
    if get_origin(annotation) in (Union, UnionType, dict, Annotated):
        for part in get_args(annotation):
            yield from _sections_of(part)
    elif isinstance(annotation, type) and issubclass(annotation, model.Section):
        yield annotation


def default_of(kind: type[model.Section], name: str) -> str:
    """As it would be written; empty where there is none, or where another key says it."""
    counterpart = getattr(settings, kind.__name__, None)
    fields = {field.name: field for field in dataclasses.fields(counterpart)} if dataclasses.is_dataclass(counterpart) else {}
    field = fields.get(name)
    if field is None or kind.model_fields[name].is_required():
        return ""
    value = field.default_factory() if callable(field.default_factory) else field.default
    if value is dataclasses.MISSING or dataclasses.is_dataclass(value):
        return ""
    return f"`{_written(value)}{RATES.get(name, '')}`"


def _written(value: object) -> str:
    match value:
        case None:
            return "null"
        case timedelta():
            return duration_text(value)
        case int() if value >= 1_000_000 and value % 1_000_000 == 0:
            return f"{value // 1_000_000}MB"
        case Decimal():
            return f"{value:.0%}"
        case bool():
            return str(value).lower()
        case () | []:
            return "[]"
        case dict():
            return "{}"
    return str(value)


def page() -> str:
    """The whole page."""
    words = shown()
    parts = [HEAD, _introduction()]
    for path, kind in sections(model.Document):
        leaves = [name for name, field in kind.model_fields.items() if not list(_sections_of(field.annotation))]
        if not leaves:
            continue
        title = ".".join(path) or "the file"
        parts.append(f"## `{title}`\n\n")
        above = words[path].above if path in words else ""
        parts.append(f"{_text(above)}\n\n" if above else "")
        parts.append("| key | default | means |\n| --- | --- | --- |\n")
        for name in leaves:
            needed = "needed" if kind.model_fields[name].is_required() else default_of(kind, name)
            parts.append(f"| `{name}` | {needed} | {_meaning(words, path, name)} |\n")
        parts.append("\n")
    return "".join(parts) + TAIL


def _introduction() -> str:
    head = EXAMPLE.split("\n\n", 1)[0].splitlines()
    lines = [line.removeprefix("#").strip() for line in head[1:]]
    return " ".join(line for line in lines if line and not line.startswith("All keys are shown")) + "\n\n"


def _meaning(words: dict[tuple[str, ...], Key], path: tuple[str, ...], name: str) -> str:
    """What the example says of a key; of one in braces what it says of the whole."""
    key = words.get((*path, name)) or words.get(path)
    assert key is not None, f"config/syncd.example.yaml says nothing of {'.'.join((*path, name))}"
    return _text(f"{key.above} {key.behind}" if key.path == (*path, name) else key.behind) or "see above"


def _text(words: str) -> str:
    """Fit for a table."""
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
