"""What Marketo's codes mean: code, endpoint and message → Fault (the tables of protocol 1.5 and 2)."""

import re

from syncd.core.faults import Fault, Nature

_SOAP = {
    Nature.TRANSIENT: "10001 20011",
    Nature.PERMANENT: "20012 20017 20019 20022 20102 20109 20110 20114",
    Nature.CONFIGURATION: "20013 20014 20111",
    Nature.QUOTA: "20015",
    Nature.SIGNATURE: "20016",
    Nature.RATE: "20023 20024",
    Nature.EMPTY: "20103 20123",
    Nature.POSITION: "20122",
}

# Of the codes that the protocol calls "permanent / configuration", those that a person can mend without a new release of ours are
# configuration: access denied (603), subscription type (616), feature not enabled (703).
_REST = {
    Nature.TRANSIENT: "502 503 504 604 608 611 614 713 719",
    Nature.TOKEN: "601 602",
    Nature.CONFIGURATION: "603 616 703 1035",
    Nature.PERMANENT: ("605 609 610 612 613 701 704 705 706 707 708 709 710 711 1001 1002 1003 1004 1005 1006 1007 1008 1010 1011 1021"),
    Nature.EMPTY: "702",
    Nature.RATE: "606 615",
    Nature.QUOTA: "607",
    Nature.NO_SLOT: "1016 1029",
    Nature.LIST_BUSY: "1019",
}

SOAP_NATURES = {code: nature for nature, codes in _SOAP.items() for code in codes.split()}
REST_NATURES = {code: nature for nature, codes in _REST.items() for code in codes.split()}

# Known not executed (architecture.md, import job `refused`). Whatever is not listed may have been executed.
_REFUSED = frozenset(str(code) for code in (601, 602, 603, *range(605, 611), 612, 613, 615, 616, *range(701, 712), *range(1000, 2000)))

_LONGEST_MESSAGE = 300
_ADDRESS = re.compile(r"[^\s<>\"'=:,;()]+@[^\s<>\"'=:,;()]+")


def soap_fault(code: str, message: str, endpoint: str) -> Fault:
    """The Fault for a SOAP fault's code (protocol 1.5); undocumented ones are Nature.UNKNOWN."""
    return Fault(SOAP_NATURES.get(code, Nature.UNKNOWN), code, presentable(message), endpoint)


def rest_fault(code: str, message: str, endpoint: str, request_id: str | None) -> Fault:
    """The Fault for a code in REST's JSON envelope (protocol 2); undocumented ones are Nature.UNKNOWN."""
    nature = _export_refusal(message) if code == "1029" else REST_NATURES.get(code, Nature.UNKNOWN)
    return Fault(nature, code, presentable(message), endpoint, request_id, executed=False if code in _REFUSED else None)


def http_fault(status: int, message: str, endpoint: str) -> Fault:
    """The Fault for an HTTP status without a body of Marketo's: gateways, 413, 414 (protocol 1.5 and 2)."""
    if status == 413:
        return Fault(Nature.TOO_LARGE, "http_413", "the request body is over the limit", endpoint, executed=False)
    nature = Nature.TRANSIENT if status >= 500 else Nature.PERMANENT if status == 414 else Nature.UNKNOWN
    return Fault(nature, f"http_{status}", presentable(message), endpoint)


def garbled(message: str, endpoint: str) -> Fault:
    """The Fault for a reply that is not what the protocol says (truncated, HTML, a field missing)."""
    return Fault(Nature.TRANSIENT, "garbled", presentable(message), endpoint)


def presentable(message: str) -> str:
    """A text of Marketo's fit for logs and the database: short, without the addresses of persons, nor NUL, which Postgres refuses."""
    return _ADDRESS.sub("…@…", message[:_LONGEST_MESSAGE].replace("\0", ""))


def _export_refusal(message: str) -> Nature:
    """1029 stands for three refusals: the day's export quota, a job already queued, a full queue (protocol 2)."""
    lowered = message.lower()
    if "quota" in lowered:
        return Nature.QUOTA
    return Nature.PERMANENT if "already" in lowered else Nature.NO_SLOT
