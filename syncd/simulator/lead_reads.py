"""Reading leads by their ids or addresses, with typed values (protocol section 3.2, leads.json)."""

import json
import re

from syncd.simulator.fields import Field, utc_text
from syncd.simulator.report import Recorder
from syncd.simulator.wire import JSON, Call, MarketoFault, Reply, parameters
from syncd.simulator.world import Lead, World

_MOST_VALUES = 300
_MOST_LEADS = 1_000
_DEFAULT_FIELDS = "firstName,lastName,email"
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)
_OTHER_NUMBER = re.compile(r"([+-]?)0*(\d*)(?:\.(\d*))?", re.ASCII)
_NUMBERS = frozenset({"integer", "score", "float", "currency", "percent"})


class LeadReads:
    """Answers leads.json."""

    def __init__(self, world: World, recorder: Recorder) -> None:
        self._world, self._recorder = world, recorder

    def answer(self, call: Call) -> Reply:
        """The leads asked for in the order of their ids; an id without a lead is simply missing. Raises fault 1003 for a wrong request."""
        asked = parameters(call)
        fields = rest_fields(self._world, asked.get("fields", _DEFAULT_FIELDS))
        leads = self._found(asked.get("filterType"), [value.strip() for value in asked.get("filterValues", "").split(",") if value.strip()])
        if len(leads) > _MOST_LEADS:
            raise MarketoFault(1003, f"Too many leads match the filter: {len(leads)}, at most {_MOST_LEADS}")
        self._recorder.leads_read += len(leads)
        records = ",".join(_record(lead, fields) for lead in leads)
        return Reply(200, f'{{"requestId":{json.dumps(call.request_id)},"success":true,"result":[{records}]}}'.encode(), JSON)

    def _found(self, kind: str | None, values: list[str]) -> list[Lead]:
        if kind not in ("id", "email"):
            raise MarketoFault(1003, f"Invalid filterType '{kind}'" if kind else "filterType not specified")
        if not values:
            raise MarketoFault(1003, "filterValues not specified")
        if len(values) > _MOST_VALUES:
            raise MarketoFault(1003, f"Too many filterValues: {len(values)}, at most {_MOST_VALUES}")
        if kind == "id":
            found = {lead.id: lead for value in values if (lead := self._world.get(value)) is not None}
        else:
            found = {lead.id: lead for value in values for lead in self._world.by_email(value)}
        return [found[lead_id] for lead_id in sorted(found)]


def rest_fields(world: World, names: str) -> list[Field]:
    """The fields of a comma-separated list of REST names. Raises fault 1003, naming the first that is unknown."""
    known, wanted = world.catalogue.by_rest, [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise MarketoFault(1003, f"Invalid value for fields: unknown field '{name}'")
    return [known[name] for name in dict.fromkeys(wanted)]


def _record(lead: Lead, fields: list[Field]) -> str:
    shown = [f'"id":{lead.id}']
    for field in fields:
        value = lead.values.get(field.key)
        if value is not None and field.key != "id":
            shown.append(f"{json.dumps(field.rest)}:{json_text(field, value)}")
        elif (lead.id + field.id) % 2 and field.key != "id":
            # Without a value some are left out and the others null; which is fixed, so that a lead always looks the same.
            shown.append(f"{json.dumps(field.rest)}:null")
    return f"{{{','.join(shown)}}}"


def json_text(field: Field, value: str) -> str:
    """A kept value as JSON: numbers with the very digits of the text, truths as true and false, datetimes in UTC."""
    if field.data_type in _NUMBERS and (number := _number(value)) is not None:
        return number
    if field.data_type == "boolean" and value in ("true", "false"):
        return value
    return json.dumps(utc_text(value) if field.data_type == "datetime" else value, ensure_ascii=False)


def _number(text: str) -> str | None:
    """The text as a JSON number: signs, leading zeros and bare points, which JSON has not, go; the digits stay. None for other text."""
    if _JSON_NUMBER.fullmatch(text):
        return text
    match = _OTHER_NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3] or "0" in text):
        return None
    fraction = f".{match[3]}" if match[3] else ""
    return f"{'-' if match[1] == '-' else ''}{match[2] or '0'}{fraction}"
