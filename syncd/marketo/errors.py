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
_HALF = re.compile("[\ud800-\udfff]")
_ADDRESS = re.compile(r"[^\s<>\"'=:,;()]+@[^\s<>\"'=:,;()]+")


def soap_fault(code: str, message: str, endpoint: str) -> Fault:
    """The Fault for a SOAP fault's code (protocol 1.5); undocumented ones are Nature.UNKNOWN."""
    return Fault(SOAP_NATURES.get(code, Nature.UNKNOWN), code, presentable(message), endpoint)


def rest_fault(code: str, message: str, endpoint: str, request_id: str | None) -> Fault:
    """The Fault for a code in REST's JSON envelope (protocol 2); undocumented ones are Nature.UNKNOWN.

    Of 1029, which stands for three refusals, the Fault's code tells which: "1029_queue", "1029_quota" or "1029_already".
    """
    nature, told = _export_refusal(message) if code == "1029" else (REST_NATURES.get(code, Nature.UNKNOWN), code)
    return Fault(nature, told, presentable(message), endpoint, request_id, executed=False if code in _REFUSED else None)


def http_fault(status: int, message: str, endpoint: str) -> Fault:
    """The Fault for an HTTP status without a body of Marketo's: gateways, 413, 414 (protocol 1.5 and 2)."""
    if status == 413:
        return Fault(Nature.TOO_LARGE, "http_413", "the request body is over the limit", endpoint, executed=False)
    nature = Nature.TRANSIENT if status >= 500 else Nature.PERMANENT if status == 414 else Nature.UNKNOWN
    return Fault(nature, f"http_{status}", presentable(message), endpoint)


def garbled(message: str, endpoint: str, request_id: str | None = None) -> Fault:
    """The Fault for a reply that is not what the protocol says (truncated, HTML, a field missing)."""
    return Fault(Nature.TRANSIENT, "garbled", presentable(message), endpoint, request_id)


def presentable(message: str) -> str:
    """A text of Marketo's fit for logs and the database: short, without the addresses of persons, nor what Postgres refuses."""
    return _ADDRESS.sub("…@…", storable(message[:_LONGEST_MESSAGE]))


def storable(text: str) -> str:
    """`text` without NUL, and with a mark in place of each half of a character that JSON's escapes may have left: Postgres refuses both."""
    return _HALF.sub("\ufffd", text.replace("\0", ""))


def _export_refusal(message: str) -> tuple[Nature, str]:
    """What is refused: the day's bytes of exports are spent, the job is queued already, or the queue is full (protocol 2).

    The quota is not that of calls: other calls go on.
    """
    lowered = message.lower()
    if "quota" in lowered:
        return Nature.QUOTA, "1029_quota"
    return (Nature.PERMANENT, "1029_already") if "already" in lowered else (Nature.NO_SLOT, "1029_queue")
