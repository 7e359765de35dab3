"""Trouble made on purpose: by chance at settled rates, or by a test's script."""

import re
from collections import deque
from dataclasses import replace

from syncd.simulator.clock import seeded
from syncd.simulator.exportfile import IN_THE_FILE
from syncd.simulator.fault_kinds import Fault, marketo_fault
from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import JSON, Reply, html

ENDPOINTS = (
    "soap",
    "identity",
    "describe",
    "import",
    "status",
    "failures",
    "warnings",
    "usage",
    "leads",
    "paging_token",
    "lead_changes",
    "deleted_leads",
    "activities",
    "export_create",
    "export_enqueue",
    "export_status",
    "export_list",
    "export_cancel",
    "export_file",
    "sync_leads",
    "delete_leads",
)
_FIRST_COMERS = frozenset(ENDPOINTS[:8])
"""They draw from one stream of chance; each of the others has its own, so that seeds replay."""


_TRANSPORT = (
    Fault.RESET_BEFORE,
    Fault.RESET_AFTER,
    Fault.TRUNCATED,
    Fault.HTML_200,
    Fault.HTML_503,
    Fault.GATEWAY_502,
    Fault.GATEWAY_504,
)
_MISCHIEF = (Fault.HTML_500, Fault.SLOW_DRIP, Fault.REDIRECT, Fault.WRONG_LENGTH, Fault.WRONG_LENGTH_CUT, Fault.GZIP_BOMB)
_SOAP = (Fault.SOAP_10001, Fault.SOAP_20011, Fault.SOAP_20016, Fault.SOAP_20023, Fault.SOAP_20122)
_SOAP_CODES = tuple(fault for fault in Fault if fault.value.startswith("soap_") and fault not in _SOAP)
_REST = (Fault.JSON_GARBAGE, Fault.REST_602, Fault.REST_604, Fault.REST_606, Fault.REST_608, Fault.REST_611, Fault.REST_713)
_REST_LIMITS = (Fault.REST_607, Fault.REST_615)
_REST_CODES = tuple(fault for fault in Fault if fault.value.startswith("rest_"))
_RESULTS = (Fault.RESULTS_404, Fault.RESULTS_WITHOUT_EMPTY_COLUMN, Fault.RESULTS_SHORT_ROW)
_FILE = (Fault.FILE_404, Fault.FILE_JSON_200, Fault.FILE_BROKEN_OFF, Fault.RANGE_OFF_BY_ONE)
_IN_THE_FILE = tuple(Fault(name) for name in sorted(IN_THE_FILE))
_ACTIVITY_PAGES = ("lead_changes", "deleted_leads", "activities")
# Those with a rate stand in the order in which chance is asked: a new one goes to the end, or seeds would not replay.
_AT: dict[str, tuple[Fault, ...]] = {
    "soap": (*_TRANSPORT, *_SOAP, Fault.SHORT_PAGE, *_SOAP_CODES, *_MISCHIEF, Fault.GARBLED_XML),
    "identity": (*_TRANSPORT, Fault.JSON_GARBAGE, *_MISCHIEF),
    "describe": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    "import": (*_TRANSPORT, *_REST, Fault.IMPORT_1016, Fault.JOB_FAILED, *_REST_LIMITS, *_MISCHIEF),
    "status": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    "failures": (*_TRANSPORT, *_REST, *_RESULTS, *_REST_LIMITS, *_MISCHIEF),
    "warnings": (*_TRANSPORT, *_REST, *_RESULTS, *_REST_LIMITS, *_MISCHIEF),
    "usage": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    "leads": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    "paging_token": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    "export_create": (*_TRANSPORT, *_REST, Fault.EXPORT_FAILED, *_REST_LIMITS, *_MISCHIEF),
    "export_enqueue": (*_TRANSPORT, *_REST, Fault.REST_1029_QUEUE, Fault.EXPORT_FAILED, *_REST_LIMITS, *_MISCHIEF),
    "export_status": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF, Fault.WRONG_CHECKSUM),
    "export_list": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF, Fault.WRONG_CHECKSUM),
    "export_cancel": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    "export_file": (*_TRANSPORT, *_REST, *_FILE, *_REST_LIMITS, *_MISCHIEF, *_IN_THE_FILE),
    "sync_leads": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF, Fault.SYNC_RESULT_MISSING, Fault.SYNC_SKIPPED),
    "delete_leads": (*_TRANSPORT, *_REST, *_REST_LIMITS, *_MISCHIEF),
    **dict.fromkeys(_ACTIVITY_PAGES, (*_TRANSPORT, *_REST, Fault.SHORT_ACTIVITY_PAGE, *_REST_LIMITS, *_MISCHIEF)),
}
_WITHOUT_CODES = ("soap", "identity")
"""At the others every code of REST can be scripted; only those that stand above have a rate there."""
_SHAPING = frozenset({Fault.SHORT_PAGE, Fault.JOB_FAILED, Fault.SHORT_ACTIVITY_PAGE, *_RESULTS}) | {
    Fault.EXPORT_FAILED,
    Fault.SYNC_RESULT_MISSING,
    Fault.SYNC_SKIPPED,
    Fault.WRONG_CHECKSUM,
    Fault.RANGE_OFF_BY_ONE,
    Fault.FILE_JSON_200,
    Fault.FILE_404,
}
REDIRECT = Reply(302, b"", "", "redirect")
_UNPROCESSED_PAGES = {
    Fault.REDIRECT: REDIRECT,
    Fault.HTML_500: html(500, "Internal Server Error"),
    Fault.HTML_200: html(200, "We are down for maintenance"),
    Fault.HTML_503: html(503, "Service Unavailable"),
    Fault.GATEWAY_502: html(502, "Bad Gateway"),
}
_PROCESSED_REPLIES = {
    Fault.GATEWAY_504: html(504, "Gateway Time-out"),
    Fault.JSON_GARBAGE: Reply(200, b'{"requestId":"1a2b#15', JSON, "garbage"),
}
# Codes of requests that were processed all the same.
_TIMED_OUT = frozenset({Fault.REST_504, Fault.REST_604})
# Processed and answered well; what goes wrong is how the answer is delivered.
_DELIVERIES = {
    Fault.RESET_AFTER: "reset",
    Fault.TRUNCATED: "truncated",
    Fault.FILE_BROKEN_OFF: "broken off",
    Fault.SLOW_DRIP: "slow drip",
    Fault.WRONG_LENGTH: "wrong length",
    Fault.WRONG_LENGTH_CUT: "wrong length cut",
    Fault.GZIP_BOMB: "gzip bomb",
}
_RETURN_COUNT = re.compile(rb"<returnCount>\d+</returnCount>")


class FaultPlan:
    """Decides, request by request, what goes wrong."""

    def __init__(self, settings: SimulatorSettings, recorder: Recorder) -> None:
        self._recorder = recorder
        shared = seeded(settings.seed, "faults")
        self._chance = {
            endpoint: shared if endpoint in _FIRST_COMERS else seeded(settings.seed, f"faults at {endpoint}") for endpoint in ENDPOINTS
        }
        self._rates = {
            endpoint: [(fault, rate) for fault in kinds if (rate := float(getattr(settings.faults, fault.value, 0.0))) > 0]
            for endpoint, kinds in _AT.items()
        }
        self._scripts: dict[str, deque[Fault]] = {endpoint: deque() for endpoint in ENDPOINTS}
        self._files: deque[Fault] = deque()

    def script(self, endpoint: str, fault: Fault, times: int) -> None:
        """Let the next `times` requests to `endpoint` meet `fault`. Raises ValueError where it makes no sense."""
        if fault not in _AT.get(endpoint, ()) and not (fault in _REST_CODES and endpoint in _AT and endpoint not in _WITHOUT_CODES):
            raise ValueError(f"{fault.value} cannot happen at '{endpoint}'")
        scripted = self._files if fault in _IN_THE_FILE else self._scripts[endpoint]
        scripted.extend([fault] * times)

    def for_the_next_file(self) -> frozenset[str]:
        """What the file of an export that begins now has in it."""
        if not self._files:
            return frozenset()
        fault = self._files.popleft()
        self._recorder.faults[fault.value] += 1
        return frozenset({fault.value})

    def draw(self, endpoint: str) -> frozenset[Fault]:
        """What the next request to `endpoint` meets: at most one fault in place of its answer, any number that shape it."""
        if self._scripts[endpoint]:
            drawn = [self._scripts[endpoint].popleft()]
        else:
            chance = self._chance[endpoint]
            drawn = [fault for fault, rate in self._rates[endpoint] if chance.random() < rate]
        replacing = [fault for fault in drawn if fault not in _SHAPING][:1]
        met = frozenset(replacing or drawn)
        self._recorder.faults.update(fault.value for fault in met)
        return met


def instead_of_processing(faults: frozenset[Fault]) -> Reply | None:
    """The page that answers an unprocessed request, if any. Raises the fault that refuses it."""
    for fault in faults:
        if fault in _UNPROCESSED_PAGES:
            return _UNPROCESSED_PAGES[fault]
        if fault is Fault.RESET_BEFORE:
            return Reply(0, b"", "", "reset")
        if fault not in _TIMED_OUT and (refusal := marketo_fault(fault)) is not None:
            raise refusal
    return None


def hides_the_answer(faults: frozenset[Fault]) -> bool:
    """Whether the client of a processed request does not get its answer."""
    return any(fault in _DELIVERIES or fault in _PROCESSED_REPLIES or fault in _TIMED_OUT for fault in faults)


def instead_of_the_answer(faults: frozenset[Fault], reply: Reply) -> Reply:
    """What the client gets of the answer to a processed request. Raises the fault that hides it."""
    for fault in faults & _TIMED_OUT:
        if (refusal := marketo_fault(fault)) is not None:
            raise refusal
    if Fault.GARBLED_XML in faults:
        return replace(reply, body=_RETURN_COUNT.sub(b"", reply.body), code="garbled")
    for fault in faults:
        if fault in _DELIVERIES:
            return replace(reply, code=_DELIVERIES[fault])
    return next((_PROCESSED_REPLIES[fault] for fault in faults if fault in _PROCESSED_REPLIES), reply)
