"""The kinds of trouble that can be made, and what Marketo says of those with a code."""

import re
from enum import StrEnum

from syncd.simulator.wire import MarketoFault


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
    REST_502 = "rest_502"
    REST_503 = "rest_503"
    REST_504 = "rest_504"
    """Timed out, as 604: processed all the same."""
    REST_601 = "rest_601"
    REST_602 = "rest_602"
    REST_603 = "rest_603"
    REST_604 = "rest_604"
    """Timed out: processed all the same."""
    REST_605 = "rest_605"
    REST_606 = "rest_606"
    REST_607 = "rest_607"
    REST_608 = "rest_608"
    REST_609 = "rest_609"
    REST_610 = "rest_610"
    REST_611 = "rest_611"
    REST_612 = "rest_612"
    REST_613 = "rest_613"
    REST_614 = "rest_614"
    REST_615 = "rest_615"
    REST_616 = "rest_616"
    REST_701 = "rest_701"
    REST_702 = "rest_702"
    REST_703 = "rest_703"
    REST_704 = "rest_704"
    REST_705 = "rest_705"
    REST_706 = "rest_706"
    REST_707 = "rest_707"
    REST_708 = "rest_708"
    REST_709 = "rest_709"
    REST_710 = "rest_710"
    REST_711 = "rest_711"
    REST_713 = "rest_713"
    REST_719 = "rest_719"
    REST_1003 = "rest_1003"
    REST_1016 = "rest_1016"
    REST_1019 = "rest_1019"
    REST_1035 = "rest_1035"
    REST_1029_QUEUE = "rest_1029_queue"
    """The three meanings of 1029 differ by their messages only."""
    REST_1029_QUOTA = "rest_1029_quota"
    REST_1029_ALREADY = "rest_1029_already"
    REST_9999 = "rest_9999"
    """A code that nobody documents."""
    IMPORT_1016 = "import_1016"
    JOB_FAILED = "job_failed"
    """The import job accepted now will end Failed, with only a part of its rows processed."""
    RESULTS_404 = "results_404"
    RESULTS_WITHOUT_EMPTY_COLUMN = "results_without_empty_column"
    RESULTS_SHORT_ROW = "results_short_row"
    EXPORT_FAILED = "export_failed"
    """The export created or queued now will end Failed."""
    WRONG_CHECKSUM = "wrong_checksum"
    """The status tells another checksum than the file's."""
    RANGE_OFF_BY_ONE = "range_off_by_one"
    """The bytes of a range are shifted by one, although Content-Range looks right; a request without a range is answered well."""
    FILE_JSON_200 = "file_json_200"
    """An error envelope with 200 in place of the file."""
    FILE_404 = "file_404"
    FILE_BROKEN_OFF = "file_broken_off"
    """The connection breaks somewhere in the file."""
    FILE_NUL = "file_nul"
    """This and the next four are in the next file that is rendered, some rows of it, and so in its size and checksum."""
    FILE_STRAY_CR = "file_stray_cr"
    FILE_BAD_QUOTES = "file_bad_quotes"
    FILE_U2028 = "file_u2028"
    FILE_HEADER_CHANGED = "file_header_changed"
    SYNC_RESULT_MISSING = "sync_result_missing"
    """Sync Leads processed; the reply tells of one record fewer than it was given."""
    SYNC_SKIPPED = "sync_skipped"
    """Sync Leads skips every record of the call with 611, a trouble that passes."""
    SHORT_ACTIVITY_PAGE = "short_activity_page"
    """A page with fewer activities than there are, maybe none, that says there are more: even when there are none."""


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
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timed out",
    601: "Unauthorized",
    603: "Access denied",
    605: "HTTP method not supported",
    609: "Invalid JSON",
    610: "Requested resource not found",
    612: "Invalid content type",
    613: "Invalid multipart request",
    614: "Unreachable subscription",
    616: "Invalid subscription type",
    701: "A field cannot be blank",
    702: "No data found for a given search scenario",
    703: "The feature is not enabled for the subscription",
    704: "Invalid date format",
    705: "Required parameter missing",
    706: "Invalid parameter value",
    707: "Malformed request",
    708: "Unsupported version",
    709: "Business rule violation",
    710: "Parent folder not found",
    711: "Incompatible folder type",
    719: "Lock wait timeout exception",
    1003: "Invalid data",
    1019: "Import in progress for the target static list",
    1035: "Unsupported filter type for target subscription: updatedAt",
    9999: "Something new",
}
_MEANINGS = {
    "queue": "Export job queue is full. Too many jobs (10) in queue",
    "quota": "Export daily quota 500MB exceeded",
    "already": "Export job has already been queued",
}
"""Of 1029."""
_CODED = re.compile(r"(?:soap|rest|import)_(\d+)(?:_(\w+))?")


def marketo_fault(fault: Fault) -> MarketoFault | None:
    """The code and message that a kind of trouble stands for, if it is one of these."""
    match = _CODED.fullmatch(fault.value)
    if match is None:
        return None
    code, meaning = int(match[1]), match[2]
    return MarketoFault(code, _MEANINGS[meaning] if meaning else _MESSAGES[code])
