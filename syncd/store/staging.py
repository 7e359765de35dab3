"""Files of exports on their way to the mirror: raw by COPY into a table of texts, from there in slices (decisions.md, extract load)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from syncd.core.mirror import Dictionary
from syncd.core.where import EMAILS, IDS, truth
from syncd.store.leases import Connection

MAKE = "SELECT syncd.make_staging($1, $2)"
DROP = "SELECT syncd.drop_staging(e) FROM unnest($1::bigint[]) e"
DROP_LEFTOVERS = "SELECT syncd.drop_leftover_stagings($1)"
INDEX = "SELECT syncd.index_staging($1, $2)"
# Network and disk may be as slow as they like.
TAKE_YOUR_TIME = "SET LOCAL statement_timeout = 0"
# A plan that was made while the mirror was empty, and is kept, may walk all of it for each lead.
PLAN_EACH = "SET LOCAL plan_cache_mode = 'force_custom_plan'"
SLICE_END = "SELECT syncd.staging_slice($1, $2, $3, $4)"
IDS_OF = "SELECT syncd.staged_ids($1::jsonb, $2, $3)"

SLICE = 5_000
"""Rows of one statement: the memory for them stays the same however long the file is."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a window, in the staging table of its export; `fields` in the order of its columns."""

    export: int
    fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Slice:
    """The leads with ids above `after` and up to `upto`."""

    after: int
    upto: int


@dataclass(frozen=True, slots=True)
class Staged:
    """What is staged of a window, as the statements take it: JSON texts (0003_exports.sql, staged_leads)."""

    export: int
    id_column: int
    parts: str
    columns: str
    conditions: str

    @classmethod
    def of(cls, parts: Sequence[Part], dictionary: Dictionary, where: Mapping[str, tuple[str, ...]]) -> "Staged":
        """The parts of a window that hold `id`, the first of them `email` too; fields that have vanished from describe are left out."""
        numbers: dict[str, int] = {}
        columns = [{"n": 0, "part": 0, "at": place + 1, "name": "email", "kind": ""} for place in _places(parts[0], "email")]
        for number, part in enumerate(parts):
            for place, name in enumerate(part.fields):
                if name in IDS | EMAILS or name in numbers or (dictionary.names and name not in dictionary.names):
                    continue
                numbers[name] = len(numbers) + 1
                column = {"n": numbers[name], "part": number, "at": place + 1, "name": dictionary.names.get(name, name)}
                columns.append(column | {"kind": dictionary.kinds.get(name, "")})
        conditions = []
        for name, allowed in where.items():
            is_boolean = dictionary.kinds.get(name) == "boolean"
            place = -1 if name in IDS else 0 if name in EMAILS else numbers[name]
            conditions.append({"n": place, "truth": is_boolean, "allowed": [truth(one) if is_boolean else one for one in allowed]})
        ids = [{"export": part.export, "id": part.fields.index("id") + 1} for part in parts]
        texts = (orjson.dumps(what).decode() for what in (ids, columns, conditions))
        return cls(parts[0].export, parts[0].fields.index("id") + 1, *texts)


def _places(part: Part, name: str) -> list[int]:
    return [part.fields.index(name)] if name in part.fields else []


async def make(connection: Connection, part: Part) -> None:
    """An empty table for the file of an export, in place of whatever a try before has left."""
    await connection.execute(MAKE, part.export, len(part.fields))


async def drop(connection: Connection, exports: Sequence[int]) -> None:
    """The files are loaded, or never will be."""
    await connection.execute(DROP, list(exports))


async def drop_leftovers(connection: Connection, instance: str) -> int:
    """What a former daemon has left of its tries: a file is downloaded again. Returns how many."""
    return await connection.fetchval(DROP_LEFTOVERS, instance)  # type: ignore[no-any-return]


async def copy(connection: Connection, part: Part, pieces: AsyncIterator[bytes]) -> int:
    """Write a file as it comes, its header first; returns how many records Postgres read.

    Raises asyncpg's BadCopyFileFormatError and CharacterNotInRepertoireError when it can't be read so, and whatever `pieces` raises;
    the table is then empty.
    """
    async with connection.transaction():
        await connection.execute(TAKE_YOUR_TIME)
        said: str = await connection.copy_to_table(
            f"staging_{part.export}", schema_name="syncd", source=pieces, format="csv", header=True, null="null", encoding="utf-8"
        )
    return int(said.split()[-1])


async def index(connection: Connection, part: Part) -> int:
    """Make the rows to be had by the lead's id; returns how many have none."""
    await connection.execute(TAKE_YOUR_TIME)
    return await connection.fetchval(INDEX, part.export, part.fields.index("id") + 1)  # type: ignore[no-any-return]


async def begin(connection: Connection) -> None:
    """To be called first in the transaction that writes slices."""
    await connection.execute(TAKE_YOUR_TIME)
    await connection.execute(PLAN_EACH)


async def next_slice(connection: Connection, staged: Staged, after: int, most: int = SLICE) -> Slice | None:
    """The next so many leads in the order of their ids; None behind the last."""
    upto = await connection.fetchval(SLICE_END, staged.export, staged.id_column, after, most)
    return None if upto is None else Slice(after, upto)


async def ids(connection: Connection, staged: Staged, piece: Slice) -> list[int]:
    """The leads of a slice that are in all parts."""
    return await connection.fetchval(IDS_OF, staged.parts, piece.after, piece.upto)  # type: ignore[no-any-return]
