"""Which instance, push or pull a command is about; what is not there is told with the nearest name that is."""

import difflib
from collections.abc import Sequence

from syncd.cli.failures import USAGE, Refused
from syncd.core.settings import Instance, Pull, Push, Settings


def instance_of(settings: Settings, name: str | None) -> Instance:
    """The instance called `name`; without a name the only one. Raises Refused."""
    names = [each.name for each in settings.instances]
    if name in names:
        return settings.instances[names.index(name)]
    if name is not None:
        raise Refused(f'syncd: the configuration has no instance "{name}"; {_hint(name, names)}', USAGE)
    if len(names) == 1:
        return settings.instances[0]
    raise Refused(f"syncd: say which instance with --instance; there are {', '.join(names) or 'none'}", USAGE)


def push_of(instance: Instance, name: str) -> Push:
    """The push called `name`. Raises Refused."""
    names = [each.name for each in instance.pushes]
    if name in names:
        return instance.pushes[names.index(name)]
    raise Refused(f'syncd: the instance {instance.name} has no push "{name}"; {_hint(name, names)}', USAGE)


def pull_of(instance: Instance, name: str) -> Pull:
    """The pull called `name`. Raises Refused."""
    names = [each.name for each in instance.pulls]
    if name in names:
        return instance.pulls[names.index(name)]
    raise Refused(f'syncd: the instance {instance.name} has no pull "{name}"; {_hint(name, names)}', USAGE)


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"there are {', '.join(known) or 'none'}"
