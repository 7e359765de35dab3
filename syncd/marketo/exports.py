"""Bulk lead extract (protocol 3.1): making jobs, their status, their files."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import orjson

from syncd.core.faults import Fault, Nature
from syncd.core.values import CreatedBetween, ExportFilter, ExportState, ExportStatus, InSmartList, InStaticList, UpdatedBetween
from syncd.marketo.download import Sink, SinkError, read_file
from syncd.marketo.errors import garbled, presentable
from syncd.marketo.reading import iso, moment, whole
from syncd.marketo.rest import Answer, RestApi

CREATE, ENQUEUE, STATUS = "export_create", "export_enqueue", "export_status"
LIST, CANCEL, FILE = "export_list", "export_cancel", "export_file"
WIDEST = timedelta(days=31)
MOST_PAGES = 100
_JOBS = "/bulk/v1/leads/export"
_STATES: dict[str, ExportState] = {
    "created": "created",
    "queued": "queued",
    "processing": "processing",
    "completed": "completed",
    "complete": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_ASKED_AS = {"cancelled": "Canceled"}
_ID = re.compile("[A-Za-z0-9._-]{1,100}")
_CHECKSUM = re.compile("sha256:([0-9a-f]{64})")


class Exports:
    """The export endpoints of one instance. It sees the jobs of its own API user, and none of others'."""

    def __init__(self, rest: RestApi) -> None:
        self._rest = rest

    async def create(self, fields: Sequence[str], wanted: ExportFilter) -> ExportStatus:
        """Make a job for `fields` (REST names) of the leads `wanted`, not queued yet. Sent at most once, as is whatever acts here.

        Raises Fault: with `executed` None it leaves open whether there is a job, which `jobs` would show; CONFIGURATION "1035" where
        the subscription does not have such filters.
        """
        body = orjson.dumps({"fields": list(fields), "format": "CSV", "filter": _filter(wanted)})
        answer = await self._rest.act(CREATE, f"{_JOBS}/create.json", {}, "application/json", (body,))
        # Whatever the status is called, the job exists: losing its id over a word would leave it unconfirmed.
        return _status(_only(answer, CREATE), CREATE, answer.request_id, "created")

    async def enqueue(self, export_id: str) -> ExportStatus:
        """Put the job in the queue. Raises Fault: "1029_already" says that it is there, "1029_queue" and "1029_quota" that it is not."""
        return await self._act(ENQUEUE, export_id, "enqueue", "queued")

    async def cancel(self, export_id: str) -> ExportStatus:
        """Cancel the job. Raises Fault."""
        return await self._act(CANCEL, export_id, "cancel")

    async def status(self, export_id: str) -> ExportStatus:
        """How far the job is; Marketo renews what it says once a minute at most. Raises Fault."""
        answer = await self._rest.get(STATUS, f"{_path(export_id)}/status.json")
        return _same(_status(_only(answer, STATUS), STATUS, answer.request_id), export_id, STATUS, answer.request_id)

    async def jobs(self, states: Sequence[str] = ()) -> list[ExportStatus]:
        """The jobs of 7 days, all or those in `states`. Raises Fault."""
        query = {"status": ",".join(_ASKED_AS.get(state, state.capitalize()) for state in states)} if states else {}
        found: dict[str, ExportStatus] = {}
        for _ in range(MOST_PAGES):
            try:
                answer = await self._rest.get(LIST, f"{_JOBS}.json", query)
            except Fault as fault:
                if fault.nature is not Nature.EMPTY:
                    raise
                return list(found.values())
            page = [_status(entry, LIST, answer.request_id) for entry in answer.result]
            fresh = {job.export_id: job for job in page if job.export_id not in found}
            found |= fresh
            if not fresh or answer.page_token is None:
                return list(found.values())
            query = {**query, "nextPageToken": answer.page_token}
        raise garbled("the list of exports has no end", LIST)

    async def download(self, export_id: str, start: int, size: int | None, sink: Sink) -> None:
        """Hand `sink` the job's file from byte `start` on, in order, in pieces of some KB, by one exchange.

        It returns when the reply ended, whole or not: `size` bounds it, and the caller checks length and checksum. After a Fault
        in the middle `sink` has got what came until then, and `start` may go on behind it. Raises Fault, TRANSIENT while the file is
        not to be had ("http_404", "no_file", and what a page or an envelope in its place says) or other bytes came than those asked
        for ("range"); and whatever `sink` raises, whose own time counts towards no time-out.

        A download holds one of the limiter's places for as long as it takes, because Marketo counts it as a concurrent call.
        """
        assert 0 <= start <= (start if size is None else size)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            await self._rest.stream(FILE, f"{_path(export_id)}/file.json", headers, read_file(FILE, start, size, sink))
        except SinkError as failed:
            raise failed.reason from None

    async def _act(self, endpoint: str, export_id: str, verb: str, otherwise: ExportState | None = None) -> ExportStatus:
        answer = await self._rest.act(endpoint, f"{_path(export_id)}/{verb}.json", {}, "application/json", ())
        return _same(_status(_only(answer, endpoint), endpoint, answer.request_id, otherwise), export_id, endpoint, answer.request_id)


def _path(export_id: str) -> str:
    return f"{_JOBS}/{quote(export_id, safe='')}"


def _filter(wanted: ExportFilter) -> dict[str, Any]:
    match wanted:
        case UpdatedBetween(starts_at, ends_at) | CreatedBetween(starts_at, ends_at):
            assert starts_at <= ends_at <= starts_at + WIDEST, "a span of 31 days at most"
            kind = "updatedAt" if isinstance(wanted, UpdatedBetween) else "createdAt"
            return {kind: {"startAt": iso(starts_at), "endAt": iso(ends_at)}}
        case InStaticList(int(list_id)):
            return {"staticListId": list_id}
        case InStaticList(name):
            return {"staticListName": name}
        case InSmartList(int(list_id)):
            return {"smartListId": list_id}
        case InSmartList(name):
            return {"smartListName": name}


def _only(answer: Answer, endpoint: str) -> Any:
    match answer.result:
        case [entry]:
            return entry
    raise garbled("the result is not one export", endpoint, answer.request_id)


def _status(entry: Any, endpoint: str, request_id: str | None, otherwise: ExportState | None = None) -> ExportStatus:
    """The entry of one job; `otherwise` is its state where the one told is none that is documented."""
    if not isinstance(entry, dict):
        raise garbled("an export is no object", endpoint, request_id)
    export_id = str(entry.get("exportId") or "")
    state = _STATES.get(str(entry.get("status")).strip().lower(), otherwise)
    if not _ID.fullmatch(export_id):
        raise garbled("an export has no id", endpoint, request_id)
    if state is None:
        raise garbled("the status of an export is none that is documented", endpoint, request_id)
    checksum = _CHECKSUM.fullmatch(str(entry.get("fileChecksum")).strip().lower())
    message = entry.get("message") or entry.get("errorMsg")
    return ExportStatus(
        export_id=export_id,
        state=state,
        records=whole(entry.get("numberOfRecords")),
        bytes=whole(entry.get("fileSize")),
        sha256=checksum[1] if checksum else None,
        created_at=moment(entry.get("createdAt")),
        message=presentable(message) if isinstance(message, str) else None,
    )


def _same(status: ExportStatus, export_id: str, endpoint: str, request_id: str | None) -> ExportStatus:
    if status.export_id != export_id:
        raise garbled("the answer is about another export", endpoint, request_id)
    return status
