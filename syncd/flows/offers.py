"""What an instance offers to a pull through REST, found by asking, and the way that follows from it."""

from contextlib import suppress
from datetime import datetime

from syncd.core.faults import Fault, Nature
from syncd.core.mirror import Dictionary
from syncd.core.price import bytes_per_lead
from syncd.core.route import Offers, Route, route
from syncd.core.settings import Limits, Pull
from syncd.core.values import UpdatedBetween
from syncd.core.windows import SECOND, floor_second, plan
from syncd.marketo.wire import Wire

NO_UPDATE_FILTER = "1035"
UNKNOWN_LEADS = 1_000_000
"""So many leads a pull is taken to have as long as nobody knows: Marketo instances have hundreds of thousands to some millions."""


async def offers(wire: Wire, now: datetime) -> Offers:
    """What the instance lets this API user do, by four calls that take no slot and no bytes. Raises Fault when that can't be told."""
    assert wire.exports is not None, "only REST has ways to choose from"
    by_update = True
    second = floor_second(now) - SECOND
    try:
        made = await wire.exports.create(("id",), UpdatedBetween(second, second))
        with suppress(Fault):  # never queued, it is in nobody's way
            await wire.exports.cancel(made.export_id)
    except Fault as fault:
        if fault.code != NO_UPDATE_FILTER:
            raise
        by_update = False
    return Offers(by_update, await may_read_activities(wire, now))


async def may_read_activities(wire: Wire, now: datetime) -> bool:
    """Whether the API user may read the activity log, which tells of changes, deletions and merges. Raises Fault."""
    assert wire.activities is not None, "only REST has an activity log"
    try:
        await wire.activities.deleted_leads(await wire.activities.token_since(floor_second(now) - SECOND))
    except Fault as fault:
        if fault.nature is not Nature.CONFIGURATION:
            raise
        return False
    return True


def way_of(pull: Pull, offered: Offers, dictionary: Dictionary, known_leads: int, now: datetime, limits: Limits) -> Route:
    """The way of a pull of which `known_leads` are known already. Raises NoWay."""
    asked = dictionary.asked(pull.fields) or tuple(dictionary.names)
    windows = sum(1 for _ in plan(pull.since, now, pull.window)) if pull.since is not None else 1
    each = bytes_per_lead(dictionary.kinds.get(name, "string") for name in asked)
    return route(pull, offered, known_leads or UNKNOWN_LEADS, each, windows, limits)
