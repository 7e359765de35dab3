"""What goes by Sync Leads, and how a record is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.batching import CALLS_OF_A_FILE, MOST_BYTES, MOST_RECORDS, Number, Truth, record_of, sync_is_cheaper

rows = st.integers(1, 10_000)
sizes = st.integers(1, 20_000_000)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
digits = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
cells = st.one_of(st.none(), texts, digits.map(Number), st.sampled_from([Truth("true"), Truth("false")]))


@given(rows, sizes)
def test_rows_go_by_sync_leads_where_their_calls_are_no_more_than_a_files(row_count: int, byte_count: int) -> None:
    by_rows, by_bytes = row_count <= CALLS_OF_A_FILE * MOST_RECORDS, byte_count <= CALLS_OF_A_FILE * MOST_BYTES
    assert sync_is_cheaper(row_count, byte_count) == (by_rows and by_bytes)


@given(rows, sizes, rows, sizes)
def test_what_is_less_never_costs_more(row_count: int, byte_count: int, more_rows: int, more_bytes: int) -> None:
    if sync_is_cheaper(row_count + more_rows, byte_count + more_bytes):
        assert sync_is_cheaper(row_count, byte_count)


@given(texts, st.dictionaries(texts.filter(lambda name: name != "email"), cells, max_size=8))
def test_a_record_says_what_the_cells_say(key: str, fields: dict[str, str | None]) -> None:
    """Any Unicode, and each number by its very digits; what is a text stays one, however like a number it looks."""
    pairs = json.loads(
        record_of("email", key, fields), object_pairs_hook=list, parse_int=Number, parse_float=Number, parse_constant=pytest.fail
    )
    assert pairs[0] == ("email", key)
    assert [name for name, _ in pairs[1:]] == sorted(fields)
    for name, value in pairs[1:]:
        sent = fields[name]
        if isinstance(sent, Truth):
            assert value is (sent == "true")
        else:
            assert (type(value), value) == (type(sent), sent)


@pytest.mark.parametrize("text", ["1", "true", "null", '"', "\\", "\u2028", "\x00", "😀", "NaN"])
def test_a_text_is_never_taken_for_something_else(text: str) -> None:
    assert json.loads(record_of("email", text, {"title": text})) == {"email": text, "title": text}


def test_a_lead_is_named_by_its_id_as_a_number() -> None:
    assert record_of("id", Number(318581), {"title": None, "leadScore": Number("0.10")}) == '{"id":318581,"leadScore":0.10,"title":null}'
