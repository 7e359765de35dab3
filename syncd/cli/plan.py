"""`syncd plan`: what filling a pull costs by each source, before anything is spent."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.cli.render import printable
from syncd.core.drift import KnownField
from syncd.core.mirror import Vocabulary
from syncd.core.price import CALLS_OF_EXPORT, CALLS_OF_LOOK, Price, by_extract, by_ids, by_soap, bytes_per_lead, looks_of
from syncd.core.route import Offers, route
from syncd.core.settings import Database, Instance, Keys, Pull, UpdatedSince
from syncd.core.windows import plan
from syncd.core.words import moment
from syncd.store import backfills, fields, routes

SOURCES = {"soap": "soap", "extract": "bulk_extract", "extract of ids": "auto, reading by id", "ids": "activities"}


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of a pull: leads it has brought, how its fields are typed, what its leads have weighed in extracts."""

    leads: int
    fields: Sequence[KnownField]
    bytes_per_lead: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """`filling` holds a price per way, `steady` calls a day per source once it is filled; `auto` is what source: auto would do."""

    pull: str
    leads: int
    fields: int
    bytes_per_lead: int
    filling: Sequence[Price]
    steady: dict[str, int]
    auto: str | None
    notes: Sequence[str]


async def known(database: Database, instance: Instance, pull: Pull) -> Known:
    """What there is to go by. Raises DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(database, "syncd plan") as pool:
        async with pool.acquire() as connection:
            described = await fields.read(connection, instance.name)
        learned = await routes.bytes_per_lead(pool, instance.name, pull.name)
        return Known(await backfills.known_leads(pool, instance.name, pull.name), described, learned)


def planned(instance: Instance, pull: Pull, known: Known, now: datetime, leads: int | None, fields: int | None) -> Plan:
    """The plan; `leads` and `fields` are what to reckon with instead of what is known. Raises Refused."""
    if isinstance(pull.select, Keys):
        raise Refused(f"syncd plan: the pull {pull.name} goes by keys, a call per 100 of them each {pull.every}", USAGE)
    count = leads if leads is not None else known.leads
    if not count:
        raise Refused(f"syncd plan: nobody knows yet how many leads {pull.name} has; say about how many: --leads 1000000", USAGE)
    kinds, notes = _kinds(pull, known, fields)
    learned = known.bytes_per_lead if fields is None else None
    each = max(1, round(learned)) if learned is not None else bytes_per_lead(kinds)
    notes += [] if learned is not None else [f"{each:,} bytes a lead are a guess by the types of the fields, until an extract has shown it"]
    windows = sum(1 for _ in plan(pull.since, now, pull.window)) if pull.since is not None else 1
    limits = instance.limits
    filling = [by_extract(count, windows, each, limits)]
    if isinstance(pull.select, UpdatedSince):
        filling.append(by_ids(count, windows, limits))
    if instance.soap is not None:
        filling.append(by_soap(count, windows, limits, pull.streams))
    steady = {"bulk_extract": looks_of(pull.every, CALLS_OF_EXPORT), "activities": looks_of(pull.every, CALLS_OF_LOOK)}
    if instance.soap is not None:
        steady["soap"] = looks_of(pull.every, 1)
    auto = route(Pull(pull.name, "auto", pull.select), Offers(), count, each, windows, limits).reason
    return Plan(pull.name, count, len(kinds), each, filling, steady if isinstance(pull.select, UpdatedSince) else {}, auto, notes)


def _kinds(pull: Pull, known: Known, fields: int | None) -> tuple[list[str], list[str]]:
    """The dataTypes of the fields asked for, and what is to be said of them."""
    vocabulary = Vocabulary.of([field.as_described() for field in known.fields if field.data_type is not None and not field.vanished])
    described = vocabulary.rest.kinds
    notes = [] if described else ["Marketo has not described its fields yet: all are taken for short texts (start syncd run once)"]
    if fields is not None:
        usual = sorted(described.values()) or ["string"]
        return [usual[number % len(usual)] for number in range(fields)], notes
    if not described:
        return ["string"] * (len(pull.fields) or 100), notes
    return [described[name] for name in vocabulary.rest.asked(pull.fields) or described], []


def as_json(plan: Plan, now: datetime) -> dict[str, Any]:
    """The plan for machines: bytes, calls, days of 24 hours, times in ISO 8601."""
    filling = [
        {"source": SOURCES[price.way], "leads": price.leads, "bytes": price.bytes, "calls": price.calls}
        | {"days": round(price.days, 3), "finished_at": (now + price.time).isoformat(timespec="minutes")}
        for price in plan.filling
    ]
    return {**asdict(plan), "filling": filling}


def table_of(plan: Plan, instance: Instance, now: datetime) -> RenderableType:
    """The plan for people."""
    limits = instance.limits
    title = f"{plan.pull}: {plan.leads:,} leads, {plan.fields} fields, about {plan.bytes_per_lead:,} bytes each"
    table = Table(title=title, title_justify="left")
    for heading in ("to fill by", "MB of extracts", "calls", "days", "finished about", "of a day's calls", "of a day's bytes"):
        table.add_column(heading, justify="left" if heading in ("to fill by", "finished about") else "right")
    for price in plan.filling:
        table.add_row(
            SOURCES[price.way],
            f"{price.bytes / 1e6:,.0f}",
            f"{price.calls:,}",
            f"{price.days:,.1f}",
            moment(now + price.time),
            f"{100 * price.calls / limits.daily_calls:,.0f} %",
            f"{100 * price.bytes / limits.export_daily_bytes:,.0f} %",
        )
    lines = [f"then, to hear of news: {', '.join(f'{source} {calls:,} calls a day' for source, calls in plan.steady.items())}"]
    lines = lines if plan.steady else []
    lines += [f"source: auto, where Marketo offers all: {plan.auto}"] if plan.auto else []
    shares = f"by limits.daily_calls {limits.daily_calls:,} and limits.export_daily_bytes {limits.export_daily_bytes / 1e6:,.0f} MB"
    return Group(table, *(printable(line) for line in [*lines, *plan.notes, shares]))
