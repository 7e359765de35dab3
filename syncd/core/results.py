"""Failures and warnings files ↔ the rows of a chunk (protocol 4).

The files carry no row numbers, may lack columns, and rows may come back a cell short: rows are found again by their key, and
where the key is not to be seen, by the cells that are.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from syncd.core.csvfile import read_rows
from syncd.core.settings import Format


@dataclass(frozen=True, slots=True)
class SentRow:
    """A row of the chunk: its cells by column."""

    ordinal: int
    key_norm: str
    cells: Mapping[str, str]


Verdict = Literal["rejected", "warned", "unverified"]
MAY_BE = "Marketo refused a row that this may be"

Verdicts = dict[int, tuple[Verdict, str]]
"""Ordinal → verdict and reason, for all rows but the plainly applied."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    cells: Mapping[str, str]
    reason: str


def parse_results(text: str, file_format: Format) -> list[ResultRow]:
    """The rows of a failures or warnings file; its last column is the reason. NUL, which Postgres refuses, is cut."""
    rows = read_rows(text.removeprefix("\ufeff").replace("\0", ""), file_format)
    header = next(rows, None)
    if header is None:
        return []
    columns = header[:-1]
    # A row can come back a cell short: its reason is the last cell it has, and what is missing stood before it.
    return [ResultRow(dict(zip(columns, row[:-1], strict=False)), row[-1]) for row in rows]


def settle_rows(
    sent: Sequence[SentRow], failures: Sequence[ResultRow], warnings: Sequence[ResultRow], lookup_field: str, failed_count: int
) -> Verdicts:
    """The rows of a finished job that are not plainly applied; `failed_count` is how many rows failed by the job's status.

    A failure that fits several rows makes all of them `unverified`. Where a failure fits no row, or fewer were found than the
    status counts, nobody can tell which of the others failed: they all are, for an unmatched row is never called a success.
    """
    by_key: dict[str, list[SentRow]] = defaultdict(list)
    for row in sent:
        by_key[_folded(row.cells[lookup_field])].append(row)
    verdicts: Verdicts = {}
    for result in warnings:
        # A row with a warning was imported: where several fit, saying too much of one does no harm.
        for row in _fitting(result, sent, by_key, lookup_field):
            verdicts[row.ordinal] = ("warned", result.reason)
    found = unmatched = 0
    # What fits one row first: those rows are none of what the ambiguous ones may be.
    for result, rows in sorted(
        ((result, _fitting(result, sent, by_key, lookup_field)) for result in failures), key=lambda fit: len(fit[1])
    ):
        unmatched += not rows
        doubtful = [row for row in rows if verdicts.get(row.ordinal, ("",))[0] != "rejected"]
        found += bool(doubtful)
        for row in doubtful:
            known = len(rows) == 1
            verdicts[row.ordinal] = ("rejected", result.reason) if known else ("unverified", f"{MAY_BE}: {result.reason}")
    unplaced = unmatched + max(0, failed_count - min(found, sum(verdict != "warned" for verdict, _ in verdicts.values())))
    if unplaced:
        reason = f"Marketo says that {failed_count} rows failed, and {unplaced} of them cannot be told from the others"
        for row in sent:
            if verdicts.get(row.ordinal, ("",))[0] != "rejected":
                verdicts[row.ordinal] = ("unverified", reason)
    return verdicts


def keys_of(results: Sequence[ResultRow], lookup_field: str) -> list[str] | None:
    """The keys that the results name, folded; None when one of them shows none."""
    keys = [_folded(result.cells.get(lookup_field, "")) for result in results]
    return keys if all(keys) else None


def _fitting(result: ResultRow, sent: Sequence[SentRow], by_key: Mapping[str, Sequence[SentRow]], lookup_field: str) -> Sequence[SentRow]:
    key = _folded(result.cells.get(lookup_field, ""))
    if key:
        return by_key.get(key, ())
    visible = [(name, value) for name, value in result.cells.items() if value]
    return [row for row in sent if all(row.cells.get(name, value) == value for name, value in visible)]


def _folded(key: str) -> str:
    return key.strip().lower()
