"""Token, envelope and describe over loopback HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Rest, Secret
from syncd.core.values import Field, FieldName
from syncd.marketo.describe import describe
from syncd.marketo.rest import LONGEST_URI, Answer, RestApi, read_envelope
from syncd.marketo.session import Session
from syncd.marketo.token import Token
from syncd.ops.clock import ManualClock, WallClock
from tests.marketo.wire import SAMPLES, Given, Observed, Wire, json, opened, reset, token

OK = '{"requestId": "r#1", "success": true, "result": [1]}'
EXPIRED = '{"requestId": "r#2", "success": false, "errors": [{"code": "602", "message": "Access token expired"}]}'


@pytest.fixture
async def session(wire: Wire) -> AsyncIterator[Session]:
    async with opened() as opened_session:
        yield opened_session


def api(wire: Wire, session: Session, rest: Rest | None = None) -> RestApi:
    rest = rest or wire.rest
    return RestApi(session, rest, Token(session, rest, WallClock()))


async def test_the_token_is_asked_by_form_and_sent_as_bearer_only(wire: Wire, session: Session) -> None:
    wire.script = [token("tok"), json(OK)]
    rest = Rest(f"{wire.url}/", f"{wire.url}/identity/", Secret("the-id"), Secret("s&cret"))
    answer = await api(wire, session, rest).get("e", "/rest/v1/x.json", {"a": "b c/d"})
    assert (answer.result, answer.request_id) == ([1], "r#1")
    identity, call = wire.requests
    assert (identity.method, identity.path) == ("POST", "/identity/oauth/token")
    assert identity.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(identity.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["the-id"],
        "client_secret": ["s&cret"],
    }
    assert (call.method, call.path) == ("GET", "/rest/v1/x.json?a=b%20c%2Fd")
    assert call.headers["authorization"] == "Bearer tok"


async def test_the_token_is_kept_until_shortly_before_its_end(wire: Wire, session: Session) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    kept = Token(session, wire.rest, clock)
    wire.script = [token("a", 3600), token("b", 20), token("c")]
    assert [await kept.current(), await kept.current()] == ["a", "a"]
    clock.advance(3569)
    assert await kept.current() == "a"
    clock.advance(1)
    assert await kept.current() == "b"
    clock.advance(9)
    assert await kept.current() == "b"
    clock.advance(1)
    assert await kept.current() == "c"


async def test_callers_share_one_token_and_one_renewal(wire: Wire, session: Session) -> None:
    shared = Token(session, wire.rest, WallClock())
    wire.script = [token("a"), token("b")]
    assert set(await asyncio.gather(*(shared.current() for _ in range(5)))) == {"a"}
    assert set(await asyncio.gather(*(shared.renew("a") for _ in range(5)))) == {"b"}
    assert len(wire.requests) == 2


@pytest.mark.parametrize("code", ["601", "602"])
async def test_a_refused_token_is_renewed_once_and_the_call_repeated_posts_too(wire: Wire, session: Session, code: str) -> None:
    refused = EXPIRED.replace("602", code)
    wire.script = [token("old"), json(refused), token("new"), json(OK), json(refused), token("newer"), json(refused)]
    rest = api(wire, session)
    await rest.act("import", "/bulk/v1/leads.json", {}, "text/plain", (b"body",))
    assert [r.headers.get("authorization") for r in wire.requests] == [None, "Bearer old", None, "Bearer new"]
    assert [r.body for r in wire.requests if r.path == "/bulk/v1/leads.json"] == [b"body", b"body"]
    with pytest.raises(Fault) as failed:
        await rest.get("e", "/x")
    assert (failed.value.nature, failed.value.executed, failed.value.request_id) == (Nature.TOKEN, False, "r#2")


async def test_a_query_too_long_for_a_uri_goes_as_a_form(wire: Wire, session: Session) -> None:
    wire.script = [token(), json(OK), json(OK)]
    rest = api(wire, session)
    room = LONGEST_URI - len(f"{wire.url}/x.json?a=")
    for size in (room, room + 1):
        assert (await rest.get("e", "/x.json", {"a": "b" * size})).result == [1]
    fits, too_long = wire.requests[1:]
    assert (fits.method, too_long.method, too_long.path) == ("GET", "POST", "/x.json?_method=GET")
    assert too_long.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(too_long.body.decode()) == {"a": ["b" * (room + 1)]}


async def test_a_uri_that_is_found_too_long_is_repeated_once_as_a_form(wire: Wire, session: Session) -> None:
    wire.script = [
        token(),
        web.Response(status=414),
        json(OK),
        web.Response(status=414),
        web.Response(status=414),
        web.Response(status=414),
    ]
    rest = api(wire, session)
    assert (await rest.get("e", "/x.json", {"a": "b c"}, urgent=True)).result == [1]
    assert (wire.requests[2].method, wire.requests[2].path, wire.requests[2].body) == ("POST", "/x.json?_method=GET", b"a=b%20c")
    for query in ({"a": "b"}, None):  # without a query there is nothing that a form could take over
        with pytest.raises(Fault) as failed:
            await rest.get("e", "/x.json", query)
        assert (failed.value.nature, failed.value.code) == (Nature.PERMANENT, "http_414")
    assert wire.script == []


async def test_a_read_by_form_is_repeated_once_and_follows_no_redirect(wire: Wire, session: Session) -> None:
    sent = []
    wire.script = [token(), reset, json(OK), web.Response(status=307, headers={"Location": "/there"})]
    rest = api(wire, session)
    assert (await rest.ask("e", "/x.json", {"a": "1"}, on_sending=lambda: sent.append(len(wire.requests)))).result == [1]
    assert sent == [1, 2]
    with pytest.raises(Fault, match="redirect"):
        await rest.ask("e", "/x.json", {"a": "1"})
    assert len(wire.requests) == 4


async def test_an_envelope_tells_of_the_next_page(wire: Wire, session: Session) -> None:
    wire.script = [token(), json('{"success": true, "nextPageToken": "x=", "moreResult": true}'), json(OK)]
    rest = api(wire, session)
    assert await rest.get("e", "/x.json") == Answer([], None, "x=", True)
    assert await rest.get("e", "/x.json") == Answer([1], "r#1")


@pytest.mark.parametrize(("exact", "result"), [(True, ["1.50", True, None, "\ud83d"]), (False, [1.5, True, None, "?"])])
async def test_an_exact_reading_leaves_numbers_and_halves_of_characters_as_written(
    wire: Wire, session: Session, exact: bool, result: object
) -> None:
    wire.script = [token(), json('{"success": true, "result": [1.50, true, null, "\\ud83d"]}')]
    assert (await api(wire, session).get("e", "/x.json", exact=exact)).result == result


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("exact", [True, False])
async def test_constants_that_are_none_of_jsons_are_garbled(wire: Wire, session: Session, exact: bool, constant: str) -> None:
    wire.script = [token(), json(OK.replace("[1]", f"[{constant}]"))]
    with pytest.raises(Fault, match="garbled"):
        await api(wire, session).get("e", "/x.json", exact=exact)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
async def test_nesting_without_end_is_garbled(wire: Wire, session: Session, exact: bool, opening: str) -> None:
    wire.script = [token(), json('{"success": true, "result": ' + opening * 200_000)]
    with pytest.raises(Fault, match="garbled"):
        await api(wire, session).get("e", "/x.json", exact=exact)


async def test_a_wrong_secret_says_so_and_is_read_again(wire: Wire, session: Session, tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text("wrong")
    rest = Rest(wire.url, f"{wire.url}/identity", Secret("the-id"), Secret(secret_file.read_text))
    wire.script = [json('{"error": "unauthorized", "error_description": "the-id"}', 401), token()]
    asking = Token(session, rest, WallClock())
    with pytest.raises(Fault, match="client id or client secret is wrong") as failed:
        await asking.current()
    assert (failed.value.nature, failed.value.executed) == (Nature.CONFIGURATION, False)
    assert "the-id" not in str(failed.value)
    secret_file.write_text("right")
    assert await asking.current() == "tok"
    assert b"client_secret=right" in wire.requests[1].body


async def test_an_unreadable_secret_is_a_matter_of_configuration(wire: Wire, session: Session, tmp_path: Path) -> None:
    rest = Rest(wire.url, f"{wire.url}/identity", Secret("the-id"), Secret((tmp_path / "gone").read_text))
    with pytest.raises(Fault, match="can't be read") as failed:
        await Token(session, rest, WallClock()).current()
    assert (failed.value.nature, failed.value.executed) == (Nature.CONFIGURATION, False)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "<html>",
        "[]",
        '{"access_token": 1}',
        '{"access_token": "a"}',
        '{"access_token": "", "expires_in": 1}',
        '{"access_token": "a\\r\\nX: b", "expires_in": 1}',
        '{"access_token": "a", "expires_in": -1}',
        '{"access_token": "a", "expires_in": 99999999999999}',
    ],
)
async def test_identitys_nonsense_is_transient_and_the_call_was_not_sent(wire: Wire, session: Session, reply: str) -> None:
    wire.script = [json(reply)]
    with pytest.raises(Fault) as failed:
        await api(wire, session).act("import", "/bulk/v1/leads.json", {}, "text/plain", (b"x",))
    assert (failed.value.nature, failed.value.executed, len(wire.requests)) == (Nature.TRANSIENT, False, 1)


async def test_identitys_lost_connection_leaves_nothing_open(wire: Wire, session: Session) -> None:
    wire.script = [reset, reset]
    with pytest.raises(Fault) as failed:
        await api(wire, session).act("import", "/bulk/v1/leads.json", {}, "text/plain", (b"x",))
    assert failed.value.executed is False


async def test_the_documented_error_becomes_a_fault(wire: Wire) -> None:
    observed = Observed()
    wire.script = [token(), json((SAMPLES / "error.json").read_text().replace("601", "610"))]
    async with opened(observed) as session:
        with pytest.raises(Fault) as failed:
            await api(wire, session).get("describe", "/x")
    assert failed.value.request_id == "e42b#14272d07d78"
    assert str(failed.value) == "describe: 610 Unauthorized, requestId e42b#14272d07d78"
    assert observed.exchanges == [("identity", "identity", "ok"), ("rest", "describe", "610")]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "null",
        "<html>maintenance</html>",
        OK[:-5],
        '{"success": "yes"}',
        '{"success": true, "result": 1}',
        '{"success": false}',
        '{"success": false, "errors": []}',
        '{"success": false, "errors": [{"code": "606"}]}',
    ],
)
async def test_a_garbled_200_leaves_an_act_open(wire: Wire, session: Session, reply: str) -> None:
    wire.script = [token(), json(reply)]
    with pytest.raises(Fault) as failed:
        await api(wire, session).act("import", "/bulk/v1/leads.json", {}, "text/plain", (b"x",))
    assert (failed.value.nature, failed.value.code, failed.value.executed) == (Nature.TRANSIENT, "garbled", None)


KEYS = st.sampled_from(["success", "errors", "result", "code", "message"])
ENVELOPES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2000) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=9,
)


@settings(max_examples=200)
@given(st.binary(max_size=200) | ENVELOPES.map(orjson.dumps), st.booleans())
def test_any_bytes_are_an_answer_or_a_fault(content: bytes, exact: bool) -> None:
    with contextlib.suppress(Fault):
        answer: Answer = asyncio.run(read_envelope("e", exact)(Given(200, content)))  # type: ignore[arg-type]
        assert isinstance(answer.result, list)


async def test_describe_as_documented(wire: Wire, session: Session) -> None:
    wire.script = [token(), json((SAMPLES / "describe.json").read_text())]
    expected = Field("Company Name", "string", 255, FieldName("company", False), FieldName("Company", False))
    assert await describe(api(wire, session)) == (expected,)
    assert wire.requests[1].path == "/rest/v1/leads/describe.json"


async def test_describe_takes_fields_that_one_side_alone_knows(wire: Wire, session: Session) -> None:
    fields = (
        '{"id": 1, "displayName": "R", "dataType": "integer", "rest": {"name": "r", "readOnly": true}},'
        '{"id": 2, "displayName": "S", "dataType": "text", "length": 9, "soap": {"name": "S"}},'
        '{"id": 3, "displayName": "Nobody", "dataType": "text"}'
    )
    wire.script = [token(), json(OK.replace("1]", f"{fields}]"))]
    assert await describe(api(wire, session)) == (
        Field("R", "integer", None, FieldName("r", True), None),
        Field("S", "text", 9, None, FieldName("S", False)),
    )


@pytest.mark.parametrize("entry", ["1", "{}", '{"displayName": "R", "dataType": "text", "rest": {"readOnly": true}}'])
async def test_a_describe_that_is_none_is_garbled(wire: Wire, session: Session, entry: str) -> None:
    wire.script = [token(), json(OK.replace("1]", f"{entry}]"))]
    with pytest.raises(Fault, match="garbled"):
        await describe(api(wire, session))


async def test_a_gateways_page_is_transient(wire: Wire, session: Session) -> None:
    wire.script = [token(), web.Response(status=502, text="<html>")]
    with pytest.raises(Fault) as failed:
        await api(wire, session).get("e", "/x")
    assert (failed.value.nature, failed.value.code) == (Nature.TRANSIENT, "http_502")


async def test_nothing_is_sent_once_the_lease_is_in_doubt(wire: Wire) -> None:
    async with opened(may_call=lambda: False) as session:
        with pytest.raises(Fault, match="not sent") as held_back:
            await api(wire, session).act("import", "/bulk/v1/leads.json", {}, "text/plain", (b"x",))
    assert (held_back.value.code, held_back.value.executed) == ("lease", False)
    assert wire.requests == []
