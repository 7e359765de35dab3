"""Trouble made on purpose: by chance at settled rates, or by a test's script."""

import re
from collections import deque
from dataclasses import replace
from enum import StrEnum

from syncd.simulator.clock import seeded
from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import JSON, MarketoFault, Reply, html

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
)
_FIRST_COMERS = frozenset(ENDPOINTS[:8])
"""They draw from one stream of chance; each of the others has its own, so that seeds replay."""


class Fault(StrEnum):
    """Kinds of trouble; those of a bad day have their rates of the same name in `FaultRates`, the others are only scripted."""

    RESET_BEFORE = "reset_before"
    """The connection is reset; the request was not processed."""
    RESET_AFTER = "reset_after"
    """The request was processed, then the connection is reset: the reply is lost."""
    TRUNCATED = "truncated"
    """Processed, but the reply breaks off half way."""
    HTML_200 = "html_200"
    HTML_503 = "html_503"
    HTML_500 = "html_500"
    """Not processed; the status of a SOAP fault without being one."""
    GATEWAY_502 = "gateway_502"
    """Not processed."""
    GATEWAY_504 = "gateway_504"
    """Processed, but the gateway had given up waiting."""
    SLOW_DRIP = "slow_drip"
    """Processed, but the reply comes byte by byte with pauses, and never ends."""
    REDIRECT = "redirect"
    """Not processed: a 302 to an address that redirects to itself for ever."""
    WRONG_LENGTH = "wrong_length"
    """Processed; the whole reply comes, but Content-Length promised more before the connection closes."""
    WRONG_LENGTH_CUT = "wrong_length_cut"
    """Processed, but Content-Length is too small: for HTTP all is well, and the reply is half of it."""
    GZIP_BOMB = "gzip_bomb"
    """Processed; the reply is gzipped and inflates to a gigabyte of white space, with its proper content around it."""
    GARBLED_XML = "garbled_xml"
    """Processed; the page is well-formed, but its returnCount is missing."""
    JSON_GARBAGE = "json_garbage"
    """Processed, but the reply is not JSON."""
    SOAP_10001 = "soap_10001"
    SOAP_20011 = "soap_20011"
    SOAP_20012 = "soap_20012"
    SOAP_20013 = "soap_20013"
    SOAP_20014 = "soap_20014"
    SOAP_20015 = "soap_20015"
    SOAP_20016 = "soap_20016"
    SOAP_20017 = "soap_20017"
    SOAP_20019 = "soap_20019"
    SOAP_20022 = "soap_20022"
    SOAP_20023 = "soap_20023"
    SOAP_20024 = "soap_20024"
    SOAP_20102 = "soap_20102"
    SOAP_20103 = "soap_20103"
    SOAP_20109 = "soap_20109"
    SOAP_20110 = "soap_20110"
    SOAP_20111 = "soap_20111"
    SOAP_20114 = "soap_20114"
    SOAP_20122 = "soap_20122"
    SOAP_20123 = "soap_20123"
    SOAP_29999 = "soap_29999"
    """A code that nobody documents."""
    SHORT_PAGE = "short_page"
    """A page with fewer leads than asked for, maybe none, that is not the last one."""
    REST_602 = "rest_602"
    REST_604 = "rest_604"
    """Timed out: processed all the same."""
    REST_606 = "rest_606"
    REST_607 = "rest_607"
    REST_608 = "rest_608"
    REST_611 = "rest_611"
    REST_615 = "rest_615"
    REST_713 = "rest_713"
    IMPORT_1016 = "import_1016"
    JOB_FAILED = "job_failed"
    """The import job accepted now will end Failed, with only a part of its rows processed."""
    RESULTS_404 = "results_404"
    RESULTS_WITHOUT_EMPTY_COLUMN = "results_without_empty_column"
    RESULTS_SHORT_ROW = "results_short_row"
    SHORT_ACTIVITY_PAGE = "short_activity_page"
    """A page with fewer activities than there are, maybe none, that says there are more: even when there are none."""


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
_RESULTS = (Fault.RESULTS_404, Fault.RESULTS_WITHOUT_EMPTY_COLUMN, Fault.RESULTS_SHORT_ROW)
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
    **dict.fromkeys(_ACTIVITY_PAGES, (*_TRANSPORT, *_REST, Fault.SHORT_ACTIVITY_PAGE, *_REST_LIMITS, *_MISCHIEF)),
}
_SHAPING = frozenset({Fault.SHORT_PAGE, Fault.JOB_FAILED, Fault.SHORT_ACTIVITY_PAGE, *_RESULTS})
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
# Processed and answered well; what goes wrong is how the answer is delivered.
_DELIVERIES = {
    Fault.RESET_AFTER: "reset",
    Fault.TRUNCATED: "truncated",
    Fault.SLOW_DRIP: "slow drip",
    Fault.WRONG_LENGTH: "wrong length",
    Fault.WRONG_LENGTH_CUT: "wrong length cut",
    Fault.GZIP_BOMB: "gzip bomb",
}
_RETURN_COUNT = re.compile(rb"<returnCount>\d+</returnCount>")
_MESSAGES = {
    10001: "Internal error",
    20011: "Internal error",
    20012: "Request not understood",
    20013: "Access denied",
    20014: "Authentication failed",
    20015: "Request limit exceeded",
    20016: "Request expired",
    20017: "Missing parameter",
    20019: "Unsupported operation",
    20022: "Time range is longer than 30 days",
    20023: "Rate limit exceeded",
    20024: "Concurrency limit exceeded",
    20102: "Bad lead key",
    20103: "No lead found",
    20109: "Bad parameter",
    20110: "Bad parameter",
    20111: "List not found",
    20114: "Bad parameter",
    20122: "Bad stream position",
    20123: "End of stream",
    29999: "Something new",
    602: "Access token expired",
    604: "Request timed out",
    606: "Max rate limit of 100 calls in 20 secs exceeded",
    607: "Daily quota reached",
    608: "API temporarily unavailable",
    611: "System error",
    615: "Concurrent access limit reached",
    713: "Transient error",
    1016: "Too many imports",
}


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
        if fault is not Fault.REST_604 and (code := _code(fault)) is not None:
            raise MarketoFault(code, _MESSAGES[code])
    return None


def instead_of_the_answer(faults: frozenset[Fault], reply: Reply) -> Reply:
    """What the client gets of the answer to a processed request. Raises the fault that hides it."""
    if Fault.REST_604 in faults:
        raise MarketoFault(604, _MESSAGES[604])
    if Fault.GARBLED_XML in faults:
        return replace(reply, body=_RETURN_COUNT.sub(b"", reply.body), code="garbled")
    for fault in faults:
        if fault in _DELIVERIES:
            return replace(reply, code=_DELIVERIES[fault])
    return next((_PROCESSED_REPLIES[fault] for fault in faults if fault in _PROCESSED_REPLIES), reply)


def _code(fault: Fault) -> int | None:
    name, _, code = fault.value.rpartition("_")
    return int(code) if name in ("soap", "rest", "import") else None
