"""A getMultipleLeads reply, parsed while it arrives (protocol 1.4 and 1.5)."""

import re
from collections.abc import Callable
from typing import cast

from lxml import etree

from syncd.core.faults import Fault
from syncd.core.values import Attribute, LeadRecord
from syncd.marketo.errors import garbled, soap_fault

OnPosition = Callable[[str | None, int], None]

_ENVELOPE = "{http://schemas.xmlsoap.org/soap/envelope/}Envelope"
_BODY = "{http://schemas.xmlsoap.org/soap/envelope/}Body"
_FAULT = "{http://schemas.xmlsoap.org/soap/envelope/}Fault"
_RESULT = ["result", "{http://www.marketo.com/mktows/}successGetMultipleLeads", _BODY, _ENVELOPE]
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_COLUMNS = tuple(etree.XPath(f"attribute/{name}/text()", smart_strings=False) for name in ("attrName", "attrType", "attrValue"))
_LARGEST_ID = 2**63 - 1


class ReplyParser:
    """Fed with pieces of a reply; nothing of a page is given out before the last piece was found good.

    `on_position` alone is told earlier: the next stream position and the remaining count stand before the records.
    Every method raises Fault: "garbled" for whatever is not a whole reply, or what Marketo's own fault says.
    """

    def __init__(self, endpoint: str, on_position: OnPosition | None) -> None:
        self._endpoint = endpoint
        self._on_position = on_position
        self._parser = etree.XMLPullParser(
            events=("end",),
            tag=("returnCount", "remainingCount", "newStreamPosition", "leadRecord", _FAULT),
            remove_comments=True,
            remove_pis=True,
            no_network=True,
            load_dtd=False,
            resolve_entities=False,
            huge_tree=False,
        )
        self._checked = False
        self._list: etree._Element | None = None
        self._texts: dict[str, str | None] = {}
        self._told = False
        self._leads: list[LeadRecord] = []

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the reply."""
        try:
            self._parser.feed(piece)
            self._take_events()
        except etree.LxmlError as error:
            raise self._garbled(f"the reply is not well-formed XML ({type(error).__name__})") from None

    def finish(self) -> tuple[list[LeadRecord], int, str | None]:
        """The leads, the remaining count and the next position, None at the end of the stream."""
        try:
            root = self._parser.close()
            self._take_events()
        except etree.LxmlError as error:
            raise self._garbled(f"the reply is cut short or not XML ({type(error).__name__})") from None
        self._refuse_dtd(root)
        expected, remaining = self._count("returnCount"), self._count("remainingCount")
        if expected != len(self._leads):
            raise self._garbled(f"returnCount says {expected}, but {len(self._leads)} leads came")
        self._tell(remaining)
        return self._leads, remaining, self._position(remaining)

    def _take_events(self) -> None:
        for _, element in self._parser.read_events():
            assert isinstance(element, etree._Element)  # true of "end" events
            if not self._checked:
                self._refuse_dtd(element)
            if element.tag == "leadRecord":
                self._take_record(element)
            elif element.tag == _FAULT:
                raise self._fault(element)
            else:
                self._take_count(element)

    def _refuse_dtd(self, element: etree._Element) -> None:
        """A DTD can define entities, and lxml cuts a text short where one stands: refused before any content is used."""
        self._checked = True
        if element.getroottree().docinfo.internalDTD is not None:
            raise self._garbled("the reply has a DTD, which is never accepted")

    def _take_count(self, element: etree._Element) -> None:
        name = element.tag
        if _ancestors(element) != _RESULT or name in self._texts:
            raise self._garbled(f"{name} stands where the protocol has none")
        self._texts[name] = element.text
        if "newStreamPosition" in self._texts and "remainingCount" in self._texts:
            self._tell(self._count("remainingCount"))

    def _take_record(self, element: etree._Element) -> None:
        parent = element.getparent()
        if parent is None or (parent is not self._list and _ancestors(element) != ["leadRecordList", *_RESULT]):
            raise self._garbled("a leadRecord stands where the protocol has none")
        self._list = parent
        self._leads.append(self._record(element))
        # The parser may still be adding to the newest one's tail: only the ones before it go.
        while element.getprevious() is not None:
            del parent[0]

    def _record(self, element: etree._Element) -> LeadRecord:
        lead_id = email = None
        attributes: list[Attribute] = []
        for child in element:
            tag = child.tag
            if tag == "Id":
                lead_id = _whole(child.text)
            elif tag == "Email":
                email = child.text
            elif tag == "leadAttributeList":
                attributes = self._attributes(child)
        if lead_id is None:
            raise self._garbled("a leadRecord has no Id, or one that is no number")
        return LeadRecord(lead_id, email, attributes)

    def _attributes(self, elements: etree._Element) -> list[Attribute]:
        # The texts of a column at a time spare most of Python's work; the counts agree when none is nil, empty or in parts.
        names, kinds, values = (cast("list[str]", column(elements)) for column in _COLUMNS)
        if len(names) == len(kinds) == len(values) == len(elements):
            return list(map(Attribute, names, kinds, values))
        attributes = []
        for element in elements:
            name = kind = value = None
            for part in element:
                tag, text = part.tag, part.text
                if tag == "attrName":
                    name = text
                elif tag == "attrType":
                    kind = text
                elif tag == "attrValue":
                    value = text or ("" if part.get(_NIL) is None else None)
            if not name or not kind:
                raise self._garbled("an attribute has no name or no type")
            if value is not None:  # nil, like an attribute that is absent, means "empty now"
                attributes.append(Attribute(name, kind, value))
        return attributes

    def _tell(self, remaining: int) -> None:
        if not self._told and self._on_position is not None:
            self._on_position(self._position(remaining), remaining)
        self._told = True

    def _position(self, remaining: int) -> str | None:
        return (self._texts.get("newStreamPosition") or None) if remaining else None

    def _count(self, name: str) -> int:
        count = _whole(self._texts.get(name))
        if count is None:
            raise self._garbled(f"the reply has no {name}, or one that is no number")
        return count

    def _fault(self, element: etree._Element) -> Fault:
        if _ancestors(element) != [_BODY, _ENVELOPE]:
            return self._garbled("a Fault stands where the protocol has none")
        text = element.findtext("faultstring") or ""
        detail = next(iter(element.iterfind("detail/{*}serviceException")), None)
        code = detail.findtext("code") if detail is not None else None
        message = (detail.findtext("message") if detail is not None else None) or text
        if not code:
            stated = re.match(r"(\d{5}) - ", text)
            code = stated[1] if stated else "soap_fault"
        return soap_fault(code.strip()[:40], message, self._endpoint)

    def _garbled(self, message: str) -> Fault:
        return garbled(message, self._endpoint)


def _ancestors(element: etree._Element) -> list[str]:
    return [ancestor.tag for ancestor in element.iterancestors()]


def _whole(text: str | None) -> int | None:
    """A number of the schema's, at most 64 bits; None for everything else that Python would take for one."""
    text = (text or "").strip(" \t\r\n")
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if number <= _LARGEST_ID else None
