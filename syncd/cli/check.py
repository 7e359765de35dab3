"""`syncd check`: the database, then each instance, by the daemon that works for it where there is one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path

import asyncpg
import orjson

from syncd.cli.opening import open_database
from syncd.config import exposed
from syncd.core.clock import Clock
from syncd.core.findings import Finding
from syncd.core.quota import Api, CallLedger
from syncd.core.settings import Database, Instance, Settings
from syncd.flows import attached
from syncd.flows.check import probe
from syncd.marketo.wire import open_wire
from syncd.ops.metrics import Metrics
from syncd.store import leases, requests, schema
from syncd.store.embedded import EmbeddedPostgresError
from syncd.store.leases import Connection, Pool
from syncd.store.pool import DatabaseUnavailable, create_pool, without_password
from syncd.store.schema import NotMigrated, SchemaMismatch
from syncd.store.usage import Ledger

Part = tuple[str, list[Finding]]

PATIENCE = 30.0  # seconds, real, that a daemon has to answer
LOOK_EVERY = 0.2  # seconds, real
LONGEST_ANSWER = timedelta(seconds=20)  # a person waits


class _NoLedger:
    """Without the database the calls of a check can't be charged; there are few."""

    async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
        return wanted

    async def give_back(self, api: Api, day: date, unused: int) -> None:
        return


async def check(settings: Settings, file: Path, instances: Sequence[Instance], clock: Clock) -> AsyncGenerator[Part, None]:
    """Try everything; yields a heading ("" for what all instances share) and its findings as they become known."""
    read = Finding("configuration", True, f"{file} is in order; instances: {', '.join(i.name for i in settings.instances) or 'none'}")
    async with AsyncExitStack() as stack:
        findings, pool, migrated = await _database(stack, settings.database, file)
        yield "", [read, *_secrets(settings), *findings]
        for instance in instances:
            followed = await _tables(instance, pool) if pool is not None and migrated else []
            yield instance.name, [*followed, *await _instance(instance, pool, migrated, clock)]


def as_json(parts: Sequence[Part]) -> str:
    """The same for programs; `instance` is null for what all instances share."""
    findings = [{"instance": heading or None} | asdict(finding) for heading, found in parts for finding in found]
    well = all(finding["ok"] for finding in findings)
    return orjson.dumps({"ok": well, "findings": findings}, option=orjson.OPT_INDENT_2).decode()


def _secrets(settings: Settings) -> list[Finding]:
    return [Finding("secret file", False, f"every user of this machine can read {file}", f"chmod o-r {file}") for file in exposed(settings)]


async def _database(stack: AsyncExitStack, settings: Database, file: Path) -> tuple[list[Finding], Pool | None, bool]:
    try:
        dsn = await stack.enter_async_context(open_database(settings))
        pool = await stack.enter_async_context(_pool(dsn))
    except (DatabaseUnavailable, EmbeddedPostgresError) as error:
        happened, _, remedy = str(error).rpartition("; ")
        where = "database.dsn" if settings.dsn else "database.embedded"
        remedy = f"{remedy} ({where} in {file})" if happened else f"correct {where} in {file}"
        return [Finding("database", False, (happened or str(error)).removeprefix("database "), remedy)], None, False
    reached = Finding(
        "database", True, f"{without_password(dsn)} answers" if settings.dsn else f"the embedded server in {settings.embedded} runs"
    )
    try:
        async with pool.acquire() as connection:
            await schema.require_head(connection)
    except SchemaMismatch as error:
        happened, _, remedy = str(error).rpartition(": ")
        remedy = f"run syncd migrate -c {file}" if isinstance(error, NotMigrated) else "upgrade syncd"
        return [reached, Finding("schema", False, happened, remedy)], pool, False
    except asyncpg.InsufficientPrivilegeError as error:
        return (
            [reached, Finding("schema", False, str(error), "grant the user USAGE on the schema syncd and rights on its tables")],
            pool,
            False,
        )
    return [reached, Finding("schema", True, f"at revision {schema.head()}")], pool, True


@asynccontextmanager
async def _pool(dsn: str) -> AsyncIterator[Pool]:
    pool = await create_pool(dsn, application_name="syncd check", min_size=1, max_size=3)
    try:
        yield pool
    finally:
        pool.terminate()


async def _tables(instance: Instance, pool: Pool) -> list[Finding]:
    """By the database alone, and by this configuration, whatever a daemon has."""
    async with pool.acquire() as connection:
        return await attached.tables(connection, instance)


async def _instance(instance: Instance, pool: Pool | None, migrated: bool, clock: Clock) -> list[Finding]:
    """Probe from here while keeping daemons away, or have the daemon that has the instance do it."""
    if pool is None:
        return await _probe(instance, _NoLedger(), clock)
    async with pool.acquire() as connection:
        if not await requests.keep_daemons_away(connection, instance.name):
            answered = await _ask(instance, connection, migrated)
            if answered is not None:
                return answered
        return await _probe(instance, Ledger(instance.name, pool) if migrated else _NoLedger(), clock)


async def _probe(instance: Instance, ledger: CallLedger, clock: Clock) -> list[Finding]:
    network = replace(instance.network, timeout=min(instance.network.timeout, LONGEST_ANSWER))
    async with open_wire(replace(instance, network=network), clock, ledger, Metrics(), may_call=lambda: True) as wire:
        return await probe(instance, wire, clock)


async def _ask(instance: Instance, connection: Connection, migrated: bool) -> list[Finding] | None:
    """The daemon's answer; None when the instance has become free meanwhile, and is ours."""
    if not migrated:
        detail = "a daemon of another version holds this instance; Marketo was not called beside it"
        return [Finding("daemon", False, detail, "run the same version of syncd as the daemon")]
    holder = await leases.current_holder(connection, instance.name)
    who = f"a running daemon (pid {holder.pid} on {holder.host}) holds this instance" if holder else "another command has this instance"
    request_id = await requests.ask_check(connection, instance.name)
    try:
        for _ in range(int(PATIENCE / LOOK_EVERY)):
            answer = await requests.answer_of(connection, request_id)
            if answer is not None:
                return [Finding("daemon", True, f"{who} and made this check, by the configuration that it was started with"), *answer]
            if await requests.keep_daemons_away(connection, instance.name):
                return None
            await asyncio.sleep(LOOK_EVERY)
    finally:
        await requests.withdraw(connection, request_id)
    return [Finding("daemon", False, f"{who} and did not answer within {PATIENCE:.0f} s", "look into its log; if it hangs, restart it")]
