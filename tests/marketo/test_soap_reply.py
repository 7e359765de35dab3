import contextlib
import gc
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.core.faults import Fault, Nature
from syncd.core.values import LeadRecord
from syncd.marketo.soap import as_it_came
from syncd.marketo.soap_records import plain_records
from syncd.marketo.soap_reply import ReplyParser
from tests.marketo.wire import SAMPLES

REPLY = (SAMPLES / "getMultipleLeads-reply.xml").read_bytes()
FAULT = (SAMPLES / "getMultipleLeads-fault.xml").read_bytes()
HEAD = (
    '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xmlns:m="http://www.marketo.com/mktows/"><e:Body><m:successGetMultipleLeads><result>'
)
TAIL = "</result></m:successGetMultipleLeads></e:Body></e:Envelope>"

Told = list[tuple[str | None, int]]
Page = tuple[list[LeadRecord], int, str | None]


def parse(document: bytes, size: int = 16 * 1024, told: Told | None = None) -> tuple[Page, Told]:
    told = [] if told is None else told
    parser = ReplyParser("e", lambda position, remaining: told.append((position, remaining)), as_it_came)
    for start in range(0, len(document), size):
        parser.feed(document[start : start + size])
    return parser.finish(), told


def page(records: str, count: int = 1, remaining: str = "5", position: str = "<newStreamPosition>p</newStreamPosition>") -> bytes:
    counts = f"<returnCount>{count}</returnCount><remainingCount>{remaining}</remainingCount>{position}"
    return f"{HEAD}{counts}<leadRecordList>{records}</leadRecordList>{TAIL}".encode()


def record(attributes: str, lead_id: str = "1") -> str:
    return f"<leadRecord><Id>{lead_id}</Id><leadAttributeList>{attributes}</leadAttributeList></leadRecord>"


def attribute(value: str) -> str:
    return f"<attribute><attrName>A</attrName><attrType>string</attrType>{value}</attribute>"


def only(document: bytes) -> LeadRecord:
    (leads, _, _), _ = parse(document)
    (lead,) = leads
    return lead


@pytest.mark.parametrize("size", [1, 7, 16 * 1024])
def test_the_documented_reply_whatever_the_pieces(size: int) -> None:
    (leads, remaining, position), told = parse(REPLY, size)
    assert (remaining, position, told) == (0, None, [(None, 0)])
    assert [(lead.lead_id, lead.email) for lead in leads] == [(65835, "formtest1@marketo.com"), (67508, "joe@marketo.com")]
    assert leads[0].attributes[3] == ("LeadScore", "integer", "16")
    assert [name for name, _, _ in leads[1].attributes] == [
        "Company",
        "Date_of_purchase",
        "FirstName",
        "LastName",
        "LeadScore",
    ]


@pytest.mark.parametrize("size", [1, 16 * 1024])
def test_the_documented_fault(size: int) -> None:
    with pytest.raises(Fault) as failed:
        parse(FAULT, size)
    assert (failed.value.nature, failed.value.code) == (Nature.CONFIGURATION, "20014")
    assert failed.value.message == "Authentication failed (20014)"


@pytest.mark.parametrize(
    ("inside", "code", "nature"),
    [
        ("<faultstring>20122 - Bad stream position</faultstring>", "20122", Nature.POSITION),
        ("<faultcode>Client</faultcode><faultstring>nobody knows</faultstring>", "soap_fault", Nature.UNKNOWN),
        ("", "soap_fault", Nature.UNKNOWN),
    ],
)
def test_a_fault_without_its_detail(inside: str, code: str, nature: Nature) -> None:
    body = f'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault>{inside}</e:Fault></e:Body></e:Envelope>'
    with pytest.raises(Fault) as failed:
        parse(body.encode())
    assert (failed.value.code, failed.value.nature) == (code, nature)


def test_the_position_is_told_before_the_leads_arrive() -> None:
    told: Told = []
    parser = ReplyParser("e", lambda position, remaining: told.append((position, remaining)), as_it_came)
    whole = page(record(""), position="<newStreamPosition> a+/=\n</newStreamPosition>")
    parser.feed(whole[: whole.index(b"<leadRecord>")])
    assert told == [(" a+/=\n", 5)]
    parser.feed(whole[whole.index(b"<leadRecord>") :])
    assert parser.finish() == ([LeadRecord(1, None, [])], 5, " a+/=\n")
    assert len(told) == 1


@pytest.mark.parametrize(
    "position", ["", "<newStreamPosition/>", "<newStreamPosition></newStreamPosition>", '<newStreamPosition xsi:nil="true"/>']
)
def test_no_position_is_the_end_whatever_remains(position: str) -> None:
    assert parse(page(record(""), position=position)) == (([LeadRecord(1, None, [])], 5, None), [(None, 5)])


def test_nothing_remaining_is_the_end_whatever_the_position() -> None:
    assert parse(page("", count=0, remaining="0")) == (([], 0, None), [(None, 0)])


@pytest.mark.parametrize("list_", ["", "<leadRecordList/>", '<leadRecordList xsi:nil="true"/>'])
def test_an_empty_page_need_not_be_the_last(list_: str) -> None:
    document = page("", count=0).replace(b"<leadRecordList></leadRecordList>", list_.encode())
    assert parse(document)[0] == ([], 5, "p")


@pytest.mark.parametrize("email", ["", "<Email/>", "<Email></Email>", '<Email xsi:nil="true"/>'])
@pytest.mark.parametrize("attributes", ["", "<leadAttributeList/>", '<leadAttributeList xsi:nil="true"/>'])
def test_absent_nil_and_empty_parts_of_a_lead(email: str, attributes: str) -> None:
    lead = only(page(f"<leadRecord><Id> 9 </Id>{email}{attributes}</leadRecord>"))
    assert lead == LeadRecord(9, None, [])


def test_an_empty_value_is_a_value_and_nil_or_absent_is_none() -> None:
    values = ["<attrValue/>", "<attrValue></attrValue>", '<attrValue xsi:nil="true"/>', "", "<attrValue> 0 </attrValue>"]
    lead = only(page(record("".join(map(attribute, values)))))
    assert [value for _, _, value in lead.attributes] == ["", "", " 0 "]


def test_comments_instructions_and_cdata_cut_no_value_short() -> None:
    lead = only(page(record(attribute("<attrValue>a<!-- x -->b<?p i?>c<![CDATA[<&>]]>d&#233;&amp;</attrValue>"))))
    assert lead.attributes[0][2] == "abc<&>dé&"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html><body>maintenance</body></html>",
        b"<leadRecord><Id>1</Id></leadRecord>",
        REPLY[:-30],
        REPLY[: len(REPLY) // 2],
        REPLY + b"<more/>",
        b"\xff\xfe\x00",
        REPLY.replace(b"<returnCount>2</returnCount>", b""),
        REPLY.replace(b"<remainingCount>0</remainingCount>", b""),
        REPLY.replace(b"<returnCount>2<", b"<returnCount>3<"),
        REPLY.replace(b"<returnCount>2<", b"<returnCount>two<"),
        REPLY.replace(b"<remainingCount>0<", b"<remainingCount>-1<"),
        REPLY.replace(b"<remainingCount>0<", b"<remainingCount>0</remainingCount><remainingCount>1<"),
        REPLY.replace(b"http://www.marketo.com/mktows/", b"http://www.marketo.com/other/"),
        REPLY.replace(b"http://schemas.xmlsoap.org/soap/envelope/", b"http://www.w3.org/2003/05/soap-envelope"),
        REPLY.replace(b"67508", b""),
        REPLY.replace(b"67508", b"6_7"),
        REPLY.replace(b"67508", "٦".encode()),
        REPLY.replace(b"67508", b"9223372036854775808"),
        REPLY.replace(b"67508", b"9" * 5000),
        REPLY.replace(b"<Id>67508</Id>", b""),
        REPLY.replace(b"<attrName>Company</attrName>", b""),
        REPLY.replace(b"joe@", b"joe&nbsp;"),
        page(record(attribute(f"<attrValue>{record('')}</attrValue>"))),
        b'<a xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Fault/></a>',
    ],
)
def test_what_is_no_whole_reply_is_transient_never_half_a_page(document: bytes) -> None:
    for size in (16, 16 * 1024):
        with pytest.raises(Fault) as failed:
            parse(document, size)
        assert (failed.value.nature, failed.value.code) == (Nature.TRANSIENT, "garbled")


@pytest.mark.parametrize(
    "dtd",
    [
        b"<!DOCTYPE x>",
        b'<!DOCTYPE x [<!ENTITY e "joe">]>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY e "&b;&b;&b;&b;&b;&b;&b;">]>',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_any_dtd_is_refused_before_anything_is_used(dtd: bytes, encoding: str) -> None:
    told: Told = []
    body = REPLY.partition(b"?>")[2].replace(b">joe@", b">&e;@" if b"ENTITY e" in dtd else b">joe@")
    document = (dtd + body).decode().encode(encoding)
    with pytest.raises(Fault, match="DTD"):
        parse(document, 16, told)
    assert told == []


@settings(max_examples=300)
@given(
    st.binary(max_size=300)
    | st.builds(lambda at, junk: REPLY[:at] + junk + REPLY[at + len(junk) :], st.integers(0, 3000), st.binary(max_size=4))
)
@example(b"<?xml version='1.0' encoding='nonsense'?><a/>")
@example(b"<?xml version='1.0' encoding='utf-7'?><a/>")
def test_any_bytes_are_a_page_or_a_fault(document: bytes) -> None:
    with contextlib.suppress(Fault):
        (leads, remaining, _), _ = parse(document, 512)
        assert remaining >= 0
        assert all(isinstance(lead, LeadRecord) for lead in leads)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=["\ufffe", "\uffff"]))


def spelt(text: str, style: str) -> str:
    """One text in the ways that XML has for it."""
    if style == "cdata" and "]]>" not in text:
        return f"<![CDATA[{text}]]>"
    if style == "parts":
        return f"{escape(text[:1])}<!-- x --><![CDATA[]]><?p i?>{escape(text[1:])}"
    return escape(text)


STYLES = st.sampled_from(["plain", "cdata", "parts"])
ATTRIBUTES = st.lists(st.tuples(TEXTS.filter(bool), TEXTS, STYLES), max_size=4)


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), ATTRIBUTES), max_size=8), st.integers(1, 64))
def test_every_lead_comes_out_as_it_went_in(leads: list[tuple[int, list[tuple[str, str, str]]]], size: int) -> None:
    def element(name: str, value: str, style: str) -> str:
        name = f"<attrName>{spelt(name, style)}</attrName>"
        return f"<attribute>{name}<attrType>text</attrType><attrValue>{spelt(value, style)}</attrValue></attribute>"

    records = "".join(record("".join(element(*one) for one in attributes), str(lead_id)) for lead_id, attributes in leads)
    expected = [LeadRecord(lead_id, None, [(n, "text", v) for n, v, _ in attributes]) for lead_id, attributes in leads]
    assert parse(page(records, count=len(leads)), size)[0] == (expected, 5, "p")


@pytest.mark.parametrize(("value", "left"), [("<attrValue>x</attrValue>", 0), ("<attrValue><!-- not plain -->x</attrValue>", 1)])
def test_leads_that_were_read_are_kept_nowhere_else(value: str, left: int) -> None:
    parser = ReplyParser("e", None, as_it_came)
    document = page(record(attribute(value)) * 2000, count=2000).partition(b"</leadRecordList>")[0]
    for start in range(0, len(document), 16 * 1024):
        parser.feed(document[start : start + 16 * 1024])
    gc.collect()
    assert parser._list is not None
    assert len(parser._list) == left
    assert len(parser._kept) < 16 * 1024
    assert len(parser._leads) == 2000 - left


def test_a_record_without_end_is_left_to_the_xml_parser() -> None:
    parser = ReplyParser("e", None, as_it_came)
    parser.feed(page("<leadRecord>").partition(b"</leadRecordList>")[0])
    for _ in range(1000):
        parser.feed(attribute("<attrValue>x</attrValue>").encode() * 40)
        assert len(parser._kept) <= 1024 * 1024
    assert not parser._kept


GOOD_TEXTS = [
    "",
    "x",
    " x\n\t",
    "é😀",
    "&amp;&lt;&gt;&quot;&apos;",
    "&#233;&#10;",
    "&#xe9;",
    "a > b",
    "]",
    "\ufffd",
    "\x7f\x85",
    "\r",
    "a\r\nb",
    "&#13;",
]
ODD_TEXTS = [
    "<![CDATA[a<b]]>",
    "a<!-- b -->c",
    "a<?b?>c",
    "\0",
    "\x01",
    "]]>",
    "&",
    "&nbsp;",
    "\uffff",
    "\ufffe",
    "<b/>",
    "</attrValue>",
    "<Id>2</Id>",
]
ODD_REFERENCES = ["&#0;", "&#1;", "&#31;", "&#55296;", "&#57343;", "&#65534;", "&#65535;", "&#1114112;", "&#9999999;"]
TEXT = st.sampled_from(GOOD_TEXTS * 20 + ODD_TEXTS + ODD_REFERENCES)
SPACE = st.sampled_from([""] * 120 + ["\n  ", "\t", "\r\n", "\u00a0", "x", "<!-- x -->"])
GAPLESS = st.sampled_from([""] * 60 + ["/", ' xsi:nil="true"/', ' xsi:nil="true" /', ' xsi:nil="false"/', ' nil="true"/', " /"])


def mostly(usual: str, odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 39).flatmap(lambda chance: odd if chance == 39 else st.just(usual))


@st.composite
def parts(draw: st.DrawFn, tag: str, text: st.SearchStrategy[str]) -> str:
    form = draw(GAPLESS)
    return (f"<{tag}{form}>" if "/" in form else f"<{tag}>{draw(text)}</{tag}>") + draw(SPACE)


@st.composite
def records(draw: st.DrawFn) -> str:
    """A record as the protocol has it, or with anything changed in it."""

    def in_any_order(inside: list[str]) -> str:
        return "".join(draw(st.permutations(inside)) if draw(st.integers(0, 39)) == 39 else inside)

    def attribute() -> str:
        inside = [
            draw(parts("attrName", mostly("A", TEXT))),
            draw(parts("attrType", mostly("string", TEXT))),
            draw(parts("attrValue", TEXT)),
        ]
        return f"<attribute>{draw(SPACE)}{in_any_order(inside)}</attribute>{draw(SPACE)}"

    attributes = "".join(attribute() for _ in range(draw(st.integers(0, 3))))
    lists = f"<leadAttributeList>{draw(SPACE)}{attributes}</leadAttributeList>"
    lead_id = draw(mostly("7", st.sampled_from(["01", " 1\n", "9" * 18, "9" * 19, "", "٣", "+1", "1&#49;"])))
    foreign = st.sampled_from(
        ['<ForeignSysPersonId xsi:nil="true" />', '<ForeignSysType xsi:nil="true"/>', "<ForeignSysType>x</ForeignSysType>"]
    )
    inside = [f"<Id>{lead_id}</Id>", draw(SPACE), draw(parts("Email", TEXT)), draw(mostly("", foreign))]
    inside += [draw(mostly(lists, st.sampled_from([lists * 2, "", '<leadAttributeList xsi:nil="true"/>']))), draw(SPACE)]
    return f"<leadRecord>{in_any_order(inside)}</leadRecord>{draw(SPACE)}"


def outcome(document: bytes, size: int) -> Page | str:
    parser = ReplyParser("e", None, as_it_came)
    head, start, rest = document.partition(b"<leadRecordList>")
    try:
        for piece in (head + start, *(rest[at : at + size] for at in range(0, len(rest), size))):
            parser.feed(piece)
        return parser.finish()
    except Fault as fault:
        return fault.code


def both_ways(inside: str, count: int, encoding: str = "utf-8", size: int = 16 * 1024) -> tuple[Page | str, Page | str]:
    """What the page comes to, and what it comes to where the XML parser reads all of it."""
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + page(inside, count).decode()
    by_xml = text.replace("<leadRecordList>", "<leadRecordList><!-- nothing behind this is plain -->")
    return outcome(text.encode(encoding, "replace"), size), outcome(by_xml.encode(encoding, "replace"), size)


@pytest.mark.parametrize("text", GOOD_TEXTS + ODD_TEXTS + ODD_REFERENCES)
def test_no_text_is_read_otherwise_than_by_the_xml_parser(text: str) -> None:
    form = "<leadRecord><Id>{}</Id><Email>{}</Email><leadAttributeList>{}</leadAttributeList></leadRecord>".format
    for inside in (
        form(1, text, ""),
        form(1, "", text),
        form(text, "", ""),
        form(1, "x", attribute(f"<attrValue>{text}</attrValue>")),
        form(1, "x", attribute("<attrValue>1</attrValue>").replace(">A<", f">{text}<")),
        form(1, "x", attribute("<attrValue>1</attrValue>").replace(">string<", f">{text}<")),
        form(1, "x", attribute("<attrValue>1</attrValue>")) + text + form(2, "", ""),
    ):
        as_read, by_xml = both_ways(inside, inside.count("<leadRecord>"))
        assert as_read == by_xml


@pytest.mark.parametrize("lead_id", ["01", " 1\n", "9" * 18, str(2**63 - 1), str(2**63), "9" * 19, "", "٣", "+1", "-1", "1&#49;"])
def test_no_id_is_read_otherwise_than_by_the_xml_parser(lead_id: str) -> None:
    as_read, by_xml = both_ways(record("", lead_id), 1)
    assert as_read == by_xml


@pytest.mark.parametrize(
    "gap", ["/", " /", ' xsi:nil="true"/', ' xsi:nil="true" /', ' xsi:nil="false"/', ' nil="true"/', ' e:nil="true"/', ' x:nil="true"/']
)
@pytest.mark.parametrize("tag", ["attrValue", "Email", "ForeignSysType", "leadAttributeList", "Id"])
def test_no_gap_is_read_otherwise_than_by_the_xml_parser(tag: str, gap: str) -> None:
    inside = f"<{tag}{gap}>"
    lead = record(attribute(inside)) if tag == "attrValue" else f"<leadRecord><Id>1</Id>{inside}</leadRecord>"
    as_read, by_xml = both_ways(lead, 1)
    assert as_read == by_xml


@settings(max_examples=500)
@given(st.lists(records(), min_size=1, max_size=3), st.integers(1, 700), st.sampled_from(["utf-8"] * 8 + ["latin-1", "utf-16"]))
def test_plain_records_are_read_as_the_xml_parser_reads_them(inside: list[str], size: int, encoding: str) -> None:
    as_read, by_xml = both_ways("".join(inside), len(inside), encoding, size)
    assert as_read == by_xml


@pytest.mark.parametrize(
    ("declaration", "plain"),
    [
        (b"", True),
        (b"\xef\xbb\xbf", True),
        (b'<?xml version="1.0"?>', True),
        (b"<?xml version='1.0' encoding='utf-8' standalone='yes' ?>", True),
        (b'<?xml version="1.0" encoding="iso-8859-1"?>', False),
        (b'<?xml version="1.0"' + b" " * 200 + b'encoding="iso-8859-1"?>', False),
        (b'<?xml version="1.0" encoding="us-ascii"?>', False),
    ],
)
@pytest.mark.parametrize("size", [1000, 40])
def test_only_utf_8_is_read_as_it_is(declaration: bytes, plain: bool, size: int) -> None:
    parser = ReplyParser("e", None, as_it_came)
    head, start, rest = (declaration + page(record(attribute("<attrValue>Ã©</attrValue>")))).partition(b"<leadRecordList>")
    for at in range(0, len(head), size):
        parser.feed(head[at : at + size])
    parser.feed(start)
    assert parser._plain == plain
    if b"ascii" not in declaration:
        parser.feed(rest)
        (lead,), _, _ = parser.finish()
        assert lead.attributes[0][2] == "Ã©".encode().decode("iso-8859-1" if not plain else "utf-8")


def test_the_documented_form_is_plain() -> None:
    records = REPLY[REPLY.index(b"<leadRecord>") : REPLY.index(b"</leadRecordList>")]
    assert [lead for lead, _ in plain_records(records)] == parse(REPLY)[0][0]
