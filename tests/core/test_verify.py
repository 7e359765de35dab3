"""Drift by field and cause, from what is known of both sides."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from syncd.core.drift import KnownField
from syncd.core.mirror import Dictionary
from syncd.core.preflight import Preflight
from syncd.core.rules import Rules
from syncd.core.settings import FieldRule, Mend, Push
from syncd.core.values import LeadRecord
from syncd.core.verify import (
    Coverage,
    Differences,
    Held,
    Owned,
    Read,
    Sender,
    Settled,
    causes,
    compare,
    digest_of,
    owned_of,
    read_of,
    together,
    values_of,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIELDS = [
    KnownField(name, name, name, name, kind, length, False, False, None)
    for name, kind, length in (
        ("email", "email", 255),
        ("firstName", "string", 5),
        ("company", "string", 255),
        ("leadScore", "integer", None),
        ("unsubscribed", "boolean", None),
        ("revenue", "currency", None),
        ("birthday", "datetime", None),
    )
]
DICTIONARY = Dictionary({field.name: field.name for field in FIELDS}, {field.name: str(field.data_type) for field in FIELDS})
COVERAGE = Coverage({"people": frozenset({"firstName", "leadScore"})}, {"people": NOON + HOUR}, {"people": NOON - HOUR})
BEHIND = Coverage(COVERAGE.fields, {"people": NOON - HOUR}, COVERAGE.since)
NAMES = ("firstName", "leadScore", "company", "unsubscribed", "revenue", "birthday")


def held(changed_at: datetime = NOON, deleted: bool = False, **values: object) -> Held:
    return Held(values, changed_at, frozenset({"people"}), deleted)


def read(updated_at: datetime | None = None, created_at: datetime | None = None, **values: object) -> Read:
    return Read(values, updated_at, created_at)


def own(cell: str | None, kind: str = "string", sent_at: datetime = NOON) -> Owned:
    return Owned(cell, kind, sent_at, sent_at + timedelta(minutes=5))


def why(
    mirror: Held | None,
    marketo: Read | None,
    owned: dict[str, Owned] | None = None,
    coverage: Coverage = COVERAGE,
    *,
    moved: bool = False,
    told: dict[str, datetime] | None = None,
) -> list[tuple[str, str]]:
    found = compare(mirror, marketo, owned or {}, coverage)
    return list(causes(found, mirror, marketo, owned or {}, coverage, NOON, moved, told)) if found else []


def test_what_agrees_is_no_drift() -> None:
    assert not compare(held(firstName="Ada"), read(firstName="Ada"), {"firstName": own("Ada")}, COVERAGE)
    assert not compare(None, None, {}, COVERAGE)
    assert not compare(held(deleted=True, firstName="Ada"), None, {}, COVERAGE)


def test_only_fields_that_are_pulled_are_compared_with_the_mirror() -> None:
    assert not compare(held(company="A"), read(company="B"), {}, COVERAGE)
    other = Held({"firstName": "A"}, NOON, frozenset({"gone"}))
    assert not compare(other, read(firstName="B"), {}, COVERAGE), "its pull has left the configuration"
    assert compare(other, read(firstName="A", email="b@example.com"), {}, COVERAGE).mirror == ("email",), "which comes with every lead"


def test_the_mirror_is_wrong_when_its_pull_has_come_past_the_look_and_behind_otherwise() -> None:
    assert why(held(firstName="A"), read(firstName="B")) == [("mirror_wrong", "firstName")]
    assert why(held(firstName="A"), read(firstName="B"), coverage=BEHIND) == [("mirror_behind", "firstName")]
    assert why(held(firstName="A"), read(firstName="B"), moved=True) == [("mirror_behind", "firstName")]
    assert why(held(email="a@example.com"), read(email="b@example.com")) == [("mirror_wrong", "email")]
    assert why(held(firstName="A"), read()) == [("mirror_wrong", "firstName")], "emptied"


def test_another_pull_that_has_come_further_tells_nothing_of_a_field_that_it_does_not_bring() -> None:
    both = Coverage({"people": frozenset({"firstName"}), "more": frozenset({"leadScore"})}, {"people": NOON + HOUR, "more": NOON - HOUR})
    lead = Held({"firstName": "A", "leadScore": Decimal(1)}, NOON, frozenset({"people", "more"}))
    marketo = read(firstName="B", leadScore=Decimal(2))
    assert why(lead, marketo, coverage=both) == [("mirror_wrong", "firstName"), ("mirror_behind", "leadScore")]


def test_forms_of_one_value() -> None:
    same: list[tuple[object, object]] = [(Decimal("1.50"), Decimal("1.5")), (Decimal(5), "5"), (True, "true"), (None, "null")]
    for mirror, marketo in same:
        assert not compare(held(leadScore=mirror), read(leadScore=marketo), {}, COVERAGE), (mirror, marketo)
    exact = Decimal(10**40), Decimal(10**40 + 1)
    others: list[tuple[object, object]] = [exact, (None, ""), (False, None), (Decimal(0), None), ("5", "5.0")]
    for mirror, marketo in others:
        assert compare(held(leadScore=mirror), read(leadScore=marketo), {}, COVERAGE), (mirror, marketo)


def test_a_lead_that_one_side_lacks() -> None:
    assert why(held(firstName="A"), None) == [("missing_in_marketo", "")]
    assert why(held(deleted=True), read()) == [("missing_in_mirror", "")]
    assert why(None, read(created_at=NOON)) == [("missing_in_mirror", "")]
    assert why(None, read(created_at=NOON), coverage=BEHIND) == [("mirror_behind", "")], "it is on its way"
    assert why(None, read(created_at=NOON - 2 * HOUR)) == [], "no pull need have seen it"
    assert why(None, read()) == [], "nobody knows when it came"
    assert why(None, read(created_at=NOON), coverage=Coverage(COVERAGE.fields, COVERAGE.brought_to)) == [], "not all leads are let in"


def test_a_push_was_overwritten_when_the_mirror_has_told_of_the_field_since() -> None:
    both = held(firstName="Eve"), read(firstName="Eve")
    owned = {"firstName": own("Ada")}
    assert why(*both, owned, told={"firstName": NOON + HOUR}) == [("push_overwritten", "firstName")]
    assert why(*both, owned, told={"firstName": NOON - HOUR}) == [("push_not_arrived", "firstName")]
    assert why(*both, owned, told={"leadScore": NOON + HOUR}) == [("push_not_arrived", "firstName")]


def test_a_push_was_overwritten_when_the_mirror_still_has_another_value() -> None:
    owned = {"firstName": own("Ada")}
    found = why(held(firstName="Ada"), read(firstName="Eve"), owned, BEHIND, told={})
    assert found == [("mirror_behind", "firstName"), ("push_overwritten", "firstName")]


def test_without_history_the_lead_as_a_whole_must_do() -> None:
    owned = {"firstName": own("Ada")}
    assert why(held(NOON + HOUR, firstName="Eve"), read(firstName="Eve"), owned) == [("push_overwritten", "firstName")]
    assert why(held(NOON - HOUR, firstName="Eve"), read(firstName="Eve"), owned) == [("push_not_arrived", "firstName")]


def test_of_a_field_that_no_pull_brings_the_time_of_update_must_do() -> None:
    owned = {"company": own("Ours")}
    assert why(held(), read(NOON + HOUR, company="Theirs"), owned, told={}) == [("push_overwritten", "company")]
    assert why(held(), read(NOON, company="Theirs"), owned, told={}) == [("push_not_arrived", "company")]
    assert why(held(), read(company="Theirs"), owned, told={}) == [("push_not_arrived", "company")]


def change(number: int, fields: str, state: str = "applied", erased: list[str] | None = None, place: int | None = None) -> Settled:
    return Settled(number, place or number, "contacts", " Ada@Example.com", fields, state, erased, NOON, NOON + timedelta(minutes=number))


def cells(
    *changes: Settled, mend: Mend | None = None, clears: bool = True, on_the_way: tuple[str, ...] = (), push: Push | None = None
) -> dict[str, str | None]:
    sender = Sender("email", Preflight(FIELDS, "email", mend or Mend()), Rules(push or Push("contacts")), clears)
    return {name: each.cell for name, each in owned_of(changes, {"contacts": sender}, on_the_way).items()}


def test_the_latest_change_owns_a_field() -> None:
    assert cells(change(2, '{"firstName": "B"}'), change(1, '{"firstName": "A", "company": "C"}')) == {"firstName": "B", "company": "C"}
    assert cells(change(1, '{"firstName": "A"}'), change(2, '{"firstName": "B"}'), change(3, '{"firstName": "A"}', place=1)) == {
        "firstName": "B"
    }, "a retry has the place of what it retries"


def test_values_are_as_they_were_sent() -> None:
    fields = '{"leadScore": 12345678901234567890123, "unsubscribed": true, "company": "", "firstName": null, "email": "ADA@example.com"}'
    assert cells(change(1, fields)) == {
        "leadScore": "12345678901234567890123",
        "unsubscribed": "true",
        "company": None,
        "firstName": None,
    }
    mend = Mend(spelling="mend", length="cut")
    assert cells(change(1, '{"FIRSTNAME": "Augusta"}'), mend=mend) == {"firstName": "Augus"}


def test_what_nobody_can_tell_is_owned_by_nobody() -> None:
    first = change(1, '{"firstName": "A", "company": "C"}')
    assert cells(first, change(2, '{"firstName": "B"}', "unverified")) == {"company": "C"}
    assert cells(first, change(2, "{}", erased=["firstName"])) == {"company": "C"}
    assert cells(first, change(2, '{"firstName": ""}'), clears=False) == {"company": "C"}
    assert cells(first, change(2, '{"unknown": "B"}')) == {"firstName": "A", "company": "C"}
    assert cells(first, on_the_way=("company",)) == {"firstName": "A"}


def test_what_a_rule_keeps_back_was_not_sent() -> None:
    rules = {"company": FieldRule(only_set=True), "firstName": FieldRule(owner="marketo"), "unsubscribed": FieldRule(never=("false",))}
    push = Push("contacts", rules=rules)
    first = change(1, '{"company": "C", "firstName": "A", "unsubscribed": true, "leadScore": 1}')
    assert cells(first, push=push) == {"company": "C", "unsubscribed": "true", "leadScore": "1"}
    assert cells(first, change(2, '{"company": null, "unsubscribed": false}'), push=push) == cells(first, push=push)


def test_whether_a_value_has_arrived_is_told_by_the_type_of_its_field() -> None:
    for cell, kind, value in (
        ("12.50", "currency", Decimal("12.5")),
        ("1", "boolean", True),
        (None, "string", None),
        ("tomorrow", "datetime", "2026-03-03T00:00:00Z"),  # into which form Marketo brings that, it alone knows
    ):
        assert not compare(held(), read(company=value), {"company": own(cell, kind)}, COVERAGE), cell
    for cell, kind, value in (("12.50", "currency", Decimal(12)), ("0", "boolean", True), (None, "string", "C"), ("C", "string", None)):
        assert compare(held(), read(company=value), {"company": own(cell, kind)}, COVERAGE) == Differences(pushes=("company",)), cell


def test_a_reply_comes_into_the_form_of_the_mirror() -> None:
    texts = {"leadScore": "007", "birthday": "2026-01-01T00:00:00-06:00", "revenue": "dear", "updatedAt": "2026-03-02T12:00:00Z"}
    record = LeadRecord(7, "ada@example.com", [(name, "string", text) for name, text in texts.items()])
    found = read_of(record, DICTIONARY)
    mirror = values_of("ada@example.com", '{"leadScore": 7, "birthday": "2026-01-01T06:00:00Z"}', '{"revenue": "dear"}')
    assert {name: found.values.get(name) for name in mirror} == mirror
    assert (found.updated_at, found.created_at) == (NOON, None)


def test_a_digest_is_of_the_fields_that_are_compared() -> None:
    first = digest_of(read(firstName="A", company="C"), ["firstName"])
    assert first == digest_of(read(firstName="A", company="D"), ["firstName"])
    assert first != digest_of(read(firstName="B", company="C"), ["firstName"])
    assert first != digest_of(None, ["firstName"])


def test_ids_between_those_of_the_mirror_are_asked_for_where_there_are_few() -> None:
    assert list(together([11, 12, 14], 10, 300)) == [11, 12, 13, 14]
    assert list(together([11, 12, 14], 0, 300)) == [11, 12, 13, 14]
    assert list(together([21, 22], 10, 300)) == [*range(11, 23)], "those behind the last slice, too"
    assert list(together([1, 1_000_000], 0, 300)) == [1, 1_000_000]
    odd = list(range(1, 600, 2))
    assert list(together(odd, 0, 300)) == list(range(1, 300)), "half of a call are leads"
    third = list(range(1, 900, 3))
    assert list(together(third, 0, 300)) == third
    assert list(together(range(101, 401), 100, 300)) == list(range(101, 401))
    assert list(together([], 5, 300)) == []


def test_together_passes_over_no_lead_and_comes_to_an_end() -> None:
    mirror = [*range(5, 400), *range(1_000, 5_000, 7), *range(6_000, 6_301), 10**12]
    seen: set[int] = set()
    after = 0
    while ids := [lead_id for lead_id in mirror if lead_id > after][:300]:
        asked = list(together(ids, after, 300))
        assert len(asked) <= 300
        seen.update(asked)
        after = asked[-1]
    assert set(mirror) <= seen
