"""A lead of a reply → its form in the mirror: REST names, JSON text, a digest by which an unchanged lead is known.

Values travel as text and become jsonb in Postgres, so that 23-digit integers and decimals stay exact (architecture.md, Values).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b, md5
from typing import NamedTuple

import orjson

from syncd.core.settings import Pull, Source
from syncd.core.values import Field, LeadRecord

Value = str | bool | orjson.Fragment
"""What a field holds in the mirror; a number is a fragment, the JSON text of all its digits."""

Form = tuple[str, Callable[[str], Value | None] | None]
"""The name of a field in the mirror, and how its text is read; None: as it is."""

LONGEST_EMAIL = 600
"""Characters: what an index of Postgres can hold, whatever they are. A longer one is no address, but a misfit."""

_FRACTION = r"(\.[0-9]{1,1000})?([eE][+-]?[0-9]{1,3})?"
_LEADING_ZEROS = re.compile(r"^([+-]?)0+(?=[0-9])")
_HOURS = "([01][0-9]|2[0-3])"
_SIXTY = "[0-5][0-9]"
_MOMENT = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ]{_HOURS}:{_SIXTY}:{_SIXTY}(\.[0-9]{{1,9}})?(Z|[+-]{_HOURS}(:?{_SIXTY}|:{_SIXTY}:{_SIXTY}))"
)


class MirrorRow(NamedTuple):
    """A lead as the mirror writes it; `attributes` and `misfits` are JSON texts, sorted by name.

    `digest` is the MD5 of the email and these texts, a line each: an extract's rows get theirs in Postgres, which has no other.
    """

    lead_id: int
    email: str | None
    attributes: str
    misfits: str
    digest: str


@dataclass(frozen=True, slots=True)
class Dictionary:
    """What describe says of the fields: their names in the mirror (REST's where there is one, else the source's), and their types."""

    names: Mapping[str, str]
    """Name on the wire → name in the mirror, for the fields that describe lists."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Name on the wire → describe's dataType (protocol 3.3)."""
    twins: Mapping[str, str] = field(default_factory=dict)
    """What the other interface calls a field → its name on this wire; only where no field of this wire has that name."""
    forms: dict[tuple[str, str], Form] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `form` has said so far."""

    def form(self, name: str, kind: str) -> Form:
        """What a field of a reply that declares this type for it comes to.

        The type is describe's dataType (protocol 3.3) where that is decisive, else the reply's attrType (1.4).
        """
        described = self.kinds.get(name)
        form = self.forms[name, kind] = self.names.get(name, name), _CONVERT.get(described if described in _DECISIVE else kind)
        return form

    @classmethod
    def of_soap(cls, fields: Iterable[Field]) -> "Dictionary":
        """The dictionary for replies that use SOAP names."""
        by_name = {one.soap.name: one for one in fields if one.soap is not None}
        return cls(
            {name: (one.rest.name if one.rest else name) for name, one in by_name.items()},
            {name: one.data_type for name, one in by_name.items()},
            {one.rest.name: name for name, one in by_name.items() if one.rest is not None and one.rest.name not in by_name},
        )

    @classmethod
    def of_rest(cls, fields: Iterable[Field]) -> "Dictionary":
        """The dictionary for replies that use REST names."""
        by_name = {one.rest.name: one for one in fields if one.rest is not None}
        return cls(
            {name: name for name in by_name},
            {name: one.data_type for name, one in by_name.items()},
            {one.soap.name: name for name, one in by_name.items() if one.soap is not None and one.soap.name not in by_name},
        )

    def on_the_wire(self, name: str) -> str | None:
        """What this wire calls the field that the YAML calls `name`, by either interface's name; None where it knows none."""
        return name if name in self.names else self.twins.get(name)

    def asked(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names on the wire of the fields that a pull names, each once; those that have vanished are left out."""
        return tuple(dict.fromkeys(wire for name in names if (wire := self.on_the_wire(name)) is not None))

    def owned(self, asked: Sequence[str]) -> list[str] | None:
        """The mirror names that a pull of `asked` may empty: those asked for, as long as they are in the dictionary.

        Who names none asks for all (protocol 1.4: absent from a full reply is empty now); None is all there are, where no
        dictionary says which.
        """
        if not self.names:
            return list(asked) or None
        return [self.names[wire] for wire in (self.asked(asked) if asked else self.names)]

    def question(self, asked: Sequence[str]) -> str:
        """Six characters that differ for pulls of other fields, however they spell them."""
        names = sorted(self.names[wire] if (wire := self.on_the_wire(name)) is not None else name for name in asked)
        return blake2b(",".join(names).encode(), digest_size=3).hexdigest()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Both interfaces' dictionaries, as of one answer of describe."""

    soap: Dictionary
    rest: Dictionary

    @classmethod
    def of(cls, fields: Sequence[Field]) -> "Vocabulary":
        """What describe's answer makes of each interface."""
        return cls(Dictionary.of_soap(fields), Dictionary.of_rest(fields))

    def spoken_by(self, source: Source) -> Dictionary:
        """The dictionary for the replies of a source."""
        return self.soap if source == "soap" else self.rest

    def owned(self, pull: Pull) -> list[str] | None:
        """The mirror names that a pull may empty."""
        return self.spoken_by(pull.source).owned(pull.fields)


UNDESCRIBED = Vocabulary(Dictionary({}), Dictionary({}))
"""Where nobody describes the fields, they keep the names of their source."""


def _number(fraction: str) -> Callable[[str], Value | None]:
    as_json_has_it = re.compile(rf"-?(?:0|[1-9][0-9]{{0,999}}){fraction}").fullmatch
    as_people_have_it = re.compile(rf"[+-]?[0-9]{{1,1000}}{fraction}").fullmatch

    def convert(text: str) -> Value | None:
        # Most are a few digits, which is known in a third of the time that the pattern takes.
        if not (text.isdigit() and text.isascii() and len(text) < 1000 and text[0] != "0") and not as_json_has_it(text):
            text = text.strip()
            if not as_people_have_it(text):
                return None
            text = _LEADING_ZEROS.sub(r"\1", text).removeprefix("+")
        return orjson.Fragment(text)

    return convert


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _boolean(text: str) -> Value | None:
    return _BOOLEANS.get(text.strip().lower())


def _date(text: str) -> Value | None:
    """A date never shifts zone (protocol 1.4: `YYYY-MM-DD`)."""
    if len(text) == 10 and _days(text) is not None:
        return text
    text = text.strip()
    try:
        return text if date.fromisoformat(text).isoformat() == text else None
    except ValueError:
        return None


_WHOLE_ZONES = {"Z": 0} | {f"{'-' if hours < 0 else '+'}{abs(hours):02}:00": hours for hours in range(-12, 15)}
_HOUR_IN_UTC = {
    f"T{hour:02}{zone}": ((hour - ahead) // 24, f"T{(hour - ahead) % 24:02}") for zone, ahead in _WHOLE_ZONES.items() for hour in range(24)
}
"""An hour and its time zone → days to go on by (one back at the least, one on at the most), and the hour there."""
_WITHIN_THE_HOUR = frozenset(f":{minute:02}:{second:02}" for minute in range(60) for second in range(60))


@lru_cache(maxsize=16_384)
def _days(day: str) -> tuple[str, str, str] | None:
    """That day, the next one and the one before; None where there are none, or it is written in another way."""
    try:
        this, one = date.fromisoformat(day), timedelta(days=1)
        return (day, (this + one).isoformat(), (this - one).isoformat()) if this.isoformat() == day else None
    except (ValueError, OverflowError):
        return None


def _datetime(text: str) -> Value | None:
    """A moment in UTC, to the second, so that every source gives the same text for the same moment.

    What Python's releases read beyond W3C's form differs, and extracts are read by Postgres: it is a misfit.
    """
    # Nearly all have this very form, which is brought to UTC by tables in a sixth of the time.
    hour, within = _HOUR_IN_UTC.get(text[10:13] + text[19:]), text[13:19]
    if hour is not None and within in _WITHIN_THE_HOUR and (days := _days(text[:10])) is not None:
        return f"{days[hour[0]]}{hour[1]}{within}Z"
    text = text.strip()
    if not _MOMENT.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
        return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z"  # with a zone it takes four times as long
    except (ValueError, OverflowError):
        return None


_CONVERT: Mapping[str, Callable[[str], Value | None]] = {
    "integer": _number(""),
    "score": _number(""),
    "percent": _number(_FRACTION),
    "float": _number(_FRACTION),
    "currency": _number(_FRACTION),
    "boolean": _boolean,
    "date": _date,
    "datetime": _datetime,
}
"""attrType or dataType → the value, None for one that does not fit; every other type is text."""
_DECISIVE = frozenset((*_CONVERT, "string", "text", "email", "phone", "url"))
"""The dataTypes that say what values look like; others (a formula, a reference, a word unknown) leave that to attrType."""


def kept(text: str, data_type: str) -> Value | None:
    """A value of a field of that dataType as the mirror would have it; None where it does not fit, or only a reply tells its form."""
    if data_type not in _DECISIVE:
        return None
    convert = _CONVERT.get(data_type)
    return text if convert is None else convert(text)


def mirror_row(lead: LeadRecord, dictionary: Dictionary) -> MirrorRow:
    """The mirror's form of `lead`. Values that don't fit their declared type become misfits; NUL, which Postgres refuses, is cut."""
    attributes: dict[str, Value] = {}
    misfits: dict[str, Value] = {}
    forms = dictionary.forms
    for source_name, kind, text in lead.attributes:
        if "\0" in text:
            text = text.replace("\0", "")
        if not text:
            continue
        name, read = forms.get((source_name, kind)) or dictionary.form(source_name, kind)
        value = text if read is None else read(text)
        if value is None:
            misfits[name] = text
        else:
            attributes[name] = value
    email = lead.email
    if email is not None and len(email) > LONGEST_EMAIL:
        misfits["email"], email = email, None
    attributes_json, misfits_json = _json(attributes), _json(misfits) if misfits else b"{}"
    told = b"\n".join(((email or "").encode(), attributes_json, misfits_json))
    return MirrorRow(lead.lead_id, email, attributes_json.decode(), misfits_json.decode(), md5(told, usedforsecurity=False).hexdigest())


def _json(values: Mapping[str, Value]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
