"""What of the activity log concerns a pull."""

from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.following import gone_by, readable, watched, watches_scores
from syncd.core.mirror import UNDESCRIBED, Vocabulary
from syncd.core.settings import Pull, Source, UpdatedSince
from syncd.core.values import Field, FieldName

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def described(rest: str | None, soap: str | None, kind: str = "string") -> Field:
    return Field(rest or soap or "", kind, None, FieldName(rest, False) if rest else None, FieldName(soap, False) if soap else None)


VOCABULARY = Vocabulary.of(
    [
        described("id", "Id", "integer"),
        described("email", "Email", "email"),
        described("company", "Company"),
        described("leadScore", "LeadScore", "integer"),
        described("rank", None, "score"),
        described(None, "OnlySoap"),
    ]
)


def pull(*fields: str, source: Source = "activities") -> Pull:
    return Pull("people", source, UpdatedSince(NOW), fields)


@pytest.mark.parametrize(
    ("asked", "read", "followed"),
    [
        (pull("Company", "id"), ["company", "id"], ["company", "email"]),
        (pull("Email", "company"), ["email", "company"], ["email", "company"]),
        (pull(), ["id", "email", "company", "leadScore", "rank"], ["email", "company", "leadScore", "rank"]),
        (pull("Company", "OnlySoap", source="soap"), ["company"], ["company", "email"]),
        (pull(source="soap"), ["id", "email", "company", "leadScore"], ["email", "company", "leadScore"]),
    ],
)
def test_fields(asked: Pull, read: list[str], followed: list[str]) -> None:
    assert readable(asked, VOCABULARY) == read
    assert watched(asked, VOCABULARY) == followed


def test_without_a_dictionary_nothing_can_be_read() -> None:
    assert readable(pull(), UNDESCRIBED) == []


@pytest.mark.parametrize(("asked", "scores"), [(pull("Company"), False), (pull("LeadScore"), True), (pull("rank"), True), (pull(), True)])
def test_scores(asked: Pull, scores: bool) -> None:
    assert watches_scores(asked, VOCABULARY) is scores


def test_a_lead_is_gone_by_the_end_of_its_second_by_our_clock() -> None:
    at = NOW - timedelta(minutes=5)
    assert gone_by(at, NOW, NOW) == at + timedelta(seconds=1)
    assert gone_by(at, NOW, NOW - timedelta(seconds=40)) == at + timedelta(seconds=41)
    assert gone_by(NOW + timedelta(minutes=3), NOW, NOW) == NOW, "whatever is logged has happened"
