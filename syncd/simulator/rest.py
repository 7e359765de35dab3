"""The REST side: identity, describe, usage, bulk lead import (protocol sections 2, 3.3, 3.5 and 4), and the way to the other calls."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import parse_qsl

from syncd.simulator.activities import ActivityApi
from syncd.simulator.clock import seeded
from syncd.simulator.export_api import JOB, ExportApi
from syncd.simulator.exports import ExportQueue
from syncd.simulator.importfile import DELIMITERS, file_part, read_import
from syncd.simulator.imports import ImportQueue
from syncd.simulator.lead_deletes import LeadDeletes
from syncd.simulator.lead_reads import LeadReads
from syncd.simulator.lead_writes import LeadWrites
from syncd.simulator.limits import Limiter
from syncd.simulator.report import Recorder
from syncd.simulator.results import results_file, status_entry
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import FORM, JSON, Call, MarketoFault, Reply, plain, rest_result
from syncd.simulator.world import World

EXPORTS = ("export_create", "export_enqueue", "export_status", "export_list", "export_cancel", "export_file")
_READS = {
    "/rest/v1/leads.json": "leads",
    "/rest/v1/activities/pagingtoken.json": "paging_token",
    "/rest/v1/activities/leadchanges.json": "lead_changes",
    "/rest/v1/activities/deletedleads.json": "deleted_leads",
    "/rest/v1/activities.json": "activities",
}
"""Reads whose query string may get long: they can also be asked by `POST …?_method=GET`."""
_BATCH = re.compile(r"/bulk/v1/leads/batch/(\d{1,19})(?:/(failures|warnings))?\.json")


def rest_endpoint_of(path: str, method: str, query: Mapping[str, str]) -> str | None:
    """The endpoint's name (see `faults.ENDPOINTS`), or None for an unknown address."""
    if path in _READS and (method == "GET" or (method == "POST" and query.get("_method") == "GET")):
        return _READS[path]
    fixed = {
        ("GET", "/identity/oauth/token"): "identity",
        ("POST", "/identity/oauth/token"): "identity",
        ("GET", "/rest/v1/leads/describe.json"): "describe",
        ("GET", "/rest/v1/stats/usage.json"): "usage",
        ("POST", "/rest/v1/leads.json"): "sync_leads",
        ("POST", "/rest/v1/leads/delete.json"): "delete_leads",
        ("POST", "/bulk/v1/leads.json"): "import",
        ("POST", "/bulk/v1/leads/export/create.json"): "export_create",
        ("GET", "/bulk/v1/leads/export.json"): "export_list",
    }
    if export := JOB.fullmatch(path):
        return f"export_{export[2]}" if method == ("POST" if export[2] in ("enqueue", "cancel") else "GET") else None
    batch = _BATCH.fullmatch(path) if method == "GET" else None
    return (batch[2] or "status") if batch else fixed.get((method, path))


class Identity:
    """Issues one token at a time; asking again before it expires returns the same with its remaining life."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._chance = seeded(settings.seed, "tokens")
        self._token, self._expires_at = "", 0.0
        self._former: set[str] = set()

    def answer(self, call: Call) -> Reply:
        """A token, or 401 for a wrong client id or secret."""
        form = dict(parse_qsl(call.body.decode("utf-8", "replace")))
        given = dict(call.query) | form
        credentials = self._settings.credentials
        if (given.get("client_id"), given.get("client_secret")) != (credentials.client_id, credentials.client_secret):
            body = {"error": "unauthorized", "error_description": "No client with requested id, or the secret is wrong"}
            return Reply(401, json.dumps(body).encode(), JSON, "http 401")
        if given.get("grant_type") != "client_credentials":
            return Reply(400, json.dumps({"error": "unsupported_grant_type"}).encode(), JSON, "http 400")
        if self._expires_at - call.now < 1.0:
            self.expire()
            self._token = f"{self._chance.getrandbits(128):032x}:rehearsal"
            self._expires_at = call.now + self._settings.token_life
        remaining = int(self._expires_at - call.now)
        token = {"access_token": self._token, "token_type": "bearer", "expires_in": remaining, "scope": credentials.client_id}
        return Reply(200, json.dumps(token).encode(), JSON)

    def expire(self) -> None:
        """Let the present token expire now: it is answered with 602 from here on."""
        if self._token:
            self._former.add(self._token)
        self._token, self._expires_at = "", 0.0

    def check(self, headers: Mapping[str, str], now: float) -> None:
        """Raises fault 601 for a missing or unknown token, 602 for an expired one."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise MarketoFault(601, "Unauthorized")
        if token in self._former or (token == self._token and now >= self._expires_at):
            raise MarketoFault(602, "Access token expired")
        if token != self._token:
            raise MarketoFault(601, "Unauthorized")


class RestApi:
    """Answers describe, usage and bulk import calls, and passes the others on to those who know them."""

    def __init__(
        self,
        settings: SimulatorSettings,
        world: World,
        queue: ImportQueue,
        exports: ExportQueue,
        identity: Identity,
        limiter: Limiter,
        recorder: Recorder,
    ) -> None:
        self._settings, self._world, self._queue, self._identity, self._recorder = settings, world, queue, identity, recorder
        self._limiter = limiter
        self._chance = seeded(settings.seed, "failing jobs")
        activities = ActivityApi(settings, world, recorder)
        self._others: dict[str, Callable[[Call], Reply]] = {
            "leads": LeadReads(world, recorder).answer,
            "sync_leads": LeadWrites(settings, world, queue, recorder).answer,
            "delete_leads": LeadDeletes(world, recorder).answer,
            **dict.fromkeys(EXPORTS, ExportApi(settings, world, exports, recorder).answer),
            **dict.fromkeys(("paging_token", "lead_changes", "deleted_leads", "activities"), activities.answer),
        }

    def answer(self, call: Call) -> Reply:
        """The reply to a call whose endpoint is known. Raises the documented errors."""
        if call.uri_bytes > self._settings.limits.uri_bytes:
            return plain(414, "Request-URI Too Long")
        limits = self._settings.limits
        most = {"import": limits.import_body_bytes, "sync_leads": limits.sync_body_bytes}.get(call.endpoint)
        if most is not None and call.body_size > most:
            return plain(413, "Request Entity Too Large")
        if "access_token" in call.query or call.headers.get("Content-Type", "").startswith(FORM):
            self._refuse_old_token(call)
        self._identity.check(call.headers, call.now)
        if call.endpoint in self._others:
            return self._others[call.endpoint](call)
        if call.endpoint == "describe":
            return rest_result(call, [field.described() for field in self._world.catalogue])
        if call.endpoint == "usage":
            return rest_result(call, [self._limiter.usage(call.now)])
        if call.endpoint == "import":
            return self._import(call)
        return self._batch(call)

    def _refuse_old_token(self, call: Call) -> None:
        if "access_token" in call.query or "access_token" in dict(parse_qsl(call.body.decode("utf-8", "replace"))):
            self._recorder.violation(call.now, "access_token outside the Authorization header")
            raise MarketoFault(601, "Unauthorized")

    def _import(self, call: Call) -> Reply:
        data, labelled = file_part(call.headers.get("Content-Type", ""), call.body)
        if not labelled:
            self._recorder.violation(call.now, "file part without filename or content type")
        form, lookup_field, list_id = self._import_parameters(call)
        file = read_import(form, data, lookup_field, self._settings.imports, self._world.catalogue.by_rest)
        share = self._chance.uniform(0.0, 0.9) if "job_failed" in call.oddities else 1.0
        job = self._queue.submit(file, lookup_field, list_id, share, call.now)
        for kind, count in file.oddities.items():
            self._recorder.violation(call.now, kind, count)
        result = [{"batchId": job.batch_id, "importId": str(job.batch_id), "status": "Queued"}]
        # The one reply that the documentation shows with "success" at its end.
        body = {"requestId": call.request_id, "result": result, "success": True}
        return Reply(200, json.dumps(body).encode(), JSON)

    def _import_parameters(self, call: Call) -> tuple[str, str, int | None]:
        form, lookup_field = call.query.get("format", ""), call.query.get("lookupField", "email")
        if form not in DELIMITERS:
            raise MarketoFault(1003, f"Invalid format '{form}': one of {', '.join(DELIMITERS)} is needed")
        field = self._world.catalogue.by_rest.get(lookup_field)
        if field is None or (field.read_only and lookup_field != "id"):
            raise MarketoFault(1003, f"Invalid lookupField '{lookup_field}'")
        if call.query.get("partitionName", self._settings.partitions[0]) not in self._settings.partitions:
            raise MarketoFault(1003, "Invalid partitionName")
        wanted = call.query.get("listId")
        if wanted is None:
            return form, lookup_field, None
        list_id = next((each for each in self._world.lists if str(each) == wanted), None)
        if list_id is None:
            raise MarketoFault(1003, f"List '{wanted}' not found")
        return form, lookup_field, list_id

    def _batch(self, call: Call) -> Reply:
        match = _BATCH.fullmatch(call.path)
        assert match is not None
        job = self._queue.find(int(match[1]), call.now)
        if call.endpoint == "status":
            self._recorder.polls[job.batch_id] += 1
            return rest_result(call, [status_entry(job, call.now)])
        kind: Literal["failures", "warnings"] = "failures" if call.endpoint == "failures" else "warnings"
        concerned = job.outcome.failed if kind == "failures" else job.outcome.warned
        empty = self._settings.imports.empty_results
        if job.status in ("Queued", "Importing") or "results_404" in call.oddities or (not concerned and empty == "not_found"):
            return plain(404, "Not Found")
        text = results_file(job, kind, call.oddities) if concerned or empty == "header" else ""
        return Reply(200, text.encode(), "text/csv;charset=UTF-8")
