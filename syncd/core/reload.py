"""What another reading of the configuration changes: what a running daemon takes up, and what waits for a restart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from syncd.core.settings import Instance, Pull, Push, Settings


@dataclass(frozen=True, slots=True)
class Reload:
    """`settings` are those to go on with; `anew` are the instances that begin with them, `ended` those that are no more.

    `changed` and `waiting` name keys of the YAML: what is taken up, and what stays as it was until a restart.
    """

    settings: Settings
    anew: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def reload(old: Settings, new: Settings, connections: int) -> Reload:
    """From `old` to `new`, by a daemon that may have so many connections to its database."""
    waiting = [f"{key} (it is opened at the start)" for key in ("database", "http") if getattr(old, key) != getattr(new, key)]
    needed = connections_of(new.instances)
    fits = needed <= connections
    if not fits and new.instances != old.instances:
        waiting.append(f"instances (they need {needed} connections to the database, and {connections} were made room for)")
    going_on = replace(new, database=old.database, http=old.http, instances=new.instances if fits else old.instances)
    before, now = ({each.name: each for each in settings.instances} for settings in (old, going_on))
    # what the flows log with was bound when they were built
    told_otherwise = replace(old.logging, metrics_every=new.logging.metrics_every) != new.logging
    changed = [f"logging.{key}" for key in _differing(old.logging, new.logging)]
    for name in sorted({*before, *now}):
        changed += _changes(f"instances.{name}", before.get(name), now.get(name))
    return Reload(
        going_on,
        anew=tuple(name for name, instance in now.items() if told_otherwise or instance != before.get(name)),
        ended=tuple(name for name in before if name not in now),
        changed=tuple(changed),
        waiting=tuple(waiting),
    )


def connections_of(instances: Sequence[Instance]) -> int:
    """How many connections to the database a daemon may use at once for these."""
    return 4 + sum(
        8 + sum(pull.streams for pull in instance.pulls) + sum(push.from_table is not None for push in instance.pushes)
        for instance in instances
    )


def _changes(path: str, old: Instance | None, new: Instance | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"{path} ({'new' if old is None else 'gone'})"
        return
    for key in _differing(old, new):
        if key in ("pulls", "pushes"):
            yield from _of_each(f"{path}.{key}", getattr(old, key), getattr(new, key))
        else:
            yield f"{path}.{key}"


def _of_each(path: str, old: Sequence[Pull | Push], new: Sequence[Pull | Push]) -> Iterator[str]:
    before, now = ({each.name: each for each in entries} for entries in (old, new))
    if [name for name in before if name in now] != [name for name in now if name in before]:
        yield f"{path} (in another order)"
    for name in sorted({*before, *now}):
        if name not in before or name not in now:
            yield f"{path}.{name} ({'gone' if name in before else 'new'})"
        else:
            yield from (f"{path}.{name}.{'from' if key == 'from_table' else key}" for key in _differing(before[name], now[name]))


def _differing(old: Any, new: Any) -> list[str]:
    return [field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name)]
