"""A CSV file → changes in the outbox, all of them or none."""

import csv
import difflib
import io
import os
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import BinaryIO

import asyncpg
import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from syncd.cli.failures import Refused
from syncd.cli.opening import open_database
from syncd.core.settings import Push, Settings
from syncd.store import schema
from syncd.store.enqueue import Enqueued, NewChange, NotMendable, Priority, enqueue_all
from syncd.store.pool import CONNECT_TIMEOUT, explained

REPORT_EVERY = 1_000  # rows
CHANGE, CLEARED, REASON, FAILED_AT = "syncd:change", "syncd:clear", "syncd:reason", "syncd:failed_at"
"""Columns that syncd failures export writes beside the fields; no field of Marketo's is called so."""
_OURS = frozenset({CHANGE, CLEARED, REASON, FAILED_AT})
_MARKS = {";": "semicolons", "\t": "tabs"}  # what spreadsheets write instead of commas, some by their language


async def enqueue(
    settings: Settings,
    instance: str,
    push: Push,
    file: Path,
    key_column: str | None,
    clear_empty: bool,
    priority: Priority = "normal",
) -> Enqueued:
    """Read `file` into the outbox in one transaction. Raises Refused with the file's line, DatabaseUnavailable, SchemaMismatch."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    try:
        source = file.open("rb")
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    with source, Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"into {push.name}", total=os.fstat(source.fileno()).st_size or None)

        def show(position: int) -> None:
            progress.update(task, completed=position)

        with closing(read_changes(source, str(file), key_column or push.lookup_field, clear_empty, show)) as changes:
            async with open_database(settings.database) as dsn, _connected(dsn) as connection:
                try:
                    return await enqueue_all(connection, instance, push.name, changes, priority)
                except NotMendable as error:
                    raise Refused(f"{file}: {error}; leave its row out, or its cell in {CHANGE}; nothing was enqueued") from None


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    with explained(dsn):
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, server_settings={"application_name": "syncd enqueue"})
    try:
        await schema.require_head(connection)
        yield connection
    finally:
        connection.terminate()


def read_changes(
    source: BinaryIO, name: str, key_column: str, clear_empty: bool, progress: Callable[[int], None]
) -> Generator[NewChange, None, None]:
    """The change of each row; `progress` is told the bytes read. Raises Refused with `name` and the line."""
    # utf-8-sig: spreadsheets begin their files with a byte order mark
    text = io.TextIOWrapper(source, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    line, has_positions = 1, source.seekable()  # a pipe has none
    try:
        header = next(reader, [])
        key_at = _key_at(header, key_column, name)
        mended: set[int] = set()
        line = reader.line_num + 1
        for count, row in enumerate(reader):
            if row:
                _see_to(row, header, key_at, f"{name}:{line}")
                ours = {column: cell for column, cell in zip(header, row, strict=True) if column in _OURS and cell}
                fields = {
                    column: cell or None
                    for at, (column, cell) in enumerate(zip(header, row, strict=True))
                    if at != key_at and column not in _OURS and (cell or clear_empty)
                }
                cleared = dict.fromkeys(_cleared(ours.get(CLEARED), f"{name}:{line}"))
                mends = _mends(ours.get(CHANGE), mended, f"{name}:{line}")
                yield NewChange(row[key_at], orjson.dumps(cleared | fields).decode(), mends)
            line = reader.line_num + 1
            if has_positions and count % REPORT_EVERY == 0:
                progress(source.tell())
    except UnicodeDecodeError:
        raise Refused(f"{name}: is not UTF-8 text, at or after line {line}; nothing was enqueued") from None
    except csv.Error as error:
        raise Refused(f"{name}:{line}: is not CSV ({error}); nothing was enqueued") from None
    finally:
        text.detach()


def _key_at(header: Sequence[str], key_column: str, name: str) -> int:
    if not header:
        raise Refused(f"{name}:1: needs a header of REST field names; nothing was enqueued")
    if blank := next((at for at, column in enumerate(header, 1) if not column.strip()), None):
        raise Refused(f"{name}:1: column {blank} has no name; nothing was enqueued")
    if twice := next((column for column in header if header.count(column) > 1), None):
        raise Refused(f'{name}:1: two columns are named "{twice}"; nothing was enqueued')
    if len(header) == 1 and (separator := next((mark for mark in _MARKS if mark in header[0]), None)):
        raise Refused(f"{name}:1: seems to be separated by {_MARKS[separator]}; save it separated by commas; nothing was enqueued")
    if key_column not in header:
        near = difflib.get_close_matches(key_column, header, n=1)
        hint = f'is it "{near[0]}"? then give --key {near[0]}' if near else "name the column that holds the key with --key"
        raise Refused(f'{name}:1: has no column "{key_column}"; {hint}; nothing was enqueued')
    return header.index(key_column)


def _see_to(row: Sequence[str], header: Sequence[str], key_at: int, place: str) -> None:
    if len(row) != len(header):
        raise Refused(f"{place}: has {len(row)} cells, the header {len(header)}; nothing was enqueued")
    if not row[key_at].strip():
        raise Refused(f'{place}: has no key (column "{header[key_at]}" is empty); nothing was enqueued')
    if any("\0" in cell for cell in row):
        raise Refused(f"{place}: holds a NUL character, which PostgreSQL can't keep; nothing was enqueued")


def _cleared(cell: str | None, place: str) -> list[str]:
    """The fields that a row of an exported file clears; those that have a value again by now are set."""
    if cell is None:
        return []
    try:
        names = orjson.loads(cell)
    except orjson.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(f'{place}: {CLEARED} holds no list of fields such as ["company"]; nothing was enqueued')
    return names


def _mends(cell: str | None, seen: set[int], place: str) -> int | None:
    """The failed change that a row of an exported file stands for."""
    if cell is None:
        return None
    if not (cell.isascii() and cell.isdigit() and len(cell) <= 18):
        raise Refused(f"{place}: {CHANGE} holds no id of a change; nothing was enqueued")
    if int(cell) in seen:
        raise Refused(f"{place}: change {cell} stands in the file twice; nothing was enqueued")
    seen.add(int(cell))
    return int(cell)
