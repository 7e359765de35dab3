"""Deleting leads by `POST /rest/v1/leads/delete.json` (protocol section 3.4)."""

from typing import Any

from syncd.simulator.report import Recorder
from syncd.simulator.wire import Call, MarketoFault, Reply, json_body, rest_result
from syncd.simulator.world import World

_MOST_RECORDS = 300


class LeadDeletes:
    """Answers each record by itself: a lead that is not there does not keep the others."""

    def __init__(self, world: World, recorder: Recorder) -> None:
        self._world, self._recorder = world, recorder

    def answer(self, call: Call) -> Reply:
        """The records' results in the order of the input. Raises faults 609, 612 and 1003 for a call that is wrong as a whole."""
        asked = json_body(call)
        records = asked.get("input") if isinstance(asked, dict) else None
        if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
            raise MarketoFault(1003, "Invalid input: a list of records is needed")
        if len(records) > _MOST_RECORDS:
            raise MarketoFault(1003, f"Too many records: {len(records)}, at most {_MOST_RECORDS}")
        result = [self._delete(record) for record in records]
        deleted = sum(one["status"] == "deleted" for one in result)
        self._recorder.event(call.now, f"{deleted} of {len(records)} leads deleted")
        return rest_result(call, result)

    def _delete(self, record: dict[str, Any]) -> dict[str, Any]:
        lead_id = record.get("id")
        if not isinstance(lead_id, int) or isinstance(lead_id, bool):
            return {"status": "skipped", "reasons": [{"code": "1002", "message": "Missing value for field 'id'"}]}
        if self._world.get(lead_id) is None:
            return {"id": lead_id, "status": "skipped", "reasons": [{"code": "1004", "message": "Lead not found"}]}
        self._world.delete(lead_id)
        return {"id": lead_id, "status": "deleted"}
