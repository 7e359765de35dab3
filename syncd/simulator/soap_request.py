"""Reading a getMultipleLeads request, strictly by the schema: namespaces, the order of elements, types."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

from syncd.simulator.selectors import LastUpdateAt, LeadKeys, Selector, StaticListMembers
from syncd.simulator.wire import MarketoFault

_ENVELOPE = "{http://schemas.xmlsoap.org/soap/envelope/}"
_MKTOWS = "{http://www.marketo.com/mktows/}"
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"
_PARAMS = ("leadSelector", "lastUpdatedAt", "streamPosition", "batchSize", "includeAttributes")
_SELECTOR_PARTS = {
    "LastUpdateAtSelector": ("latestUpdatedAt", "oldestUpdatedAt"),
    "StaticListSelector": ("staticListName", "staticListId"),
    "LeadKeySelector": ("keyType", "keyValues"),
}
_KEYS_HEEDED = 100
_ID = re.compile(r"\d{1,19}", re.ASCII)

Note = Callable[[str], None]
"""Told of each way in which a request strays from the protocol."""


@dataclass(frozen=True)
class SoapHeader:
    """What the request says of its sender."""

    user_id: str
    signature: str
    timestamp: str


@dataclass(frozen=True)
class GetMultipleLeads:
    """What the request asks for. `attributes` are SOAP names; None means all."""

    selector: Selector
    position: str | None
    batch_size: int | None
    attributes: tuple[str, ...] | None


class SoapRequest:
    """An envelope with its header and its one operation. Raises fault 20012 unless it is one."""

    def __init__(self, body: bytes, note: Note) -> None:
        self._note = note
        root = _parsed(body)
        if root.tag != _ENVELOPE + "Envelope":
            raise _not_understood("the root is not a SOAP 1.1 Envelope")
        self._header = root.find(f"{_ENVELOPE}Header/{_MKTOWS}AuthenticationHeader")
        operations = root.findall(f"{_ENVELOPE}Body/*")
        if len(operations) != 1:
            raise _not_understood("the Body holds no single operation")
        self._operation = operations[0]

    def header(self) -> SoapHeader:
        """The authentication header. Raises fault 20012 when it is missing or its children are not as they should be."""
        if self._header is None:
            raise _not_understood("AuthenticationHeader is missing")
        parts = self._children(self._header, ("mktowsUserId", "requestSignature", "requestTimestamp"))
        if len(parts) != 3:
            raise _not_understood("AuthenticationHeader is incomplete")
        return SoapHeader(*(_text(part) for part in parts.values()))

    def get_multiple_leads(self) -> GetMultipleLeads:
        """The parameters. Raises 20019 for another operation, 20012, 20017 or 20110 for parameters that are not as they should be."""
        if self._operation.tag != _MKTOWS + "paramsGetMultipleLeads":
            raise MarketoFault(20019, "Unsupported operation")
        params = self._children(self._operation, _PARAMS)
        if "lastUpdatedAt" in params:
            self._note("lastUpdatedAt sent")
        for name, element in params.items():
            if name != "leadSelector" and not len(element) and not _text(element):
                self._note("empty element instead of none")
        if "leadSelector" not in params:
            raise MarketoFault(20017, "leadSelector is missing")
        size = _text(params["batchSize"]) if "batchSize" in params else ""
        if size and not (size.isascii() and size.isdigit() and int(size) > 0):
            raise MarketoFault(20110, "batchSize is not a positive integer")
        attributes = self._strings(params["includeAttributes"]) if "includeAttributes" in params else ()
        position = _text(params["streamPosition"]) if "streamPosition" in params else ""
        return GetMultipleLeads(
            self._selector(params["leadSelector"]), position or None, int(size) if size else None, tuple(attributes) or None
        )

    def _selector(self, element: etree._Element) -> Selector:
        prefix, _, name = element.get(_XSI + "type", "").rpartition(":")
        if name not in _SELECTOR_PARTS or f"{{{element.nsmap.get(prefix or None, '')}}}" != _MKTOWS:
            self._note("selector without its xsi:type")
            raise _not_understood("leadSelector names no known xsi:type")
        parts = self._children(element, _SELECTOR_PARTS[name])
        if name == "LastUpdateAtSelector":
            latest = parts.get("latestUpdatedAt")
            has_latest = latest is not None and latest.get(_XSI + "nil") not in ("true", "1")
            return LastUpdateAt(self._moment(parts, "oldestUpdatedAt"), self._moment(parts, "latestUpdatedAt") if has_latest else None)
        if name == "StaticListSelector":
            if len(parts) != 1:
                raise MarketoFault(20017, "one of staticListName and staticListId is needed")
            ((kind, part),) = parts.items()
            if kind == "staticListName":
                return StaticListMembers(_text(part), None)
            return StaticListMembers(None, int(_text(part)) if _ID.fullmatch(_text(part)) else -1)
        if len(parts) != 2:
            raise MarketoFault(20017, "keyType and keyValues are needed")
        keys = self._strings(parts["keyValues"])
        if len(keys) > _KEYS_HEEDED:
            self._note("more than 100 keys")
        if len(set(keys)) < len(keys):
            self._note("duplicate keys")
        return LeadKeys(_text(parts["keyType"]), tuple(keys[:_KEYS_HEEDED]))

    def _children(self, parent: etree._Element, allowed: tuple[str, ...]) -> dict[str, etree._Element]:
        names = [str(child.tag) for child in parent]
        if any(name.startswith("{") for name in names):
            self._note("inner SOAP element in a namespace")
            raise _not_understood(f"a child of {etree.QName(parent).localname} is in a namespace")
        places = [allowed.index(name) if name in allowed else -1 for name in names]
        if -1 in places or places != sorted(set(places)):
            self._note("wrong SOAP elements or order")
            raise _not_understood(f"the children of {etree.QName(parent).localname} are not {', '.join(allowed)} in this order")
        return dict(zip(names, parent, strict=True))

    def _strings(self, parent: etree._Element) -> list[str]:
        if any(child.tag != "stringItem" for child in parent):
            self._note("wrong SOAP elements or order")
            raise _not_understood("only stringItem is allowed here")
        return [_text(child) for child in parent]

    def _moment(self, parts: dict[str, etree._Element], name: str) -> datetime:
        if name not in parts:
            raise MarketoFault(20017, f"{name} is missing")
        return moment_of(_text(parts[name]), name)


def moment_of(text: str, name: str) -> datetime:
    """A W3C date-time with offset, in UTC. Raises fault 20110 for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text:
            raise MarketoFault(20110, f"{name} has no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MarketoFault(20110, f"{name} is not a date-time") from error


def _parsed(body: bytes) -> etree._Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise _not_understood("the body is not XML") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise _not_understood("a DTD is not allowed")
    return root


def _text(element: etree._Element) -> str:
    return "".join(_texts(element))


def _texts(element: etree._Element) -> Iterable[str]:
    return (str(part) for part in element.itertext())


def _not_understood(what: str) -> MarketoFault:
    return MarketoFault(20012, f"Request not understood: {what}")
