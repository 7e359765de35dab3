"""An uploaded import: the multipart body, the table in it, and what each row asks for (protocol section 4)."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from itertools import pairwise

from syncd.simulator.fields import BadValueError, Field, is_email_address
from syncd.simulator.settings import ImportModel
from syncd.simulator.wire import MarketoFault

DELIMITERS = {"csv": ",", "tsv": "\t", "ssv": ";"}
_BOM = "\ufeff"


@dataclass(slots=True)
class Row:
    """One row as it came, the key it names, and either the values it sets or why it cannot be imported."""

    cells: list[str]
    key: str
    values: dict[str, str]
    failure: str | None = None
    warning: str | None = None


@dataclass(frozen=True)
class ImportFile:
    """A parsed upload. `oddities` counts what the protocol warns of."""

    delimiter: str
    header: list[str]
    rows: list[Row]
    keys: frozenset[str]
    oddities: Counter[str]


def file_part(content_type: str, body: bytes) -> tuple[bytes, bool]:
    """The bytes of the part `file`, and whether it names a file and a content type. Raises fault 613 unless it is the one part."""
    top = Message()
    top["Content-Type"] = content_type
    boundary = top.get_boundary()
    if top.get_content_type() != "multipart/form-data" or not boundary:
        raise MarketoFault(613, "Invalid multipart request: the content type names no boundary")
    mark = b"--" + boundary.encode()
    end = body.rfind(b"\r\n" + mark + b"--")
    if not body.startswith(mark + b"\r\n") or end < 0:
        raise MarketoFault(613, "Invalid multipart request: the body is not enclosed by its boundary")
    head, blank, data = body[len(mark) + 2 : end].partition(b"\r\n\r\n")
    if not blank or b"\r\n" + mark in data:
        raise MarketoFault(613, "Invalid multipart request: one part is expected")
    part = HeaderParser().parsestr(head.decode("utf-8", "replace"))
    if part.get_param("name", header="content-disposition") != "file":
        raise MarketoFault(613, "Invalid multipart request: the part 'file' is missing")
    return data, bool(part.get_filename()) and "content-type" in part


def read_import(form: str, data: bytes, lookup_field: str, model: ImportModel, by_rest: Mapping[str, Field]) -> ImportFile:
    """The table of an upload, its rows checked one by one by the instance's fields. Raises fault 1003 for an empty or unreadable file."""
    try:
        table = list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=DELIMITERS[form], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise MarketoFault(1003, f"The file is not readable as {form}") from error
    if len(table) < 2:
        raise MarketoFault(1003, "Empty file")
    header, lines = table[0], [line for line in table[1:] if line]
    reader = _RowReader(header, lookup_field, model, by_rest)
    rows = [reader.read(cells) for cells in lines]
    keys = frozenset(row.key for row in rows if row.key)
    oddities = _header_oddities(header, lookup_field, by_rest)
    oddities["blank cell in import file"] = sum(cells.count("") for cells in lines)
    oddities["row of the wrong width"] = sum(1 for cells in lines if len(cells) != len(header))
    oddities["duplicate key in import file"] = sum(1 for row in rows if row.key) - len(keys)
    return ImportFile(DELIMITERS[form], header, rows, keys, +oddities)


def normalised_key(lookup_field: str, cell: str) -> str:
    """How two lookup values are compared: emails whatever their case, all else by its text."""
    return cell.strip().lower() if lookup_field == "email" else cell.strip()


def _header_oddities(header: list[str], lookup_field: str, by_rest: Mapping[str, Field]) -> Counter[str]:
    oddities: Counter[str] = Counter()
    for name in header:
        field = by_rest.get(name)
        if field is None:
            oddities["header not spelt as describe spells it"] += 1
        elif field.read_only and name != lookup_field:
            oddities["read-only field in import file"] += 1
    oddities["column twice in header"] = sum(1 for one, other in pairwise(sorted(header)) if one == other)
    oddities["header starts with a byte order mark"] = int(header[0].startswith(_BOM))
    return oddities


class _RowReader:
    """Knows which column is which field; columns it cannot use are passed over."""

    def __init__(self, header: list[str], lookup_field: str, model: ImportModel, by_rest: Mapping[str, Field]) -> None:
        self._lookup_field, self._model = lookup_field, model
        self._width = len(header)
        self._lookup_column = header.index(lookup_field) if lookup_field in header else None
        self._columns: list[tuple[int, Field]] = [
            (column, by_rest[name]) for column, name in enumerate(header) if name in by_rest and not by_rest[name].read_only
        ]

    def read(self, cells: list[str]) -> Row:
        column = self._lookup_column
        key = normalised_key(self._lookup_field, cells[column]) if column is not None and column < len(cells) else ""
        row = Row(cells, key, {})
        if not key:
            row.failure = f"Value for lookup field '{self._lookup_field}' not found"
        elif len(cells) > self._width:
            row.failure = "Row has more cells than the header"
        else:
            self._read_values(row)
        return row

    def _read_values(self, row: Row) -> None:
        try:
            for column, field in self._columns:
                cell = row.cells[column] if column < len(row.cells) else ""
                if cell:
                    row.values[field.key] = field.normalised(self._cut(cell))
                elif self._model.blank_clears:
                    row.values[field.key] = ""
        except BadValueError as error:
            row.failure, row.values = str(error), {}
            return
        if row.values.get("email") and not is_email_address(row.values["email"]):
            row.warning = "Invalid email address"

    def _cut(self, cell: str) -> str:
        if self._model.cut_at_emoji and not cell.isascii():
            return next((cell[:place] for place, letter in enumerate(cell) if ord(letter) > 0xFFFF), cell)
        return cell
