"""`syncd pause` and `syncd resume`: what of an instance is not to run, in the database, where the daemon heeds it within seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.cli.choosing import pull_of, push_of
from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.cli.render import choice_of, pause_of, printable
from syncd.config import values
from syncd.core.settings import Database, Instance
from syncd.core.words import moment
from syncd.store import pauses
from syncd.store.pauses import Choice, Pause, Standing

ON = "what Marketo has already is still settled and loaded; nothing new is asked for, packed or submitted"


def choice(command: str, direction: str | None, pull: str | None, push: str | None) -> Choice:
    """What is meant: a pull, a push, a direction, or all of the instance. Raises Refused for more than one of them."""
    if sum(each is not None for each in (direction, pull, push)) > 1:
        raise Refused(f"syncd {command}: give one of --direction, --pull and --push; none for the whole instance", USAGE)
    if direction not in (None, "in", "out"):
        raise Refused(f"syncd {command}: --direction is in (pulls) or out (pushes)", USAGE)
    if pull is not None:
        return Choice("in", pull)
    if push is not None:
        return Choice("out", push)
    return Choice("in" if direction == "in" else "out" if direction == "out" else "both")


def known(instance: Instance, chosen: Choice) -> None:
    """Raises Refused for a pull or push that the YAML does not have."""
    if chosen.name:
        (pull_of if chosen.direction == "in" else push_of)(instance, chosen.name)


def until_of(text: str | None, now: datetime) -> datetime | None:
    """The value of --until. Raises Refused."""
    if text is None:
        return None
    try:
        until = values.moment(text)
    except values.NotAllowed as error:
        raise Refused(f"syncd pause: --until {text} is not allowed; {error}", USAGE) from None
    if until <= now:
        raise Refused(f"syncd pause: --until is in the past ({moment(until)}); it is {moment(now)}", USAGE)
    return until


def proposal(instance: Instance, chosen: Choice, until: datetime | None) -> str:
    """The line that says what would be paused."""
    pulls = [pull.name for pull in instance.pulls if chosen.covers("in", pull.name)]
    pushes = [push.name for push in instance.pushes if chosen.covers("out", push.name)]
    now = [f"pulls {', '.join(pulls)}"] * bool(pulls) + [f"pushes {', '.join(pushes)}"] * bool(pushes)
    what = choice_of(chosen) if chosen.name else f"{choice_of(chosen)} ({'; '.join(now) or 'none now'}; and what comes into the YAML later)"
    return f"{instance.name}: {what}, until {moment(until) if until else 'it is resumed'}; {ON}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the choice stands after a command; `found` says whether there was a pause of just this choice."""

    found: bool
    standing: Sequence[Standing]
    pauses: Sequence[Pause]


async def pause(database: Database, instance: str, chosen: Choice, until: datetime | None, now: datetime) -> Outcome:
    """Raises DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(database, "syncd pause", 2) as pool, pool.acquire() as connection:
        async with connection.transaction():
            await pauses.pause(connection, instance, chosen, until, now)
        return Outcome(True, await pauses.standing(connection, instance, chosen), await pauses.read(pool, instance))


async def resume(database: Database, instance: str, chosen: Choice) -> Outcome:
    """Raises DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(database, "syncd resume", 2) as pool, pool.acquire() as connection:
        async with connection.transaction():
            found = await pauses.resume(connection, instance, chosen)
        return Outcome(found, await pauses.standing(connection, instance, chosen), await pauses.read(pool, instance))


def paused_lines(instance: str, chosen: Choice, until: datetime | None, outcome: Outcome) -> list[str]:
    """What `syncd pause` says when it is done."""
    lines = [f"{instance}: paused {pause_of(Pause(chosen.direction, chosen.name, until))}"]
    for each in outcome.standing:
        if each.state not in ("paused", "running"):
            why = f": {printable(each.message)}" if each.message else ""
            lines.append(f"{_name(each)} is {each.state} anyway{why}; it is not tried again before it is resumed")
    return lines


def resumed_lines(instance: str, chosen: Choice, outcome: Outcome) -> list[str]:
    """What `syncd resume` says when it is done: what of the choice does not run, and why."""
    lines = [f"{instance}: {choice_of(chosen)} {'resumed' if outcome.found else 'was not paused by itself'}"]
    for each in outcome.standing:
        held = pauses.over(outcome.pauses, each.direction, each.name)
        if held:
            how = ", ".join(f"syncd resume -i {instance}{_option(pause.choice)}" for pause in held)
            lines.append(f"{_name(each)} stays paused ({'; '.join(pause_of(pause) for pause in held)}): {how}")
        elif each.state != "running":
            lines.append(f"{_name(each)} is {each.state}{f': {printable(each.message)}' if each.message else ''}")
    return lines


def all_free(chosen: Choice, outcome: Outcome) -> bool:
    """Whether no pause covers any of the choice any more."""
    left = any(pauses.over(outcome.pauses, each.direction, each.name) for each in outcome.standing)
    return not left and not (chosen.name and pauses.over(outcome.pauses, chosen.direction, chosen.name))


def _name(each: Standing) -> str:
    return choice_of(Choice(each.direction, each.name))


def _option(chosen: Choice) -> str:
    if chosen.name:
        return f" --{'pull' if chosen.direction == 'in' else 'push'} {chosen.name}"
    return "" if chosen.direction == "both" else f" --direction {chosen.direction}"
