"""Bulk lead import (protocol 4): sending a file, its job's status, its result files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from syncd.core.settings import Format
from syncd.core.values import ImportState, ImportStatus
from syncd.marketo.errors import garbled, presentable
from syncd.marketo.reading import whole
from syncd.marketo.rest import Answer, RestApi

MAX_RESULT_FILE = 64 * 1024 * 1024

_CONTENT_TYPES: dict[Format, str] = {"csv": "text/csv", "tsv": "text/tab-separated-values", "ssv": "text/csv"}
_STATES: dict[str, ImportState] = {
    "queued": "queued",
    "importing": "importing",
    "complete": "complete",
    "completed": "complete",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Submitted:
    """Marketo has taken the file."""

    batch_id: int
    status: ImportState
    request_id: str | None


def envelope(sha256: str, format: Format) -> tuple[bytes, bytes]:  # noqa: A002 - Marketo's word
    """What stands before and after a file in its multipart body. `sha256` is the file's, in hex.

    The boundary comes from the hash: the same file makes the same body at each attempt, and no file can hold its own boundary.
    """
    boundary = _boundary(sha256)
    prefix = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{sha256[:16]}.{format}"\r\n'
        f"Content-Type: {_CONTENT_TYPES[format]}\r\n\r\n"
    )
    return prefix.encode(), f"\r\n--{boundary}--\r\n".encode()


def envelope_bytes(format: Format) -> int:  # noqa: A002 - Marketo's word
    """How many bytes longer than its file a multipart body is, whatever the file."""
    return sum(map(len, envelope("0" * 64, format)))


class Imports:
    """The import endpoints of one instance."""

    def __init__(self, rest: RestApi) -> None:
        self._rest = rest

    async def submit(
        self,
        file: Sequence[bytes],
        *,
        sha256: str,
        format: Format,  # noqa: A002 - Marketo's word
        lookup_field: str = "email",
        list_id: int | None = None,
        partition: str | None = None,
    ) -> Submitted:
        """Send a file, given in pieces. Sent at most once: a Fault with `executed` None leaves open whether a job exists."""
        query = {"format": str(format)}
        if lookup_field != "email":
            query["lookupField"] = lookup_field
        if list_id is not None:
            query["listId"] = str(list_id)
        if partition is not None:
            query["partitionName"] = partition
        prefix, suffix = envelope(sha256, format)
        content_type = f"multipart/form-data; boundary={_boundary(sha256)}"
        answer = await self._rest.act("import", "/bulk/v1/leads.json", query, content_type, (prefix, *file, suffix))
        entry = _only(answer, "import")
        # Whatever the status is called, the job exists: losing its id over a word would leave it unconfirmed.
        return Submitted(_whole(entry.get("batchId"), "import"), _state(entry) or "queued", answer.request_id)

    async def status(self, batch_id: int) -> ImportStatus:
        """How far the job is. Raises Fault."""
        endpoint = "import_status"
        entry = _only(await self._rest.get(endpoint, f"/bulk/v1/leads/batch/{batch_id}.json"), endpoint)
        if _whole(entry.get("batchId"), endpoint) != batch_id:
            raise garbled("the status is another batch's", endpoint)
        state = _state(entry)
        if state is None:
            raise garbled("the batch's status is none that is documented", endpoint)
        message = entry.get("message")
        return ImportStatus(
            batch_id=batch_id,
            state=state,
            processed=_whole(entry.get("numOfLeadsProcessed") or 0, endpoint),
            failed=_whole(entry.get("numOfRowsFailed") or 0, endpoint),
            warned=_whole(entry.get("numOfRowsWithWarning") or 0, endpoint),
            message=presentable(message) if isinstance(message, str) else None,
        )

    async def failures(self, batch_id: int) -> bytes:
        """The file of the rows that were not imported, as it came. Raises Fault, TRANSIENT while it is not to be had."""
        return await self._rest.file("import_failures", f"/bulk/v1/leads/batch/{batch_id}/failures.json", MAX_RESULT_FILE)

    async def warnings(self, batch_id: int) -> bytes:
        """The file of the rows imported with a warning, as it came. Raises Fault, TRANSIENT while it is not to be had."""
        return await self._rest.file("import_warnings", f"/bulk/v1/leads/batch/{batch_id}/warnings.json", MAX_RESULT_FILE)


def _boundary(sha256: str) -> str:
    return f"syncd-{sha256[:48]}"


def _only(answer: Answer, endpoint: str) -> dict[str, Any]:
    match answer.result:
        case [dict(entry)]:
            return entry
    raise garbled("the result is not one batch", endpoint, answer.request_id)


def _state(entry: dict[str, Any]) -> ImportState | None:
    return _STATES.get(str(entry.get("status")).strip().lower())


def _whole(value: Any, endpoint: str) -> int:
    number = whole(value)
    if number is None:
        raise garbled("a number of the batch is missing or is none", endpoint)
    return number
