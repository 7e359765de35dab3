"""What a push's packing comes to, claim after claim, as if it were done: the counts of a plan, and twenty rows of it."""

import heapq
import json
import zlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson

from syncd.core.batching import may_go_by_sync
from syncd.core.csvfile import read_rows
from syncd.core.pack import PackedBatch, PackedChunk, PackedRow, Packing
from syncd.core.pending import Cells, PendingChange
from syncd.core.preflight import ASKED_ONCE_MORE
from syncd.core.settings import Format
from syncd.core.tally import Fate, Tally

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row as it would be sent: its changes, the key, and what it sets; None clears."""

    change_ids: tuple[int, ...]
    key: str
    cells: Cells
    fate: Fate
    by: Literal["file", "sync"]


@dataclass(frozen=True, slots=True)
class Page:
    """Changes that one claim sees. `again` are keys of which other changes wait too; `fates` of keys that are not updated."""

    changes: Sequence[PendingChange]
    again: Collection[str] = ()
    fates: Mapping[str, Fate] = field(default_factory=dict)
    by_file: Collection[int] = ()


@dataclass(slots=True)
class _Filling:
    """An open chunk. `ids` are its changes, as long as its rows may yet go by Sync Leads instead."""

    chunk: PackedChunk
    bytes_before: int = 0
    tally: Tally = field(default_factory=Tally)
    ids: "array[int] | None" = field(default_factory=lambda: array("q"))
    by_file: bool = False


class _Picked(NamedTuple):
    """A row of the sample; `columns` of a file's."""

    row: PackedRow
    columns: tuple[str, ...] | None
    fate: Fate


@dataclass(frozen=True, slots=True)
class Rare:
    """Rows of open chunks that go by Sync Leads: `ids` are changes of the plan, `chunks` what those have had before."""

    ids: Sequence[int]
    chunks: Sequence[int]


class Course:
    """Follows one section of a plan: pages are packed in turn, and what waits for a key is gathered for the next round."""

    def __init__(self, list_id: int | None, vanished: Collection[str] = (), file_format: Format = "csv") -> None:
        self.tally = Tally()
        self.rounds = 1
        self.opened = False
        self.batch: PackedBatch | None = None
        self.later: array[int] = array("q")
        """Changes that wait for others of their keys."""
        self.normal: list[int] = []
        """Urgent ones that only a file can carry."""
        self._list_id = list_id
        self._vanished = frozenset(vanished)
        self._format: Format = file_format
        self._open: dict[tuple[str, ...], _Filling] = {}
        self._taken: set[str] = set()
        self._sent: dict[str, dict[str, int]] = {}
        self._first: dict[str, int] = {}  # key → the round in which it was sent first
        self._round = 0
        self._gone: Counter[str] = Counter()
        self._sample: list[tuple[int, int, _Picked]] = []

    def open_with(self, chunks: Iterable[PackedChunk], batch: PackedBatch | None, by_file: Collection[int] = ()) -> None:
        """Begin with what is open as things stand."""
        self.batch = batch
        for chunk in chunks:
            self.opened = True
            self._open[chunk.columns] = _Filling(chunk, chunk.byte_count, by_file=chunk.id in by_file)

    def after(self, other: "Course") -> None:
        """What the other has sent has gone before."""
        self._sent, self._first, self._gone, self._round = other._sent, other._first, other._gone, other._round + 1

    @property
    def chunks(self) -> list[PackedChunk]:
        """Those that take rows still."""
        return [filling.chunk for filling in self._open.values()]

    def claimed(self, keys: Iterable[str]) -> dict[str, int]:
        """Those of the keys that rows of this round have."""
        return dict.fromkeys(self._taken.intersection(keys), 0)

    def gone(self, keys: Iterable[str]) -> dict[str, int]:
        """How many changes of those keys have ended already, in this plan."""
        return {key: self._gone[key] for key in keys if key in self._gone} if self._gone else {}

    def overwritten(self, changes: Iterable[PendingChange]) -> list[PendingChange]:
        """The changes, with what this plan has sent of later ones of their keys."""
        return [change if change.key_norm not in self._sent else self._without(change) for change in changes]

    def _without(self, change: PendingChange) -> PendingChange:
        place = change.id if change.place is None else change.place
        later = {name for name, sent in self._sent[change.key_norm].items() if sent > place}
        return change._replace(overwritten=change.overwritten | later) if later else change

    def take(self, page: Page, packing: Packing, *, urgent: bool = False) -> None:
        """Count what `pack` has decided for a page."""
        keys = {change.id: change for change in page.changes}
        self._set_aside(packing, keys, page.again)
        for chunk in packing.chunks:
            filling = self._open.pop(chunk.columns, None) or _Filling(chunk)
            filling.chunk = chunk
            self._fill(filling, page)
            for row in chunk.rows:
                self._note(row, chunk.columns, keys, page)
            chunk.rows = []
            if chunk.full:
                self._file(filling)
            else:
                self._open[chunk.columns] = filling
        for batch in packing.batches:
            self._batch(batch, page, keys)
        if packing.batches and not urgent:
            self.batch = packing.batches[-1]
        self.tally.cuts += bool(packing.batches)

    def _set_aside(self, packing: Packing, changes: Mapping[int, PendingChange], again: Collection[str]) -> None:
        tally = self.tally
        self.later.extend(change_id for change_id, _ in packing.waiting)
        self.later.extend(packing.left)
        self.normal += packing.by_file
        for change_id, state, reason in packing.ended:
            if state == "superseded":
                tally.superseded += 1
            else:
                (tally.noop if state == "noop" else tally.rejected)[reason] += 1
            if changes[change_id].key_norm in again:
                self._gone[changes[change_id].key_norm] += 1
        for _, reason in packing.parked:
            tally.parked[reason] += 1
        for _, name, reason in packing.lacking:
            # If describe says the same when it is asked once more, the change is rejected.
            if name in self._vanished:
                tally.parked[reason] += 1
            else:
                tally.rejected[reason.removesuffix(ASKED_ONCE_MORE)] += 1

    def _fill(self, filling: _Filling, page: Page) -> None:
        chunk = filling.chunk
        for row in chunk.rows:
            filling.tally.row(len(row.change_ids), self._fate(row, page))
        filling.by_file = filling.by_file or any(each in page.by_file for row in chunk.rows for each in row.change_ids)
        if not may_go_by_sync(self._list_id, chunk.columns, chunk.row_count, chunk.byte_count, filling.by_file):
            filling.ids = None
        elif filling.ids is not None:
            filling.ids.extend(each for row in chunk.rows for each in row.change_ids)

    def _batch(self, batch: PackedBatch, page: Page, changes: Mapping[int, PendingChange]) -> None:
        self._call(batch)
        for row in batch.rows:
            self.tally.row(len(row.change_ids), self._fate(row, page))
            self._note(row, None, changes, page)
        batch.rows = []

    def _call(self, batch: PackedBatch) -> None:
        """One call more, unless the batch has been counted at a page before."""
        self.tally.calls += batch.id is not None or batch.row_count == len(batch.rows)
        self.tally.sync_bytes += sum(len(row.line.encode()) + 1 for row in batch.rows)
        batch.id = None

    def _fate(self, row: PackedRow, page: Page) -> Fate:
        return "updated" if row.key_norm in self._sent else page.fates.get(row.key_norm, "updated")

    def _note(self, row: PackedRow, columns: tuple[str, ...] | None, changes: Mapping[int, PendingChange], page: Page) -> None:
        """Remember the row for others of its key, and maybe for the sample, which is the same at each plan."""
        rank = -zlib.crc32(row.key_norm.encode())
        if len(self._sample) < SAMPLE or rank > self._sample[0][0]:
            entry = (rank, -row.change_ids[0], _Picked(row, columns, self._fate(row, page)))
            (heapq.heappush if len(self._sample) < SAMPLE else heapq.heapreplace)(self._sample, entry)
        if row.key_norm in page.again:
            self._taken.add(row.key_norm)
            self._first.setdefault(row.key_norm, self._round)
            set_by = self._sent.setdefault(row.key_norm, {})
            for each in row.change_ids:
                change = changes[each]
                place = each if change.place is None else change.place
                for name in orjson.loads(change.fields):
                    set_by[name] = max(place, set_by.get(name, 0))

    def _file(self, filling: _Filling) -> None:
        """It goes as a file."""
        filling.tally.files += 1
        filling.tally.file_bytes += filling.chunk.byte_count - filling.bytes_before
        filling.tally.file_rows += filling.chunk.row_count
        self.tally.add(filling.tally)

    def flush(self, at_most: int) -> Iterator[Rare]:
        """Seal what is open still; yields what goes by Sync Leads instead, a claim at a time."""
        ids: list[int] = []
        chunks: list[int] = []
        rows = 0
        for filling in self._open.values():
            chunk = filling.chunk
            if filling.tally.rows == 0:
                continue
            if filling.ids is None or not may_go_by_sync(self._list_id, chunk.columns, chunk.row_count, chunk.byte_count, filling.by_file):
                filling.tally.unfilled += 1
                self._file(filling)
                continue
            if ids and rows + chunk.row_count > at_most:
                yield Rare(ids, chunks)
                ids, chunks, rows = [], [], 0
            ids += filling.ids
            chunks += [chunk.id] if chunk.id is not None else []
            rows += chunk.row_count
        self._open.clear()
        if ids:
            yield Rare(ids, chunks)

    def take_rare(self, packing: Packing, page: Page, ours: Collection[int]) -> None:
        """Count what goes by Sync Leads after all; `ours` are the changes of the plan, others only fill calls."""
        for batch in packing.batches:
            self._call(batch)
            for row in batch.rows:
                if any(each in ours for each in row.change_ids):
                    self.tally.rare += 1
                    before = self._first.get(row.key_norm, self._round) < self._round
                    self.tally.row(len(row.change_ids), "updated" if before else page.fates.get(row.key_norm, "updated"))
            batch.rows = []
        if packing.batches:
            self.batch = packing.batches[-1]
        packing.ended = [each for each in packing.ended if each[0] in ours]
        self._set_aside(packing, {change.id: change for change in page.changes}, ())

    def ahead(self, packing: Packing) -> None:
        """Count calls that pass a chunk with Marketo; their changes go once more after it."""
        self.tally.calls += len(packing.batches)
        self.tally.sync_bytes += sum(batch.byte_count for batch in packing.batches)

    def next_round(self) -> "array[int]":
        """The chunks have settled: keys are free again. Returns what waited for them."""
        waited, self.later = self.later, array("q")
        self._taken.clear()
        self._round += 1
        self.batch = None
        return waited

    def sample(self) -> list[SampleRow]:
        """Twenty of the rows, by their first changes."""
        rows = [_sample_row(picked, self._format) for _, _, picked in self._sample]
        return sorted(rows, key=lambda row: row.change_ids)


def _sample_row(picked: "_Picked", file_format: Format) -> SampleRow:
    row, columns, fate = picked
    if columns is None:
        record: dict[str, object] = json.loads(row.line, parse_int=str, parse_float=str)  # no digit is lost
        cells: Cells = {name: None if value is None else _text(value) for name, value in list(record.items())[1:]}
        return SampleRow(tuple(row.change_ids), row.key_norm, cells, fate, "sync")
    (values,) = read_rows(row.line, file_format)
    return SampleRow(tuple(row.change_ids), row.key_norm, dict(zip(columns[1:], values[1:], strict=True)), fate, "file")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
