"""Leads by id over loopback HTTP (protocol 3.2)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Network
from syncd.core.values import LeadRecord
from syncd.marketo.leads import Leads
from syncd.ops.clock import ManualClock, WallClock
from tests.marketo.wire import Answering, Given, Wire, json, opened, reset, rest_api, sources, token

NOON = datetime(2026, 3, 1, 18, 0, tzinfo=UTC)


@pytest.fixture
async def leads(wire: Wire) -> AsyncIterator[Leads]:
    wire.script = [token()]
    async with opened() as session:
        yield Leads(rest_api(wire, session), WallClock())


def envelope(*entries: str, more: str = "") -> web.Response:
    return json(f'{{"requestId": "r#1", "success": true, {more} "result": [{", ".join(entries)}]}}')


async def read(wire: Wire, leads: Leads, *entries: str) -> list[LeadRecord]:
    wire.script += [envelope(*entries)]
    return list((await leads.by_id([1], ["a"])).leads)


async def test_ids_and_fields_go_as_a_form(wire: Wire, leads: Leads) -> None:
    wire.script += [envelope('{"id": 2, "email": "a@example.com", "firstName": "A"}')]
    found = await leads.by_id([1, 2], ["firstName", "email", "näme & more"])
    assert found.leads == [LeadRecord(2, "a@example.com", [("firstName", "string", "A")])]
    request = wire.requests[1]
    assert (request.method, request.path) == ("POST", "/rest/v1/leads.json?_method=GET")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "filterType": ["id"],
        "filterValues": ["1,2"],
        "fields": ["id,email,firstName,näme & more"],
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12345678901234567890123", "12345678901234567890123"),
        ("-0.10000000000000000000000000001", "-0.10000000000000000000000000001"),
        ("1.50", "1.50"),
        ("1e400", "1e400"),
        ("0", "0"),
        ("true", "true"),
        ("false", "false"),
        ('"true"', "true"),
        ('""', ""),
        ('" 007 "', " 007 "),
        ('"a\\u0000b"', "ab"),
        ('"cut short \\ud83d"', "cut short \ufffd"),
        ('"\\ud83d\\ude00"', "😀"),
        ('["b", {"c": null}]', '["b", {"c": null}]'),
    ],
)
async def test_values_are_the_text_that_was_written(wire: Wire, leads: Leads, value: str, text: str) -> None:
    assert await read(wire, leads, f'{{"id": 1, "a": {value}}}') == [LeadRecord(1, None, [("a", "string", text)])]


async def test_null_and_absent_are_left_out_alike(wire: Wire, leads: Leads) -> None:
    assert await read(wire, leads, '{"id": "7", "email": null, "a": null}', '{"id": 8, "email": ""}') == [
        LeadRecord(7, None, []),
        LeadRecord(8, None, []),
    ]


async def test_a_lead_that_comes_twice_is_one_lead(wire: Wire, leads: Leads) -> None:
    assert await read(wire, leads, '{"id": 1, "a": "x"}', '{"id": "1", "a": "y"}') == [LeadRecord(1, None, [("a", "string", "y")])]


@pytest.mark.parametrize("entry", ["1", "null", "{}", '{"id": null}', '{"id": "x"}', '{"id": -1}', '{"id": 1.5}', '{"id": true}'])
async def test_a_lead_without_an_id_is_garbled(wire: Wire, leads: Leads, entry: str) -> None:
    with pytest.raises(Fault) as failed:
        await read(wire, leads, '{"id": 1}', entry)
    assert (failed.value.code, failed.value.nature, failed.value.request_id) == ("garbled", Nature.TRANSIENT, "r#1")


@pytest.mark.parametrize(
    "entry",
    ['{"id": 1, "a": NaN}', '{"id": 1, "a": -Infinity}', '{"id": 1, "a": "\t"}', f'{{"id": 1, "a": {"[" * 100_000}', '{"id": 1'],
    ids=["NaN", "Infinity", "control", "nested", "cut"],
)
async def test_what_is_no_json_is_garbled(wire: Wire, leads: Leads, entry: str) -> None:
    with pytest.raises(Fault, match="garbled"):
        await read(wire, leads, entry)


async def test_text_that_is_no_utf_8_is_garbled(wire: Wire, leads: Leads) -> None:
    wire.script += [web.Response(body=b'{"success": true, "result": [{"id": 1, "a": "\xff"}]}')]
    with pytest.raises(Fault, match="garbled"):
        await leads.by_id([1], ["a"])


async def test_no_lead_is_taken_for_missing_while_more_are_to_come(wire: Wire, leads: Leads) -> None:
    wire.script += [envelope('{"id": 1}', more='"moreResult": true, "nextPageToken": "x",')]
    with pytest.raises(Fault, match="garbled"):
        await leads.by_id([1, 2], ["a"])


async def test_no_more_than_300_ids_go_in_one_call(wire: Wire, leads: Leads) -> None:
    for ids in ([], list(range(301))):
        with pytest.raises(AssertionError):
            await leads.by_id(ids, ["a"])
    wire.script += [envelope()]
    assert (await leads.by_id(range(10**18, 10**18 + 300), ["a"])).leads == []


@pytest.mark.parametrize("reply", ['{"success": true, "result": []}', '{"success": false, "errors": [{"code": 702, "message": ""}]}'])
async def test_it_is_dated_when_the_last_attempt_went_out(wire: Wire, reply: str) -> None:
    clock = ManualClock(NOON)

    async def late_token(request: web.Request) -> web.StreamResponse:
        clock.advance(60)
        return token()

    async def late_reset(request: web.Request) -> web.StreamResponse:
        clock.advance(5)
        return await reset(request)

    async def late(request: web.Request) -> web.StreamResponse:
        clock.advance(600)
        return json(reply)

    wire.script = [late_token, late_reset, late]
    async with opened() as session:
        found = await sources(rest_api(wire, session), clock).leads.by_id([1], ["a"])
    assert found.asked_at == NOON + timedelta(seconds=65)
    assert list(found.leads) == []


async def test_a_read_is_repeated_once_and_follows_no_redirect(wire: Wire, leads: Leads) -> None:
    wire.script += [reset, envelope(), web.Response(status=307, headers={"Location": "/elsewhere"})]
    await leads.by_id([1], ["a"])
    assert wire.requests[1].body == wire.requests[2].body
    with pytest.raises(Fault, match="redirect"):
        await leads.by_id([1], ["a"])
    assert len(wire.requests) == 4


async def test_it_waits_as_long_as_marketo_may_take() -> None:
    answering = Answering(Given(200, b'{"success": true, "result": []}'))
    await sources(answering.rest).leads.by_id([1], ["a"])
    assert [(call.timeout, call.acts) for call in answering.calls] == [(65.0, False)]


async def test_a_shorter_time_out_of_ours_does_not_cut_it(wire: Wire) -> None:
    wire.script = [token()]
    async with opened(network=Network(timeout=timedelta(seconds=0.05))) as session:
        leads = Leads(rest_api(wire, session), WallClock())
        wire.script += [slow(0.3)]
        assert (await leads.by_id([1], ["a"])).leads == []


def slow(seconds: float):  # type: ignore[no-untyped-def]
    async def script(request: web.Request) -> web.StreamResponse:
        await WallClock().sleep(seconds)
        return envelope()

    return script
