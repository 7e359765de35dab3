"""Tables and views of the user's, as they are before they are attached: what they have, and why some can't be followed."""

import asyncpg

from syncd.core.mapping import ColumnType, Layout, Relation
from syncd.store import comparing
from syncd.store.leases import Connection

RELATION = """
SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind,
       c.relpersistence = 't' AS temporary, n.nspname IN ('syncd', 'pg_catalog', 'information_schema') AS foreign_to_users,
       EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid) AS is_part, has_table_privilege(c.oid, 'TRIGGER') AS may_trigger,
       row_security_active(c.oid) AS rows_hidden, has_database_privilege(current_database(), 'TEMPORARY') AS may_keep,
       quote_ident(current_database()) AS database, quote_ident(current_user) AS role
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)
"""
COLUMNS = """
WITH RECURSIVE base AS (
    SELECT attnum, attname::text AS name, format_type(atttypid, atttypmod) AS shown, atttypid AS type
      FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
     UNION ALL
    SELECT b.attnum, b.name, b.shown, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT b.name, b.shown, t.typtype = 'e' AS is_enum,
       CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace OR t.typname = 'citext' THEN t.typname::text ELSE '' END AS base
  FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype <> 'd' ORDER BY b.attnum
"""
IDENTITIES = """
SELECT array_agg(a.attname::text ORDER BY k.n) AS columns,
       array_agg(format('%s.%I', t.typnamespace::regnamespace, t.typname) ORDER BY k.n) AS types
  FROM pg_index i
 CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  JOIN pg_type t ON t.oid = a.atttypid
 WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
   AND k.n <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary HAVING bool_and(a.attnotnull) ORDER BY i.indisprimary DESC, i.indexrelid
"""
VIEWS = ("v", "m", "f")  # views, materialized views, foreign tables
PINNED = "SET LOCAL search_path = pg_catalog, pg_temp"
PROBES = "SELECT condition, every FROM syncd.attach_probes($1::text::jsonb)"
UNDEFINED = (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError, asyncpg.UndefinedObjectError)


class NotAttachable(Exception):  # noqa: N818 - of the table or the configuration, not a mistake of ours
    """A table can't be followed; the message says why, and what to do."""


async def relation(connection: Connection, table: str) -> Relation:
    """The table by the name that the configuration has. Raises NotAttachable where it can't be followed."""
    try:
        row = await connection.fetchrow(RELATION, table)
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotAttachable(f"{table}: {error}: GRANT USAGE on its schema to syncd's role") from None
    except (asyncpg.InvalidNameError, asyncpg.PostgresSyntaxError, asyncpg.FeatureNotSupportedError):
        raise NotAttachable(f"{table} is no name of a table: write schema.table, with double quotes around names with capitals") from None
    if row is None:
        raise NotAttachable(f"there is no table {table}; write schema.table, as \\d shows it")
    _may_be_followed(row)
    columns = {
        each["name"]: ColumnType(each["shown"], each["base"], each["is_enum"]) for each in await connection.fetch(COLUMNS, row["oid"])
    }
    if row["kind"] in VIEWS:
        return Relation(row["name"], columns, (), compared=True)
    for each in await connection.fetch(IDENTITIES, row["oid"]):
        # by operators of PostgreSQL's own, as the search_path of a trigger has no others
        if all(columns[name].is_enum or columns[name].base not in ("", "citext") for name in each["columns"]):
            return Relation(row["name"], columns, list(zip(each["columns"], each["types"], strict=True)))
    raise NotAttachable(f"{row['name']} has no primary key, nor a unique index of NOT NULL columns, by which rows are known again")


def _may_be_followed(row: asyncpg.Record) -> None:
    name, role = row["name"], row["role"]
    if row["kind"] not in ("r", "p", *VIEWS) or row["temporary"] or row["foreign_to_users"]:
        raise NotAttachable(f"{name} is no table of yours: only tables, partitioned and foreign ones too, and views can be followed")
    if row["is_part"]:
        raise NotAttachable(f"{name} is a part of another table: name that one")
    if row["kind"] in VIEWS:
        if not row["may_keep"]:
            raise NotAttachable(f"the role {role} may make no temporary tables: GRANT TEMPORARY ON DATABASE {row['database']} TO {role}")
        return
    if not row["may_trigger"]:
        raise NotAttachable(f"the role {role} may not make triggers on {name}: GRANT SELECT, TRIGGER ON {name} TO {role}")
    if row["rows_hidden"]:
        raise NotAttachable(f"row level security hides rows of {name} from the role {role}: ALTER ROLE {role} BYPASSRLS")


async def probe(connection: Connection, layout: Layout, reads: bool) -> None:
    """See whether the triggers, and with `reads` a backfill too, would work by it. Raises NotAttachable."""
    async with connection.transaction():
        probes = await connection.fetchrow(PROBES, layout.text)
        assert probes is not None
        await connection.execute(PINNED)
        try:
            # prepared, as that takes a single statement only
            condition = await connection.prepare(probes["condition"])
            if condition.get_parameters():
                raise NotAttachable("from.where has a parameter such as $1, for which there is no value")
            every = await connection.prepare(probes["every"])
            if reads:
                await condition.fetch()
                await every.fetch()
        except asyncpg.InsufficientPrivilegeError as error:
            otherwise = ", or attach with --no-backfill" if layout.triggers else ""
            raise NotAttachable(f"{error}: GRANT SELECT on it to syncd's role{otherwise}") from None
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError) as error:
            hint = "; functions, types and tables of yours need their schema" if isinstance(error, UNDEFINED) else ""
            raise NotAttachable(f"from.where is no condition on the table's columns: {_first_line(error)}{hint}") from None
        except asyncpg.PostgresError as error:
            if layout.triggers or comparing.is_ours(error) or connection.is_closed():
                raise
            raise NotAttachable(f"it can't be read, {comparing.told(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
