"""Every mistake is told at once, each where it was made."""

from pathlib import Path

import pytest

from syncd.config import ConfigErrors, Problem, load

from .conftest import Load, Problems, document

FIVE_MISTAKES = """\
database: {dsn: postgresql://localhost/syncd}
instances:
  acme:
    rest:
      endpoint: https://123-ABC-456.mktorest.com/rest
      client_secret: hunter2
    limts: {concurrency: 4}
    limits:
      calls_per_20s: 150
    pushes:
      contacts:
        flush_after:
          300
"""


def told(problems: tuple[Problem, ...]) -> list[tuple[int, str, str]]:
    return [(problem.line, problem.path, problem.message) for problem in problems]


def test_five_mistakes(problems: Problems) -> None:
    assert told(problems(FIVE_MISTAKES)) == [
        (4, "instances.acme.rest.client_id", "is missing"),
        (
            5,
            "instances.acme.rest.endpoint",
            "https://123-ABC-456.mktorest.com/rest is not allowed; Marketo shows the URL with /rest at its end, but syncd puts "
            "the paths there itself: leave /rest off",
        ),
        (7, "instances.acme.limts", 'unknown key "limts"; did you mean "limits"?'),
        (
            9,
            "instances.acme.limits.calls_per_20s",
            "150 is not allowed; between 6 and 100: Marketo allows 100 to all integrations together",
        ),
        (
            13,
            "instances.acme.pushes.contacts.flush_after",
            "300 is not allowed; a plain number does not tell its unit; a duration is written like 90s, 5m, 1h30m, 30d or 250ms",
        ),
    ]


def test_rules_between_keys_are_told_beside_wrong_values(problems: Problems) -> None:
    text = """\
database: {}
instances:
  acme:
    rest: {endpoint: nonsense, client_id: a, client_secret: b}
    limits: {concurrency: 2, import_slots: 99}
    pulls:
      people:
        source: soap
        select: {updated_since: 2016-01-01}
        streams: 3
    pushes:
      contacts:
        format: doc
        poll: {min: 1m}
"""
    assert [(line, path) for line, path, _ in told(problems(text))] == [
        (1, "database"),
        (4, "instances.acme.rest.endpoint"),
        (5, "instances.acme.limits.import_slots"),
        (8, "instances.acme.pulls.people.source"),
        (10, "instances.acme.pulls.people.streams"),
        (13, "instances.acme.pushes.contacts.format"),
        (14, "instances.acme.pushes.contacts.poll.min"),
    ]


def test_as_text_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("syncd.yaml").write_text(document({"instances.acme.limits.concurrency": "1\n2", "x\ny": 1}))
    with pytest.raises(ConfigErrors) as caught:
        load(Path("syncd.yaml"), {})
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        "instances.acme.limits.concurrency: 1\\n2 is not allowed; between 1 and 10: Marketo allows 10 to all integrations together",
        'x\\ny: unknown key "x\\ny"; known are defaults, database, instances, http, logging',
    ]
    assert all(line.startswith("syncd.yaml:") for line in lines)


def test_a_long_value_is_cut(problems: Problems) -> None:
    (problem,) = problems(document({"logging.level": "x" * 5000}))
    assert problem.message == "x" * 80 + "… is not allowed; debug, info, warning or error"


def test_a_missing_key_of_the_file_itself(problems: Problems) -> None:
    text = "# a comment\n\nlogging: {level: info}\n"
    assert told(problems(text)) == [(3, "database", "is missing"), (3, "instances", "is missing")]


def test_a_list_item_is_told_by_its_own_line(problems: Problems) -> None:
    text = document({"instances.acme.pulls.people.fields": ["a", "MARK", "b"]}).replace("MARK", "[]")
    line = text.splitlines().index("      - []" if "\n      - []" in text else "        - []") + 1
    assert told(problems(text)) == [(line, "instances.acme.pulls.people.fields[1]", "a list is not allowed; a text")]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("encryption_keys", "encryption_key"), ("userid", "user_id"), ("endpiont", "endpoint")],
)
def test_the_nearest_known_key(key: str, nearest: str, problems: Problems) -> None:
    (problem,) = problems(document({f"instances.acme.soap.{key}": "x"}))
    assert problem.message == f'unknown key "{key}"; did you mean "{nearest}"?'


def test_duplicate_keys(problems: Problems) -> None:
    text = document({}) + "logging: {level: info, level: debug}\ndatabase: {}\n"
    lines = len(text.splitlines())
    assert told(problems(text)) == [
        (lines - 1, "logging.level", f'duplicate key "level"; it is already on line {lines - 1}'),
        (lines, "database", 'duplicate key "database"; it is already on line 1'),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML: found character '\\t' that cannot start any token"),
        ("a: \x01\n", 1, "not valid YAML: control characters are not allowed; in a quoted text write an escape such as \\t"),
        ('a: "\\UFFFFFFFF"\n', 1, "not valid YAML: it holds an escape or a version number that is out of range"),
        ("a: {dsn: ${X}}\n", 1, "not valid YAML: expected ',' or '}', but got '{'; within {…} a \"${VAR}\" needs quotes"),
        ("", 1, "the file is empty; syncd.example.yaml shows what belongs here"),
        ("# nothing\n", 1, "the file is empty; syncd.example.yaml shows what belongs here"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML: but found another document"),
        ("\n- a\n", 2, "needs a mapping with the keys database and instances"),
        ("[" * 2000, 1, "is nested too deeply"),
    ],
)
def test_what_is_no_mapping_is_one_problem(text: str, line: int, message: str, problems: Problems) -> None:
    assert told(problems(text)) == [(line, "", message)]


def test_yaml_that_is_no_data(problems: Problems) -> None:
    text = document({}) + "logging:\n  level: !!python/name:os.system\n  ? [a]\n  : b\n  format: &x {a: *x}\n"
    first = len(text.splitlines()) - 4
    found = [(line - first, message) for line, _, message in told(problems(text))]
    assert found == [
        (1, "YAML tags are not supported; leave the one with ! off"),
        (2, "a key must be a plain name; a text with {…} in it needs quotes"),
        (4, "an alias within its own anchor is not allowed"),
        (4, "a mapping is not allowed; json, logfmt or console"),
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"absent\.yaml: cannot read the file: No such file or directory$"):
        load(tmp_path / "absent.yaml", {})
    with pytest.raises(ConfigErrors, match=r"[^:1]: cannot read the file: Is a directory$"):
        load(tmp_path, {})


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "syncd.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigErrors, match=r"syncd\.yaml:2: is not UTF-8 text$"):
        load(file, {})


def test_a_byte_order_mark_is_no_mistake(loaded: Load) -> None:
    assert loaded("\ufeff" + document({})).instances[0].name == "acme"
