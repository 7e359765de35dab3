"""A lead of a reply → its form in the mirror: REST names, JSON text, a digest by which an unchanged lead is known.

Values travel as text and become jsonb in Postgres, so that 23-digit integers and decimals stay exact (architecture.md, Values).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import blake2b
from json.encoder import encode_basestring

from syncd.core.values import Field, LeadRecord

_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,1000}(\.[0-9]{1,1000})?([eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LEADING_ZEROS = re.compile(r"^([+-]?)0+(?=[0-9])")


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """A lead as the mirror writes it; `attributes` and `misfits` are JSON texts."""

    lead_id: int
    email: str | None
    attributes: str
    misfits: str
    digest: str


@dataclass(frozen=True, slots=True)
class Dictionary:
    """What fields are called in the mirror: their REST names where describe knows one, else as the source names them."""

    names: Mapping[str, str]
    """Name on the wire → name in the mirror, for the fields that describe lists."""

    @classmethod
    def of_soap(cls, fields: Iterable[Field]) -> "Dictionary":
        """The dictionary for replies that use SOAP names."""
        return cls({field.soap.name: (field.rest or field.soap).name for field in fields if field.soap is not None})

    def owned(self, asked: Sequence[str]) -> list[str] | None:
        """The mirror names that a pull of `asked` may empty: those asked for, as long as they are in the dictionary.

        Who names none asks for all (protocol 1.4: absent from a full reply is empty now); None is all there are, where no
        dictionary says which.
        """
        if not self.names:
            return list(asked) or None
        return [self.names[name] for name in asked or self.names if name in self.names]


def _number(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    def convert(text: str) -> str | None:
        text = text.strip()
        if not pattern.fullmatch(text):
            return None
        return _LEADING_ZEROS.sub(r"\1", text).removeprefix("+")

    return convert


def _boolean(text: str) -> str | None:
    return {"true": "true", "1": "true", "false": "false", "0": "false"}.get(text.strip().lower())


def _date(text: str) -> str | None:
    """A date never shifts zone (protocol 1.4: `YYYY-MM-DD`)."""
    text = text.strip()
    if not _DATE.fullmatch(text):
        return None
    try:
        date.fromisoformat(text)
    except ValueError:
        return None
    return f'"{text}"'


def _datetime(text: str) -> str | None:
    """A moment in UTC, to the second, so that every source gives the same text for the same moment."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            return None
        return f'"{moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}Z"'
    except (ValueError, OverflowError):
        return None


_CONVERT: Mapping[str, Callable[[str], str | None]] = {
    "integer": _number(_INTEGER),
    "score": _number(_INTEGER),
    "percent": _number(_NUMBER),
    "float": _number(_NUMBER),
    "currency": _number(_NUMBER),
    "boolean": _boolean,
    "date": _date,
    "datetime": _datetime,
}
"""attrType or dataType → JSON text, None for a value that does not fit; every other type is text."""


def mirror_row(lead: LeadRecord, dictionary: Dictionary) -> MirrorRow:
    """The mirror's form of `lead`. Values that don't fit their declared type become misfits; NUL, which Postgres refuses, is cut."""
    attributes: dict[str, str] = {}
    misfits: dict[str, str] = {}
    names = dictionary.names
    for attribute in lead.attributes:
        name, value = names.get(attribute.name, attribute.name), attribute.value
        if "\0" in value:
            value = value.replace("\0", "")
        if not value:
            continue
        convert = _CONVERT.get(attribute.type)
        json_text = encode_basestring(value) if convert is None else convert(value)
        if json_text is None:
            misfits[name] = encode_basestring(value)
        else:
            attributes[name] = json_text
    attributes_json, misfits_json = _object(attributes), _object(misfits)
    digest = blake2b(f"{lead.email!r}\n{attributes_json}\n{misfits_json}".encode(), digest_size=12).hexdigest()
    return MirrorRow(lead.lead_id, lead.email, attributes_json, misfits_json, digest)


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{encode_basestring(name)}:{members[name]}" for name in sorted(members)) + "}"
