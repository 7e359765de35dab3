"""The two sides record by record: every field of every lead in Marketo's own database against the mirror.

Written apart from `syncd.core.mirror`, so that a mistake there is not repeated here. Both sides stream in id order.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from syncd.simulator.fields import BY_KEY
from syncd.store.leases import Connection

Truth = Iterator[tuple[int, str | None, dict[str, str]]]

SHOWN = 10
"""So many differences are told; all are counted."""

_NUMBERS = ("integer", "score", "float", "currency", "percent")

MIRROR = """
SELECT lead_id, email, attributes::text AS attributes, misfits::text AS misfits FROM syncd.lead
 WHERE instance = $1 AND deleted_at IS NULL ORDER BY lead_id
"""


@dataclass(frozen=True)
class Record:
    """A lead in the form that both sides share: canonical text by field name, `email` among them."""

    lead_id: int
    fields: Mapping[str, str]


@dataclass
class Side:
    """How many records one side holds, and a SHA-256 over all their fields, in id order."""

    records: int = 0
    _hash: Any = field(default_factory=hashlib.sha256, repr=False)

    def add(self, record: Record) -> None:
        self.records += 1
        self._hash.update(f"{record.lead_id} {json.dumps(record.fields, sort_keys=True)}\n".encode())

    @property
    def digest(self) -> str:
        return str(self._hash.hexdigest())


@dataclass
class Comparison:
    marketo: Side = field(default_factory=Side)
    mirror: Side = field(default_factory=Side)
    differing: int = 0
    differences: list[str] = field(default_factory=list)
    """The first ones, by id and field name."""

    @property
    def agrees(self) -> bool:
        return not self.differing and (self.marketo.records, self.marketo.digest) == (self.mirror.records, self.mirror.digest)

    def differs(self, lead_id: int, what: str) -> None:
        self.differing += 1
        if len(self.differences) < SHOWN:
            self.differences.append(f"lead {lead_id}: {what}")


async def compare(truth: Truth, connection: Connection, instance: str, nothing: Collection[str] = ()) -> Comparison:
    """Walk both sides in id order, in bounded memory. `truth` as `World.truth` or `World.rest_truth` gives it.

    A text in `nothing` counts as no value, on both sides: that of an extract can't be told from an empty one.
    """
    result = Comparison()
    empty = {json.dumps(text) for text in nothing}
    held = (_record(*each, empty) for each in truth)
    marketo = next(held, None)
    async with connection.transaction():
        async for mirror in _mirrored(connection, instance, empty):
            result.mirror.add(mirror)
            while marketo is not None and marketo.lead_id < mirror.lead_id:
                marketo = _missing(marketo, held, result)
            if marketo is None or marketo.lead_id > mirror.lead_id:
                result.differs(mirror.lead_id, "is in Postgres only")
                continue
            result.marketo.add(marketo)
            names = sorted(name for name in {*marketo.fields, *mirror.fields} if marketo.fields.get(name) != mirror.fields.get(name))
            if names:
                result.differs(mirror.lead_id, f"differs in {', '.join(names)}")
            marketo = next(held, None)
    while marketo is not None:
        marketo = _missing(marketo, held, result)
    return result


def canonical(name: str, text: str) -> str:
    """A value as Marketo holds it, by its field's type: exact numbers, moments in UTC, texts quoted."""
    kind = BY_KEY[name].data_type if name in BY_KEY else "string"
    if kind in _NUMBERS:
        return _number(Decimal(text))
    if kind == "boolean":
        return text
    return json.dumps(_moment(text) if kind == "datetime" else text)


def canonical_json(name: str, value: object) -> str:
    """A value as the mirror's jsonb holds it, numbers read as Decimal."""
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, str) and name in BY_KEY and BY_KEY[name].data_type == "datetime":
        return json.dumps(_moment(value))
    return json.dumps(value)


def _missing(marketo: Record, held: Iterator[Record], result: Comparison) -> Record | None:
    result.marketo.add(marketo)
    result.differs(marketo.lead_id, "is in Marketo only")
    return next(held, None)


def _record(lead_id: int, email: str | None, values: Mapping[str, str], empty: Collection[str]) -> Record:
    fields = {name: told for name, text in values.items() if (told := canonical(name, text)) not in empty}
    return Record(lead_id, fields if email is None else {**fields, "email": json.dumps(email)})


async def _mirrored(connection: Connection, instance: str, empty: Collection[str]) -> AsyncIterator[Record]:
    async for row in connection.cursor(MIRROR, instance, prefetch=500):
        attributes = json.loads(row["attributes"], parse_int=Decimal, parse_float=Decimal)
        fields = {name: told for name, value in attributes.items() if (told := canonical_json(name, value)) not in empty}
        # Marketo refuses what does not fit its own types: a misfit here is a difference.
        fields.update((name, f"misfit {value}") for name, value in json.loads(row["misfits"] or "{}").items())
        if row["email"] is not None:
            fields["email"] = json.dumps(row["email"])
        yield Record(row["lead_id"], fields)


def _number(number: Decimal) -> str:
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).isoformat()
