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
    """One record with its line end; it reads back to the same cells.

    Quoted are cells that hold the separator, quotes or line ends; and empty ones (alone one would be no record) and those with blanks
    at the ends, which readers like to strip.
    """
    cells = list(cells)
    separator = SEPARATORS[file_format]
    line = separator.join(cells)
    # A few looks at the whole line tell what to look for in each cell, which most need none of. No line end is printable, nor any other
    # blank than the space.
    if not line.isprintable():
        special = _SPECIAL[file_format].search
        line = separator.join([_quoted(cell) if special(cell) or not cell or cell.strip() != cell else cell for cell in cells])
    elif '"' in line:
        line = separator.join(
            [_quoted(cell) if separator in cell or '"' in cell or not cell or cell[0] == " " or cell[-1] == " " else cell for cell in cells]
        )
    elif _has_more_than_words(line, len(cells), separator):
        line = separator.join(
            [f'"{cell}"' if separator in cell or not cell or cell[0] == " " or cell[-1] == " " else cell for cell in cells]
        )
    return line + LINE_END


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _has_more_than_words(line: str, cells: int, separator: str) -> bool:
    """Whether a cell of the line may hold the separator, be empty, or begin or end with a space."""
    return (
        line.count(separator) != cells - 1
        or separator + separator in line
        or separator + " " in line
        or " " + separator in line
        or line[:1] in ("", " ", separator)
        or line[-1] in (" ", separator)
    )


def read_rows(text: str, file_format: Format) -> Iterator[list[str]]:
    """The records of a file, the header first; blank lines are passed over. Never splits at line ends by hand (protocol 3.1)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS[file_format])
    return (row for row in reader if row)
