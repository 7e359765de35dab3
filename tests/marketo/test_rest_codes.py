"""Every code of protocol 2, and its HTTP statuses, at every endpoint of the lead sources."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core.faults import Fault, Nature
from syncd.core.values import InStaticList
from tests.marketo.test_errors import REFUSED, REST_ROWS, codes
from tests.marketo.wire import Answering, Given, Observed, Sources, Wire, json, opened, reset, rest_api, sources, token

JOB = '"result": [{"exportId": "e-1", "status": "Created"}]'
PAGE = '"nextPageToken": "next", "result": []'


async def nowhere(piece: bytes) -> None:
    pass


@dataclass(frozen=True)
class Endpoint:
    call: Callable[[Sources], Awaitable[Any]]
    good: str  # an envelope's inside, or a file
    acts: bool = False
    empty: object = None  # what 702 stands for, where a reply of nothing is an answer


NEVER = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINTS = {
    "export_create": Endpoint(lambda s: s.exports.create(["a"], InStaticList(7)), JOB, acts=True),
    "export_enqueue": Endpoint(lambda s: s.exports.enqueue("e-1"), JOB, acts=True),
    "export_cancel": Endpoint(lambda s: s.exports.cancel("e-1"), JOB, acts=True),
    "export_status": Endpoint(lambda s: s.exports.status("e-1"), JOB),
    "export_list": Endpoint(lambda s: s.exports.jobs(), JOB, empty=[]),
    "export_file": Endpoint(lambda s: s.exports.download("e-1", 0, None, nowhere), "a,b\n"),
    "paging_token": Endpoint(lambda s: s.activities.token_since(NEVER), PAGE),
    "lead_changes": Endpoint(lambda s: s.activities.lead_changes("t", ["a"]), PAGE, empty=("t", False)),
    "deleted_leads": Endpoint(lambda s: s.activities.deleted_leads("t"), PAGE, empty=("t", False)),
    "activities": Endpoint(lambda s: s.activities.of_types("t", [22]), PAGE, empty=("t", False)),
    "leads": Endpoint(lambda s: s.leads.by_id([1], ["a"]), PAGE, empty=()),
}
ROWS = REST_ROWS[:-1]  # the last one has codes of single records
CODES = [(code, natures) for row, natures in ROWS for code in codes(row) if code not in ("601", "602", "702", "1029")]
KINDS_OF_1029 = [
    ("Too many jobs (10) in queue", "1029_queue", Nature.NO_SLOT),
    ("Export daily quota 500MB exceeded", "1029_quota", Nature.QUOTA),
    ("Job already queued", "1029_already", Nature.PERMANENT),
]


def refusal(code: str, message: str = "for jo@example.com") -> web.Response:
    return json(f'{{"requestId": "r#7", "success": false, "errors": [{{"code": "{code}", "message": "{message}"}}]}}')


def good(endpoint: str) -> web.Response:
    inside = ENDPOINTS[endpoint].good
    return web.Response(text=inside) if endpoint == "export_file" else json(f'{{"success": true, {inside}}}')


async def met(wire: Wire, endpoint: str, observed: Observed, *script: Any) -> Fault:
    wire.script = [token(), *script]
    async with opened(observed) as session:
        with pytest.raises(Fault) as failed:
            await ENDPOINTS[endpoint].call(sources(rest_api(wire, session)))
    return failed.value


def at(endpoint: str, natures: set[Nature]) -> set[Nature]:
    """In place of a file, whatever is not for a person to mend or to be waited for in its own way is passing (protocol 3.1)."""
    lasting = {Nature.PERMANENT, Nature.UNKNOWN, Nature.EMPTY}
    return {Nature.TRANSIENT if nature in lasting else nature for nature in natures} if endpoint == "export_file" else natures


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("code", "natures"), [*CODES, ("5555", {Nature.UNKNOWN})])
async def test_every_code_is_the_fault_that_the_table_says(wire: Wire, endpoint: str, code: str, natures: set[Nature]) -> None:
    observed = Observed()
    fault = await met(wire, endpoint, observed, refusal(code))
    assert fault.nature in at(endpoint, natures)
    assert (fault.code, fault.endpoint, fault.request_id) == (code, endpoint, "r#7")
    assert fault.executed is (False if int(code) in REFUSED else None)
    assert str(fault) == f"{endpoint}: {code} for …@…, requestId r#7"
    assert observed.exchanges[1:] == [("rest", endpoint, code)]  # and it was sent once


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(("message", "code", "nature"), KINDS_OF_1029)
async def test_1029_is_three_faults(wire: Wire, endpoint: str, message: str, code: str, nature: Nature) -> None:
    observed = Observed()
    wire.script = [token(), refusal("1029", message), good(endpoint)]
    async with opened(observed) as session:
        api = sources(rest_api(wire, session))
        with pytest.raises(Fault) as failed:
            await ENDPOINTS[endpoint].call(api)
        assert not observed.pauses["rest"]()
        await ENDPOINTS[endpoint].call(api)  # a quota of bytes, which no other call spends
    assert {failed.value.nature} == at(endpoint, {nature})
    assert (failed.value.code, failed.value.executed, failed.value.request_id) == (code, False, "r#7")
    assert observed.exchanges[1:] == [("rest", endpoint, code), ("rest", endpoint, "ok")]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_702_is_an_empty_result_where_there_can_be_one(wire: Wire, endpoint: str) -> None:
    wire.script = [token(), refusal("702")]
    expected = ENDPOINTS[endpoint].empty
    async with opened() as session:
        call = ENDPOINTS[endpoint].call(sources(rest_api(wire, session)))
        if expected is None:
            with pytest.raises(Fault) as failed:
                await call
            assert {failed.value.nature} == at(endpoint, {Nature.EMPTY})
            assert failed.value.executed is False
        else:
            found = await call
            assert expected in (found, getattr(found, "leads", None), (getattr(found, "token", None), getattr(found, "more", None)))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("code", ["601", "602"])
async def test_a_refused_token_is_renewed_once_and_the_call_repeated_at_once(wire: Wire, endpoint: str, code: str) -> None:
    wire.script = [token("old"), refusal(code), token("new"), good(endpoint), refusal(code), token("newer"), refusal(code)]
    async with opened() as session:
        api = sources(rest_api(wire, session))
        await ENDPOINTS[endpoint].call(api)
        with pytest.raises(Fault) as failed:
            await ENDPOINTS[endpoint].call(api)
    first, second = [request for request in wire.requests if not request.path.startswith("/identity")][:2]
    assert (first.headers["authorization"], second.headers["authorization"]) == ("Bearer old", "Bearer new")
    assert (first.method, first.path, first.body) == (second.method, second.path, second.body)
    assert (failed.value.nature, failed.value.code, failed.value.executed) == (Nature.TOKEN, code, False)
    assert wire.script == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_gateways_page_is_passing_and_leaves_an_act_open(wire: Wire, endpoint: str, status: int) -> None:
    fault = await met(wire, endpoint, Observed(), web.Response(status=status, text="<html>"))
    assert (fault.nature, fault.code, fault.executed, fault.endpoint) == (Nature.TRANSIENT, f"http_{status}", None, endpoint)
    assert wire.script == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("text", ["<html>", '{"success": tr', '{"success": false, "errors": []}', "{}", ""])
async def test_a_garbled_200_is_passing_and_leaves_an_act_open(wire: Wire, endpoint: str, text: str) -> None:
    fault = await met(wire, endpoint, Observed(), json(text))
    assert (fault.nature, fault.code, fault.executed, fault.endpoint) == (Nature.TRANSIENT, "garbled", None, endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_lost_connection_repeats_a_read_once_and_never_an_act(wire: Wire, endpoint: str) -> None:
    observed = Observed()
    acts = ENDPOINTS[endpoint].acts
    fault = await met(wire, endpoint, observed, reset, reset, reset)
    assert (fault.nature, fault.code, fault.executed) == (Nature.TRANSIENT, "connection", None)
    assert observed.exchanges[1:] == [("rest", endpoint, "connection")] * (1 if acts else 2)


KEYS = st.sampled_from(
    ["success", "errors", "result", "code", "message", "nextPageToken", "id", "email", "name", "value", "attributes", "exportId", "status"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from(["Completed", "2014-09-17T22:31:49+0000", "0001-01-01T00:00:00+23:59", "Merge IDs", "[1, 2]", "²", "1" * 99, 32])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=12)
ENTRIES = st.fixed_dictionaries({}, optional=dict.fromkeys(("exportId", "status", "id", "email", "createdAt", "fileChecksum"), JSON))
ACTIVITIES = st.fixed_dictionaries(
    {"id": JSON, "leadId": st.integers() | JSON, "activityTypeId": st.just(32), "activityDate": st.just("2014-09-17T22:31:49Z") | JSON},
    optional={"attributes": JSON, "marketoGUID": JSON},
)
ENVELOPES = st.fixed_dictionaries(
    {"success": st.booleans(), "result": JSON | st.lists(ENTRIES | ACTIVITIES, max_size=2)},
    optional={"nextPageToken": JSON, "moreResult": JSON, "errors": JSON},
)
REPLIES = st.binary(max_size=100) | (JSON | ENVELOPES).map(lambda value: dumps(value).encode())


@settings(max_examples=300, deadline=None)
@given(
    REPLIES,
    st.sampled_from([200, 200, 200, 206, 404, 416, 500]),
    st.sampled_from([{}, {"Content-Range": "bytes 3-9/10"}, {"Content-Range": "x"}]),
    st.integers(0, 5),
    st.none() | st.integers(5, 60),
)
def test_any_reply_is_an_answer_or_a_fault(content: bytes, status: int, headers: dict[str, str], start: int, size: int | None) -> None:
    api = sources(Answering(Given(status, content, headers)).rest)
    got = bytearray()

    async def sink(piece: bytes) -> None:
        got.extend(piece)

    async def scenario() -> None:
        calls = [endpoint.call(api) for endpoint in ENDPOINTS.values()]
        for call in (*calls, api.exports.download("e-1", start, size, sink)):
            with contextlib.suppress(Fault):
                await call

    asyncio.run(scenario())
    assert content.startswith(got) or content[start:].startswith(got)  # of a 206, which is the rest already, or of the whole
    assert size is None or start + len(got) <= size + 1
