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
Verdicts = dict[int, tuple[Verdict, str]]
"""Ordinal → verdict and reason, for all rows but the plainly applied."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    cells: Mapping[str, str]
    reason: str


def parse_results(text: str, file_format: Format) -> list[ResultRow]:
    """The rows of a failures or warnings file; its last column is the reason."""
    rows = read_rows(text.removeprefix("\ufeff"), file_format)
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

    A failure that fits several rows makes all of them `unverified`. Where a failure fits no row, or the file holds fewer than the
    status counts, nobody can tell which of the others failed: they all are, for an unmatched row is never called a success.
    """
    by_key: dict[str, list[SentRow]] = defaultdict(list)
    for row in sent:
        by_key[row.key_norm].append(row)
    verdicts: Verdicts = {}
    for result in warnings:
        # A row with a warning was imported: where several fit, saying too much of one does no harm.
        for row in _fitting(result, sent, by_key, lookup_field):
            verdicts[row.ordinal] = ("warned", result.reason)
    unplaced = failed_count - len(failures)
    for result in failures:
        rows = _fitting(result, sent, by_key, lookup_field)
        if len(rows) == 1:
            verdicts[rows[0].ordinal] = ("rejected", result.reason)
            continue
        unplaced += not rows
        for row in rows:
            if verdicts.get(row.ordinal, ("",))[0] != "rejected":
                verdicts[row.ordinal] = ("unverified", f"Marketo refused a row that this may be: {result.reason}")
    if unplaced > 0:
        reason = f"Marketo says that {failed_count} rows failed, and {unplaced} of them cannot be told from the others"
        for row in sent:
            if verdicts.get(row.ordinal, ("",))[0] != "rejected":
                verdicts[row.ordinal] = ("unverified", reason)
    return verdicts


def _fitting(result: ResultRow, sent: Sequence[SentRow], by_key: Mapping[str, Sequence[SentRow]], lookup_field: str) -> Sequence[SentRow]:
    key = result.cells.get(lookup_field, "").strip().lower()
    if key:
        return by_key.get(key, ())
    return [row for row in sent if all(row.cells.get(name, value) == value for name, value in result.cells.items())]
