"""YAML as a tree whose nodes remember where they were written.

Scalars stay the text that was written: what it means is for the field that takes it to say, so that a key of digits is not
read as an octal number and a field called `No` is not a boolean.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from syncd.config.problems import Path, Report, shown

_YAML = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(_YAML + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge"))
# a character or its escape, or a kind of token, as PyYAML quotes them
_SIGN = re.compile(r".|\\[a-z][0-9a-f]{0,8}|<[a-z ]+>")
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """`path` and `line` (from 1) tell where it was written; a collection's line is its key's, an alias is where it is used.

    A value that came from `defaults` or by a merge key keeps the place it came from.
    A `broken` node has been reported: nothing more is to be said of it.
    """

    path: Path
    line: int
    broken: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True, eq=False)
class ScalarNode(Node):
    """`source` is the text in the file, `value` the one after `${VAR}` was filled in; None is YAML's null."""

    source: str
    value: str | None


@dataclass(frozen=True, slots=True, eq=False)
class ListNode(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MapNode(Node):
    items: Mapping[str, Node]
    keys: Mapping[str, "KeyPlace"]

    def given(self, key: str) -> Node | None:
        """The value of `key`; None when it is absent or null."""
        node = self.items.get(key)
        return None if isinstance(node, ScalarNode) and node.value is None and not node.broken else node


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key was written, which is not where its value was when that is an alias."""

    line: int
    path: Path


def parse(text: str, env: Mapping[str, str], report: Report) -> Node | None:
    """The tree of one YAML document, variables filled in; None when there is none to speak of, which is then reported."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = _without_names(error.problem or error.context or "it cannot be read")
        hint = '; within {…} a "${VAR}" needs quotes' if problem.endswith("but got '{'") else ""
        report.add(line, (), f"not valid YAML: {problem}{hint}")
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        report.add(line, (), "not valid YAML: control characters are not allowed; in a quoted text write an escape such as \\t")
        return None
    except (ValueError, OverflowError):  # PyYAML's scanner lets those of chr() and int() through, and does not tell the line
        report.add(1, (), "not valid YAML: it holds an escape or a version number that is out of range")
        return None
    if root is None:
        report.add(1, (), "the file is empty; syncd.example.yaml shows what belongs here")
        return None
    return _Builder(env, report).build(root, (), root.start_mark.line + 1)


def merged(base: Node | None, over: Node) -> Node:
    """`over` laid upon `base`: maps merge key by key, everything else replaces."""
    if not isinstance(base, MapNode) or not isinstance(over, MapNode):
        return over
    items = {**base.items, **{key: merged(base.items.get(key), node) for key, node in over.items.items()}}
    return replace(over, items=items, keys={**base.keys, **over.keys})


def plain(node: Node) -> Any:
    """The tree as dicts, lists, texts and None. What is aliased is shared, so that nested aliases cannot blow it up."""
    made: dict[int, Any] = {}

    def make(node: Node) -> Any:
        if id(node) not in made:
            if isinstance(node, MapNode):
                made[id(node)] = {key: make(item) for key, item in node.items.items()}
            elif isinstance(node, ListNode):
                made[id(node)] = [make(item) for item in node.items]
            else:
                made[id(node)] = node.value if isinstance(node, ScalarNode) else None
        return made[id(node)]

    return make(node)


class _Builder:
    def __init__(self, env: Mapping[str, str], report: Report) -> None:
        self._env = env
        self._report = report
        self._built: dict[int, Node] = {}
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: Path, key_line: int) -> Node:
        if id(node) in self._built:
            return replace(self._built[id(node)], path=path, line=key_line)
        if id(node) in self._open:
            return self._broken(path, key_line, "an alias within its own anchor is not allowed")
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
            built: Node = self._map(node, path, key_line)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
            items = (self.build(item, (*path, at), item.start_mark.line + 1) for at, item in enumerate(node.value))
            built = ListNode(path, key_line, tuple(items))
        elif isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            built = self._scalar(node, path)
        else:
            built = self._broken(path, node.start_mark.line + 1, "YAML tags are not supported; leave the one with ! off")
        self._open.discard(id(node))
        self._built[id(node)] = built
        return built

    def _map(self, node: yaml.MappingNode, path: Path, line: int) -> MapNode:
        own: dict[str, Node] = {}
        keys: dict[str, KeyPlace] = {}
        inherited: list[MapNode] = []
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._report.add(key_line, path, "a key must be a plain name; a text with {…} in it needs quotes")
            elif key_node.tag == _YAML + "merge":
                inherited += self._inherited(value_node, (*path, "<<"), key_line)
            elif key_node.value in own:
                message = f'duplicate key "{shown(key_node.value)}"; it is already on line {keys[key_node.value].line}'
                self._report.add(key_line, (*path, key_node.value), message)
            else:
                own[key_node.value] = self.build(value_node, (*path, key_node.value), key_line)
                keys[key_node.value] = KeyPlace(key_line, (*path, key_node.value))
        for parent in inherited:  # the first to have a key wins, as YAML's merge type has it
            own = {**parent.items, **own}
            keys = {**parent.keys, **keys}
        return MapNode(path, line, own, keys)

    def _inherited(self, node: yaml.Node, path: Path, line: int) -> list[MapNode]:
        built = self.build(node, path, line)
        nodes = built.items if isinstance(built, ListNode) else (built,)
        if any(not isinstance(item, MapNode) and not item.broken for item in nodes):
            self._report.add(line, path, "needs an alias of a mapping, or a list of such aliases")
        return [item for item in nodes if isinstance(item, MapNode)]

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> ScalarNode:
        line = node.start_mark.line + 1
        source: str = node.value
        if node.tag == _YAML + "null":
            return ScalarNode(path, line, "null", None)
        troubles: list[str] = []

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if match[0] == "$${":
                return "${"
            if name is None:
                troubles.append('"${" needs a variable\'s name and "}" after it; write "$${" for the characters themselves')
            elif name not in self._env:
                troubles.append(f"the environment variable {name} is not set")
            return self._env.get(name or "", "")

        value = _VARIABLE.sub(fill, source)
        for trouble in troubles:
            self._report.add(line, path, trouble)
        return ScalarNode(path, line, source, value, broken=bool(troubles))

    def _broken(self, path: Path, line: int, message: str) -> Node:
        self._report.add(line, path, message)
        return Node(path, line, broken=True)


def _without_names(problem: str) -> str:
    """PyYAML's complaint without the anchors and tags it quotes: an unquoted secret may begin with *, & or !."""

    def keep_signs(quoted: re.Match[str]) -> str:
        return quoted[0] if _SIGN.fullmatch(quoted[0][1:-1]) else "(not shown here)"

    return re.sub(r"'[^']*'|\"[^\"]*\"", keep_signs, problem)
