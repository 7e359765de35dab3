"""Reads the YAML: a tree with lines, pydantic's judgement of it, and the settings made from what passes."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from syncd.config import model, problems, rules
from syncd.config.problems import Report, shown
from syncd.config.secrets import Surroundings
from syncd.config.tree import ListNode, MapNode, Node, ScalarNode, merged, parse, plain
from syncd.config.values import NotAllowed
from syncd.core import settings
from syncd.core.settings import Settings

M = TypeVar("M", bound=model.Section)

_ALWAYS_SENT = ("Id", "Email", "id", "email")  # with every lead, beside its attributes (protocol 1.4)
_SECRET_KEYS = frozenset({"dsn", "client_id", "client_secret", "user_id", "encryption_key", "proxy", "token"})


def load(path: Path, env: Mapping[str, str]) -> Settings:
    """The settings that the YAML file `path` asks for, with `${VAR}` and $CREDENTIALS_DIRECTORY taken from `env`.

    Raises ConfigErrors with all that is wrong: an unreadable file or broken YAML is one problem, all others are told together.
    """
    report = Report(str(path))
    text = _text(path, report)
    report.raise_if_any()
    try:
        document = _document(text, env, Surroundings.of(path, env), report)
    except RecursionError:
        report.add(1, (), "is nested too deeply")
        document = None
    report.raise_if_any()
    assert document is not None, "a document that was not made has been reported"
    return _settings(document)


def _text(path: Path, report: Report) -> str:
    data = b""
    try:
        data = path.read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        report.add(0, (), f"cannot read the file: {error.strerror or 'it is unreadable'}")
    except UnicodeDecodeError as error:
        report.add(data.count(b"\n", 0, error.start) + 1, (), "is not UTF-8 text")
    return ""


def _document(text: str, env: Mapping[str, str], around: Surroundings, report: Report) -> model.Document | None:
    root = parse(text, env, report)
    if root is None or root.broken:
        return None
    if not isinstance(root, MapNode):
        report.add(root.line, (), "needs a mapping with the keys database and instances")
        return None
    root = _with_defaults(root)
    rules.check(root, report)
    content = plain(root)
    # what defaults leave out, an instance may bring; so they are judged for themselves, as far as they go
    _, errors = _validated(model.Defaults, {"defaults": content.pop("defaults", None)}, around)
    for error in errors:
        if error["type"] != "missing":
            _tell(error, root, report)
    document, errors = _validated(model.Document, content, around)
    for error in errors:
        _tell(error, root, report)
    return document


def _validated(kind: type[M], content: object, around: Surroundings) -> tuple[M | None, list[ErrorDetails]]:
    try:
        return kind.model_validate(content, context=around), []
    except ValidationError as error:
        # with the input, secrets would be carried along; what was written is taken from the tree instead
        return None, error.errors(include_url=False, include_input=False)


def _with_defaults(root: MapNode) -> MapNode:
    instances = root.items.get("instances")
    if not isinstance(instances, MapNode):
        return root
    laid = {name: merged(root.items.get("defaults"), instance) for name, instance in instances.items.items()}
    return replace(root, items={**root.items, "instances": replace(instances, items=laid)})


def _tell(error: ErrorDetails, root: MapNode, report: Report) -> None:
    """Puts pydantic's `error` where its cause was written, in an operator's words."""
    kind, loc = error["type"], error["loc"]
    of_name = kind == "value_error" and loc[-1] == "[key]"
    if of_name:
        loc = loc[:-1]
    if kind == "missing":
        report.add(*_enclosing(root, loc), "is missing")
        return
    *_, parent, node = _walk(root, loc)
    if isinstance(parent, MapNode) and (of_name or kind == "extra_forbidden"):
        key = str(loc[-1])
        message = f"{shown(key)} is not allowed; {_reason(error)}" if of_name else _unknown_key(loc)
        report.add(parent.keys[key].line, parent.keys[key].path, message)
    elif not node.broken:
        report.add(node.line, node.path, _value_message(error, loc, node))


def _walk(root: Node, loc: problems.Path) -> list[Node]:
    """The nodes from `root` along `loc`, as far as they were written."""
    nodes = [root]
    for part in loc:
        node = nodes[-1]
        if isinstance(node, MapNode) and part in node.items:
            nodes.append(node.items[str(part)])
        elif isinstance(node, ListNode) and isinstance(part, int):
            nodes.append(node.items[part])
        else:
            break
    return nodes


def _enclosing(root: MapNode, loc: problems.Path) -> tuple[int, problems.Path]:
    """Where a missing key would be written: in the instance itself rather than in its defaults."""
    nodes = _walk(root, loc[:-1])
    if nodes[-1].path[:1] == ("defaults",):
        return next(node.line for node in reversed(nodes) if node.path[:1] != ("defaults",)), loc
    return nodes[-1].line, (*nodes[-1].path, loc[-1])


def _value_message(error: ErrorDetails, loc: problems.Path, node: Node) -> str:
    kind = error["type"]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"needs a mapping (key: value), not {_kind_of(node)}; {{}} is one without keys"
    if kind in ("tuple_type", "list_type"):
        return f"needs a list such as [FirstName, LastName], not {_kind_of(node)}"
    if kind == "literal_error":
        return f"{_written(node, loc)} is not allowed; {error['ctx']['expected'].replace(chr(39), '')}"
    if isinstance(error.get("ctx", {}).get("error"), NotAllowed):
        return f"{_written(node, loc)} is not allowed; {_reason(error)}"
    return _reason(error)


def _reason(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("error", error["msg"]))


def _kind_of(node: Node) -> str:
    if isinstance(node, ScalarNode):
        return "null" if node.value is None else "a text"
    return "a mapping" if isinstance(node, MapNode) else "a list"


def _written(node: Node, loc: problems.Path) -> str:
    """The value as the file has it, so with `${VAR}` unfilled; a text that may hold a password is not shown."""
    if not isinstance(node, ScalarNode):
        return _kind_of(node)
    return "the value" if _SECRET_KEYS.intersection(map(str, loc)) or "@" in node.source else shown(node.source)


def _unknown_key(loc: problems.Path) -> str:
    key, known = str(loc[-1]), _known_keys(loc[:-1])
    near = difflib.get_close_matches(key, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
    return f'unknown key "{shown(key)}"; {hint}'


def _known_keys(loc: problems.Path) -> list[str]:
    kind: Any = model.Document
    for part in loc:
        kind = get_args(kind)[1] if get_origin(kind) is dict else _written_keys(kind)[str(part)].annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next(choice for choice in get_args(kind) if choice is not NoneType)
    return list(_written_keys(kind))


def _written_keys(kind: type[model.Section]) -> dict[str, FieldInfo]:
    """The keys as the YAML has them: `from` can't be a name in Python."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _settings(document: model.Document) -> Settings:
    http = document.http
    return Settings(
        database=settings.Database(**document.database.given()),
        instances=tuple(_instance(name, instance) for name, instance in document.instances.items()),
        http=None if http is None else _http(http),
        logging=settings.Logging(**document.logging.given()),
    )


def _http(http: model.Http) -> settings.Http:
    given = http.given()
    host, port = given.get("listen", (settings.Http().host, settings.Http().port))
    return settings.Http(host, port, given.get("token"))


def _instance(name: str, instance: model.Instance) -> settings.Instance:
    rest, soap = instance.rest, instance.soap
    return settings.Instance(
        name=name,
        rest=settings.Rest(**{**rest.given(), "identity": rest.identity or f"{rest.endpoint}/identity"}) if rest else None,
        soap=settings.Soap(**soap.given()) if soap else None,
        network=settings.Network(**instance.network.given()),
        limits=settings.Limits(**instance.limits.given()),
        **{key: value for key, value in instance.given().items() if key in ("history", "census")},
        keep=settings.Keep(**instance.keep.given()),
        pulls=tuple(_pull(key, pull) for key, pull in instance.pulls.items()),
        pushes=tuple(_push(key, push) for key, push in instance.pushes.items()),
    )


def _pull(name: str, pull: model.Pull) -> settings.Pull:
    given = pull.given()
    fields, where = given.get("fields", ()), pull.where or {}
    columns = {field: column for column, field in fields.items()} if isinstance(fields, dict) else {}
    asked = tuple(columns or fields)
    if asked:  # a field that isn't asked for would look like one without a value
        asked += tuple(field for field in where if field not in (*asked, *_ALWAYS_SENT))
    return settings.Pull(**{**given, "name": name, "select": _select(pull.select), "fields": asked, "columns": columns, "where": where})


def _select(select: model.Select) -> settings.Select:
    if select.updated_since is not None:
        return settings.UpdatedSince(select.updated_since)
    if select.keys is not None:
        return settings.Keys(select.keys.type, select.keys.values or (), select.keys.file)
    static = select.static_list if select.static_list is not None else select.static_list_id
    if static is not None:
        return settings.StaticList(static)
    smart = select.smart_list if select.smart_list is not None else select.smart_list_id
    assert smart is not None, "a select of no kind has been reported"
    return settings.SmartList(smart)


def _push(name: str, push: model.Push) -> settings.Push:
    nested = {"poll": settings.Poll(**push.poll.given()), "mend": settings.Mend(**push.mend.given())}
    own = {key: value for key, value in push.given().items() if key not in ("from_", "fields")}
    guard = settings.Guard(**push.guard.given()) if push.guard is not None else None
    rules = {field: settings.FieldRule(**rule.given()) for field, rule in push.rules.items()}
    return settings.Push(name=name, from_table=_from_table(push), **{**own, **nested, "guard": guard, "rules": rules})


def _from_table(push: model.Push) -> settings.FromTable | None:
    if push.from_ is None:
        return None
    fields: dict[str, settings.FromColumn | settings.Constant] = {
        name: settings.FromColumn(each.column) if each.column is not None else settings.Constant(str(each.const))
        for name, each in push.fields.items()
    }
    return settings.FromTable(**{**push.from_.given(), "fields": fields})
