"""Which leads a pull's `where` lets in."""

import pytest

from syncd.core.values import LeadRecord
from syncd.core.where import keeps

LEAD = LeadRecord(
    7, "a@x", [("Country", "string", "DE"), ("Unsubscribed", "boolean", "0"), ("Score", "integer", "5"), ("Flag", "string", "True")]
)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({}, True),
        ({"Country": ("DE",)}, True),
        ({"Country": ("AT", "DE")}, True),
        ({"Country": ("de",)}, False),
        ({"Country": ("AT",)}, False),
        ({"Country": ("DE",), "Score": ("6",)}, False),
        ({"City": ("",)}, True),
        ({"City": ("Bonn",)}, False),
        ({"Unsubscribed": ("false",)}, True),
        ({"Unsubscribed": ("False",)}, True),
        ({"Unsubscribed": ("1",)}, False),
        ({"Flag": ("true",)}, False),
        ({"Email": ("a@x",), "Id": ("7",)}, True),
        ({"Email": ("",)}, False),
    ],
)
def test_every_field_must_have_one_of_its_values(where: dict[str, tuple[str, ...]], kept: bool) -> None:
    assert keeps(LEAD, where) is kept
