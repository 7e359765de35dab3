"""The bytes of a getMultipleLeads request (protocol 1.1 to 1.3)."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.sax.saxutils import escape

SOAP_ACTION = '"http://www.marketo.com/mktows/getMultipleLeads"'


@dataclass(frozen=True, slots=True)
class LastUpdated:
    """Leads updated from `oldest` to `latest`, both aware, at most 30 days apart (fault 20022)."""

    oldest: datetime
    latest: datetime


@dataclass(frozen=True, slots=True)
class StaticList:
    """The members of a list, by its name as `ProgramName.ListName` or by its id."""

    list: str | int


@dataclass(frozen=True, slots=True)
class LeadKeys:
    """Leads by key. Marketo silently ignores all keys past the 100th."""

    key_type: str
    values: Sequence[str]


Selector = LastUpdated | StaticList | LeadKeys


def w3c(moment: datetime) -> str:
    """A moment as SOAP writes it, with its offset, cut to the second that Marketo keeps. `moment` must be aware."""
    assert moment.tzinfo is not None, "a time without its offset means another moment to Marketo"
    return moment.isoformat(timespec="seconds")


def signature(user_id: str, encryption_key: str, timestamp: str) -> str:
    """The lower-case hex HMAC-SHA1 that proves the key (protocol 1.2)."""
    return hmac.new(encryption_key.encode(), f"{timestamp}{user_id}".encode(), "sha1").hexdigest()


def get_multiple_leads(
    *,
    user_id: str,
    encryption_key: str,
    now: datetime,
    selector: Selector,
    position: str | None,
    batch_size: int,
    fields: Sequence[str],
) -> bytes:
    """The request, signed at `now`. `position` goes back as it came; without `fields` Marketo answers with all of them."""
    timestamp = w3c(now)
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:ns1="http://www.marketo.com/mktows/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        "<SOAP-ENV:Header><ns1:AuthenticationHeader>",
        _element("mktowsUserId", user_id),
        _element("requestSignature", signature(user_id, encryption_key, timestamp)),
        _element("requestTimestamp", timestamp),
        "</ns1:AuthenticationHeader></SOAP-ENV:Header><SOAP-ENV:Body><ns1:paramsGetMultipleLeads>",
        _lead_selector(selector),
        _element("streamPosition", position) if position else "",
        _element("batchSize", str(batch_size)),
        f"<includeAttributes>{_items(fields)}</includeAttributes>" if fields else "",
        "</ns1:paramsGetMultipleLeads></SOAP-ENV:Body></SOAP-ENV:Envelope>",
    ]
    return "".join(parts).encode()


def _lead_selector(selector: Selector) -> str:
    match selector:
        case LastUpdated(oldest, latest):  # this order is the schema's
            name = "LastUpdateAtSelector"
            inner = _element("latestUpdatedAt", w3c(latest)) + _element("oldestUpdatedAt", w3c(oldest))
        case StaticList(int(list_id)):
            name, inner = "StaticListSelector", _element("staticListId", str(list_id))
        case StaticList(str(list_name)):
            name, inner = "StaticListSelector", _element("staticListName", list_name)
        case LeadKeys(key_type, values):
            name = "LeadKeySelector"
            inner = f"{_element('keyType', key_type)}<keyValues>{_items(values)}</keyValues>"
    return f'<leadSelector xsi:type="ns1:{name}">{inner}</leadSelector>'


def _items(values: Sequence[str]) -> str:
    return "".join(_element("stringItem", value) for value in values)


def _element(name: str, text: str) -> str:
    # A bare CR would reach the server as LF, and a stream position must come back byte for byte.
    return f"<{name}>{escape(text, {chr(13): '&#13;'})}</{name}>"
