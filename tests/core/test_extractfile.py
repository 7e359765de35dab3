"""The bytes of an extract's file: well-formed ones are known as such, and others are read nevertheless."""

import csv
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.core.csvfile import render_line
from syncd.core.extractfile import LONGEST_CELL, LenientReader, QuoteCheck, header_of

CELLS = st.text(st.sampled_from('ab,"\n\ré\u2028😀 '), max_size=8)
SIZES = st.integers(1, 9)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    columns = draw(st.integers(2, 4))
    header = [f"c{number}" for number in range(columns)]
    return [header, *draw(st.lists(st.lists(CELLS, min_size=columns, max_size=columns), max_size=5))]


def written(rows: list[list[str]], line_end: str = "\n", everywhere: bool = False) -> bytes:
    if everywhere:
        lines = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows)
    else:
        lines = (render_line(row, "csv") for row in rows)
    return "".join(line[:-1] + line_end for line in lines).encode()


def read(content: bytes, size: int, columns: int) -> list[list[str]]:
    reader = LenientReader(columns)
    rows = [row for start in range(0, len(content), size) for row in reader.feed(content[start : start + size])]
    return rows + reader.feed(b"", final=True)


def is_well_formed(content: bytes, size: int) -> bool:
    check = QuoteCheck()
    return all(check.feed(content[start : start + size]) for start in range(0, len(content), size)) and check.finish()


@given(tables(), SIZES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_a_well_formed_file_reads_as_the_csv_module_reads_it(
    rows: list[list[str]], size: int, line_end: str, everywhere: bool, open_ended: bool
) -> None:
    content = written(rows, line_end, everywhere)
    if open_ended:
        content = content[: -len(line_end)]
    assert is_well_formed(content, size)
    assert read(content, size, len(rows[0])) == rows == [row for row in csv.reader(io.StringIO(content.decode(), newline="")) if row]


GRAMMAR = re.compile(r'(?:"(?:[^"]|"")*"|[^",\n\r]*)(?:(?:,|\r?\n)(?:"(?:[^"]|"")*"|[^",\n\r]*))*')


@given(st.text(st.sampled_from('a,"\n'), max_size=14), SIZES)
@example('"first"Name"\n', 1)
@example('a""b\n', 1)
@example('x,"",y\n', 1)
@example('p",,"b,",z"w', 2)
@example('"a""', 1)
def test_only_what_the_grammar_allows_is_well_formed(text: str, size: int) -> None:
    assert is_well_formed(text.encode(), size) is (GRAMMAR.fullmatch(text) is not None)


@given(st.text(st.sampled_from('a,"\n\r'), max_size=30), SIZES, st.integers(1, 3))
def test_the_pieces_make_no_difference(text: str, size: int, columns: int) -> None:
    content = text.encode()
    assert read(content, size, columns) == read(content, len(content) + 1, columns)
    assert is_well_formed(content, size) is is_well_formed(content, len(content) + 1)


@given(st.binary(max_size=40))
def test_no_bytes_are_too_much_for_the_reader(content: bytes) -> None:
    read(b"a,b\n" + content, 3, 2)
    is_well_formed(content, 3)


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('"first"Name",b', ['first"Name', "b"]),
        ('"say "hi"",b', ['say "hi"', "b"]),
        ('"say "hi" you",b', ['say "hi" you', "b"]),
        ('"a "b, c" d",e', ['a "b, c" d', "e"]),
        ('5" pipe,b', ['5" pipe', "b"]),
        ('a""b,c', ['a""b', "c"]),
        ("a\rb,c", ["a\rb", "c"]),
        ("a,b\r", ["a", "b\r"]),
        ('a,"b"\r', ["a", "b"]),
        ("a\u2028b,c", ["a\u2028b", "c"]),
        ('"two\nlines",b', ["two\nlines", "b"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_is_not_well_formed_is_read_as_it_was_meant(line: str, cells: list[str], size: int) -> None:
    content = f'x,y\n{line}\n"1","2"\n'.encode()
    assert read(content, size, 2) == [["x", "y"], cells, ["1", "2"]]


def test_invalid_text_is_replaced_and_a_mark_at_the_beginning_left_out() -> None:
    assert read(b"\xef\xbb\xbfx,y\na\xff,\xc3\xa9\n", 1, 2) == [["x", "y"], ["a\ufffd", "é"]]


def test_rows_of_another_length_are_counted() -> None:
    reader = LenientReader(2)
    assert reader.feed(b"x,y\n1\n\n1,2,3\n1,2\n") == [["x", "y"], ["1", "2"]]
    assert reader.misshapen == 2


def test_a_quote_that_nobody_closes_is_found_before_the_memory_is_full() -> None:
    check, pieces = QuoteCheck(), 0
    assert check.feed(b'a,"')
    while check.feed(b"x" * 100_000):
        pieces += 1
    assert pieces == LONGEST_CELL // 100_000 - 1


@pytest.mark.parametrize(
    ("beginning", "header"),
    [(b"", None), (b"a,b", None), (b"a,b\n", ["a", "b"]), (b'\xef\xbb\xbf"a",b\r\n1', ["a", "b"]), (b"a\n", []), (b"{}\n", [])],
)
def test_the_header_is_read_from_the_beginning(beginning: bytes, header: list[str] | None) -> None:
    assert header_of(beginning, 2) == header
