"""Small pieces that several parts of the page are made of."""

from datetime import datetime

from syncd.core.words import moment, span
from syncd.page.html import Html, element, joined
from syncd.store.pull_status import PullStatus
from syncd.store.status import PushStatus

LEVELS = {"blocked": "bad", "unconfirmed": "bad", "failed": "bad", "lost": "bad", "paused": "warn", "held": "bad", "running": "good"}


def number(count: int | None) -> str | None:
    """With its thousands set apart."""
    return None if count is None else f"{count:,}"


def ago(when: datetime | None, now: datetime) -> Html | None:
    """How long ago, and exactly when for who asks."""
    if when is None:
        return None
    return element("time", f"{span(now - when)} ago", datetime=when.isoformat(), title=moment(when))


def entry(term: str, value: object) -> Html | None:
    """A pair of a description list; nothing, where there is no value."""
    return None if value is None else joined(element("dt", term), element("dd", value))


def state(name: str) -> Html:
    """A state, in its colour and its word."""
    return element("span", name, class_=LEVELS.get(name))


def standing(one: PullStatus | PushStatus) -> Html:
    """The state of a pull or a push, and how long an operator has stopped it."""
    paused = element("span", ", paused", class_="warn") if one.paused and one.state != "paused" else None
    until = f" until {moment(one.paused_until)}" if one.paused_until else None
    return joined(state(one.state), paused, until)
