"""`syncd failures`: changes that Marketo did not take, found, explained, exported and sent again. It shows personal data, to whoever may
read the database."""

import csv
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

import asyncpg

from syncd.cli.choosing import push_of
from syncd.cli.enqueue import CHANGE, CLEARED, FAILED_AT, REASON
from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_database
from syncd.config import values
from syncd.core.settings import Database, Instance
from syncd.store import deadletters, schema
from syncd.store.deadletters import Failure, Fate, Retried, Selection, Summary
from syncd.store.pool import CONNECT_TIMEOUT, explained

STATES = ("rejected", "unverified")


@dataclass(frozen=True, slots=True)
class Exported:
    """`unlike_key` set the lookup field otherwise than their key, which one column can't show.

    `too_deep` are not in the file, nor are the `erased`, whose values are no longer kept.
    """

    changes: int
    unlike_key: Sequence[int]
    too_deep: Sequence[int]
    erased: Sequence[int] = ()


def selection_of(
    push: str | None, reason: str | None, state: str | None, since: str | None, until: str | None, retried_too: bool = False
) -> Selection:
    """What the options ask for. Raises Refused."""
    if state is not None and state not in STATES:
        raise Refused(f"syncd failures: --state is rejected or unverified, not {state}", USAGE)
    pushes = None if push is None else (push,)
    return Selection(pushes, reason, state, _moment("--since", since), _moment("--until", until), retried_too=retried_too)


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else values.moment(text)
    except values.NotAllowed as error:
        raise Refused(f"syncd failures: {option} {text} is not allowed; {error}", USAGE) from None


async def read(database: Database, instance: Instance, selection: Selection, limit: int) -> tuple[Summary, list[Failure]]:
    """How many there are, by reason, and the newest of them. Raises DatabaseUnavailable, SchemaMismatch."""
    async with _connected(database) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        found = await deadletters.latest(connection, instance.name, selection, limit) if limit else []
        return await deadletters.summary(connection, instance.name, selection), found


async def one(database: Database, instance: Instance, change_id: int) -> Fate:
    """The change with that id. Raises Refused when there is none, DatabaseUnavailable, SchemaMismatch."""
    async with _connected(database) as connection:
        found = await deadletters.fate(connection, instance.name, change_id)
    if found is None:
        raise Refused(f"syncd failures show: {instance.name} has no change {change_id}")
    return found


async def export(database: Database, instance: Instance, selection: Selection, limit: int | None, file: Path | None) -> Exported:
    """Write the failures of one push as CSV, to stdout without a `file`. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    async with _connected(database) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        pushes = await deadletters.pushes_of(connection, instance.name, selection)
        if len(pushes) > 1:
            raise Refused(f"syncd failures export: these came through several pushes; say which with --push: {', '.join(pushes)}", USAGE)
        if not pushes:
            return Exported(0, (), ())
        lookup_field = push_of(instance, pushes[0]).lookup_field
        names = await deadletters.field_names(connection, instance.name, selection, limit)
        rows = deadletters.walk(connection, instance.name, selection, limit)
        with _opened(file) as target:
            return await _write(target, rows, lookup_field, [name for name in names if name != lookup_field])


def _opened(file: Path | None) -> TextIO:
    """For whoever exports alone to read; never over a file that is there, in which somebody's corrections may be."""
    if file is None:
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="")
    try:
        return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="")
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}; nothing was exported") from None


async def _write(target: TextIO, rows: AsyncIterator[Failure], lookup_field: str, names: Sequence[str]) -> Exported:
    writer = csv.writer(target)
    writer.writerow([lookup_field, *names, CLEARED, CHANGE, REASON, FAILED_AT])
    count, unlike_key, too_deep, erased = 0, [], [], []
    async for row in rows:
        if row.erased is not None:
            erased.append(row.id)
            continue
        try:
            cells = cells_of(row.fields)
        except RecursionError:
            too_deep.append(row.id)
            continue
        own_key = cells.pop(lookup_field, None)
        if own_key is not None and own_key.strip().lower() != row.key.strip().lower():
            unlike_key.append(row.id)
        cleared = [name for name, cell in cells.items() if cell == ""]
        writer.writerow(
            [
                row.key,
                *(cells.get(name, "") for name in names),
                json.dumps(cleared, ensure_ascii=False) if cleared else "",
                row.id,
                row.reason or "",
                row.settled_at.isoformat(timespec="seconds"),
            ]
        )
        count += 1
    return Exported(count, unlike_key, too_deep, erased)


def cells_of(fields: str) -> dict[str, str]:
    """The values of a change as a file has them, numbers with all their digits; an empty one clears its field."""
    found: Mapping[str, object] = json.loads(fields, parse_int=str, parse_float=str)
    return {name: _cell(value) for name, value in found.items()}


def _cell(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


async def proposed(database: Database, instance: Instance, selection: Selection) -> tuple[Selection, Summary, list[str]]:
    """What a retry is about: the selection among the YAML's pushes, how many there are, and other pushes that it leaves alone.

    Raises Refused, DatabaseUnavailable, SchemaMismatch.
    """
    async with _connected(database) as connection:
        if selection.ids is not None:
            found = {each.id for each in await deadletters.latest(connection, instance.name, selection, len(selection.ids))}
            if strange := next((each for each in selection.ids if each not in found), None):
                told = f"change {strange} is no failure of these that waits to be retried; see syncd failures show {strange}"
                raise Refused(f"syncd failures retry: {told}; nothing was retried")
        there = await deadletters.pushes_of(connection, instance.name, selection)
        known = [push.name for push in instance.pushes]
        selection = replace(selection, pushes=[name for name in there if name in known])
        return selection, await deadletters.summary(connection, instance.name, selection), [name for name in there if name not in known]


async def retry(database: Database, instance: Instance, selection: Selection, limit: int | None) -> Retried:
    """Send them again. Raises DatabaseUnavailable, SchemaMismatch."""
    lookup_fields = {push.name: push.lookup_field for push in instance.pushes}
    async with _connected(database) as connection:
        return await deadletters.retry(connection, instance.name, lookup_fields, selection, limit)


def retried_lines(done: Retried) -> list[str]:
    """What a retry did."""
    ids = f", ids {done.first_id} to {done.last_id}" if done.made else ""
    lines = [f"{done.made:,} changes made{ids}"]
    if done.curtailed:
        lines.append(f"{done.curtailed:,} of them without fields that later changes of their keys have set")
    if done.overtaken:
        named = ", ".join(map(str, done.hollow)) + (", …" if done.overtaken > len(done.hollow) else "")
        lines.append(f"{done.overtaken:,} not sent again, as later changes have set all their fields: {named}")
    return lines


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Without the daemon's limits on time: there may be many."""
    async with open_database(database) as dsn:
        with explained(dsn):
            settings = {"application_name": "syncd failures", "TimeZone": "UTC"}
            connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, server_settings=settings)
        try:
            await schema.require_head(connection)
            yield connection
        finally:
            connection.terminate()
