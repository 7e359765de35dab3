"""The activity log (protocol 3.2): who is new, has changed, was merged or deleted, from a paging token on."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from syncd.core.faults import Fault, Nature
from syncd.core.values import Activity, ActivityPage
from syncd.marketo.errors import garbled, storable
from syncd.marketo.reading import iso, moment, whole
from syncd.marketo.rest import Answer, RestApi

PAGING_TOKEN, LEAD_CHANGES, DELETED_LEADS, ACTIVITIES = "paging_token", "lead_changes", "deleted_leads", "activities"
TOKEN_TIMEOUT = 305.0  # seconds: Marketo itself gives up after 300 (protocol 2)
MOST_TYPES = 10
MERGE = 32
_LONGEST_GUID = 100
_MERGED_IDS = "mergeids"
_BETWEEN = re.compile(r"[\s,;]+")


class Activities:
    """The activity log of one instance, in pages of which each has the token of the next.

    A token is opaque and may be as long as it likes. A page may be empty and not the last one; that nothing was found at all
    (702) leaves the token where it was. A page with an entry that can't be read is garbled as a whole: the cursor must not pass it.
    """

    def __init__(self, rest: RestApi) -> None:
        self._rest = rest

    async def token_since(self, moment: datetime) -> str:
        """The token from which on the pages have what was logged since `moment`. Raises Fault."""
        query = {"sinceDatetime": iso(moment)}
        answer = await self._rest.get(PAGING_TOKEN, "/rest/v1/activities/pagingtoken.json", query, timeout=TOKEN_TIMEOUT)
        return _next(answer, PAGING_TOKEN)

    async def lead_changes(self, token: str, fields: Sequence[str]) -> ActivityPage:
        """New leads (type 12) and changed values (13) of `fields`, by their REST names. Raises Fault."""
        assert fields, "changes of no field"
        return await self._page(LEAD_CHANGES, "/rest/v1/activities/leadchanges.json", token, {"fields": ",".join(fields)})

    async def deleted_leads(self, token: str) -> ActivityPage:
        """Deletions (type 37). Raises Fault."""
        return await self._page(DELETED_LEADS, "/rest/v1/activities/deletedleads.json", token, {})

    async def of_types(self, token: str, type_ids: Sequence[int]) -> ActivityPage:
        """Whatever is logged of up to ten types. Raises Fault."""
        assert 1 <= len(type_ids) <= MOST_TYPES, f"{len(type_ids)} types in one call"
        types = {"activityTypeIds": ",".join(map(str, type_ids))}
        return await self._page(ACTIVITIES, "/rest/v1/activities.json", token, types)

    async def _page(self, endpoint: str, path: str, token: str, query: Mapping[str, str]) -> ActivityPage:
        try:
            answer = await self._rest.get(endpoint, path, {"nextPageToken": token, **query}, exact=True)
        except Fault as fault:
            if fault.nature is not Nature.EMPTY:
                raise
            return ActivityPage((), token, False)
        following = _next(answer, endpoint)
        activities = [_activity(entry) for entry in answer.result]
        read = [activity for activity in activities if activity is not None]
        if len(read) < len(activities):
            raise garbled("an activity has no lead, no type, no date or no id", endpoint, answer.request_id)
        return ActivityPage(read, following, answer.more)


def _next(answer: Answer, endpoint: str) -> str:
    if answer.page_token is None:
        raise garbled("the reply has no nextPageToken", endpoint, answer.request_id)
    return answer.page_token


def _activity(entry: Any) -> Activity | None:
    """None where it lacks what makes it one. Who it is about is told by an id alone: other values name persons."""
    if not isinstance(entry, dict):
        return None
    guid = _guid(entry.get("marketoGUID")) or _guid(entry.get("id"))
    lead_id, type_id, at = whole(entry.get("leadId")), whole(entry.get("activityTypeId")), moment(entry.get("activityDate"))
    if guid is None or lead_id is None or type_id is None or at is None:
        return None
    return Activity(guid, lead_id, type_id, at, _merged(entry.get("attributes"), lead_id) if type_id == MERGE else ())


def _guid(value: Any) -> str | None:
    """As text, which numbers of an exact reply are already."""
    return storable(value.strip())[:_LONGEST_GUID] or None if isinstance(value, str) else None


def _merged(attributes: Any, winner: int) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for attribute in attributes if isinstance(attributes, list) else ():
        match attribute:
            case {"name": str(name), "value": value} if name.replace(" ", "").lower() == _MERGED_IDS:
                found.update(dict.fromkeys(_ids(value)))
    return tuple(lead_id for lead_id in found if lead_id != winner)


def _ids(value: Any) -> Sequence[int]:
    """The ids of "12", "[12, 13]" or a list; of a text that holds anything else none, since its numbers may be no ids."""
    parts = _BETWEEN.split(value.strip(" []")) if isinstance(value, str) else value if isinstance(value, list) else ()
    ids = [whole(part) for part in parts]
    known = [lead_id for lead_id in ids if lead_id]
    return known if len(known) == len(ids) else ()
