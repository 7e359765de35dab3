"""Sync Leads (protocol 4): up to 300 leads written by one call, each with an answer of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from syncd.marketo.errors import garbled, presentable, storable
from syncd.marketo.reading import whole
from syncd.marketo.rest import RestApi

ENDPOINT = "sync_leads"
TIMEOUT = 95.0  # seconds: Marketo itself gives up after 90 (protocol 2)


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of one record. `code` and `message` are the first reason of one that was skipped."""

    status: Literal["written", "skipped"]
    lead_id: int | None = None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """One answer a record, in the order of the input."""

    records: Sequence[Synced]
    request_id: str | None


class SyncLeads:
    """The endpoint of one instance."""

    def __init__(self, rest: RestApi) -> None:
        self._rest = rest

    async def write(self, records: Sequence[str], *, lookup_field: str, partition: str | None, urgent: bool) -> SyncAnswer:
        """Send JSON records, at most 300. Sent at most once: a Fault with `executed` None leaves open whether they were written."""
        order = {"action": "updateOnly" if lookup_field == "id" else "createOrUpdate", "lookupField": lookup_field}
        if partition is not None:
            order["partitionName"] = partition
        head = json.dumps(order).removesuffix("}") + ',"input":['
        body = (head.encode(), ",".join(records).encode(), b"]}")
        answer = await self._rest.act(ENDPOINT, "/rest/v1/leads.json", {}, "application/json", body, urgent=urgent, timeout=TIMEOUT)
        if len(answer.result) != len(records):
            raise garbled(f"{len(records)} records were sent, {len(answer.result)} were answered", ENDPOINT, answer.request_id)
        return SyncAnswer([_synced(entry, answer.request_id) for entry in answer.result], answer.request_id)


def _synced(entry: Any, request_id: str | None) -> Synced:
    match entry:
        case {"status": "created" | "updated"}:
            return Synced("written", whole(entry.get("id")))
        case {"status": "skipped"}:
            reasons = entry.get("reasons")
            reason = next((one for one in reasons if isinstance(one, dict)), {}) if isinstance(reasons, list) else {}
            return Synced("skipped", code=storable(str(reason.get("code", ""))), message=presentable(str(reason.get("message", ""))))
    raise garbled("a record's status is none that is documented", ENDPOINT, request_id)
