"""`syncd view rebuild`: the typed view with the names, types and order that describe and the YAML ask for now."""

from collections.abc import AsyncGenerator, Iterator, Sequence

import asyncpg

from syncd.cli.failures import Refused
from syncd.cli.opening import open_pool
from syncd.core import drift
from syncd.core.drift import Column, KnownField, View
from syncd.core.settings import Database, Instance
from syncd.store import fields
from syncd.store.leases import Pool


async def rebuild(settings: Database, instances: Sequence[Instance]) -> AsyncGenerator[str, None]:
    """Rebuild the view of each; yields what has changed, as lines for a person. It asks the database only, not Marketo.

    Raises Refused at the end, when a view could not be rebuilt: of such a one nothing has changed. Raises DatabaseUnavailable,
    SchemaMismatch.
    """
    refusals = []
    async with open_pool(settings, "syncd view") as pool:
        for instance in instances:
            try:
                for line in await _rebuild(instance, pool):
                    yield line
            except Refused as refused:
                refusals.append(str(refused))
    if refusals:
        raise Refused("\n".join(refusals))


async def _rebuild(instance: Instance, pool: Pool) -> list[str]:
    view = f"syncd.lead_{instance.name}"
    try:
        async with pool.acquire() as connection, connection.transaction():
            await fields.lock(connection, instance.name)
            before = await fields.read(connection, instance.name)
            if not before:
                raise Refused(f"{view}: the fields of {instance.name} are not known yet; let syncd run reach Marketo once")
            after = drift.rebuilt(before, instance.pulls)
            changed = await fields.give_columns(connection, instance.name, before, after.columns)
            outcome = "refused" if changed else await fields.keep_view(connection, instance.name)
            if outcome == "refused":
                outcome = await fields.keep_view(connection, instance.name, rebuild=True)
    except asyncpg.DependentObjectsStillExistError as error:
        raise Refused(f"{view}: not rebuilt, for others depend on it: {_dependants(error)}; drop them, and make them anew after") from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise Refused(f"{view}: not rebuilt: {_line(error)}; let the role create views in the schema syncd and own this one") from None
    except asyncpg.LockNotAvailableError:
        raise Refused(f"{view}: not rebuilt, for somebody is reading it; try again in a moment") from None
    except asyncpg.WrongObjectTypeError as error:
        raise Refused(f"{view}: not made: {_line(error)}; rename or drop that") from None
    if outcome == "kept":
        return [f"{view}: in step already, {len(after.columns)} fields"]
    return [f"{view}: {outcome}, {len(after.columns)} fields", *_changes(before, after)]


def _changes(before: Sequence[KnownField], after: View) -> Iterator[str]:
    for field in before:
        was, now = field.column, after.columns.get(field.name)
        if was is not None and now is None:
            yield f"  {was.name} removed: no pull asks for {field.name}"
        elif was is None and now is not None:
            yield f"  {now.name} added, {now.type}"
        elif was is not None and now is not None:
            yield from _change(was, now)
    if after.left_out:
        yield f"  {after.left_out} fields left out: PostgreSQL has no wider views"


def _change(was: Column, now: Column) -> Iterator[str]:
    if was.name != now.name:
        yield f"  {was.name} renamed to {now.name}"
    if was.type != now.type:
        yield f"  {now.name} retyped from {was.type} to {now.type}; values that don't fit are null until pulled anew (syncd backfill)"


def _dependants(error: asyncpg.DependentObjectsStillExistError) -> str:
    """Postgres names them in lines such as `view report depends on view syncd.lead_acme`."""
    return "; ".join((error.detail or "unknown ones").splitlines())


def _line(error: asyncpg.PostgresError) -> str:
    return str(error).splitlines()[0]
