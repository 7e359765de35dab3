"""The dictionary as describe last gave it, and the typed view that is kept in step with it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from syncd.core.drift import Column, ColumnType, KnownField
from syncd.store.leases import LOCK_SPACE, Connection

Outcome = Literal["made", "kept", "extended", "rebuilt", "refused"]

WAIT_NO_LONGER = "SET LOCAL lock_timeout = '2s'"
LOCK = "SELECT pg_advisory_xact_lock($1, hashtext('field ' || $2))"
READ = """
SELECT field, rest_name, soap_name, display_name, data_type, length, read_only, vanished_at IS NOT NULL AS vanished,
       position, column_name, column_type
  FROM syncd.field WHERE instance = $1 ORDER BY ordinal, field
"""
# What is as it was is not written.
REMEMBER = """
INSERT INTO syncd.field AS f (instance, field, ordinal, rest_name, soap_name, display_name, data_type, length, read_only, first_seen_at)
SELECT $1, n.field, n.ordinal, n.rest_name, n.soap_name, n.display_name, n.data_type, n.length, n.read_only, $2
  FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::boolean[]) WITH ORDINALITY
       AS n (field, rest_name, soap_name, display_name, data_type, length, read_only, ordinal)
ON CONFLICT (instance, field) DO UPDATE
   SET ordinal = excluded.ordinal, rest_name = excluded.rest_name, soap_name = excluded.soap_name, display_name = excluded.display_name,
       data_type = excluded.data_type, length = excluded.length, read_only = excluded.read_only, vanished_at = NULL,
       retyped_at = CASE WHEN f.data_type <> excluded.data_type THEN $2 ELSE f.retyped_at END,
       retyped_from = CASE WHEN f.data_type <> excluded.data_type THEN f.data_type ELSE f.retyped_from END
 WHERE (f.ordinal, f.rest_name, f.soap_name, f.display_name, f.data_type, f.length, f.read_only, f.vanished_at)
       IS DISTINCT FROM (excluded.ordinal, excluded.rest_name, excluded.soap_name, excluded.display_name, excluded.data_type,
                         excluded.length, excluded.read_only, NULL)
"""
VANISH = "UPDATE syncd.field SET vanished_at = $2 WHERE instance = $1 AND vanished_at IS NULL AND field <> ALL ($3::text[])"
NAME = """
INSERT INTO syncd.field (instance, field, ordinal, soap_name, display_name, read_only, first_seen_at)
SELECT $1, n.field, n.ordinal, n.field, n.field, false, $2 FROM unnest($3::text[]) WITH ORDINALITY AS n (field, ordinal)
ON CONFLICT (instance, field) DO NOTHING
"""
# Cleared first: names and places that fields swap would collide on the way.
CLEAR_COLUMNS = """
UPDATE syncd.field SET position = NULL, column_name = NULL, column_type = NULL WHERE instance = $1 AND field = ANY ($2::text[])
"""
SET_COLUMNS = """
UPDATE syncd.field f SET position = n.position, column_name = n.column_name, column_type = n.column_type
  FROM unnest($2::text[], $3::integer[], $4::text[], $5::text[]) AS n (field, position, column_name, column_type)
 WHERE f.instance = $1 AND f.field = n.field
"""
KEEP_VIEW = "SELECT syncd.keep_lead_view($1, $2)"


async def lock(connection: Connection, instance: str) -> None:
    """Until the transaction ends, let nobody else change the instance's fields or its view."""
    await connection.execute(LOCK, LOCK_SPACE, instance)


async def read(connection: Connection, instance: str) -> list[KnownField]:
    """All fields that were ever described, in describe's order."""
    rows = await connection.fetch(READ, instance)
    return [_known(*row) for row in rows]


async def remember(connection: Connection, instance: str, fields: Sequence[KnownField], now: datetime) -> None:
    """Write down describe's answer; what is not in it has vanished."""
    await connection.execute(
        REMEMBER,
        instance,
        now,
        [field.name for field in fields],
        [field.rest_name for field in fields],
        [field.soap_name for field in fields],
        [field.display_name for field in fields],
        [field.data_type for field in fields],
        [field.length for field in fields],
        [field.read_only for field in fields],
    )
    await connection.execute(VANISH, instance, now, [field.name for field in fields])


async def name(connection: Connection, instance: str, names: Sequence[str], now: datetime) -> None:
    """Write down fields that the YAML names and nobody describes; those that are known stay as they are."""
    await connection.execute(NAME, instance, now, names)


async def give_columns(connection: Connection, instance: str, before: Sequence[KnownField], columns: Mapping[str, Column]) -> bool:
    """Let fields have these columns, and all others none. Returns whether that is anything new."""
    changed = [field.name for field in before if field.column != columns.get(field.name)]
    given = [(field, columns[field]) for field in changed if field in columns]
    if not changed:
        return False
    await connection.execute(CLEAR_COLUMNS, instance, changed)
    await connection.execute(
        SET_COLUMNS,
        instance,
        [field for field, _ in given],
        [column.position for _, column in given],
        [column.name for _, column in given],
        [column.type for _, column in given],
    )
    return True


async def keep_view(connection: Connection, instance: str, rebuild: bool = False) -> Outcome:
    """Bring the view in step with the columns given, by DDL where it differs; its rights and owner survive a rebuild.

    It waits 2 s at most for whoever reads the view, as all others then wait behind it.

    Raises asyncpg's DependentObjectsStillExistError (of a rebuild), InsufficientPrivilegeError, LockNotAvailableError, and
    WrongObjectTypeError where something else has its name.
    """
    await connection.execute(WAIT_NO_LONGER)
    return await connection.fetchval(KEEP_VIEW, instance, rebuild)  # type: ignore[no-any-return]


def _known(
    name: str,
    rest_name: str | None,
    soap_name: str | None,
    display_name: str,
    data_type: str | None,
    length: int | None,
    read_only: bool,
    vanished: bool,
    position: int | None,
    column_name: str,
    column_type: ColumnType,
) -> KnownField:
    column = None if position is None else Column(position, column_name, column_type)
    return KnownField(name, rest_name, soap_name, display_name, data_type, length, read_only, vanished, column)
