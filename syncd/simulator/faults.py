"""Trouble made on purpose: by chance at settled rates, or by a test's script."""

from collections import deque
from enum import StrEnum

from syncd.simulator.clock import seeded
from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import JSON, MarketoFault, Reply, html

ENDPOINTS = ("soap", "identity", "describe", "import", "status", "failures", "warnings")


class Fault(StrEnum):
    """Kinds of trouble; each has its rate of the same name in `FaultRates`."""

    RESET_BEFORE = "reset_before"
    """The connection is reset; the request was not processed."""
    RESET_AFTER = "reset_after"
    """The request was processed, then the connection is reset: the reply is lost."""
    TRUNCATED = "truncated"
    """Processed, but the reply breaks off half way."""
    HTML_200 = "html_200"
    HTML_503 = "html_503"
    GATEWAY_502 = "gateway_502"
    """Not processed."""
    GATEWAY_504 = "gateway_504"
    """Processed, but the gateway had given up waiting."""
    JSON_GARBAGE = "json_garbage"
    """Processed, but the reply is not JSON."""
    SOAP_10001 = "soap_10001"
    SOAP_20011 = "soap_20011"
    SOAP_20016 = "soap_20016"
    SOAP_20023 = "soap_20023"
    SOAP_20122 = "soap_20122"
    SHORT_PAGE = "short_page"
    """A page with fewer leads than asked for, maybe none, that is not the last one."""
    REST_602 = "rest_602"
    REST_604 = "rest_604"
    """Timed out: processed all the same."""
    REST_606 = "rest_606"
    REST_608 = "rest_608"
    REST_611 = "rest_611"
    REST_713 = "rest_713"
    IMPORT_1016 = "import_1016"
    JOB_FAILED = "job_failed"
    """The import job accepted now will end Failed, with only a part of its rows processed."""
    RESULTS_404 = "results_404"
    RESULTS_WITHOUT_EMPTY_COLUMN = "results_without_empty_column"
    RESULTS_SHORT_ROW = "results_short_row"


_TRANSPORT = (
    Fault.RESET_BEFORE,
    Fault.RESET_AFTER,
    Fault.TRUNCATED,
    Fault.HTML_200,
    Fault.HTML_503,
    Fault.GATEWAY_502,
    Fault.GATEWAY_504,
)
_SOAP = (Fault.SOAP_10001, Fault.SOAP_20011, Fault.SOAP_20016, Fault.SOAP_20023, Fault.SOAP_20122)
_REST = (Fault.JSON_GARBAGE, Fault.REST_602, Fault.REST_604, Fault.REST_606, Fault.REST_608, Fault.REST_611, Fault.REST_713)
_RESULTS = (Fault.RESULTS_404, Fault.RESULTS_WITHOUT_EMPTY_COLUMN, Fault.RESULTS_SHORT_ROW)
_AT: dict[str, tuple[Fault, ...]] = {
    "soap": (*_TRANSPORT, *_SOAP, Fault.SHORT_PAGE),
    "identity": (*_TRANSPORT, Fault.JSON_GARBAGE),
    "describe": (*_TRANSPORT, *_REST),
    "import": (*_TRANSPORT, *_REST, Fault.IMPORT_1016, Fault.JOB_FAILED),
    "status": (*_TRANSPORT, *_REST),
    "failures": (*_TRANSPORT, *_REST, *_RESULTS),
    "warnings": (*_TRANSPORT, *_REST, *_RESULTS),
}
_SHAPING = frozenset({Fault.SHORT_PAGE, Fault.JOB_FAILED, *_RESULTS})
_UNPROCESSED_PAGES = {
    Fault.HTML_200: html(200, "We are down for maintenance"),
    Fault.HTML_503: html(503, "Service Unavailable"),
    Fault.GATEWAY_502: html(502, "Bad Gateway"),
}
_PROCESSED_REPLIES = {
    Fault.GATEWAY_504: html(504, "Gateway Time-out"),
    Fault.JSON_GARBAGE: Reply(200, b'{"requestId":"1a2b#15', JSON, "garbage"),
}
_MESSAGES = {
    10001: "Internal error",
    20011: "Internal error",
    20016: "Request expired",
    20023: "Rate limit exceeded",
    20122: "Bad stream position",
    602: "Access token expired",
    604: "Request timed out",
    606: "Max rate limit of 100 calls in 20 secs exceeded",
    608: "API temporarily unavailable",
    611: "System error",
    713: "Transient error",
    1016: "Too many imports",
}


class FaultPlan:
    """Decides, request by request, what goes wrong."""

    def __init__(self, settings: SimulatorSettings, recorder: Recorder) -> None:
        self._recorder = recorder
        self._chance = seeded(settings.seed, "faults")
        self._rates = {
            endpoint: [(fault, rate) for fault in kinds if (rate := float(getattr(settings.faults, fault.value))) > 0]
            for endpoint, kinds in _AT.items()
        }
        self._scripts: dict[str, deque[Fault]] = {endpoint: deque() for endpoint in ENDPOINTS}

    def script(self, endpoint: str, fault: Fault, times: int) -> None:
        """Let the next `times` requests to `endpoint` meet `fault`. Raises ValueError where it makes no sense."""
        if endpoint not in _AT or fault not in _AT[endpoint]:
            raise ValueError(f"{fault.value} cannot happen at '{endpoint}'")
        self._scripts[endpoint].extend([fault] * times)

    def draw(self, endpoint: str) -> frozenset[Fault]:
        """What the next request to `endpoint` meets: at most one fault in place of its answer, any number that shape it."""
        if self._scripts[endpoint]:
            drawn = [self._scripts[endpoint].popleft()]
        else:
            drawn = [fault for fault, rate in self._rates[endpoint] if self._chance.random() < rate]
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
        if fault is not Fault.REST_604 and (code := _code(fault)) is not None:
            raise MarketoFault(code, _MESSAGES[code])
    return None


def instead_of_the_answer(faults: frozenset[Fault], reply: Reply) -> Reply:
    """What the client gets of the answer to a processed request. Raises the fault that hides it."""
    if Fault.REST_604 in faults:
        raise MarketoFault(604, _MESSAGES[604])
    if Fault.RESET_AFTER in faults:
        return Reply(0, b"", "", "reset")
    if Fault.TRUNCATED in faults:
        return Reply(reply.status, reply.body, reply.content_type, "truncated")
    return next((_PROCESSED_REPLIES[fault] for fault in faults if fault in _PROCESSED_REPLIES), reply)


def _code(fault: Fault) -> int | None:
    name, _, code = fault.value.rpartition("_")
    return int(code) if name in ("soap", "rest", "import") else None
