"""How times, spans and sizes are written for people; and texts of others' without the addresses in them."""

import re
from datetime import datetime, timedelta

_ADDRESS = re.compile(r"[^\s\"'<>(),;:=@]+@[^\s\"'<>(),;:=@]+")


def moment(when: datetime) -> str:
    """To the second, in UTC."""
    return f"{when:%Y-%m-%d %H:%M:%S}Z"


def megabytes(size: int) -> str:
    """In millions of bytes, as MB in the YAML."""
    return f"{size / 1e6:,.1f} MB"


def span(length: timedelta) -> str:
    """In the largest unit of which there are two."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def counted(count: int, thing: str) -> str:
    """So many of it."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def without_addresses(text: str) -> str:
    """A message of Marketo's or of a library may quote an address: it is nobody's who only looks how things stand."""
    return _ADDRESS.sub("…@…", text)


def commands_of(instance: str, push: str, plan_id: int | None) -> tuple[str, str, str]:
    """What tells what held changes would do, what lets them go, and what cancels them: of a plan, or those that the push's guard holds."""
    which = f"-i {instance} --push {push}" + ("" if plan_id is None else f" --plan {plan_id}")
    return f"syncd plan {which}", f"syncd release {which}", f"syncd discard {which}" + (" --held" if plan_id is None else "")
