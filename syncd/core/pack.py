"""Pending changes → rows of chunks: one row per key, each file under its byte limit (architecture.md, Coalescing and Packing)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from syncd.core.batching import COMPANY_FIELDS, MOST_BYTES, MOST_RECORDS, Number, record_of
from syncd.core.csvfile import render_line
from syncd.core.merge import ECHO, Mirror
from syncd.core.pending import Cells, PendingChange, Target, Verdict, cells_of, place_of, trimmed


@dataclass(slots=True)
class PackedRow:
    ordinal: int
    key_norm: str
    line: str
    change_ids: list[int]
    place: int
    """The latest of its changes' places among those of its key."""


@dataclass(slots=True)
class PackedChunk:
    """Rows for one chunk: an open one that goes on (`id`), or a new one (None). `full` says that it takes no more."""

    columns: tuple[str, ...]
    header: str
    id: int | None = None
    row_count: int = 0
    byte_count: int = 0
    next_ordinal: int = 0
    full: bool = False
    rows: list[PackedRow] = field(default_factory=list)


@dataclass(slots=True)
class PackedBatch:
    """Records for one sync batch: an open one that goes on (`id`), or a new one (None). The `line` of a row is its record."""

    id: int | None = None
    row_count: int = 0
    byte_count: int = 0
    next_ordinal: int = 0
    rows: list[PackedRow] = field(default_factory=list)


@dataclass(slots=True)
class Packing:
    """What a claim decided for each of its rows; `left` are ids that stay as they are until the next claim."""

    chunks: list[PackedChunk] = field(default_factory=list)
    batches: list[PackedBatch] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)  # (change, the chunk it waits for)
    ended: list[tuple[int, str, str]] = field(default_factory=list)  # (change, superseded or rejected, reason)
    parked: list[tuple[int, str]] = field(default_factory=list)  # (change, reason)
    lacking: list[tuple[int, str, str]] = field(default_factory=list)  # (change, the field that it waits for, reason): parked as well
    left: list[int] = field(default_factory=list)
    by_file: list[int] = field(default_factory=list)  # left, and not urgent any more: Sync Leads can't carry them


@dataclass(slots=True)
class _Row:
    """The changes of one key, coalesced."""

    key: str
    key_norm: str
    change_ids: list[int]
    cells: Cells
    place: int


def pack(
    changes: Iterable[PendingChange],
    claimed: Mapping[str, int],
    open_chunks: Iterable[PackedChunk],
    target: Target,
    open_batch: PackedBatch | None = None,
    mirror: Mirror | None = None,
) -> Packing:
    """Decide where each change goes. `changes` come in any order; `claimed` maps keys to the unsettled chunk or batch that has them.

    `mirror` tells what Marketo has already, of keys of which nothing is under way; None: everything is sent.
    """
    packing = Packing()
    files = _Files(open_chunks, target, packing)
    batch = open_batch
    for row in _coalesce(changes, claimed, target, packing):
        if mirror is not None and mirror.has(row.key_norm, row.cells):
            packing.ended.extend((change_id, "noop", ECHO) for change_id in row.change_ids)
        elif target.by_sync or None in row.cells.values():
            batch = _into_batch(row, batch, target, packing)
        else:
            files.add(row)
    packing.chunks.extend(files.touched.values())
    return packing


def _coalesce(changes: Iterable[PendingChange], claimed: Mapping[str, int], target: Target, packing: Packing) -> Iterator[_Row]:
    by_key: dict[str, list[tuple[PendingChange, Cells]]] = {}
    for change in sorted(changes, key=place_of):
        if change.key_norm in claimed:
            packing.waiting.append((change.id, claimed[change.key_norm]))
            continue
        cells = cells_of(change, target)
        if target.by_sync and not isinstance(cells, Verdict) and not COMPANY_FIELDS.isdisjoint(cells):
            packing.by_file.append(change.id)
        elif not isinstance(cells, Verdict):
            by_key.setdefault(change.key_norm, []).append((change, cells))
        elif cells.lacks is not None:
            packing.lacking.append((change.id, cells.lacks, cells.reason))
        elif cells.state == "parked":
            packing.parked.append((change.id, cells.reason))
        else:
            packing.ended.append((change.id, cells.state, cells.reason))
    for key_norm, members in by_key.items():
        change, cells = members[0]
        key = trimmed(change.key)
        if len(members) == 1:
            yield _Row(key, key_norm, [change.id], cells, place_of(change))
            continue
        if target.lookup_field != "email":
            # Whether other keys that differ by case are one is [unknown]: then neither one row, nor two live jobs, nor out of turn.
            differs = [trimmed(change.key) != key for change, _ in members]
            same = differs.index(True) if True in differs else len(members)
            packing.left.extend(change.id for change, _ in members[same:])
            members = members[:same]
        together = _together(members)
        packing.left.extend(change.id for change, _ in members[together:])
        yield _merge(key, key_norm, members[:together], packing)


def _together(members: Sequence[tuple[PendingChange, Cells]]) -> int:
    """How many of a key's changes, in their order, one row can carry: clears go by Sync Leads, which has no company fields."""
    clears = company = False
    for number, (_, own) in enumerate(members):
        clears |= None in own.values()
        company |= not COMPANY_FIELDS.isdisjoint(own)
        if clears and company:
            return number
    return len(members)


def _merge(key: str, key_norm: str, members: Sequence[tuple[PendingChange, Cells]], packing: Packing) -> _Row:
    """One row of a key's changes: later values win; a change all of whose fields are overwritten is superseded."""
    cells: Cells = {}
    setters: dict[str, int] = {}
    for change, own in members:
        cells.update(own)
        setters.update(dict.fromkeys(own, change.id))
    riding = set(setters.values())
    order = {change.id: number for number, (change, _) in enumerate(members)}
    for change, own in members:
        if change.id not in riding:
            newest = max((setters[name] for name in own), key=order.__getitem__)
            packing.ended.append((change.id, "superseded", f"change {newest} set its fields again"))
    return _Row(key, key_norm, sorted(riding), cells, place_of(members[-1][0]))


def _into_batch(row: _Row, batch: PackedBatch | None, target: Target, packing: Packing) -> PackedBatch | None:
    """Add the row to `batch`, or to a new one behind it; returns the one that goes on."""
    lead_id = target.ids.get(row.key_norm)
    record = record_of(target.lookup_field, row.key, row.cells) if lead_id is None else record_of("id", Number(lead_id), row.cells)
    size = len(record.encode()) + 1
    if size > MOST_BYTES:
        reason = f"its record takes {size} bytes: that is more than a call of Sync Leads may hold ({MOST_BYTES})"
        packing.ended.extend((change_id, "rejected", reason) for change_id in row.change_ids)
        return batch
    if batch is None or batch.row_count >= MOST_RECORDS or batch.byte_count + size > MOST_BYTES:
        batch = PackedBatch()
    if not batch.rows:
        packing.batches.append(batch)
    batch.rows.append(PackedRow(batch.next_ordinal, row.key_norm, record, row.change_ids, row.place))
    batch.next_ordinal += 1
    batch.row_count += 1
    batch.byte_count += size
    return batch


class _Columns(NamedTuple):
    """The columns of rows that set the same fields: by the push's lookup field, or by ids; and their values in that order."""

    names: tuple[str, ...]
    by_id: tuple[str, ...]
    values: Callable[[Mapping[str, str | None]], tuple[str, ...]]


class _Files:
    """The open chunks, by their column sets, and the rows that come into them."""

    def __init__(self, open_chunks: Iterable[PackedChunk], target: Target, packing: Packing) -> None:
        self.touched: dict[tuple[str, ...], PackedChunk] = {}
        self._filling = {chunk.columns: chunk for chunk in open_chunks}
        self._target = target
        self._packing = packing
        self._most_bytes = target.max_file_bytes
        self._sorted: dict[tuple[str, ...], _Columns] = {}  # by the names in the order of a change

    def add(self, row: _Row) -> None:
        """Append the row to the chunk of its column set; a chunk that has no room for it is full, and the next one begins."""
        given = tuple(row.cells)
        columns = self._sorted.get(given) or self._sort(given)
        lead_id = self._target.ids.get(row.key_norm)
        key, names = (row.key, columns.names) if lead_id is None else (str(lead_id), columns.by_id)
        line = render_line([key, *columns.values(row.cells)], self._target.format)
        size = len(line) if line.isascii() else len(line.encode())
        chunk = self._filling.get(names)
        if chunk is None or chunk.byte_count + size > self._most_bytes:
            chunk = self._next(chunk, names, size, row.change_ids)
            if chunk is None:
                return
        self.touched[names] = chunk
        chunk.rows.append(PackedRow(chunk.next_ordinal, row.key_norm, line, row.change_ids, row.place))
        chunk.next_ordinal += 1
        chunk.row_count += 1
        chunk.byte_count += size

    def _sort(self, given: tuple[str, ...]) -> _Columns:
        names = sorted(given)
        values = itemgetter(*names) if len(names) > 1 else lambda cells: (cells[names[0]],)
        columns = self._sorted[given] = _Columns((self._target.lookup_field, *names), ("id", *names), values)
        return columns

    def _next(self, full: PackedChunk | None, columns: tuple[str, ...], size: int, change_ids: list[int]) -> PackedChunk | None:
        """A new chunk behind a full one; None where the row fits in no file, and its changes are rejected."""
        header = render_line(columns, self._target.format) if full is None else full.header
        empty_size, most = len(header.encode()), self._most_bytes
        if empty_size + size > most:
            reason = f"its row takes {size} bytes: with the header that is more than a file may hold ({most})"
            self._packing.ended.extend((change_id, "rejected", reason) for change_id in change_ids)
            return None
        if full is not None:
            full.full = True
            self._packing.chunks.append(full)
            self.touched.pop(columns, None)
        chunk = self._filling[columns] = PackedChunk(columns, header, byte_count=empty_size)
        return chunk
