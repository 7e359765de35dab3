"""The file of an export: rendered from leads, or planted; held in pieces and served from any byte on (protocol section 3.1)."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncd.simulator.fields import Field, utc_text
from syncd.simulator.world import Lead

_PIECE_BYTES = 1 << 18
_ROWS_AT_ONCE = 1_000
_EMPTY = "null"
_ODD_EVERY = 10
IN_THE_FILE = frozenset({"file_nul", "file_stray_cr", "file_bad_quotes", "file_u2028", "file_header_changed"})
"""Oddities that are part of the file, and so of its size and checksum."""
_TEXTS = frozenset({"string", "text", "formula"})


@dataclass(frozen=True)
class ExportFile:
    """What a job leaves behind. `source` begins the file anew each time, so that a big one need not be in memory."""

    records: int
    size: int
    sha256: str
    source: Callable[[], Iterable[bytes]]

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`."""
        passed = 0
        for piece in self.source():
            if passed >= end:
                return
            if passed + len(piece) > start:
                yield piece[max(0, start - passed) : end - passed]
            passed += len(piece)


def of_pieces(source: Callable[[], Iterable[bytes]], records: int, size: int | None = None, sha256: str | None = None) -> ExportFile:
    """A file of what `source` yields; size and checksum are found out by reading it once, unless both are given."""
    if size is None or sha256 is None:
        digest, size = hashlib.sha256(), 0
        for piece in source():
            digest.update(piece)
            size += len(piece)
        sha256 = digest.hexdigest()
    return ExportFile(records, size, sha256, source)


def of_path(path: Path, records: int) -> ExportFile:
    """A file that lies on the disk, and must stay there."""

    def source() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    return of_pieces(source, records)


def rendered(leads: Iterable[Lead], fields: Sequence[Field], headers: Mapping[str, str], oddities: frozenset[str]) -> ExportFile:
    """The leads as CSV: the header, an empty value as the text null, datetimes in UTC; `headers` may rename columns."""
    header = [headers.get(field.key, field.key) for field in fields]
    if "file_header_changed" in oddities:
        header[-1] = fields[-1].display_name
    writer = _Writer(fields, oddities)
    writer.line(header)
    records = 0
    for lead in leads:
        writer.lead(lead, records)
        records += 1
    pieces = writer.pieces()
    return of_pieces(lambda: pieces, records)


class _Writer:
    """Collects lines, and keeps them as bytes from time to time."""

    def __init__(self, fields: Sequence[Field], oddities: frozenset[str]) -> None:
        self._keys = [field.key for field in fields]
        self._ids = [place for place, field in enumerate(fields) if field.key == "id"]
        self._moments = [place for place, field in enumerate(fields) if field.data_type == "datetime"]
        self._texts = [place for place, field in enumerate(fields) if field.data_type in _TEXTS]
        self._oddities = sorted(oddities & _SPOILT.keys())
        self._lines: list[str] = []
        self._done: list[bytes] = []
        # Ending lines by CR LF makes the csv module quote values with either of them.
        self._csv = csv.writer(self, lineterminator="\r\n")

    def write(self, line: str) -> int:
        """What the csv module calls, line by line."""
        self._lines.append(line[:-2])
        if len(self._lines) >= _ROWS_AT_ONCE:
            self._keep()
        return len(line)

    def line(self, cells: list[str]) -> None:
        self._csv.writerow(cells)

    def lead(self, lead: Lead, number: int) -> None:
        values = lead.values
        cells = [values.get(key) or _EMPTY for key in self._keys]
        for place in self._ids:
            cells[place] = str(lead.id)
        for place in self._moments:
            cells[place] = utc_text(cells[place])
        if self._oddities and number % _ODD_EVERY == 0:
            self._spoil(cells)
        else:
            self._csv.writerow(cells)

    def pieces(self) -> list[bytes]:
        self._keep()
        return self._done

    def _keep(self) -> None:
        if self._lines:
            self._done.append(("\n".join(self._lines) + "\n").encode())
            self._lines.clear()

    def _spoil(self, cells: list[str]) -> None:
        """Spoil the first text with a value, and write all cells quoted but for where the oddity is that they are not."""
        spoilt = next((place for place in self._texts if cells[place] != _EMPTY and len(cells[place]) > 1), None)
        shown = [_quoted(cell) if any(mark in cell for mark in ',"\r\n') else cell for cell in cells]
        if spoilt is not None:
            for oddity in self._oddities:
                shown[spoilt] = _SPOILT[oddity](cells[spoilt])
        self.write(",".join(shown) + "\r\n")


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _with(mark: str, cell: str) -> str:
    return cell[:1] + mark + cell[1:]


_SPOILT: dict[str, Callable[[str], str]] = {
    "file_nul": lambda cell: _quoted(_with("\0", cell)),
    "file_u2028": lambda cell: _quoted(_with("\u2028", cell)),
    # Neither of these two is RFC 4180: a CR outside quotes, and a quote inside them that is not doubled.
    "file_stray_cr": lambda cell: _with("\r", "".join(letter for letter in cell if letter not in ',"\r\n')),
    "file_bad_quotes": lambda cell: '"' + _with('"', cell.replace('"', "")) + '"',
}
