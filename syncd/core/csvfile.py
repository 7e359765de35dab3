"""Rows ↔ text of a csv, tsv or ssv file (protocol 4; quoting per RFC 4180)."""

import csv
import io
import re
from collections.abc import Iterable, Iterator

from syncd.core.settings import SEPARATORS, Format

LINE_END = "\n"

csv.field_size_limit(2**31 - 1)  # characters; the module's own limit is 131,072, less than a cell of ours may have

_SPECIAL = {name: re.compile(rf'[{separator}"\r\n\u2028\u2029\x85]') for name, separator in SEPARATORS.items()}


def render_line(cells: Iterable[str], file_format: Format) -> str:
    """One record with its line end; it reads back to the same cells."""
    cells = list(cells)
    separator, special = SEPARATORS[file_format], _SPECIAL[file_format].search
    # Quoted too: an empty cell (alone it would be no record) and blanks at the ends, which readers like to strip.
    # Most lines need no quotes at all: one search over the line is a third of the time of one for each cell.
    if special("".join(cells)) is not None or "" in cells or [*map(str.strip, cells)] != cells:
        cells = ['"' + cell.replace('"', '""') + '"' if special(cell) or not cell or cell.strip() != cell else cell for cell in cells]
    return separator.join(cells) + LINE_END


def read_rows(text: str, file_format: Format) -> Iterator[list[str]]:
    """The records of a file, the header first; blank lines are passed over. Never splits at line ends by hand (protocol 3.1)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS[file_format])
    return (row for row in reader if row)
