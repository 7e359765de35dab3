"""`syncd switch-source`: lets a pull go on through another source, its mirror and its place kept."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg
import yaml

from syncd.cli.failures import Refused
from syncd.cli.opening import open_database
from syncd.config import values
from syncd.core import drift
from syncd.core.clock import Clock
from syncd.core.drift import Column, KnownField
from syncd.core.faults import Fault
from syncd.core.mirror import Vocabulary
from syncd.core.settings import Database, Instance, Keys, Pull, SmartList, Source, StaticList, UpdatedSince
from syncd.core.words import moment
from syncd.marketo.describe import describe
from syncd.marketo.wire import open_wire
from syncd.ops.metrics import Metrics
from syncd.store import fields, pull_status, pulls, requests, schema, switching
from syncd.store.leases import Connection, Pool
from syncd.store.pool import create_pool
from syncd.store.usage import Ledger


@dataclass(frozen=True, slots=True)
class Switched:
    """What was done. `renamed` leads have their fields by REST's names now; `without_twin` are fields that REST doesn't know."""

    renamed: int
    fields: int
    watermark: datetime | None
    without_twin: Sequence[str]
    pull: Pull


async def switch(database: Database, instance: Instance, pull: Pull, to: Source, clock: Clock) -> Switched:
    """Carry over what `pull` has to the source `to`. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    refuse_impossible(instance, pull, to)
    async with _pool(database) as pool, pool.acquire() as connection:
        await schema.require_head(connection)
        if not await requests.keep_daemons_away(connection, instance.name):
            raise Refused(f"syncd switch-source: a daemon works for {instance.name}; stop it first, it would write under the old names")
        if await pull_status.one(pool, instance.name, pull.name) is None:
            raise Refused(f"syncd switch-source: no daemon has begun the pull {pull.name} yet; just write source: {to} into the YAML")
        known = await _described(instance, pool, connection, clock)
        names = renamed_by(known)
        async with connection.transaction():  # first, as views of others may forbid it
            await fields.lock(connection, instance.name)
            await _carry_columns(connection, instance.name, names)
            await switching.register(connection, instance.name, pull.name, to, pull.since, clock.now())
        leads = await switching.rename_fields(connection, instance.name, names)
        state = await pulls.state(pool, instance.name, pull.name)
    vocabulary = Vocabulary.of([field.as_described() for field in known if not field.vanished])
    without = [name for name in pull.fields if vocabulary.spoken_by(to).on_the_wire(name) is None]
    return Switched(leads, len(names), state.planned_until, without, rewritten(pull, to, vocabulary))


def refuse_impossible(instance: Instance, pull: Pull, to: Source) -> None:
    """Raises Refused when the YAML could not have it so."""
    if pull.source == to:
        raise Refused(f"syncd switch-source: {pull.name} has source: {to} already")
    if (instance.soap if to == "soap" else instance.rest) is None:
        needed = "soap" if to == "soap" else "rest"
        raise Refused(f"syncd switch-source: {to} needs instances.{instance.name}.{needed}: write it into the YAML first")
    able: dict[type, tuple[Source, ...]] = {
        UpdatedSince: ("soap", "bulk_extract", "activities", "auto"),
        StaticList: ("soap", "bulk_extract", "auto"),
        SmartList: ("bulk_extract", "auto"),
        Keys: ("soap",),
    }
    if to not in able[type(pull.select)]:
        raise Refused(
            f"syncd switch-source: {to} can't select as {pull.name} does; its select is for {' or '.join(able[type(pull.select)])}"
        )


def renamed_by(known: Sequence[KnownField]) -> dict[str, str]:
    """Names that the mirror may have from SOAP alone → those that it has by REST; what is a field's name by REST stays."""
    mirrored = {field.name for field in known if field.rest_name is not None}
    return {
        field.soap_name: field.name
        for field in known
        if field.rest_name is not None and field.soap_name not in (None, field.name) and field.soap_name not in mirrored
    }


def rewritten(pull: Pull, to: Source, vocabulary: Vocabulary) -> Pull:
    """The pull as the YAML is to have it; fields that the source does not know are left out."""
    spoken = vocabulary.spoken_by(to)
    name_of = {name: wire for name in (*pull.fields, *pull.where) if (wire := spoken.on_the_wire(name)) is not None}
    return replace(
        pull,
        source=to,
        fields=tuple(dict.fromkeys(name_of[name] for name in pull.fields if name in name_of)),
        columns={name_of[name]: column for name, column in pull.columns.items() if name in name_of},
        where={name_of.get(name, name): allowed for name, allowed in pull.where.items()},
    )


def yaml_of(pull: Pull) -> str:
    """The entry of the pull; what it has by default is left out."""
    entry: dict[str, Any] = {"source": pull.source, "select": _select(pull)}
    asked = [name for name in pull.fields if name not in pull.where or name in pull.columns or not pull.columns]
    if pull.columns:
        entry["fields"] = {pull.columns[name]: name for name in asked if name in pull.columns}
    elif asked:
        entry["fields"] = asked
    if pull.where:
        entry["where"] = {name: list(allowed) for name, allowed in pull.where.items()}
    usual = Pull(pull.name, pull.source, pull.select)
    for key in ("every", "window", "overlap", "margin"):
        if getattr(pull, key) != getattr(usual, key):
            entry[key] = values.duration_text(getattr(pull, key))
    for key in ("batch_size", "streams"):
        if pull.source == "soap" and getattr(pull, key) != getattr(usual, key):
            entry[key] = getattr(pull, key)
    return yaml.safe_dump({pull.name: entry}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def lines_of(switched: Switched, instance: Instance) -> list[str]:
    """What was done and what is to do, for people."""
    pull = switched.pull
    lines = [f"{pull.name}: {switched.renamed:,} leads have their {switched.fields:,} fields by REST's names now"] * bool(switched.renamed)
    if switched.watermark is not None:
        lines.append(f"{pull.name}: goes on from {moment(switched.watermark)}; nothing is pulled again")
    if switched.without_twin:
        lines.append(f"{pull.name}: not to be had from {pull.source}, and left out: {', '.join(switched.without_twin)}")
        lines.append("what the mirror has of them stays as it is")
    lines.append(f"now write this under instances.{instance.name}.pulls, and start syncd run:")
    return [*lines, "", *yaml_of(pull).splitlines()]


def _select(pull: Pull) -> dict[str, Any]:
    match pull.select:
        case UpdatedSince(since):
            return {"updated_since": "beginning" if since == values.BEGINNING else f"{since:%Y-%m-%dT%H:%M:%SZ}"}
        case StaticList(name):
            return {"static_list_id" if isinstance(name, int) else "static_list": name}
        case SmartList(name):
            return {"smart_list_id" if isinstance(name, int) else "smart_list": name}
        case Keys(kind, keys, file):
            return {"keys": {"type": kind, **({"file": str(file)} if file else {"values": list(keys)})}}


async def _described(instance: Instance, pool: Pool, connection: Connection, clock: Clock) -> list[KnownField]:
    """The fields as Marketo described them; where it never has, it is asked now, as no daemon is there to ask."""
    known = [field for field in await fields.read(connection, instance.name) if field.data_type is not None]
    if known or instance.rest is None:
        return known
    try:
        async with open_wire(instance, clock, Ledger(instance.name, pool), Metrics(), may_call=lambda: True) as wire:
            assert wire.rest is not None
            described = drift.known(await describe(wire.rest))
    except Fault as fault:
        raise Refused(f"syncd switch-source: the names of the fields can't be had: {fault}; run syncd check") from None
    async with connection.transaction():
        await fields.lock(connection, instance.name)
        await fields.remember(connection, instance.name, described, clock.now())
    return described


async def _carry_columns(connection: Connection, instance: str, names: Mapping[str, str]) -> None:
    """The view keeps its columns, which show the fields by their other names from now on."""
    stored = await fields.read(connection, instance)
    columns: dict[str, Column] = {}
    for field in stored:
        if field.column is not None:
            columns.setdefault(names.get(field.name, field.name), field.column)
    if any(field.name in names for field in stored):
        await fields.give_columns(connection, instance, stored, columns)
        await switching.forget_fields(connection, instance, list(names))
        try:
            await fields.keep_view(connection, instance, rebuild=True)
        except asyncpg.DependentObjectsStillExistError:
            raise Refused(
                f"syncd switch-source: views of yours depend on syncd.lead_{instance}: drop them, and make them anew after"
            ) from None


@asynccontextmanager
async def _pool(database: Database) -> AsyncIterator[Pool]:
    async with open_database(database) as dsn:
        pool = await create_pool(dsn, application_name="syncd switch-source", min_size=1, max_size=3)
        try:
            yield pool
        finally:
            pool.terminate()
