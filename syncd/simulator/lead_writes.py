"""Sync Leads: a few leads written at once by `POST /rest/v1/leads.json` (protocol section 4)."""

from collections.abc import Mapping
from typing import Any, Final

from syncd.simulator.fields import BadValueError, Field, is_email_address
from syncd.simulator.importfile import normalised_key
from syncd.simulator.imports import ImportQueue
from syncd.simulator.report import Recorder, SyncedLiveKey
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import Call, MarketoFault, Reply, json_body, rest_result
from syncd.simulator.world import Lead, World

_MOST_RECORDS = 300
_ACTIONS: Final = ("createOrUpdate", "createOnly", "updateOnly", "createDuplicate")
_PARAMETERS: Final = frozenset({"action", "lookupField", "input", "partitionName", "asyncProcessing"})


class _Digits(str):
    """A JSON number by its very digits."""

    __slots__ = ()


class _Skipped(Exception):  # noqa: N818 - a record's end, not an error of ours
    """A record is not written; its reason."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class LeadWrites:
    """Answers Sync Leads."""

    def __init__(self, settings: SimulatorSettings, world: World, queue: ImportQueue, recorder: Recorder) -> None:
        self._settings, self._world, self._queue, self._recorder = settings, world, queue, recorder

    def answer(self, call: Call) -> Reply:
        """The records' results in the order of the input. Raises faults 609, 612 and 1003 for a call that is wrong as a whole."""
        asked = json_body(call, _Digits)
        action, lookup_field, records = self._order(asked)
        skipping = _Skipped(611, "System error") if "sync_skipped" in call.oddities else None
        batch = _Batch(self._world, action, lookup_field, records)
        result = list[dict[str, Any]]()
        for record in records:
            self._note(record, lookup_field, batch, call.now)
            result.append(self._told(skipping or batch.write(record, call.now)))
        batch.touch(call.now)
        self._recorder.sync.calls += 1
        self._recorder.event(call.now, f"Sync Leads of {len(records)} records")
        return rest_result(call, result[:-1] if "sync_result_missing" in call.oddities else result)

    def _order(self, asked: Any) -> tuple[str, str, list[dict[str, Any]]]:
        if not isinstance(asked, dict):
            raise MarketoFault(1003, "Invalid request: a JSON object is needed")
        if unknown := sorted(asked.keys() - _PARAMETERS):
            raise MarketoFault(1003, f"Invalid parameter '{unknown[0]}'")
        action, lookup_field, records = asked.get("action", "createOrUpdate"), asked.get("lookupField", "email"), asked.get("input")
        if action not in _ACTIONS:
            raise MarketoFault(1003, f"Invalid action '{action}'")
        if not isinstance(lookup_field, str):
            raise MarketoFault(1003, "Invalid lookupField")
        if asked.get("partitionName", self._settings.partitions[0]) not in self._settings.partitions:
            raise MarketoFault(1003, "Invalid partitionName")
        if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
            raise MarketoFault(1003, "Invalid input: a list of records is needed")
        if len(records) > _MOST_RECORDS:
            raise MarketoFault(1003, f"Too many records: {len(records)}, at most {_MOST_RECORDS}")
        return action, lookup_field, records

    def _note(self, record: Mapping[str, Any], lookup_field: str, batch: "_Batch", now: float) -> None:
        blanks = sum(value == "" for value in record.values())
        if blanks:
            self._recorder.violation(now, "blank value in sync record", blanks)
        key = batch.key_of(record)
        if key and batch.seen(key):
            self._recorder.violation(now, "key twice in one sync call")
        if key and lookup_field != "id" and (live := self._queue.live_with(lookup_field, key)):
            self._recorder.violation(now, "key synced while in a live job")
            for batch_id in live:
                self._recorder.sync.live_key(SyncedLiveKey(lookup_field, key, batch_id))

    def _told(self, end: "_Skipped | tuple[int, str]") -> dict[str, Any]:
        if isinstance(end, _Skipped):
            self._recorder.sync.statuses["skipped"] += 1
            self._recorder.sync.skipped[str(end.code)] += 1
            return {"status": "skipped", "reasons": [{"code": str(end.code), "message": end.message}]}
        lead_id, status = end
        self._recorder.sync.statuses[status] += 1
        return {"id": lead_id, "status": status}


class _Batch:
    """The records of one call, written one after the other: a later one finds what an earlier one has made."""

    def __init__(self, world: World, action: str, lookup_field: str, records: list[dict[str, Any]]) -> None:
        self._world, self._action, self._lookup_field = world, action, lookup_field
        self._known: dict[int, Lead] = {}
        self._made: dict[int, Lead] = {}
        self._seen: set[str] = set()
        self._by_key = self._found({self.key_of(record) for record in records} - {""})

    def key_of(self, record: Mapping[str, Any]) -> str:
        """The normalised lookup value, '' where there is none that could be one."""
        value = record.get(self._lookup_field)
        return normalised_key(self._lookup_field, value) if isinstance(value, str) else ""

    def seen(self, key: str) -> bool:
        """Whether the key came before in this call."""
        before = key in self._seen
        self._seen.add(key)
        return before

    def write(self, record: Mapping[str, Any], now: float) -> _Skipped | tuple[int, str]:
        """Write one record: its lead's id and 'created' or 'updated', or why it is skipped."""
        try:
            self._check_lookup(record)
            values = self._values(record)
            lead = self._target(self.key_of(record))
        except _Skipped as skipped:
            return skipped
        if lead is None:
            made = self._world.insert({name: value for name, value in values.items() if value}, now)
            self._made[made.id] = made
            self._by_key.setdefault(self.key_of(record), []).append(made)
            return made.id, "created"
        # The key found the lead: its own value changes nothing, not even the case of an email.
        self._world.write(lead, {name: value for name, value in values.items() if name != self._lookup_field})
        if lead.id not in self._made:
            self._known[lead.id] = lead
        return lead.id, "updated"

    def touch(self, now: float) -> None:
        """Let what was written count as updated now."""
        self._world.touch([*self._known.values(), *self._made.values()], now, self._known.values())

    def _check_lookup(self, record: Mapping[str, Any]) -> None:
        field = self._world.catalogue.by_rest.get(self._lookup_field)
        only_updates = self._lookup_field == "id" and self._action == "updateOnly"
        if field is None or field.company or (field.read_only and not only_updates):
            raise _Skipped(1011, f"Lookup field '{self._lookup_field}' not supported")
        if self._action != "createDuplicate" and not self.key_of(record):
            raise _Skipped(1002, f"Missing value for lookup field '{self._lookup_field}'")

    def _values(self, record: Mapping[str, Any]) -> dict[str, str]:
        """What the record sets, and as '' what it clears, by the fields' keys."""
        values = dict[str, str]()
        for name, value in record.items():
            field = self._world.catalogue.by_rest.get(name)
            if field is None:
                raise _Skipped(1006, f"Field '{name}' not found")
            if field.company:
                raise _Skipped(1021, f"Company update not allowed: field '{name}'")
            if name == "id" == self._lookup_field:
                continue
            if field.read_only:
                raise _Skipped(1003, f"Field '{name}' is read-only")
            values[field.key] = "" if value is None or value == "" else _text(field, value)
        return values

    def _target(self, key: str) -> Lead | None:
        """The lead to update, or None to create one."""
        if self._action == "createDuplicate":
            return None
        matches = self._by_key.get(key, [])
        if len(matches) > 1:
            raise _Skipped(1007, f"Multiple leads match lookup field '{self._lookup_field}'")
        if matches and self._action == "createOnly":
            raise _Skipped(1005, "Lead already exists")
        if not matches and self._action == "updateOnly":
            raise _Skipped(1004, "Lead not found")
        return matches[0] if matches else None

    def _found(self, keys: set[str]) -> dict[str, list[Lead]]:
        if self._lookup_field == "id":
            return {key: [lead] for key in keys if (lead := self._world.get(key)) is not None}
        if self._lookup_field == "email":
            return {key: self._world.by_email(key) for key in keys}
        found: dict[str, list[Lead]] = {}
        for lead in self._world:
            key = normalised_key(self._lookup_field, lead.values.get(self._lookup_field, ""))
            if key in keys:
                found.setdefault(key, []).append(lead)
        return found


def _text(field: Field, value: Any) -> str:
    """A JSON value as a lead keeps it. Raises `_Skipped`: 1001 for another type, 1003 for a value that may not be."""
    truth = isinstance(value, bool)
    if not isinstance(value, str | bool) or truth != (field.data_type == "boolean" and truth):
        raise _Skipped(1001, f"Invalid value for field '{field.key}'. Required of type '{field.data_type}'")
    text = str(value).lower() if truth else str(value)
    if field.data_type == "email" and not (text.isascii() and is_email_address(text.strip())):
        raise _Skipped(1003, f"Invalid value for field '{field.key}': no email address")
    if field.length is not None and len(text) > field.length:
        raise _Skipped(1003, f"Value for field '{field.key}' is longer than {field.length} characters")
    try:
        return field.normalised(text)
    except BadValueError as error:
        raise _Skipped(1001, f"{error}") from error
