"""A getMultipleLeads reply, parsed while it arrives (protocol 1.4 and 1.5)."""

import re
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from lxml import etree

from syncd.core.faults import Fault
from syncd.core.values import Attribute, LeadRecord
from syncd.marketo.errors import garbled, soap_fault
from syncd.marketo.soap_records import NotPlainError, plain_records

T = TypeVar("T")
OnPosition = Callable[[str | None, int], None]

_ENVELOPE = "{http://schemas.xmlsoap.org/soap/envelope/}Envelope"
_BODY = "{http://schemas.xmlsoap.org/soap/envelope/}Body"
_FAULT = "{http://schemas.xmlsoap.org/soap/envelope/}Fault"
_SUCCESS = "{http://www.marketo.com/mktows/}successGetMultipleLeads"
_RESULT = f"{_SUCCESS}/result"
_ABOVE_LIST = ["result", _SUCCESS, _BODY, _ENVELOPE]
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_ATTRIBUTE = ["attribute", "attrName", "attrType", "attrValue"]
_NIL = f"{{{_XSI}}}nil"
_LIST_START = b"<leadRecordList>"
_LIST_END = b"</leadRecordList>"
_DECLARATION = 100  # bytes that an XML declaration has at most, or else the XML parser reads all of the reply
_IN_UTF_8 = re.compile(
    rb"""(\xef\xbb\xbf)?(<\?xml version=["']1\.0["']( encoding=["']utf-8["'])?( standalone=["'](yes|no)["'])? ?\?>|\s*<(?!\?xml))""",
    re.IGNORECASE,
)
_LARGEST_PLAIN = 1024 * 1024  # of what is kept waiting for the end of a record; a larger one is left to the XML parser
_CODE = re.compile("[0-9]{1,6}")
_LARGEST_ID = 2**63 - 1
_LARGEST_COUNT = 10**12  # no subscription has so many leads, and sums of them must fit 64 bits


class ReplyParser(Generic[T]):
    """Fed with pieces of a reply; nothing of a page is given out before the last piece was found good.

    Each lead is given the `form` that is wanted of it as soon as it is read, while it is still near to the processor.
    `on_position` alone is told earlier: the next stream position and the remaining count stand before the records.
    Records in the very form of the protocol never reach the XML parser, which costs more than all else; where anything is
    different, the rest of the page does. Every method raises Fault: "garbled" for whatever is not a whole reply, or what
    Marketo's own fault says.
    """

    def __init__(self, endpoint: str, on_position: OnPosition | None, form: Callable[[LeadRecord], T]) -> None:
        self._endpoint = endpoint
        self._on_position = on_position
        self._form = form
        # Events of every record, or of the ends of elements, would cost a third of the parsing.
        self._parser = etree.XMLPullParser(
            events=("start",),
            tag="leadRecordList",
            remove_comments=True,
            remove_pis=True,
            no_network=True,
            load_dtd=False,
            resolve_entities=False,
            huge_tree=False,
        )
        self._list: etree._Element | None = None
        self._told = False
        self._leads: list[T] = []
        self._beginning = b""  # lxml tells the encoding at the end only
        self._plain = False
        self._kept = b""  # the beginning of a record, not whole yet

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the reply."""
        self._beginning += piece[: _DECLARATION - len(self._beginning)]
        if self._list is None and _LIST_START in piece:
            head, start, piece = piece.partition(_LIST_START)
            self._feed_xml(head + start)
            self._plain = self._may_have_plain_records()
        if self._plain:
            piece = self._without_plain_records(self._kept + piece)
        if piece:
            self._feed_xml(piece)

    def _may_have_plain_records(self) -> bool:
        """Whether the parser stands at the beginning of the list, in a document whose bytes can be read as they are."""
        here = self._list
        if here is None or here.nsmap.get("xsi") != _XSI:
            return False
        return _IN_UTF_8.match(self._beginning) is not None

    def _without_plain_records(self, text: bytes) -> bytes:
        """Take the plain records off `text`, of which the XML parser need not know; what it needs to know is returned."""
        taken = 0
        try:
            for lead, end in plain_records(text):
                self._leads.append(self._form(lead))
                taken = end
        except NotPlainError:
            self._plain = False
        rest = text[taken:]
        self._plain = self._plain and len(rest) <= _LARGEST_PLAIN and _LIST_END not in rest
        self._kept = rest if self._plain else b""
        return b"" if self._plain else rest

    def _feed_xml(self, piece: bytes) -> None:
        try:
            self._parser.feed(piece)
            self._take_events()
        except etree.LxmlError as error:
            raise self._garbled(f"the reply is not well-formed XML ({type(error).__name__})") from None
        if self._list is not None:
            self._leads.extend(map(self._record, list(self._list)[:-1]))  # the last one may not be whole yet
            del self._list[:-1]

    def finish(self) -> tuple[list[T], int, str | None]:
        """The leads, the remaining count and the next position, None at the end of the stream."""
        try:
            self._parser.feed(self._kept)
            root = self._parser.close()
            self._take_events()
        except etree.LxmlError as error:
            raise self._garbled(f"the reply is cut short or not XML ({type(error).__name__})") from None
        self._refuse_dtd(root)
        body = root.find(_BODY) if root.tag == _ENVELOPE else None
        if body is None:
            raise self._garbled("the reply is no SOAP envelope with a body")
        fault, result = body.find(_FAULT), body.find(_RESULT)
        if fault is not None:
            raise self._fault(fault)
        if result is None:
            raise self._garbled("the reply has no result")
        if self._list is not None:
            self._leads.extend(map(self._record, self._list))
        expected, remaining = self._count(result, "returnCount"), self._count(result, "remainingCount")
        if expected != len(self._leads):
            raise self._garbled(f"returnCount says {expected}, but {len(self._leads)} leads came")
        self._tell(result)
        return self._leads, remaining, self._position(result, remaining)

    def _take_events(self) -> None:
        for _, element in self._parser.read_events():
            assert isinstance(element, etree._Element)  # true of "start" events
            self._begin_list(element)

    def _begin_list(self, element: etree._Element) -> None:
        self._refuse_dtd(element)
        result = element.getparent()
        if self._list is not None or result is None or [above.tag for above in element.iterancestors()] != _ABOVE_LIST:
            raise self._garbled("a leadRecordList stands where the protocol has none")
        self._list = element
        if result.find("remainingCount") is not None and result.find("newStreamPosition") is not None:
            self._tell(result)

    def _refuse_dtd(self, element: etree._Element) -> None:
        """A DTD can define entities, and lxml cuts a text short where one stands: refused before any content is used."""
        if element.getroottree().docinfo.internalDTD is not None:
            raise self._garbled("the reply has a DTD, which is never accepted")

    def _record(self, element: etree._Element) -> T:
        if element.tag != "leadRecord":
            raise self._garbled("the list has something else than a leadRecord")
        lead_id = email = None
        attributes: list[Attribute] = []
        if len({child.tag for child in element}) != len(element):
            raise self._garbled("a leadRecord has a part twice")
        for child in element:
            tag = child.tag
            if len(child) and tag != "leadAttributeList":
                raise self._garbled("a part of a leadRecord is no text")
            if tag == "Id":
                lead_id = _whole(child.text)
            elif tag == "Email":
                email = child.text
            elif tag == "leadAttributeList":
                attributes = self._attributes(child)
        if lead_id is None:
            raise self._garbled("a leadRecord has no Id, or one that is no number")
        return self._form(LeadRecord(lead_id, email, attributes))

    def _attributes(self, elements: etree._Element) -> list[Attribute]:
        # A column at a time spares most of Python's work, where no attribute lacks a part or has an empty one.
        parts = list(elements.iterdescendants())
        columns = [[part.text for part in parts[place::4]] for place in (1, 2, 3)]
        if [part.tag for part in parts] == _ATTRIBUTE * len(elements) and all(map(all, columns)):
            return cast("list[Attribute]", list(zip(*columns, strict=True)))
        attributes: list[Attribute] = []
        for element in elements:
            name = kind = value = None
            for part in element:
                if len(part):
                    raise self._garbled("a part of an attribute is no text")
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
                attributes.append((name, kind, value))
        return attributes

    def _tell(self, result: etree._Element) -> None:
        remaining = self._count(result, "remainingCount")
        if not self._told and self._on_position is not None:
            self._on_position(self._position(result, remaining), remaining)
        self._told = True

    def _position(self, result: etree._Element, remaining: int) -> str | None:
        return (result.findtext("newStreamPosition") or None) if remaining else None

    def _count(self, result: etree._Element, name: str) -> int:
        counts = [_whole(element.text) for element in result.iterfind(name)]
        if len(counts) != 1 or counts[0] is None or counts[0] > _LARGEST_COUNT:
            raise self._garbled(f"the reply has no {name}, several, or one that is no sensible number")
        return counts[0]

    def _fault(self, element: etree._Element) -> Fault:
        text = element.findtext("faultstring") or ""
        detail = next(iter(element.iterfind("detail/{*}serviceException")), None)
        code = detail.findtext("code") if detail is not None else None
        message = (detail.findtext("message") if detail is not None else None) or text
        if not code:
            stated = re.match(r"(\d{5}) - ", text)
            code = stated[1] if stated else ""
        # It becomes a label and goes into the log: nothing but a number may.
        known = _CODE.fullmatch(code.strip())
        return soap_fault(known[0] if known else "soap_fault", message, self._endpoint)

    def _garbled(self, message: str) -> Fault:
        return garbled(message, self._endpoint)


def _whole(text: str | None) -> int | None:
    """A number of the schema's, at most 64 bits; None for everything else that Python would take for one."""
    text = (text or "").strip(" \t\r\n")
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    number = int(text)
    return number if number <= _LARGEST_ID else None
