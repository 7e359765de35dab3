"""What describe's answers differ by, and which columns that makes of fields."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.config.values import OWN_COLUMNS
from syncd.core import drift
from syncd.core.drift import Column, KnownField, column_name
from syncd.core.settings import Keys, Pull
from syncd.core.values import Field, FieldName

ALL = Pull("all", "soap", Keys("IDNUM"))


def field(name: str, data_type: str | None = "string", soap: str | None = None, vanished: bool = False) -> KnownField:
    return KnownField(name, name, soap or name.capitalize(), name, data_type, 255, False, vanished)


def after(fields: Sequence[KnownField], view: drift.View) -> list[KnownField]:
    return [replace(one, column=view.columns.get(one.name)) for one in fields]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("firstName", "first_name"),
        ("Custom_Field__c", "custom_field_c"),
        ("SFDCLeadId", "sfdc_lead_id"),
        ("leadScore2", "lead_score2"),
        ("2ndEmail", "f_2nd_email"),
        ("mktoIsPartner", "mkto_is_partner"),
        ("Straße & Nr.", "strae_nr"),
        ("_", "field"),
        ("x" * 80, "x" * 63),
    ],
)
def test_columns_are_named_in_snake_case(name: str, column: str) -> None:
    assert column_name(name) == column


def test_the_own_columns_are_those_that_the_yaml_may_not_name() -> None:
    assert drift.OWN_COLUMNS == OWN_COLUMNS


@given(st.lists(st.text(max_size=70), unique=True, max_size=20), st.integers(0, 20))
def test_columns_are_unique_plain_names_and_stay(names: list[str], first: int) -> None:
    fields = [KnownField(name, name, name, name, "string", None, False) for name in names]
    begun = drift.appended(fields[:first], [ALL])
    view = drift.appended(after(fields, begun), [ALL])
    columns = [column.name for column in view.columns.values()]
    assert len({*columns, *OWN_COLUMNS}) == len(columns) + len(OWN_COLUMNS)
    assert all(column.isascii() and len(column) <= 63 and not column[0].isdigit() for column in columns)
    assert {name: view.columns[name] for name in begun.columns} == begun.columns
    assert sorted(column.position for column in view.columns.values()) == list(range(1, len(columns) + 1))


def test_only_what_pulls_ask_for_has_a_column() -> None:
    fields = [field("company"), field("title"), replace(field("memberLevel"), soap_name=None), field("email"), field("id")]
    named = replace(ALL, fields=("Title", "Gone", "Email"))
    assert list(drift.appended(fields, [named]).columns) == ["title"], "the view has the email address anyway"
    assert list(drift.appended(fields, [named, ALL]).columns) == ["title", "company"]
    wanted = replace(named, columns={"Email": "e_mail"})
    assert [column.name for column in drift.appended(fields, [wanted]).columns.values()] == ["title", "e_mail"]


def test_names_of_the_yaml_go_first() -> None:
    fields = [field("company"), field("firm")]
    pull = replace(ALL, fields=("Company", "Firm"), columns={"Firm": "company"})
    view = drift.appended(fields, [pull])
    assert (view.columns["company"].name, view.columns["firm"].name, view.renamed) == ("company_2", "company", {})


def test_what_must_wait_for_a_rebuild_is_said() -> None:
    fields = after([field("score", "integer"), field("company")], drift.appended([field("score"), field("company")], [ALL]))
    pull = replace(ALL, fields=("Company", "Score"), columns={"Company": "firm"})
    view = drift.appended(fields, [pull])
    assert (view.retyped, view.renamed) == ({"score": "numeric"}, {"company": "firm"})
    rebuilt = drift.rebuilt(fields, [pull])
    assert rebuilt.columns == {"company": Column(1, "firm", "text"), "score": Column(2, "score", "numeric")}
    again = drift.appended(after(fields, rebuilt), [pull])
    assert (again.retyped, again.renamed, again.columns) == ({}, {}, rebuilt.columns)


def test_a_vanished_field_keeps_its_column_as_long_as_it_is_asked_for() -> None:
    fields = after([field("company"), field("title")], drift.appended([field("company"), field("title")], [ALL]))
    gone = [replace(fields[0], vanished=True), fields[1]]
    assert drift.appended(gone, [ALL]).columns == drift.rebuilt(fields, [ALL]).columns
    assert set(drift.rebuilt(gone, [ALL]).columns) == {"company", "title"}
    only_title = [replace(ALL, fields=("Title",))]
    assert set(drift.appended(gone, only_title).columns) == {"company", "title"}
    assert set(drift.rebuilt(gone, only_title).columns) == {"title"}


def test_a_field_that_rest_names_anew_takes_the_place_of_the_old_at_a_rebuild() -> None:
    fields = after([field("old", soap="Company")], drift.appended([field("old", soap="Company")], [ALL]))
    now = [replace(fields[0], vanished=True), field("company")]
    assert [column.name for column in drift.appended(now, [ALL]).columns.values()] == ["old", "company"]
    assert [column.name for column in drift.rebuilt(now, [ALL]).columns.values()] == ["company"]


def test_more_fields_than_a_view_has_room_for_are_left_out() -> None:
    fields = [field(f"field{number}") for number in range(1700)]
    view = drift.appended(fields, [ALL])
    assert (len(view.columns), view.left_out) == (1594, 106)
    assert drift.appended(after(fields, view), [ALL]) == view


def test_drift_is_told_by_name() -> None:
    before = [field("a"), field("b"), field("c"), field("gone", vanished=True)]
    now = [field("a"), field("c", "integer"), field("gone"), field("new")]
    drifted = drift.compare(before, now)
    assert [one.name for one in drifted.appeared] == ["gone", "new"]
    assert [one.name for one in drifted.vanished] == ["b"]
    assert [(one.name, one.data_type, was) for one, was in drifted.retyped] == [("c", "integer", "string")]


@pytest.mark.parametrize("before", [[], [field("firstName", None)]], ids=["nothing", "names of the YAML"])
def test_the_first_answer_is_no_drift(before: list[KnownField]) -> None:
    assert drift.compare(before, [field("a")]) == drift.Drift()


def test_a_name_that_two_fields_have_is_rests() -> None:
    soap_only = Field("Old", "string", None, None, FieldName("company", False))
    both = Field("Company", "text", None, FieldName("company", True), FieldName("Company", True))
    assert drift.known([soap_only, both]) == [KnownField("company", "company", "Company", "Company", "text", None, True)]
    assert drift.known([both, soap_only]) == drift.known([soap_only, both])
