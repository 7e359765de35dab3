"""Leads deleted by their ids (protocol 3.4)."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from syncd.marketo.errors import garbled
from syncd.marketo.rest import RestApi

ENDPOINT = "delete_leads"
MOST_IDS = 300
TIMEOUT = 95.0  # seconds, as Marketo's other writes: it gives up by itself after 90 (protocol 2)
NOT_FOUND = "1004"


@dataclass(frozen=True, slots=True)
class DeleteAnswer:
    """How many were deleted, and how many were not there any more; `refused` counts the others by Marketo's code."""

    deleted: int = 0
    not_there: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class LeadDeletion:
    """The endpoint of one instance."""

    def __init__(self, rest: RestApi) -> None:
        self._rest = rest

    async def delete(self, ids: Sequence[int]) -> DeleteAnswer:
        """Delete leads, at most 300. Of a Fault with `executed` None nobody knows: asking again does no harm."""
        assert 1 <= len(ids) <= MOST_IDS, f"{len(ids)} ids in one call"
        body = json.dumps({"input": [{"id": lead_id} for lead_id in ids]}).encode()
        answer = await self._rest.act(ENDPOINT, "/rest/v1/leads/delete.json", {}, "application/json", (body,), timeout=TIMEOUT)
        if len(answer.result) != len(ids):
            raise garbled(f"{len(ids)} leads were to be deleted, {len(answer.result)} were answered", ENDPOINT, answer.request_id)
        ends = Counter(_end(entry, answer.request_id) for entry in answer.result)
        return DeleteAnswer(ends.pop("deleted", 0), ends.pop(NOT_FOUND, 0), ends)


def _end(entry: Any, request_id: str | None) -> str:
    """`deleted`, or the code for which a record was skipped."""
    match entry:
        case {"status": "deleted"}:
            return "deleted"
        case {"status": "skipped", "reasons": [{"code": str() | int() as code}, *_]} if str(code).isdigit():
            return str(code)
        case {"status": "skipped"}:
            return "no code"
    raise garbled("a record's status is none that is known", ENDPOINT, request_id)
