"""Rows ↔ text of a csv, tsv or ssv file (protocol 4; quoting per RFC 4180)."""

import csv
import io
import re
from collections.abc import Iterable, Iterator

from syncd.core.settings import SEPARATORS, Format

LINE_END = "\n"

csv.field_size_limit(2**31 - 1)  # characters; the module's own limit is 131,072, less than a cell of ours may have

# Quoted too: an empty cell (alone it would be no record) and blanks at the ends, which readers like to strip.
_NEEDS_QUOTES = {name: re.compile(rf'[{separator}"\r\n\u2028\u2029\x85]|^\s|\s$|^$') for name, separator in SEPARATORS.items()}


def render_line(cells: Iterable[str], file_format: Format) -> str:
    """One record with its line end; it reads back to the same cells."""
    needs_quotes = _NEEDS_QUOTES[file_format].search
    return SEPARATORS[file_format].join('"' + cell.replace('"', '""') + '"' if needs_quotes(cell) else cell for cell in cells) + LINE_END


def read_rows(text: str, file_format: Format) -> Iterator[list[str]]:
    """The records of a file, the header first; blank lines are passed over. Never splits at line ends by hand (protocol 3.1)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS[file_format])
    return (row for row in reader if row)
