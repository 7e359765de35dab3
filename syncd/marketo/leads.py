"""Leads by id (protocol 3.2), with every digit of their numbers."""

import json
from collections.abc import Sequence
from typing import Any

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.values import Attribute, LeadRecord, ReadLeads
from syncd.marketo.errors import garbled, storable
from syncd.marketo.reading import whole
from syncd.marketo.rest import RestApi

ENDPOINT = "leads"
MOST_IDS = 300
TIMEOUT = 65.0  # seconds: Marketo itself gives up after 60 (protocol 2)
KIND = "string"  # leads.json has no types: describe's decide
_BESIDE = ("id", "email")


class Leads:
    """The lead database of one instance."""

    def __init__(self, rest: RestApi, clock: Clock) -> None:
        self._rest = rest
        self._clock = clock

    async def by_id(self, ids: Sequence[int], fields: Sequence[str]) -> ReadLeads:
        """The leads among `ids`, at most 300, with those of `fields` (REST names) that have a value, besides id and email.

        Values are texts as they were written, "true" or "false"; one in parts is its JSON. Raises Fault.
        """
        assert 1 <= len(ids) <= MOST_IDS, f"{len(ids)} ids in one call"
        asked_at = self._clock.now()

        def sending() -> None:
            nonlocal asked_at
            asked_at = self._clock.now()

        query = {
            "filterType": "id",
            "filterValues": ",".join(map(str, ids)),
            "fields": ",".join(dict.fromkeys((*_BESIDE, *fields))),
        }
        try:
            answer = await self._rest.ask(ENDPOINT, "/rest/v1/leads.json", query, timeout=TIMEOUT, exact=True, on_sending=sending)
        except Fault as fault:
            if fault.nature is not Nature.EMPTY:
                raise
            return ReadLeads((), asked_at)
        if answer.more:  # else the ones that are missing would be taken for deleted
            raise garbled("not all of the leads asked for came", ENDPOINT, answer.request_id)
        leads = {lead.lead_id: lead for lead in (_lead(entry, answer.request_id) for entry in answer.result)}
        return ReadLeads(list(leads.values()), asked_at)


def _lead(entry: Any, request_id: str | None) -> LeadRecord:
    lead_id = whole(entry.get("id")) if isinstance(entry, dict) else None
    if lead_id is None:
        raise garbled("a lead has no id", ENDPOINT, request_id)
    attributes: list[Attribute] = [
        (storable(name), KIND, _text(value)) for name, value in entry.items() if name not in _BESIDE and value is not None
    ]
    email = entry.get("email")
    return LeadRecord(lead_id, (_text(email) or None) if email is not None else None, attributes)


def _text(value: Any) -> str:
    match value:
        case str():
            return storable(value)
        case bool():
            return "true" if value else "false"
    return storable(json.dumps(value, ensure_ascii=False))
