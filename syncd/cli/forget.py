"""`syncd forget`: who it is, what there is of them, and how far the daemon, or we in its place, have come in erasing it."""

import asyncio
import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import structlog

from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.core.clock import Clock
from syncd.core.forget import EMAIL, ID, Key, Person, normal
from syncd.core.settings import Database, Instance
from syncd.core.words import moment
from syncd.flows.forget import Forgetter
from syncd.marketo.deleting import LeadDeletion
from syncd.marketo.wire import open_wire
from syncd.ops.metrics import Metrics
from syncd.store import erasing, forget_requests, leases, requests
from syncd.store.forget_requests import Receipt
from syncd.store.leases import Connection, Lease, Pool
from syncd.store.usage import Ledger

PATIENCE = 30.0  # seconds, real, that a person waits for what takes that long at most where no import is under way
LOOK_EVERY = 0.2  # seconds, real
SILENCE = 15.0  # seconds, as the daemon's
LONGEST_ID = 18  # digits
RECEIPT = "receipt "
"""What the line begins with that `--receipts` reads."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Who would be forgotten; of their changes, `live` have not settled, and `carried` more are with Marketo perhaps."""

    person: Person
    live: int
    carried: int


def key_of(who: str | None, again: bool, receipts: Path | None) -> Key | None:
    """What the person is found by; None for all who were forgotten. Raises Refused."""
    if (who is None) != again or (receipts is not None and not again):
        raise Refused("syncd forget: give an EMAIL or ID, or --again, for which --receipts is; see syncd forget --help", USAGE)
    if who is None:
        return None
    kind = EMAIL if "@" in who else ID
    if kind == ID and not (who.isascii() and who.isdigit() and len(who) <= LONGEST_ID and normal(ID, who)):
        raise Refused("syncd forget: that is neither an email address nor the id of a lead", USAGE)
    return kind, who


def refuse_without_rest(instance: str) -> NoReturn:
    """Raises Refused."""
    raise Refused(
        f"syncd forget: --delete-in-marketo needs instances.{instance}.rest: write it into the YAML, or leave the option out", USAGE
    )


def read_receipts(file: Path, instance: str) -> list[bytes]:
    """The hashes of an instance in what this command has printed; other lines are passed over. Raises Refused."""
    try:
        lines = file.read_text("utf-8").splitlines()
        found = [json.loads(line.removeprefix(RECEIPT)) for line in lines if line.startswith(RECEIPT)]
        return [bytes.fromhex(each) for one in found if one["instance"] == instance for each in one["hashes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a receipt in it is broken off"
        raise Refused(f"syncd forget: {file} can't be read: {reason}") from None


async def propose(database: Database, instance: Instance, key: Key | None, hashes: Sequence[bytes]) -> Proposal:
    """Who that is, and what there is of them. Hashes of receipts are kept at once. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    pushes = _pushes(instance)
    async with open_pool(database, "syncd forget") as pool, pool.acquire() as connection, connection.transaction():
        if key is None:
            await forget_requests.keep_received(connection, instance.name, hashes)
            person = await forget_requests.found_again(connection, instance.name, pushes)
        else:
            try:
                person = await erasing.person_of(connection, instance.name, key, pushes)
            except erasing.NoPersonError:
                told = f"more than {erasing.MOST_LEADS:,} leads belong to it: that is no person; forget them by their ids"
                raise Refused(f"syncd forget: {told}") from None
        live, carried = await erasing.live(connection, instance.name, person, pushes)
    return Proposal(person, len(live), carried)


def proposal_lines(instance: str, proposal: Proposal, delete_in_marketo: bool, again: bool) -> list[str]:
    """What is there. No keys: whoever asked knows them."""
    person = proposal.person
    if again and not person.keys:
        return [f"{instance}: nobody who was forgotten is there again"]
    lines = [f"{instance}: {len(person.ids):,} leads by id, {len(person.emails):,} addresses; all that is kept of them will be erased"]
    if proposal.live:
        lines.append(f"{instance}: {proposal.live:,} of their changes wait: they will be cancelled")
    if proposal.carried:
        lines.append(f"{instance}: {proposal.carried:,} may be at Marketo: they are erased when they have settled")
    if delete_in_marketo and not person.ids:
        lines.append(f"{instance}: of no lead of theirs the id is known, so that Marketo can't be asked to delete one")
    elif delete_in_marketo:
        lines.append(f"{instance}: Marketo will be asked to delete {len(person.ids):,} leads")
    return lines


async def carry_out(database: Database, instance: Instance, person: Person, delete_in_marketo: bool, again: bool, clock: Clock) -> Receipt:
    """Refuse the person from now on, and wait, not for ever, until nothing is left. Where no daemon works for the instance, do its work.

    Raises DatabaseUnavailable, SchemaMismatch.
    """
    async with open_pool(database, "syncd forget", size=4) as pool:
        async with pool.acquire() as connection, connection.transaction():
            receipt_id = await forget_requests.begin(connection, instance.name, person, delete_in_marketo, again)
        async with pool.acquire() as connection:
            for _ in range(int(PATIENCE / LOOK_EVERY)):
                receipt = await forget_requests.receipt(pool, receipt_id)
                if receipt.finished_at is not None:
                    break
                if await requests.keep_daemons_away(connection, instance.name):
                    await _in_the_daemons_place(instance, pool, connection, receipt_id, clock)
                    break
                await asyncio.sleep(LOOK_EVERY)
        return await forget_requests.receipt(pool, receipt_id)


async def _in_the_daemons_place(instance: Instance, pool: Pool, connection: Connection, receipt_id: int, clock: Clock) -> None:
    """Nobody settles imports here: what is carried waits for the daemon."""
    lease = await leases.acquire(connection, pool, instance.name, uuid4(), SILENCE)
    assert lease is not None, "its lock is ours"
    async with open_wire(instance, clock, Ledger(instance.name, pool), Metrics(), lease.is_sure) as wire:
        api = LeadDeletion(wire.rest) if wire.rest is not None else None
        jitter = random.Random()  # noqa: S311 - backoff, not secrets
        flow = Forgetter(instance, api, lease, clock, Metrics(), jitter, _only_troubles())
        for _ in range(int(PATIENCE / LOOK_EVERY)):
            await _step(flow, lease, connection)
            receipt = await forget_requests.receipt(pool, receipt_id)
            if receipt.finished_at is not None or receipt.message is not None or await _is_carried(instance, pool, receipt_id):
                return
            await asyncio.sleep(LOOK_EVERY)


def _only_troubles() -> Any:
    """What went well stands in the receipt."""
    return structlog.wrap_logger(structlog.WriteLogger(sys.stderr), wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


async def _step(flow: Forgetter, lease: Lease, connection: Connection) -> None:
    await lease.heartbeat(connection)
    await flow.step()


async def _is_carried(instance: Instance, pool: Pool, receipt_id: int) -> bool:
    for request in await forget_requests.open_ones(pool, instance.name):
        if request.receipt_id == receipt_id:
            async with pool.acquire() as connection:
                return (await erasing.live(connection, instance.name, request.person, _pushes(instance)))[1] > 0
    return False


def receipt_lines(receipt: Receipt) -> list[str]:
    """What was done, for people, and as the line that is to be kept."""
    counts = ", ".join(f"{table} {count:,}" for table, count in sorted(receipt.erased.items())) or "nothing was there"
    lines = [f"{receipt.instance}: erased: {counts}"]
    if receipt.in_marketo == "deleted":
        lines.append(f"{receipt.instance}: Marketo has deleted {receipt.deleted:,}; others were not there any more")
    elif receipt.in_marketo == "refused":
        lines.append(
            f"{receipt.instance}: Marketo has deleted {receipt.deleted:,}, and refused others: delete them there; see the daemon's log"
        )
    if receipt.finished_at is None:
        why = f"Marketo has not deleted them yet: {receipt.message}" if receipt.message else "an import, a transaction, or the daemon"
        lines.append(f"{receipt.instance}: not finished, waits for: {why}; syncd run sees to it, and syncd.forget_receipt tells when")
    else:
        lines.append(f"{receipt.instance}: finished {moment(receipt.finished_at)}")
    lines.append("keep this line: after a restore, syncd forget --again --receipts FILE reads it")
    return [*lines, f"{RECEIPT}{json.dumps(_as_json(receipt))}"]


def _as_json(receipt: Receipt) -> dict[str, object]:
    return {
        "id": receipt.id,
        "instance": receipt.instance,
        "forgotten_at": receipt.forgotten_at.isoformat(timespec="seconds"),
        "finished_at": receipt.finished_at and receipt.finished_at.isoformat(timespec="seconds"),
        "hashes": [each.hex() for each in receipt.hashes],
        "erased": dict(receipt.erased),
        "in_marketo": receipt.in_marketo,
        "deleted": receipt.deleted,
    }


def _pushes(instance: Instance) -> dict[str, str]:
    return {push.name: push.lookup_field for push in instance.pushes}
