"""Whether the tables and views that pushes follow are attached as the configuration has it: for syncd check, and for a daemon's log."""

import asyncpg
import structlog

from syncd.core.findings import Finding
from syncd.core.mapping import Unmappable, layout_of
from syncd.core.settings import FromTable, Instance
from syncd.core.words import moment
from syncd.store import attaching, comparing, relations
from syncd.store.attaching import KEYLESS, Attached
from syncd.store.comparing import Compared
from syncd.store.leases import Connection
from syncd.store.relations import NotAttachable

log = structlog.get_logger()


async def tables(connection: Connection, instance: Instance) -> list[Finding]:
    """One finding for each push that follows a table, or should, or should no longer."""
    attached = await attaching.attachments(connection, instance.name)
    sources = {push.name: push.from_table for push in instance.pushes if push.from_table is not None}
    findings = [await _of_push(connection, instance.name, name, source, attached.get(name)) for name, source in sources.items()]
    return findings + [_left_behind(instance.name, found) for name, found in attached.items() if name not in sources]


async def tell(connection: Connection, instance: Instance) -> None:
    """Say in the log what is not as it should be; nothing stops for it."""
    for finding in await tables(connection, instance):
        if not finding.ok:
            log.warning("table_not_followed", instance=instance.name, what=finding.what, reason=finding.detail, remedy=finding.remedy)


async def _of_push(connection: Connection, instance: str, push: str, source: FromTable, attached: Attached | None) -> Finding:
    what, attach = f"push {push}: table", f"syncd attach -i {instance} --push {push}"
    try:
        layout = layout_of(source, await relations.relation(connection, source.table))
    except (NotAttachable, Unmappable) as error:
        return Finding(what, False, str(error), f"correct the table or the push's from and fields, then {attach}")
    except asyncpg.PostgresError as error:
        if comparing.is_ours(error) or connection.is_closed():
            raise
        return Finding(what, False, f"{source.table} can't be looked up, {comparing.told(error)}", f"see to the cause, then {attach}")
    if attached is None:
        return Finding(what, False, f"{source.table} is not attached: what is written to it goes nowhere", attach)
    if attached.digest != layout.digest:
        detail = f"{attached.relation} is attached by another mapping, or other types of its columns: changes go by those"
        return Finding(what, False, detail, attach)
    if attached.compared is not None:
        return _of_view(what, attached, attached.compared, attach)
    if not attached.fires:
        return Finding(what, False, f"triggers of {attached.relation} are missing or disabled: what is written to it goes nowhere", attach)
    if attached.lost:
        remedy = f"see to the cause, then {attach}: it backfills what was lost"
        return Finding(what, False, f"{attached.relation}: {faults_of(attached)}", remedy)
    if attached.plan_id is not None:
        return Finding(what, False, f"the backfill of {attached.relation} (plan {attached.plan_id}) is not complete", attach)
    told = f"; {faults_of(attached)}" if attached.faults else ""
    return Finding(what, True, f"{attached.relation} is attached, as the configuration has it{told}")


def _of_view(what: str, attached: Attached, compared: Compared, attach: str) -> Finding:
    if compared.based_at is None or compared.compared_at is None:
        return Finding(what, False, f"the first snapshot of {attached.relation} is not complete: it is not compared", attach)
    if compared.failed_at is not None:
        detail = f"{attached.relation} could not be compared at {moment(compared.failed_at)}: {compared.message}"
        return Finding(what, False, detail, f"see to the view; it is tried again when due, and at once by {attach}")
    told = f"; {faults_of(attached)}" if faults_of(attached) else ""
    since = f"{compared.keys:,} keys, compared at {moment(compared.compared_at)}"
    return Finding(what, True, f"{attached.relation} is attached, as the configuration has it: {since}{told}")


def _left_behind(instance: str, attached: Attached) -> Finding:
    then = "it is not compared" if attached.compared is not None else "its changes go on into the outbox"
    detail = f"{attached.relation} is attached, but by the configuration this push does not follow it: {then}"
    return Finding(f"push {attached.push}: table", False, detail, f"syncd detach -i {instance} --push {attached.push}")


def faults_of(attached: Attached) -> str:
    """Rows that did not become changes, by cause."""
    if attached.compared is not None:
        out = comparing.left_out(attached.compared)
        return f"{out} left out" if out else ""
    causes = {"no_key": "without a key", "long_key": "with a key of more than 1,000 bytes"}
    return ", ".join(
        f"{fault.changes:,} rows {causes[fault.code]} left out"
        if fault.code in KEYLESS
        else f"changes of {fault.changes:,} rows in {fault.writes:,} writes lost by error {fault.code}"
        for fault in attached.faults
    )
