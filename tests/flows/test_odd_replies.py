"""Whatever comes back from the wire: no step fails, no half page is stored, and no other pull stops."""

import asyncio
import contextlib
import gzip
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from structlog.testing import capture_logs

from syncd.core.mirror import LONGEST_EMAIL
from syncd.flows.loop import Flow, Idle, Worked
from tests.flows.conftest import FIELDS, PULL, Build, House
from tests.flows.gateway import Gateway, Given, Headers

T = TypeVar("T")

EXAMPLES = 120
LEADS = 12
FAIR = 10_000 // 24  # calls an hour that last the day (protocol 1.5: the default quota)
MARKER = "Notes"
PEOPLE = replace(PULL, window=timedelta(days=30))
ODD = replace(PEOPLE, name="odd", fields=(*FIELDS, MARKER))
BEGIN_ANEW = """
WITH gone AS (DELETE FROM syncd.pull_window), unseen AS (DELETE FROM syncd.lead WHERE digests ? 'odd')
UPDATE syncd.pull SET state = 'running', retry_at = NULL, message = NULL
"""
OPEN_WINDOWS = """
INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at)
SELECT instance, pull, 'soap', '2026-02-01Z', '2026-03-02Z', '2026-03-02Z' FROM syncd.pull
"""
WINDOW = "SELECT state, position, leads, expected, walks, restarts FROM syncd.pull_window WHERE pull = 'odd' ORDER BY id LIMIT 1"
STORED = "SELECT lead_id, email FROM syncd.lead WHERE digests ? 'odd'"
HEAD = (
    '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    ' xmlns:m="http://www.marketo.com/mktows/"><e:Body><m:successGetMultipleLeads><result>'
)
TAIL = "</result></m:successGetMultipleLeads></e:Body></e:Envelope>"
RESULT = "{http://schemas.xmlsoap.org/soap/envelope/}Body/{http://www.marketo.com/mktows/}successGetMultipleLeads/result"


@dataclass
class Between:
    """A house whose calls pass a gateway that answers the pull `odd` as a test tells it; the pull `people` is answered by Marketo."""

    home: House
    gateway: Gateway
    odd: Flow
    people: Flow
    stored: int = 0

    async def begin_anew(self) -> None:
        """Let both pulls have a window to walk, from its beginning, and the mirror nothing that `odd` brought."""
        self.home.clock.advance(200)  # a brake that the last example pressed has eased
        await self.odd.close()
        await self.people.close()
        await self.home.pool.execute(BEGIN_ANEW)
        await self.home.pool.execute(OPEN_WINDOWS)

    async def meets(self, *replies: Given) -> int:
        """Two steps of `odd`, whose requests get `replies`, the last of them for ever; returns how many leads are stored then."""
        await self.begin_anew()
        left = list(replies)
        self.gateway.answer = lambda _: left.pop(0) if len(left) > 1 else left[0]
        readings = [reading(reply.body) for reply in replies]
        for _ in range(2):
            before = await self.home.pool.fetchval("SELECT leads FROM syncd.pull_window WHERE pull = 'odd' ORDER BY id LIMIT 1")
            outcome = await asyncio.wait_for(self.odd.step(), 30)
            assert isinstance(outcome, Worked | Idle)
            await self._whole_pages(before, readings)
        before_people = self._pages_of_people()
        assert await asyncio.wait_for(self.people.step(), 30) == Worked(LEADS), "the other pull stopped"
        assert self._pages_of_people() == before_people + 1
        stored = await self.home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE digests ? 'odd'")
        self.stored += stored > 0
        return int(stored)

    async def _whole_pages(self, before: int, readings: "list[dict[int, str | None] | None]") -> None:
        stored = {row["lead_id"]: no_novel(row["email"]) for row in await self.home.pool.fetch(STORED)}
        window = await self.home.row(WINDOW)
        whole = [page for page in readings if page is not None]
        if stored:
            assert stored in [*whole, *({**first, **second} for first in whole for second in whole)], "half a page, or none of ours"
            assert window["walks"] == 2 or window["restarts"] or window["leads"] >= len(stored)
        else:
            assert window["leads"] == 0
            assert window["position"] is None or {} in whole

    def _pages_of_people(self) -> float:
        samples = self.home.metrics.samples()
        return sum(value for name, labels, value in samples if name == "syncd_pages_total" and labels["pull"] == "people")


def reading(body: bytes) -> "dict[int, str | None] | None":
    """The leads of a whole page by the protocol's grammar, each with its address; None for whatever is no such page."""
    with contextlib.suppress(OSError, EOFError):
        body = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    try:
        result = etree.fromstring(body, etree.XMLParser(resolve_entities=False, remove_comments=True, remove_pis=True)).find(RESULT)
    except (etree.LxmlError, ValueError, LookupError):
        return None
    records = result.findall("leadRecordList/leadRecord") if result is not None else []
    if result is None or number(result.findtext("returnCount")) != len(records):
        return None
    leads = {number(text_of(record, "Id")): no_novel(text_of(record, "Email") or None) for record in records}
    return {lead_id: email for lead_id, email in leads.items() if lead_id is not None} if None not in leads else None


def no_novel(email: str | None) -> str | None:
    """An address that is longer than any is a misfit, which is not the matter here."""
    return email if email is None or len(email) <= LONGEST_EMAIL else None


def text_of(record: etree._Element, name: str) -> str:
    """The last one of that name. What follows markup in it is left out: that such a page is refused another test shows."""
    return str(record.findall(name)[-1].text or "") if record.find(name) is not None else ""


def number(text: str | None) -> int | None:
    """A whole number that 64 bits hold."""
    digits = (text or "").strip(" \t\r\n")
    return int(digits) if re.fullmatch("[0-9]{1,19}", digits) and int(digits) < 1 << 63 else None


@pytest.fixture
async def between(house: Build) -> AsyncIterator[Between]:
    home = await house(pulls=[PEOPLE, ODD], leads=LEADS)
    async with Gateway(home.simulator.soap_endpoint, MARKER) as gateway:
        soap = home.instance.soap
        assert soap is not None
        await home.restart(soap=replace(soap, endpoint=gateway.endpoint))
        people, odd = (flow for flow in home.flows if flow.name.startswith("pull"))
        yield Between(home, gateway, odd, people)
        await home.stop()


async def for_each(values: st.SearchStrategy[T], example: Callable[[T], Awaitable[object]]) -> None:
    """hypothesis knows no event loops: it thinks in a thread of its own, and each example runs on ours."""
    loop = asyncio.get_running_loop()

    async def run(value: T) -> None:
        await example(value)

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(values)
    def on_the_loop(value: T) -> None:
        asyncio.run_coroutine_threadsafe(run(value), loop).result(120)

    await asyncio.to_thread(on_the_loop)


# What follows makes replies. `element` and `attribute` take content as it is to stand there, markup and all.


def element(name: str, content: str | None) -> str:
    """`content` None is nil."""
    return f'<{name} xsi:nil="true" />' if content is None else f"<{name}>{content}</{name}>"


def attribute(name: str | None, kind: str | None, value: str | None) -> str:
    return f"<attribute>{element('attrName', name)}{element('attrType', kind)}{element('attrValue', value)}</attribute>"


def record(lead_id: str | None = "7", email: str | None = None, attributes: str = "") -> str:
    return f"<leadRecord>{element('Id', lead_id)}{element('Email', email)}<leadAttributeList>{attributes}</leadAttributeList></leadRecord>"


def page(*records: str, remaining: str = "0", position: str = "<newStreamPosition />", head: str = HEAD, count: str | None = None) -> bytes:
    counts = f"<returnCount>{len(records) if count is None else count}</returnCount><remainingCount>{remaining}</remainingCount>"
    return f"{head}{counts}{position}<leadRecordList>{''.join(records)}</leadRecordList>{TAIL}".encode("utf-8", "surrogatepass")


def at(position: str) -> str:
    return f"<newStreamPosition>{position}</newStreamPosition>"


LONG = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9_000))  # what no compression makes short
MANY_DIGITS = "9" * 5_000
NUMBERS = [
    "0", "1", "-1", "+1", "007", " 1 ", "1.0", "1e3", "0x10", "", "٣", "\uff11", "1_0", "2147483648",
    "9223372036854775806", "9223372036854775807", "9223372036854775808", "18446744073709551616", MANY_DIGITS, "NaN",
]  # fmt: skip
TEXTS = [
    "", " ", "Ada", "\\u0000", "\\ud800", "&#0;", "&#xD800;", "&#xFFFE;", "&#x1F600;", "&#13;", "&amp;#0;", "&nbsp;", "]]>", "\x01",
    "\ud800", "<![CDATA[a<b]]>", "a<!-- c -->b", "a<?pi?>b", "a<b/>c", "{}", '"', "ℵ" * 900, LONG, LONG + "@example.com", MANY_DIGITS,
    "1e999", "-0", "1e-999", "9." + "9" * 999, "1e9999", "Infinity", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
]  # fmt: skip
KINDS = ["string", "integer", "float", "boolean", "date", "datetime", "currency", "percent", "score", "url", "", "sales:deal", LONG]
NAMES = ["FirstName", "Email", "Id", "LeadScore", "AnnualRevenue", "", " ", "a.b", "é", "\\u0000", "'); --", LONG]


def mostly(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One thing odd is what a reply has to get through with; where all is odd, the first of it hides the rest."""
    return st.integers(0, 9).flatmap(lambda chance: odd if chance == 9 else usual)


texts: st.SearchStrategy[str | None] = mostly(
    st.text(st.characters(exclude_characters="<&\0", exclude_categories=["Cs", "Cc", "Cn"]), max_size=12),
    st.sampled_from(TEXTS) | st.none(),
)
numbers = mostly(st.integers(1, 10**6).map(str), st.sampled_from(NUMBERS))
attributes = st.builds(
    attribute,
    mostly(st.sampled_from(["FirstName", "LeadScore"]), st.sampled_from(NAMES)),
    mostly(st.sampled_from(["string", "integer", "datetime", "float"]), st.sampled_from(KINDS)),
    texts | st.sampled_from(NUMBERS),
)
stray = st.sampled_from(
    [
        "<Id>9</Id>", "<Email/>", "<attribute/>", "<leadRecord/>", "<leadRecordList/>", "<returnCount>1</returnCount>", at("q"),
        "<!-- <leadRecordList> -->", "<![CDATA[</leadRecord>]]>", "<?pi </leadRecordList>?>", "text", "&e;", "<a>" * 300, "<x:a/>",
        '<leadAttributeList xmlns="urn:other"/>', "<leadRecordList>", "</leadRecord>", "<leadRecordList><leadRecord>",
    ]
)  # fmt: skip
records = st.builds(record, numbers, texts, st.lists(attributes, max_size=4).map("".join))
positions = st.sampled_from(
    [
        "",
        "<newStreamPosition />",
        '<newStreamPosition xsi:nil="true" />',
        at("p"),
        at("p"),
        at(" "),
        at("é&#13;"),
        at(LONG),
        at("a<b/>"),
        at("p") * 2,
    ]
)
heads = mostly(
    st.just(HEAD),
    st.sampled_from(
        [
            HEAD.replace("http://www.marketo.com/mktows/", "urn:other"),
            HEAD.replace("xmlns:m", 'xmlns="urn:other" xmlns:m'),
            HEAD.replace("XMLSchema-instance", "XMLSchema"),
            '<!DOCTYPE a [<!ENTITY e "x">]>' + HEAD,
            '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a">' + HEAD,
            '<!DOCTYPE a [<!ENTITY e "eeeeeeeeee"><!ENTITY f "&e;&e;&e;&e;&e;&e;">]>' + HEAD,
            '<?xml version="1.0" encoding="utf-16"?>' + HEAD,
            '<?xml version="1.0" encoding="iso-8859-1"?>' + HEAD,
            '<?xml version="1.1"?>' + HEAD,
            "\ufeff" + HEAD,
        ]
    ),
)


@st.composite
def odd_pages(draw: st.DrawFn) -> bytes:
    """Pages of which some part, or none, is odd."""
    made = draw(st.lists(records, max_size=4))
    count = draw(mostly(st.none(), st.sampled_from(["0", "-1", "99", MANY_DIGITS, ""])))
    document = page(*made, remaining=draw(numbers), position=draw(positions), head=draw(heads), count=count)
    for extra in draw(st.lists(stray, max_size=2)) if draw(st.integers(0, 3)) == 3 else []:
        seams = [place for place in range(len(document)) if document[place : place + 1] == b"<"]
        place = seams[draw(st.integers(0, len(seams) - 1))]
        document = document[:place] + extra.encode() + document[place:]
    return document


codes = st.sampled_from(
    ["20014", "20122", "20102", "20103", "20123", "20016", "20023", "20024", "29999", "", " ", "timeout", "20014 " * 99, LONG]
)
faults = st.builds(
    lambda code, text: (
        '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>x</faultcode>'
        f"<faultstring>{text}</faultstring><detail><serviceException>{element('message', text or '')}{element('code', code)}"
        "</serviceException></detail></e:Fault></e:Body></e:Envelope>"
    ).encode("utf-8", "surrogatepass"),
    codes,
    texts,
)  # of 20015 another test tells: it is meant to stop every pull of the instance
HEADERS = [
    ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"), ("Content-Encoding", "br"), ("Content-Encoding", "zstd"),
    ("Content-Encoding", "gzip, gzip"), ("Content-Encoding", "nonsense"), ("Content-Type", "text/html; charset=nonsense"),
    ("Date", "yesterday"), ("Date", "Fri, 31 Dec 9999 23:59:59 -2359"), ("Location", "http://x:99999/"), ("Location", "http://["),
    ("Date", "Mon, 31 Feb 2026 99:99:99 GMT"), ("Date", "Mon, 02 Mar 0000 00:00:00 -0000"),
    ("Location", "//"), ("Location", "http://x:ab/"), ("Location", "é"), ("Location", ""),
    ("Retry-After", "soon"), ("Set-Cookie", "a=b; Max-Age=never"), ("Link", "<<>>"),
]  # fmt: skip
STATUSES = [
    200,
    200,
    200,
    200,
    500,
    500,
    201,
    204,
    206,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    407,
    413,
    414,
    429,
    502,
    503,
    504,
    599,
]


HEADER = st.sampled_from(HEADERS)


def replies(bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[Given]:
    headers: st.SearchStrategy[Headers] = mostly(st.just(()), st.lists(HEADER, max_size=2))
    statuses = mostly(st.sampled_from([200, 200, 500]), st.sampled_from(STATUSES))
    return st.builds(Given, mostly(bodies, bodies.map(gzip.compress)), statuses, headers)


async def test_any_bytes(between: Between) -> None:
    await for_each(replies(st.binary(max_size=200)), between.meets)


async def test_a_real_reply_with_some_bytes_flipped_cut_repeated_or_inserted(between: Between) -> None:
    await between.begin_anew()
    await between.odd.step()
    real = between.gateway.last
    place = st.integers(0, len(real))
    changes = st.lists(
        st.tuples(st.sampled_from(["flip", "cut", "repeat", "insert"]), place, st.integers(0, 200), st.binary(max_size=4)), max_size=3
    )

    def changed(edits: list[tuple[str, int, int, bytes]]) -> bytes:
        body = real
        for how, start, length, junk in edits:
            part = body[start : start + length]
            middle = {"flip": bytes(byte ^ 1 for byte in part[:2]) + part[2:], "cut": b"", "repeat": part * 2, "insert": junk + part}[how]
            body = body[:start] + middle + body[start + length :]
        return body

    await for_each(changes.map(changed).map(Given), between.meets)
    assert await between.meets(Given(real)) == LEADS


async def test_any_well_formed_reply_however_odd(between: Between) -> None:
    await for_each(odd_pages().map(Given) | replies(odd_pages() | faults), between.meets)
    assert between.stored > EXAMPLES / 20, "the odd ones are so odd that the test shows nothing"


async def test_two_odd_pages_in_a_row(between: Between) -> None:
    bodies = (odd_pages() | odd_pages() | faults).map(Given)
    await for_each(st.tuples(bodies, bodies), lambda pair: between.meets(*pair))


ODDITIES: Mapping[str, tuple[Given, int]] = {
    "an address that no index holds": (Given(page(record("7", LONG + "@example.com"))), 1),
    "more leads are left than a bigint counts": (Given(page(record("7"), remaining="9223372036854775807", position=at("p"))), 0),
    "the largest id": (Given(page(record("9223372036854775807"))), 1),
    "an id that Postgres can't hold": (Given(page(record("7"), record("9223372036854775808"))), 0),
    "an id below nought": (Given(page(record("7"), record("-1"))), 0),
    "one id twice": (Given(page(record("7", "a"), record("7", "b"))), 1),
    "numbers of thousands of digits": (Given(page(record("7", None, attribute("LeadScore", "integer", MANY_DIGITS)))), 1),
    "numbers far out": (Given(page(record("7", None, "".join(attribute("LeadScore", "float", n) for n in ("1e999", "1e-999", "-0"))))), 1),
    "a text that looks like an escape": (Given(page(record("7", "\\u0000", attribute("\\u0000", "string", "\\u0000 \\ud800")))), 1),
    "a reference to NUL": (Given(page(record("7", None, attribute("A", "string", "&#0;")))), 0),
    "a reference to a surrogate": (Given(page(record("7", None, attribute("A", "string", "&#xD800;")))), 0),
    "a raw surrogate": (Given(page(record("7", None, attribute("A", "string", "\ud800")))), 0),
    "a name of any length": (Given(page(record("7", None, attribute(LONG * 9, LONG, LONG)))), 1),
    "a position of any length": (Given(page(record("7"), remaining="1", position=at(LONG * 9))), 1),
    "leads are left, but no position": (Given(page(record("7"), remaining="5")), 1),
    "a position, but nothing is left": (Given(page(record("7"), position=at("p"))), 1),
    "a value with markup": (Given(page(record("7", None, attribute("A", "string", "a<b/>c")))), 0),
    "a name of another attribute": (
        Given(
            page(
                record(
                    "7",
                    None,
                    "<attribute><attrName>A</attrName><attrName>B</attrName><attrType>string</attrType><attrValue>1</attrValue></attribute>"
                    "<attribute><attrType>string</attrType><attrValue>2</attrValue></attribute>",
                )
            )
        ),
        0,
    ),
    "an address with markup": (Given(page(record("7", "a<b/>c"))), 0),
    "an id with markup": (Given(page(record("7<b/>8"))), 0),
    "a record with two ids": (Given(page(record("7").replace("</Id>", "</Id><Id>8</Id>"))), 0),
    "sent on to a port that there is not": (Given(b"", 302, (("Location", "http://x:99999/"),)), 0),
    "a fault whose code is a novel": (
        Given(
            (
                '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault>'
                f"<detail><serviceException><code>{LONG}</code></serviceException></detail></e:Fault></e:Body></e:Envelope>"
            ).encode(),
            500,
        ),
        0,
    ),
}


@pytest.mark.parametrize("oddity", ODDITIES)
async def test_a_known_oddity(between: Between, oddity: str) -> None:
    reply, stored = ODDITIES[oddity]
    assert await between.meets(reply) == stored


async def test_what_stands_where_a_code_belongs_is_no_label_and_no_leak(between: Between) -> None:
    """Metrics have few labels, and logs no addresses, whatever a gateway puts into a fault."""
    labels: set[str] = set()
    with capture_logs() as events:
        for number in range(20):
            code = f"somebody{number}@example.com"
            fault = HEAD.split("<m:")[0] + f"<e:Fault><faultstring/><detail><serviceException>{element('code', code)}"
            fault += "</serviceException></detail></e:Fault></e:Body></e:Envelope>"
            assert await between.meets(Given(fault.encode(), 500)) == 0
    for name, of, _ in between.home.metrics.samples():
        labels |= {of["code"]} if name in ("syncd_faults_total", "syncd_api_calls_total") else set()
    assert len(labels) <= 5
    assert "@example.com" not in str(events)


async def asked_in_an_hour(between: Between, answer: Callable[[bytes], Given]) -> int:
    """How many requests `odd` makes in an hour in which all of them are answered so; no more are counted than FAIR and a few."""
    await between.begin_anew()
    between.gateway.answer = answer
    clock, before = between.home.clock, between.gateway.asked
    end = clock.now() + timedelta(hours=1)
    while clock.now() < end and between.gateway.asked - before <= FAIR:
        outcome = await asyncio.wait_for(between.odd.step(), 30)
        clock.advance(max((outcome.until - clock.now()).total_seconds(), 0.3) if isinstance(outcome, Idle) else 0.3)
    return between.gateway.asked - before


async def test_a_stream_that_stays_where_it_is_does_not_spend_the_calls_of_all(between: Between) -> None:
    """The pulls of an instance share the calls of a day: what one of them spends for nothing is missing to the others."""
    forever = Given(page(record("7"), remaining="5", position=at("p")))
    assert await asked_in_an_hour(between, lambda _: forever) <= FAIR


async def test_a_stream_that_goes_round_in_a_circle_does_not_spend_the_calls_of_all(between: Between) -> None:
    def answer(request: bytes) -> Given:
        return Given(page(record("7"), remaining="5", position=at("q" if b">p<" in request else "p")))

    assert await asked_in_an_hour(between, answer) <= FAIR


async def test_a_stream_whose_positions_are_refused_for_ever_does_not_spend_the_calls_of_all(between: Between) -> None:
    refused = (
        b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultstring>20122 - Bad stream position'
        b"</faultstring></e:Fault></e:Body></e:Envelope>"
    )

    def answer(request: bytes) -> Given:
        return Given(refused, 500) if b"streamPosition" in request else Given(page(record("7"), remaining="5", position=at("p")))

    assert await asked_in_an_hour(between, answer) <= FAIR
