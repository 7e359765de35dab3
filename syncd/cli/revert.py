"""`syncd revert`: what of a push's imports can be put back, counted first, and then held as a plan."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.config import values
from syncd.core.revert import REASONS, Frame
from syncd.core.settings import Database, Instance, Push
from syncd.core.words import commands_of, counted, moment
from syncd.flows.revert import EndedError, NotRevertable, Reverter, Tally, frame_of
from syncd.store import attaching, reverting
from syncd.store.leases import Connection

TELL_EVERY = 100_000  # keys
CANCELLED = "its revert was not completed"

Clock = Callable[[], datetime]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be reverted."""

    since: datetime
    until: datetime
    fields: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Result:
    """What can be put back, or what is held to be put back by `plan`."""

    wanted: Wanted
    history_from: datetime
    tally: Tally
    plan: int | None = None


def wanted_of(since: str, until: str | None, fields: str | None, now: datetime) -> Wanted:
    """The values of --since, --until and --fields. Raises Refused."""
    begin = _moment("--since", since)
    end = now if until is None else _moment("--until", until)
    if begin >= min(end, now):
        raise Refused(f"syncd revert: --since ({moment(begin)}) is not before {'--until' if until else 'now'} ({moment(end)})", USAGE)
    names = None if fields is None else frozenset(name.strip() for name in fields.split(",") if name.strip())
    if names is not None and not names:
        raise Refused("syncd revert: --fields names no field: give REST names, as --fields leadScore,title", USAGE)
    return Wanted(begin, end, names)


def _moment(option: str, text: str) -> datetime:
    try:
        return values.moment(text)
    except values.NotAllowed as error:
        raise Refused(f"syncd revert: {option} {text} is not allowed; {error}", USAGE) from None


async def survey(database: Database, instance: Instance, push: Push, wanted: Wanted, now: Clock, tell: Tell) -> Result:
    """Count what can be put back; plans that were broken off are cancelled. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    async with _alone(database, instance, push, wanted) as (connection, frame):
        for plan in await reverting.unfinished(connection, instance.name, push.name):
            tell(f"plan {plan}, a revert that was broken off, is cancelled")
            await attaching.abandon(connection, plan, now(), CANCELLED)
        tally = await Reverter(instance, frame).go(connection, None, now(), _teller(tell, "looked at"))
        return Result(wanted, frame.history_from, tally)


async def carry_out(database: Database, instance: Instance, push: Push, wanted: Wanted, now: Clock, tell: Tell) -> Result:
    """Hold what can be put back as a plan. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    async with _alone(database, instance, push, wanted) as (connection, frame):
        reason = f"puts back what the imports from {moment(wanted.since)} until {moment(wanted.until)} have changed"
        plan = await reverting.begin(connection, instance.name, push.name, reason, now())
        try:
            tally = await Reverter(instance, frame).go(connection, plan, now(), _teller(tell, "worked off"))
        except EndedError:
            raise Refused(f"syncd revert: plan {plan} was ended by somebody while it was made; run it again") from None
        if await attaching.to_waiting(connection, plan) is None:  # nothing to decide on
            await attaching.abandon(connection, plan, now(), CANCELLED)
            return Result(wanted, frame.history_from, tally)
        return Result(wanted, frame.history_from, tally, plan)


@asynccontextmanager
async def _alone(database: Database, instance: Instance, push: Push, wanted: Wanted) -> AsyncIterator[tuple[Connection, Frame]]:
    async with (
        open_pool(database, "syncd revert", 2) as pool,
        pool.acquire() as connection,
        attaching.alone(connection, instance.name, push.name) as alone,
    ):
        if not alone:
            raise Refused(f"syncd revert: another syncd revert, attach or detach of {push.name} is at work; wait for it")
        try:
            frame = await frame_of(pool, instance, push, wanted.since, wanted.until, wanted.fields)
        except NotRevertable as error:
            raise Refused(f"syncd revert: {error}") from None
        unknown = (wanted.fields or frozenset()) - frame.sender.checks.kinds.keys()
        if unknown:
            raise Refused(f"syncd revert: --fields: describe does not know {', '.join(sorted(unknown))}: REST names are meant", USAGE)
        yield connection, frame


def _teller(tell: Tell, what: str) -> Callable[[int], None]:
    told = 0

    def after_page(keys: int) -> None:
        nonlocal told
        if keys - told >= TELL_EVERY:
            told = keys
            tell(f"{keys:,} keys {what}")

    return after_page


def lines_of(push: Push, result: Result) -> list[str]:
    """What would be put back, and what is left, in numbers of values: one field of one lead each."""
    wanted, tally = result.wanted, result.tally
    lines = [
        f"{push.name}: of what was sent from {moment(wanted.since)} until {moment(wanted.until)}, "
        f"{tally.back.total():,} values of {tally.leads:,} leads can be put back"
    ]
    lines += [f"  {name}: {count:,}" for name, count in tally.back.most_common()]
    if wanted.since < result.history_from:
        lines.append(f"the history of the mirror begins on {moment(result.history_from)}: what was sent before that is left as it is")
    for reason, names in sorted(tally.left.items(), key=lambda each: -each[1].total()):
        fields = ", ".join(f"{name} {count:,}" for name, count in names.most_common())
        lines.append(f"left as they are: {names.total():,} ({fields}): {REASONS[reason]}")
    return lines


def done_lines(instance: Instance, push: Push, result: Result) -> list[str]:
    """What became of it."""
    if result.plan is None:
        return ["nothing is left to put back"]
    plan, release, discard = commands_of(instance.name, push.name, result.plan)
    tally = result.tally
    are = "is" if tally.changes == 1 else "are"
    return [
        f"plan {result.plan}: {counted(tally.changes, 'change')} with {counted(tally.back.total(), 'value')} {are} held",
        f"{plan} tells what they would do, {release} lets them go, {discard} cancels them",
    ]


def as_json(instance: Instance, push: Push, result: Result) -> dict[str, Any]:
    """For machines: values by field."""
    tally = result.tally
    commands: Sequence[str] = commands_of(instance.name, push.name, result.plan) if result.plan is not None else ()
    return {
        "push": push.name,
        "since": result.wanted.since,
        "until": result.wanted.until,
        "history_from": result.history_from,
        "put_back": dict(tally.back),
        "left": {reason: dict(names) for reason, names in tally.left.items()},
        "leads": tally.leads,
        "changes": tally.changes,
        "plan": result.plan,
        "commands": list(commands),
    }
