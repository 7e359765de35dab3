"""What a text in the YAML means: durations, sizes, times, addresses. Pure; each raises NotAllowed, telling what is allowed."""

import re
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

import yaml

from syncd.core.settings import Hours

_DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in ("d", "h", "m", "s", "ms")))
_DURATION_UNITS = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
)
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(B|kB|MB|KiB|MiB)")
_SIZE_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
_WHOLE = re.compile(r"[+-]?[0-9]{1,3}(?:_?[0-9]){0,15}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?) ?%")
_HOURS = re.compile(r"([0-2]?[0-9]):([0-5][0-9]) ?- ?([0-2]?[0-9]):([0-5][0-9]) +(\S+)")
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+)):([0-9]{1,5})")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
# What XML 1.0 can't carry, escaped or not (Postgres would take no NUL either).
_UNSENDABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Marketo was founded in 2006: no lead is older, and each 30 days before it would cost a call.
BEGINNING = datetime(2006, 1, 1, tzinfo=UTC)

# The columns that the view `syncd.lead_<instance>` has for every lead, whichever fields are pulled.
OWN_COLUMNS = ("lead_id", "email", "first_seen_at", "changed_at", "deleted_at", "merged_into")


class NotAllowed(ValueError):  # noqa: N818 - said of the value
    """A value is not one of those allowed; the text says which are, and why. It never repeats the value."""


def name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise NotAllowed("a name is 1 to 63 of a-z, 0-9 and _, beginning with a letter")
    return text


def instance_name(text: str) -> str:
    """A name that tables can be made of: `lead_history_d20260101_` before 40 more is the longest that Postgres tells apart."""
    if len(text) > 40 or not _NAME.fullmatch(text):
        raise NotAllowed("an instance's name is 1 to 40 of a-z, 0-9 and _, beginning with a letter, for tables are named after it")
    if text == "history" or text.startswith("history_"):
        raise NotAllowed("history and names that begin with history_ are taken: syncd.lead_history is a table of its own")
    return text


def column(text: str) -> str:
    if name(text) in OWN_COLUMNS:
        raise NotAllowed(f"the view has {', '.join(OWN_COLUMNS)} of its own")
    return text


def text(text: str) -> str:
    """A text that has something in it, and nothing that can't be sent."""
    if not text.strip():
        raise NotAllowed("a text that is not empty")
    return sendable(text)


def sendable(text: str) -> str:
    if _UNSENDABLE.search(text):
        raise NotAllowed("a text without control characters")
    return text


def list_name(given: str) -> str:
    """`ProgramName.ListName`, as the static list selector wants it (protocol 1.3)."""
    program, _, tail = text(given).partition(".")
    if not program.strip() or not tail.strip():
        raise NotAllowed("a list's name is written ProgramName.ListName; its id goes under static_list_id")
    return given


def whole(text: str, low: int, high: int | None, why: str = "") -> int:
    """A whole number from `low` to `high`, both included."""
    number = int(text) if _WHOLE.fullmatch(text) else None
    if number is None or number < low or (high is not None and number > high):
        allowed = f"between {low:,} and {high:,}" if high is not None else f"a whole number, {low:,} or more"
        raise NotAllowed(allowed + why)
    return number


def truth(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise NotAllowed("true or false")
    return text == "true"


def concurrency(text: str) -> int:
    return whole(text, 1, 10, ": Marketo allows 10 to all integrations together")


def streams(text: str) -> int:
    return whole(text, 1, 8)


def subscription_calls(text: str) -> int:
    return whole(text, 1000, None)


def urgent_reserve(text: str) -> int:
    return whole(text, 0, None)


def duration(text: str) -> timedelta:
    """`90s`, `5m`, `1h30m`, `30d`, `250ms`: the larger unit first, each once."""
    parts = _DURATION.fullmatch(text)
    if not text or parts is None:
        hint = "a plain number does not tell its unit; " if _WHOLE.fullmatch(text) else ""
        raise NotAllowed(f"{hint}a duration is written like 90s, 5m, 1h30m, 30d or 250ms")
    try:
        return sum((int(count) * unit for count, (_, unit) in zip(parts.groups("0"), _DURATION_UNITS, strict=True)), timedelta())
    except OverflowError:
        raise NotAllowed("that is longer than any clock will run") from None


def duration_text(value: timedelta) -> str:
    """The shortest text that `duration` reads back as `value`; whole milliseconds, not negative."""
    text = ""
    for unit, length in _DURATION_UNITS:
        count, value = divmod(value, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def duration_between(text: str, low: timedelta, high: timedelta, why: str = "") -> timedelta:
    value = duration(text)
    if not low <= value <= high:
        raise NotAllowed(f"between {duration_text(low)} and {duration_text(high)}{why}")
    return value


def size(text: str) -> int:
    """Bytes: a plain number, or one with B, kB, MB (powers of 1000), KiB or MiB (powers of 1024)."""
    if _WHOLE.fullmatch(text):
        return int(text)
    parts = _SIZE.fullmatch(text)
    size = Decimal(parts[1]) * _SIZE_UNITS[parts[2]] if parts else None
    if size is None or size != int(size):
        raise NotAllowed("a size is a whole number of bytes, written like 9900000, 9900kB, 9.9MB or 9MiB")
    return int(size)


def size_between(text: str, low: int, high: int, why: str = "") -> int:
    value = size(text)
    if not low <= value <= high:
        raise NotAllowed(f"between {low:,} and {high:,} bytes{why}")
    return value


def share(text: str) -> Decimal:
    """`2%` as 0.02."""
    parts = _SHARE.fullmatch(text)
    value = Decimal(parts[1]) / 100 if parts else None
    if value is None or value > 1:
        raise NotAllowed("a share is written like 2% or 0.5%, from 0% to 100%")
    return value


def per_hour(text: str) -> int:
    return _rate(text, "h", "an hour")


def per_day(text: str) -> int:
    return _rate(text, "d", "a day")


def _rate(text: str, unit: str, meaning: str) -> int:
    count, slash, given = text.partition("/")
    if (slash, given.strip()) != ("/", unit):
        raise NotAllowed(f"a rate {meaning} is written like 20000/{unit}")
    return whole(count.strip(), 1, 1_000_000_000)


def hours(text: str) -> Hours:
    """`20:00-06:00 America/Chicago`."""
    parts = _HOURS.fullmatch(text.strip())
    try:
        if parts is None:
            raise ValueError
        begins, ends = time(int(parts[1]), int(parts[2])), time(int(parts[3]), int(parts[4]))
    except ValueError:
        raise NotAllowed('hours are written like "20:00-06:00 America/Chicago", from 0:00 to 23:59') from None
    if begins == ends:
        raise NotAllowed("hours that begin and end at the same time are none; leave them out for all day")
    try:
        return Hours(begins, ends, ZoneInfo(parts[5]))
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise NotAllowed("its time zone is not known; it is named like America/Chicago, Europe/Berlin or UTC") from None


def moment(text: str) -> datetime:
    """ISO 8601 or a YAML timestamp as a time in UTC, which it is without an offset; cut to the second (protocol, head)."""
    try:
        value = _moment(text)
        value = (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).replace(microsecond=0)
    except (ValueError, OverflowError):
        raise NotAllowed("a time is written like 2016-01-01T00:00:00Z or 2016-01-01T00:00:00+02:00") from None
    if value < _EARLIEST:
        raise NotAllowed("a time not before 2000-01-01: no Marketo instance is that old, and each 30 days cost a call")
    return value


def since(text: str) -> datetime:
    """A time as `moment` reads it, or `beginning`."""
    if text == "beginning":
        return BEGINNING
    try:
        return moment(text)
    except NotAllowed as error:
        raise NotAllowed(f"{error}; beginning takes all") from None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if not yaml.constructor.SafeConstructor.timestamp_regexp.match(text):
            raise
    read = yaml.constructor.SafeConstructor().construct_yaml_timestamp(yaml.ScalarNode("tag:yaml.org,2002:timestamp", text))
    return read if isinstance(read, datetime) else datetime(read.year, read.month, read.day, tzinfo=UTC)


def endpoint(text: str) -> str:
    """An http(s) URL without user, query or fragment; trailing slashes are cut, for paths are put behind it."""
    parts = _url(text)
    if parts is None or parts.username is not None or parts.password is not None:
        raise NotAllowed("a URL such as https://123-ABC-456.mktorest.com, without user or password")
    if "?" in text or "#" in text:
        raise NotAllowed("a URL without anything from ? or # on")
    return text.rstrip("/")


def rest_endpoint(text: str) -> str:
    url = endpoint(text)
    for tail in ("/rest", "/identity"):
        if url.endswith(tail):
            raise NotAllowed(f"Marketo shows the URL with {tail} at its end, but syncd puts the paths there itself: leave {tail} off")
    return url


def proxy(text: str) -> str:
    """An http(s) URL; a user and password may be in it, so it is as secret as they are."""
    if _url(text) is None:
        raise NotAllowed("the URL of an HTTP proxy, such as http://proxy.example.com:3128")
    return text


def _url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable and text.isprintable() and " " not in text else None


def listen(text: str) -> tuple[str, int]:
    """`host:port`, an IPv6 host in brackets; port 0 takes any free one. Which hosts need a token, rules.py says."""
    parts = _HOST_AND_PORT.fullmatch(text)
    if parts is None or int(parts[3]) > 65535:
        raise NotAllowed('an address and a port, such as 127.0.0.1:9464 or "[::1]:9464"')
    return parts[1] or parts[2], int(parts[3])


def is_loopback(host: str) -> bool:
    """Whether only processes of the same host get there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
