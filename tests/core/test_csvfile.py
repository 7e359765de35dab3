"""Whatever a cell holds, a file gives it back."""

from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.core.csvfile import read_rows, render_line
from syncd.core.settings import Format

NASTY = ",;\t\"\r\n\u2028\u2029\x85 \u00a0\x0b\x0c\x1c\ufeff'\\a😀"
cells = st.one_of(
    st.text(st.sampled_from(NASTY), max_size=6),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
rows = st.lists(st.lists(cells, min_size=1, max_size=4), max_size=5)
formats: st.SearchStrategy[Format] = st.sampled_from(["csv", "tsv", "ssv"])


@given(rows=rows, file_format=formats)
@example(rows=[[""], ["", ""], ["a\r\nb"], ['"'], [" a "]], file_format="csv")
def test_rows_read_back_as_they_were_written(rows: list[list[str]], file_format: Format) -> None:
    assert list(read_rows("".join(render_line(row, file_format) for row in rows), file_format)) == rows


@given(row=st.lists(cells, min_size=1, max_size=4), file_format=formats)
def test_a_line_is_one_record_by_itself(row: list[str], file_format: Format) -> None:
    assert list(read_rows(render_line(row, file_format), file_format)) == [row]


@given(st.lists(st.text(st.sampled_from("ab1 é"), min_size=1).map(lambda text: f"x{text}x"), min_size=1), formats)
def test_what_needs_no_quotes_gets_none(row: list[str], file_format: Format) -> None:
    assert '"' not in render_line(row, file_format)


@pytest.mark.parametrize(("file_format", "line"), [("csv", 'a,"b,c",d;e\n'), ("tsv", "a\tb,c\td;e\n"), ("ssv", 'a;b,c;"d;e"\n')])
def test_the_separator_is_the_formats(file_format: Format, line: str) -> None:
    assert render_line(["a", "b,c", "d;e"], file_format) == line


def test_a_cell_may_be_as_large_as_a_file() -> None:
    cell = "x" * 300_000
    assert list(read_rows(render_line(["key", cell], "csv"), "csv")) == [["key", cell]]


def test_blank_lines_are_passed_over() -> None:
    assert list(chain.from_iterable(read_rows("a\r\n\r\n\nb\n", "csv"))) == ["a", "b"]
