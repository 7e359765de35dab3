"""The rules of a push's fields."""

from typing import Any

import pytest
import yaml

from syncd.core.settings import FieldRule, Push

from .conftest import Load, Problems, document

PUSH = "instances.acme.pushes.contacts."
RULES = PUSH + "rules"


def push(loaded: Load, changes: dict[str, Any]) -> Push:
    return loaded(document(changes)).instances[0].pushes[0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("only_set", FieldRule(only_set=True)),
        ({"only_set": "true"}, FieldRule(only_set=True)),
        ({"never": "false"}, FieldRule(never=("false",))),
        ({"never": ["false", "maybe"], "owner": "marketo"}, FieldRule(never=("false", "maybe"), owner="marketo")),
        ({"owner": "us", "only_set": "false"}, FieldRule()),
    ],
)
def test_a_rule(rule: Any, expected: FieldRule, loaded: Load) -> None:
    assert push(loaded, {RULES: {"unsubscribed": rule}}).rules == {"unsubscribed": expected}


def test_without_rules(loaded: Load) -> None:
    made = push(loaded, {})
    assert (made.rules, made.deleted_in_marketo) == ({}, "skip")
    assert push(loaded, {PUSH + "deleted_in_marketo": "recreate"}).deleted_in_marketo == "recreate"


def test_values_are_the_texts_that_are_written(loaded: Load) -> None:
    text = document({RULES: {"unsubscribed": "X", "code": "Y"}}).replace("X", "{never: false}").replace("Y", "{never: [007, NO]}")
    assert yaml.safe_load(text)["instances"]["acme"]["pushes"]["contacts"]["rules"]["unsubscribed"] == {"never": False}
    rules = loaded(text).instances[0].pushes[0].rules
    assert (rules["unsubscribed"].never, rules["code"].never) == (("false",), ("007", "NO"))


@pytest.mark.parametrize(
    ("rules", "path", "told"),
    [
        ({"unsubscribed": "never"}, ".unsubscribed", "only_set"),
        ({"unsubscribed": {"never": ""}}, ".unsubscribed.never", "only_set"),
        ({"unsubscribed": {"never": []}}, ".unsubscribed.never", "needs a value"),
        ({"unsubscribed": {"owner": "them"}}, ".unsubscribed.owner", "us"),
        ({"unsubscribed": {"only_set": "yes"}}, ".unsubscribed.only_set", "true or false"),
        ({"unsubscribed": {"nevr": "false"}}, ".unsubscribed.nevr", "never"),
    ],
)
def test_refused_rules(rules: Any, path: str, told: str, problems: Problems) -> None:
    (problem,) = problems(document({RULES: rules}))
    assert problem.path == RULES + path
    assert told in problem.message


def test_leads_may_only_be_updated_that_the_mirror_can_find(loaded: Load, problems: Problems) -> None:
    assert (push(loaded, {}).mode, push(loaded, {}).written_by) == ("upsert", "email")
    made = push(loaded, {PUSH + "mode": "update_only"})
    assert (made.mode, made.lookup_field, made.written_by) == ("update_only", "email", "id")
    (problem,) = problems(document({PUSH + "mode": "update_only", PUSH + "lookup_field": "customerNumber"}))
    assert problem.path == PUSH + "mode"
    assert "email or id" in problem.message


def test_what_becomes_of_a_deleted_lead(problems: Problems) -> None:
    (problem,) = problems(document({PUSH + "deleted_in_marketo": "forget"}))
    assert "skip" in problem.message
