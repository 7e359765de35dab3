"""Whether the schema `syncd` is the one that this syncd needs. `migrate.py`, which is slow to import, brings it there."""

from typing import Final

from syncd.store.leases import Connection

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""All there are, the oldest first; a test holds them against the files."""


class SchemaMismatch(Exception):  # noqa: N818 - a state of the world, not a mistake of ours
    """The schema is not the one that this syncd needs; the message says what to do."""


class NotMigrated(SchemaMismatch):
    """The schema is behind, or not there yet."""


class DatabaseNewer(SchemaMismatch):
    """A newer syncd has migrated this database."""


def head() -> str:
    """The revision that this syncd needs."""
    return REVISIONS[-1]


async def revision(connection: Connection) -> str | None:
    """The revision of the database; None when the schema is not there."""
    if await connection.fetchval("SELECT to_regclass('syncd.schema_version')") is None:
        return None
    return await connection.fetchval("SELECT version_num FROM syncd.schema_version")  # type: ignore[no-any-return]


def refuse_newer(found: str | None) -> None:
    """Raises DatabaseNewer for a revision that this syncd does not know."""
    if found is not None and found not in REVISIONS:
        raise DatabaseNewer(f"the schema is at revision {found}, which this syncd does not know: a newer one made it; upgrade syncd")


async def require_head(connection: Connection) -> None:
    """Raises NotMigrated or DatabaseNewer unless the schema is the one that this syncd needs."""
    found = await revision(connection)
    refuse_newer(found)
    if found != head():
        raise NotMigrated(f"the schema is at revision {found or 'none'}, this syncd needs {head()}: run syncd migrate")
