"""The dictionary of the instance's fields (protocol 3.3)."""

from typing import Any

from syncd.core.values import Field, FieldName
from syncd.marketo.errors import garbled
from syncd.marketo.rest import RestApi

ENDPOINT = "describe"


async def describe(rest: RestApi) -> tuple[Field, ...]:
    """Every field that REST or SOAP can name, in Marketo's order. Raises Fault."""
    answer = await rest.get(ENDPOINT, "/rest/v1/leads/describe.json")
    fields = (_field(entry) for entry in answer.result)
    return tuple(field for field in fields if field.rest or field.soap)


def _field(entry: Any) -> Field:
    match entry:
        case {"displayName": str(display_name), "dataType": str(data_type)}:
            length = entry.get("length")
            length = length if type(length) is int and 0 <= length < 2**31 else None
            return Field(display_name, data_type, length, _name(entry.get("rest")), _name(entry.get("soap")))
    raise garbled("a field of describe has no displayName or no dataType", ENDPOINT)


def _name(side: Any) -> FieldName | None:
    match side:
        case {"name": str(name)} if name and "\0" not in name:
            return FieldName(name, side.get("readOnly") is True)
        case None:
            return None
    raise garbled("a field of describe has a side without a name", ENDPOINT)
