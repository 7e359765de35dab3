"""Rows of failures and warnings files are found again, and what cannot be found is never called a success."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.csvfile import render_line
from syncd.core.results import ResultRow, SentRow, parse_results, settle_rows

SAMPLES = Path(__file__).parent.parent / "samples"


def sent(*rows: tuple[str, str, str]) -> list[SentRow]:
    return [
        SentRow(ordinal, email.lower(), {"email": email, "firstName": first, "phone": phone})
        for ordinal, (email, first, phone) in enumerate(rows)
    ]


FOUR = sent(("a@x", "Ann", "1"), ("b@x", "Bob", "2"), ("c@x", "Bob", "2"), ("D@x", "Dan", "4"))


def failed(reason: str = "why", **cells: str) -> ResultRow:
    return ResultRow(cells, reason)


def test_the_documented_failures_are_read() -> None:
    (row,) = parse_results((SAMPLES / "import-failures.csv").read_text(), "csv")
    assert row.cells == {"firstName": "Benji", "lastName": "Nordstrom", "phone": "212-555-2323"}
    assert row.reason == "Value for lookup field 'email' not found"


def test_the_documented_warnings_are_read() -> None:
    (row,) = parse_results((SAMPLES / "import-warnings.csv").read_text(), "csv")
    assert (row.cells["email"], row.cells["leadScore"], row.reason) == ("INVALID_EMAIL", "0", "Invalid email address")


@pytest.mark.parametrize(
    ("text", "cells", "reason"),
    [
        ("email,a,Import Failure Reason\nk,1,why\n", {"email": "k", "a": "1"}, "why"),
        ("email,a,Import Failure Reason\nk,why\n", {"email": "k"}, "why"),
        ("email,Import Failure Reason\nk\0,w\0hy\n", {"email": "k"}, "why"),
        ("\ufeffemail,Import Failure Reason\r\n\r\nk,why", {"email": "k"}, "why"),
        ('email,a,Import Failure Reason\n"k\nl","x, ""y""",why', {"email": "k\nl", "a": 'x, "y"'}, "why"),
    ],
)
def test_a_results_file_is_read_whatever_its_form(text: str, cells: dict[str, str], reason: str) -> None:
    assert parse_results(text, "csv") == [ResultRow(cells, reason)]


def test_an_empty_results_file_has_no_rows() -> None:
    assert parse_results("", "ssv") == []


def test_a_row_is_found_by_its_key_whatever_its_case_and_blanks() -> None:
    assert settle_rows(FOUR, [failed(email=" d@X ", phone="else")], [], "email", 1) == {3: ("rejected", "why")}


def test_a_key_of_any_letters_is_found() -> None:
    rows = [SentRow(0, "Ünal", {"name": "Ünal", "a": "1"})]  # as a database whose lower() knows ASCII only would have it
    assert settle_rows(rows, [failed(name="Ünal", a="1")], [], "name", 1) == {0: ("rejected", "why")}


def test_without_the_lookup_column_a_row_is_found_by_its_other_cells() -> None:
    assert settle_rows(FOUR, [failed(firstName="Ann", phone="1")], [], "email", 1) == {0: ("rejected", "why")}


def test_a_failure_that_fits_several_rows_makes_them_unverified_and_no_others() -> None:
    verdicts = settle_rows(FOUR, [failed(firstName="Bob", phone="2")], [], "email", 1)
    assert verdicts == dict.fromkeys((1, 2), ("unverified", "Marketo refused a row that this may be: why"))


def test_an_empty_cell_is_not_visible() -> None:
    assert settle_rows(FOUR, [failed(email="", firstName="Dan", phone="")], [], "email", 1) == {3: ("rejected", "why")}


@pytest.mark.parametrize("failed_count", [0, 1, 2, 3])
def test_a_failure_that_fits_no_row_leaves_all_others_unverified_whatever_the_status_counts(failed_count: int) -> None:
    verdicts = settle_rows(FOUR, [failed(email="zz@x"), failed(email="a@x")], [], "email", failed_count)
    assert {ordinal: verdict for ordinal, (verdict, _) in verdicts.items()} == {
        0: "rejected",
        1: "unverified",
        2: "unverified",
        3: "unverified",
    }


def test_failures_that_the_file_lacks_leave_all_others_unverified() -> None:
    verdicts = settle_rows(FOUR, [failed(email="a@x")], [], "email", 2)
    assert [verdicts[ordinal][0] for ordinal in range(4)] == ["rejected", "unverified", "unverified", "unverified"]


def test_a_failure_told_twice_hides_none_that_is_not_told() -> None:
    verdicts = settle_rows(FOUR, [failed(email="a@x"), failed(email="a@x")], [], "email", 2)
    assert [verdicts[ordinal][0] for ordinal in range(4)] == ["rejected", "unverified", "unverified", "unverified"]


def test_a_failure_told_twice_and_counted_once_harms_no_other_row() -> None:
    assert settle_rows(FOUR, [failed(email="a@x")] * 2, [], "email", 1) == {0: ("rejected", "why")}


def test_a_row_with_a_warning_was_imported_unless_it_failed() -> None:
    warnings = [failed("odd", email="a@x"), failed("odd", email="b@x")]
    verdicts = settle_rows(FOUR, [failed(email="b@x")], warnings, "email", 1)
    assert verdicts == {0: ("warned", "odd"), 1: ("rejected", "why")}


words = st.sampled_from(["p", "q", "r"])
results = st.lists(st.tuples(st.integers(0, 7), st.sets(st.sampled_from(["email", "a", "b"])), st.booleans()), max_size=6)


@given(cells=st.lists(st.tuples(words, words), min_size=1, max_size=6), told=results, warned=results, untold=st.integers(0, 3))
def test_no_row_that_may_have_failed_is_called_a_success(
    cells: list[tuple[str, str]],
    told: list[tuple[int, set[str], bool]],
    warned: list[tuple[int, set[str], bool]],
    untold: int,
) -> None:
    rows = [SentRow(i, f"k{i}", {"email": f"K{i}", "a": a, "b": b}) for i, (a, b) in enumerate(cells)]
    truly_failed = {row for row, _, _ in told if row < len(rows)} | set(range(min(untold, len(rows))))
    failures = [_result(rows, *result) for result in {result[0]: result for result in told}.values()]
    strangers = sum(row >= len(rows) for row in {result[0] for result in told})
    verdicts = settle_rows(rows, failures, [_result(rows, *result) for result in warned], "email", len(truly_failed) + strangers)
    assert set(verdicts) <= set(range(len(rows)))
    for row in truly_failed:
        assert verdicts[row][0] in ("rejected", "unverified")
    if strangers:
        assert all(verdicts[row.ordinal][0] != "warned" for row in rows)
    assert {row for row, (verdict, _) in verdicts.items() if verdict == "rejected"} <= truly_failed or strangers


def _result(rows: list[SentRow], row: int, hidden: set[str], short: bool) -> ResultRow:
    """What the file says of a row, some columns hidden; a stranger's beyond the rows sent."""
    cells = dict(rows[row].cells) if row < len(rows) else {"email": f"K{row}", "a": "z", "b": "z"}
    shown = [name for name in cells if name not in hidden]
    if row >= len(rows):
        shown = list(cells)
    header = render_line([*shown, "Import Failure Reason"], "csv")
    line = [cells[name] for name in shown][: -1 if short and len(shown) > 1 else None]
    (result,) = parse_results(header + render_line([*line, "why"], "csv"), "csv")
    return result
