"""What all integrations together have spent of the day's REST calls (protocol 3.5)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from syncd.marketo.errors import garbled
from syncd.marketo.rest import RestApi

ENDPOINT = "usage"
MOST = 2**62  # no count of calls is larger, nor would it fit its column
LONGEST_ID = 320


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls of one day, in all and by API user, whose ids are mostly addresses: not for logs."""

    total: int = 0
    users: Mapping[str, int] = field(default_factory=dict, repr=False)
    day: date | None = None  # as Marketo dates it; None where it had nothing to tell


async def usage(rest: RestApi) -> Usage:
    """Today's usage, by a call that may use the reserve for urgent ones: it tells how much of that is left. Raises Fault."""
    answer = await rest.get(ENDPOINT, "/rest/v1/stats/usage.json", urgent=True)
    days = [_day(entry) for entry in answer.result]
    return max(days, key=lambda one: one.day or date.min, default=Usage())


def _day(entry: Any) -> Usage:
    match entry:
        case {"date": str(text), "total": int(total)} if _is_count(total):
            users = Counter[str]()
            for user in _users(entry.get("users")):
                match user:
                    case {"userId": str(user_id), "count": int(count)} if user_id and _is_count(count):
                        users[user_id.replace("\0", "")[:LONGEST_ID]] += count
                    case _:
                        raise garbled("a user of the usage has no id or no count", ENDPOINT)
            return Usage(total, dict(users), _date(text))
    raise garbled("a day of the usage has no date or no total", ENDPOINT)


def _users(listed: Any) -> list[Any]:
    if listed is None:
        return []
    if isinstance(listed, list):
        return listed
    raise garbled("the users of the usage are no list", ENDPOINT)


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise garbled("a day of the usage has no date", ENDPOINT) from None


def _is_count(value: int) -> bool:
    return not isinstance(value, bool) and 0 <= value < MOST
