"""Sparing repetition: defaults, anchors, merge keys, and variables."""

from datetime import timedelta

import pytest

from .conftest import Load, Problems, document

TWO = """\
database: {dsn: postgresql://localhost/syncd}
defaults:
  rest: {client_id: everyone}
  limits: {calls_per_20s: 20, concurrency: 4}
  pulls:
    people: {source: soap, fields: [a, b], every: 1m}
instances:
  one:
    rest: {endpoint: https://one.example.com, client_secret: s1}
    soap: &soap {endpoint: https://soap.example.com, user_id: u, encryption_key: k}
    limits: {concurrency: 5}
    pulls:
      people: {select: {updated_since: 2020-01-01}, fields: [c]}
      others: {source: soap, select: {updated_since: 2021-01-01T01:00:00+01:00}}
  two:
    rest: {endpoint: https://two.example.com, client_id: two, client_secret: s2}
    soap: {<<: *soap, user_id: v}
    pulls:
      people: {select: {updated_since: 2020-01-01}}
"""


def test_defaults_are_merged_deeply(loaded: Load) -> None:
    one, two = loaded(TWO).instances
    assert one.rest is not None
    assert two.rest is not None
    assert (one.rest.client_id.reveal(), two.rest.client_id.reveal()) == ("everyone", "two")
    assert (one.limits.calls_per_20s, one.limits.concurrency) == (20, 5)
    assert (two.limits.calls_per_20s, two.limits.concurrency) == (20, 4)
    assert {pull.name: pull.fields for pull in one.pulls} == {"people": ("c",), "others": ()}
    assert {pull.name: pull.fields for pull in two.pulls} == {"people": ("a", "b")}
    assert {pull.name: pull.every for pull in one.pulls} == {"people": timedelta(minutes=1), "others": timedelta(minutes=5)}


def test_anchors_and_merge_keys(loaded: Load) -> None:
    one, two = (instance.soap for instance in loaded(TWO).instances)
    assert one is not None
    assert two is not None
    assert (one.endpoint, one.user_id, one.encryption_key.reveal()) == ("https://soap.example.com", "u", "k")
    assert (two.endpoint, two.user_id, two.encryption_key.reveal()) == ("https://soap.example.com", "v", "k")


def test_the_first_of_several_merged_mappings_wins(loaded: Load) -> None:
    text = document({}) + "http: &a {listen: '127.0.0.1:1'}\nlogging: {<<: [&b {level: error}, {level: debug, format: console}]}\n"
    logging = loaded(text).logging
    assert (logging.level, logging.format) == ("error", "console")


def test_a_merge_of_something_else(problems: Problems) -> None:
    (problem,) = problems(document({}) + "logging: {<<: info}\n")
    assert (problem.path, problem.message) == ("logging.<<", "needs an alias of a mapping, or a list of such aliases")


def test_null_replaces_a_default(loaded: Load) -> None:
    text = document(
        {
            "defaults": {"soap": {"endpoint": "https://soap.example.com", "user_id": "u", "encryption_key": "k"}},
            "instances": {
                "one": {"soap": {"user_id": "v"}},
                "two": {
                    "soap": None,
                    "rest": {"endpoint": "https://rest.example.com", "client_id": "a", "client_secret": "b"},
                },
            },
        }
    )
    one, two = loaded(text).instances
    assert one.soap is not None
    assert (one.soap.endpoint, one.soap.user_id) == ("https://soap.example.com", "v")
    assert two.soap is None


def test_an_error_in_defaults_is_told_once(problems: Problems) -> None:
    found = problems(TWO.replace("calls_per_20s: 20", "calls_per_20s: 200, slots: 3"))
    assert [(problem.line, problem.path) for problem in found] == [
        (4, "defaults.limits.calls_per_20s"),
        (4, "defaults.limits.slots"),
    ]


def test_an_error_in_defaults_is_told_though_all_override_it(problems: Problems) -> None:
    (problem,) = problems(TWO.replace("every: 1m", "every: 1").replace("{select:", "{every: 2m, select:"))
    assert (problem.line, problem.path) == (6, "defaults.pulls.people.every")


def test_what_neither_brings_is_missing_in_the_instance(problems: Problems) -> None:
    found = problems(TWO.replace("{client_id: everyone}", "{}"))
    assert [(problem.line, problem.path, problem.message) for problem in found] == [(9, "instances.one.rest.client_id", "is missing")]
    whole = TWO.replace("    rest: {endpoint: https://two.example.com, client_id: two, client_secret: s2}\n", "")
    assert [(problem.line, problem.path) for problem in problems(whole)] == [
        (15, "instances.two.rest.endpoint"),
        (15, "instances.two.rest.client_secret"),
    ]


def test_an_aliased_scalar_is_told_where_it_is_used(problems: Problems) -> None:
    text = document({}) + "http: {listen: &x '127.0.0.1:1'}\nlogging:\n  level: *x\n"
    (problem,) = problems(text)
    assert (problem.line, problem.path) == (len(text.splitlines()), "logging.level")


def test_nested_aliases_do_not_blow_up(problems: Problems) -> None:
    levels = [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 40)]
    found = problems(document({}) + "x0: &x0 [1]\n" + "".join(levels))
    assert len(found) == 40


def test_variables(loaded: Load) -> None:
    text = document(
        {
            "instances.acme.limits.concurrency": "${CONCURRENCY}",
            "instances.acme.pulls.people.fields": ["a${A}b${A}", "$${A}", "$A", "$$A"],
            "database.dsn": "postgresql://${USER}:${PASSWORD}@localhost",
        }
    )
    result = loaded(text, CONCURRENCY="4", A="-", USER="me", PASSWORD="${A}")
    assert result.instances[0].limits.concurrency == 4
    assert result.instances[0].pulls[0].fields == ("a-b-", "${A}", "$A", "$$A")
    assert result.database.dsn is not None
    assert result.database.dsn.reveal() == "postgresql://me:${A}@localhost"


def test_an_unset_variable_is_told_once_and_alone(problems: Problems) -> None:
    (problem,) = problems(document({"instances.acme.limits.concurrency": "${ABSENT}"}))
    assert (problem.path, problem.message) == (
        "instances.acme.limits.concurrency",
        "the environment variable ABSENT is not set",
    )


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${1A}", "a${b-c}d"])
def test_a_malformed_variable(text: str, problems: Problems) -> None:
    (problem,) = problems(document({"database.dsn": text}))
    assert problem.message == '"${" needs a variable\'s name and "}" after it; write "$${" for the characters themselves'
