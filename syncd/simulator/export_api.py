"""Bulk lead extract over REST: jobs, and their files (protocol section 3.1)."""

import base64
import re
from dataclasses import replace
from typing import Any

from syncd.simulator.exportfile import ExportFile
from syncd.simulator.exports import ExportJob, ExportQueue
from syncd.simulator.fields import datetime_text
from syncd.simulator.orders import read_order
from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import Call, MarketoFault, Reply, Stream, moment, plain, rest_error, rest_result
from syncd.simulator.world import World

JOB = re.compile(r"/bulk/v1/leads/export/([0-9A-Za-z-]{1,64})/(enqueue|cancel|status|file)\.json")
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{1,15})?", re.ASCII)
_PAGE = 300
_MINUTE = 60.0
# Clocks count in microseconds, floats a little off them.
_TICK = 1e-3
# It has been seen to say so; the content is UTF-8.
_CONTENT_TYPE = "text/csv;charset=ISO-8859-1"
_SPELLINGS = ("Canceled", "Cancelled")


class ExportApi:
    """Answers create, enqueue, status, list, cancel and file."""

    def __init__(self, settings: SimulatorSettings, world: World, queue: ExportQueue, recorder: Recorder) -> None:
        self._model, self._world, self._queue, self._recorder = settings.exports, world, queue, recorder

    def answer(self, call: Call) -> Reply:
        """The reply to a call of these six. Raises the documented errors."""
        if call.endpoint == "export_create":
            order = read_order(call, self._model, self._world)
            return rest_result(call, [self._entry(self._queue.create(order, "export_failed" in call.oddities, call.now), "Created", call)])
        if call.endpoint == "export_list":
            return self._list(call)
        match = JOB.fullmatch(call.path)
        assert match is not None
        job = self._queue.find(match[1], call.now)
        if call.endpoint == "export_file":
            return self._file(call, job)
        if job is None:
            raise MarketoFault(1003, f"Export '{match[1]}' not found")
        if call.endpoint == "export_enqueue":
            self._queue.enqueue(job, "export_failed" in call.oddities, call.now)
            return rest_result(call, [self._entry(job, "Queued", call)])
        if call.endpoint == "export_cancel":
            self._queue.cancel(job, call.now)
            return rest_result(call, [self._entry(job, "Cancelled", call)])
        self._note_poll(job.id, call)
        return rest_result(call, [self._entry(job, job.told(call.now, self._model.status_age), call)])

    def _note_poll(self, export_id: str, call: Call) -> None:
        tally = self._recorder.exports
        tally.polls[export_id] += 1
        if call.now - tally.polled_at.get(export_id, float("-inf")) < _MINUTE - _TICK:
            self._recorder.violation(call.now, "export polled within a minute")
        if not call.reply_lost:
            # Who never got the answer may ask again.
            tally.polled_at[export_id] = call.now

    def _list(self, call: Call) -> Reply:
        wanted = {_spelt(name.strip()) for name in call.query.get("status", "").split(",") if name.strip()}
        told = [(job, job.told(call.now, self._model.status_age)) for job in self._queue.known(call.now)]
        shown = [(job, state) for job, state in told if not wanted or state in wanted]
        start = _position(call.query.get("nextPageToken", ""))
        page = [self._entry(job, state, call) for job, state in shown[start : start + _PAGE]]
        left = len(shown) > start + _PAGE
        return rest_result(call, page, {"nextPageToken": base64.b32encode(str(start + _PAGE).encode()).decode()} if left else {})

    def _entry(self, job: ExportJob, state: str, call: Call) -> dict[str, Any]:
        """What a job tells of itself in a state that it is in, or was in lately."""
        # Both spellings have been seen; which one is fixed by the job.
        shown = _SPELLINGS[sum(job.id.encode()) % 2] if state == "Cancelled" else state
        entry: dict[str, Any] = {"exportId": job.id, "status": shown, "createdAt": datetime_text(moment(job.created_at))}
        times = {"queuedAt": job.queued_at, "startedAt": job.started_at, "finishedAt": job.finished_at}
        told = {"Created": 0, "Queued": 1, "Processing": 2}.get(state, 3)
        entry |= {name: datetime_text(moment(at)) for name, at in list(times.items())[:told] if at < float("inf")}
        entry["format"] = "CSV"
        if state == "Completed" and job.file is not None:
            checksum = job.file.sha256 if "wrong_checksum" not in call.oddities else job.file.sha256[::-1]
            entry |= {"numberOfRecords": job.file.records, "fileSize": job.file.size, "fileChecksum": f"sha256:{checksum}"}
        if state == "Failed":
            entry["errorMsg"] = job.error
        return entry

    def _file(self, call: Call, job: ExportJob | None) -> Reply:
        if job is not None and job.state in ("Created", "Queued", "Processing"):
            self._recorder.violation(call.now, "file asked for too early")
        ready = job is not None and job.state == "Completed" and call.now - job.finished_at >= self._model.not_ready_seconds - _TICK
        if not ready or "file_404" in call.oddities:
            return plain(404, "Not Found")
        if "file_json_200" in call.oddities:
            return rest_error(call, 713, "Transient error")
        assert job is not None
        assert job.file is not None
        reply = self._sent(call, job.file)
        self._recorder.exports.downloads[job.id] += reply.stream is not None
        return reply

    def _sent(self, call: Call, file: ExportFile) -> Reply:
        start, end, status, headers = 0, file.size, 200, {"Accept-Ranges": "bytes"}
        if match := _RANGE.fullmatch(call.headers.get("Range", "")):
            start, end = int(match[1]), min(file.size, int(match[2]) + 1 if match[2] else file.size)
            if start >= end:
                return replace(plain(416, "Range Not Satisfiable"), headers={"Content-Range": f"bytes */{file.size}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        shift = 0 if "range_off_by_one" not in call.oddities or status == 200 else -1 if start else 1
        stream = Stream(end - start, lambda: _shifted(file, start, end, shift), self._recorder.exports.sent)
        return Reply(status, b"", _CONTENT_TYPE, headers=headers, stream=stream)


def _shifted(file: ExportFile, start: int, end: int, shift: int) -> Any:
    yield from file.pieces(start + shift, end + shift)
    if end + shift > file.size:
        # There is nothing behind the last byte: the length must be right all the same.
        yield b"\n"


def _spelt(state: str) -> str:
    return "Cancelled" if state in _SPELLINGS else state


def _position(token: str) -> int:
    try:
        return int(base64.b32decode(token)) if token else 0
    except ValueError as error:
        raise MarketoFault(1003, "Invalid nextPageToken") from error
