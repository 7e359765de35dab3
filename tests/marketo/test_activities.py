"""The activity log over loopback HTTP (protocol 3.2)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from syncd.core.faults import Fault, Nature
from syncd.core.values import Activity, ActivityPage
from syncd.marketo.activities import Activities
from tests.marketo.wire import SAMPLES, Answering, Given, Observed, Wire, json, opened, rest_api, sources, token

CHANGES = (SAMPLES / "leadchanges.json").read_text()
DELETED = (SAMPLES / "deletedleads.json").read_text()
TOKEN = "GIYDAOBNGEYS2MBWKQYDAORQGA5DAMBOGAYDAKZQGAYDALBRGA3TQ==="
AT = datetime(2014, 9, 17, 22, 31, 49, tzinfo=UTC)


@pytest.fixture
async def activities(wire: Wire) -> AsyncIterator[Activities]:
    wire.script = [token()]
    async with opened() as session:
        yield Activities(rest_api(wire, session))


def entry(**values: str) -> str:
    """One entry as JSON; each value is JSON, and an empty one is left out."""
    whole = {
        "id": "1",
        "marketoGUID": '"g"',
        "leadId": "6",
        "activityDate": '"2014-09-17T22:31:49+0000"',
        "activityTypeId": "12",
        "primaryAttributeValue": '"Owyliphys Iledil"',
        "attributes": "[]",
    } | values
    return "{" + ", ".join(f'"{name}": {value}' for name, value in whole.items() if value) + "}"


def page(*entries: str, rest: str = '"nextPageToken": "next", "moreResult": false') -> web.Response:
    return json(f'{{"requestId": "r#1", "success": true, {rest}, "result": [{", ".join(entries)}]}}')


async def read(wire: Wire, activities: Activities, *entries: str) -> list[Activity]:
    wire.script += [page(*entries)]
    return list((await activities.of_types("t", [32])).activities)


def query(wire: Wire) -> dict[str, list[str]]:
    return parse_qs(urlsplit(wire.requests[-1].path).query, strict_parsing=True)


async def test_a_token_since_a_moment(wire: Wire, activities: Activities) -> None:
    wire.script += [json(f'{{"requestId": "r", "success": true, "nextPageToken": "{TOKEN}"}}')]
    moment = datetime(2026, 1, 1, 1, 2, 3, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert await activities.token_since(moment) == TOKEN
    assert wire.requests[1].method == "GET"
    assert wire.requests[1].path == "/rest/v1/activities/pagingtoken.json?sinceDatetime=2025-12-31T23%3A02%3A03Z"


async def test_marketo_may_take_its_time_for_a_token() -> None:
    answering = Answering(Given(200, b'{"success": true, "nextPageToken": "x"}'))
    await sources(answering.rest).activities.token_since(AT)
    assert [call.timeout for call in answering.calls] == [305.0]


async def test_changes_as_documented(wire: Wire, activities: Activities) -> None:
    wire.script += [json(CHANGES)]
    expected = ActivityPage([Activity("1078", 775, 13, AT)], TOKEN, True)
    assert await activities.lead_changes("t", ["firstName", "näme"]) == expected
    assert urlsplit(wire.requests[1].path).path == "/rest/v1/activities/leadchanges.json"
    assert query(wire) == {"nextPageToken": ["t"], "fields": ["firstName,näme"]}


async def test_deletions_as_documented(wire: Wire, activities: Activities) -> None:
    wire.script += [json(DELETED)]
    at = datetime(2013, 9, 26, 6, 56, 35, tzinfo=UTC)
    found = await activities.deleted_leads("t")
    assert found == ActivityPage([Activity("2", 6, 37, at)], TOKEN, True)
    assert "Owyliphys" not in repr(found)
    assert wire.requests[1].path == "/rest/v1/activities/deletedleads.json?nextPageToken=t"


async def test_ten_types_at_most_in_one_call(wire: Wire, activities: Activities) -> None:
    wire.script += [page()]
    await activities.of_types("t", list(range(10)))
    assert urlsplit(wire.requests[1].path).path == "/rest/v1/activities.json"
    assert query(wire) == {"nextPageToken": ["t"], "activityTypeIds": ["0,1,2,3,4,5,6,7,8,9"]}
    for types in ([], list(range(11))):
        with pytest.raises(AssertionError):
            await activities.of_types("t", types)


@pytest.mark.parametrize("opaque", ["a+b/c==", "a b&c=d?e#f%20", "é\u20ac😀", "\n", "x" * 7_000, "+" * 9_000])
async def test_a_token_goes_back_as_it_came(wire: Wire, activities: Activities, opaque: str) -> None:
    escaped = opaque.replace("\n", "\\n")
    wire.script += [json(f'{{"success": true, "nextPageToken": "{escaped}"}}'), page()]
    assert await activities.token_since(AT) == opaque
    await activities.deleted_leads(opaque)
    request = wire.requests[-1]
    sent = urlsplit(request.path).query if request.method == "GET" else request.body.decode()
    assert parse_qs(sent, strict_parsing=True) == {"nextPageToken": [opaque]}


async def test_what_is_too_long_for_a_uri_goes_as_a_form(wire: Wire, activities: Activities) -> None:
    wire.script += [page(), page()]
    for size in (7_800, 8_000):
        await activities.lead_changes("t" * size, ["a", "b"])
    short, long = wire.requests[1:]
    assert (short.method, long.method) == ("GET", "POST")
    assert long.path == "/rest/v1/activities/leadchanges.json?_method=GET"
    assert long.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(long.body.decode()) == {"nextPageToken": ["t" * 8_000], "fields": ["a,b"]}
    assert len(wire.url + short.path) <= 8_000


async def test_what_marketo_finds_too_long_is_repeated_as_a_form(wire: Wire) -> None:
    observed = Observed()
    wire.script = [token(), web.Response(status=414, text="<html>"), page(), web.Response(status=414), web.Response(status=414)]
    async with opened(observed) as session:
        activities = Activities(rest_api(wire, session))
        assert (await activities.deleted_leads("t" * 5_000)).token == "next"
        with pytest.raises(Fault) as failed:
            await activities.deleted_leads("t")
    assert (failed.value.nature, failed.value.code) == (Nature.PERMANENT, "http_414")
    assert [request.method for request in wire.requests[1:]] == ["GET", "POST", "GET", "POST"]
    assert wire.requests[2].body == b"nextPageToken=" + b"t" * 5_000
    assert [code for _, _, code in observed.exchanges[1:]] == ["http_414", "ok", "http_414", "http_414"]


@pytest.mark.parametrize(("more", "expected"), [("true", True), ("false", False), ("null", False), ('"x"', False), ("1", False)])
async def test_an_empty_page_may_not_be_the_last(wire: Wire, activities: Activities, more: str, expected: bool) -> None:
    wire.script += [json(f'{{"success": true, "nextPageToken": "next", "moreResult": {more}}}')]
    assert await activities.deleted_leads("t") == ActivityPage([], "next", expected)


async def test_nothing_found_leaves_the_token_where_it_was(wire: Wire, activities: Activities) -> None:
    wire.script += [json('{"success": false, "errors": [{"code": "702", "message": "No data found"}]}')]
    assert await activities.deleted_leads("t") == ActivityPage((), "t", False)


@pytest.mark.parametrize("rest", ['"moreResult": true', '"nextPageToken": null', '"nextPageToken": ""', '"nextPageToken": [1]'])
async def test_a_page_without_a_token_is_garbled(wire: Wire, activities: Activities, rest: str) -> None:
    wire.script += [page(rest=rest), page(rest=rest)]
    for call in (activities.deleted_leads("t"), activities.token_since(AT)):
        with pytest.raises(Fault) as failed:
            await call
        assert (failed.value.code, failed.value.nature, failed.value.request_id) == ("garbled", Nature.TRANSIENT, "r#1")


@pytest.mark.parametrize("kept", ["a\\u0000b", "a\\ud83d"])
async def test_a_token_that_cant_be_kept_is_garbled(wire: Wire, activities: Activities, kept: str) -> None:
    wire.script += [page(rest=f'"nextPageToken": "{kept}"')]
    with pytest.raises(Fault, match="garbled"):
        await activities.deleted_leads("t")


@pytest.mark.parametrize(
    "date",
    [
        "2014-09-17T22:31:49+0000",
        "2014-09-17T22:31:49Z",
        "2014-09-17T22:31:49+00:00",
        "2014-09-17T15:31:49-07:00",
        "2014-09-18T04:01:49+0530",
        "2014-09-17T22:31:49.987Z",
        " 2014-09-17 22:31:49Z ",
    ],
)
async def test_a_date_in_any_spelling_is_the_moment_in_utc(wire: Wire, activities: Activities, date: str) -> None:
    (activity,) = await read(wire, activities, entry(activityDate=f'"{date}"'))
    assert activity == Activity("g", 6, 12, AT)
    assert activity.at.tzinfo is UTC


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"leadId": '"6"', "activityTypeId": '"12"'}, Activity("g", 6, 12, AT)),
        ({"marketoGUID": ""}, Activity("1", 6, 12, AT)),
        ({"marketoGUID": "null", "id": '"77"'}, Activity("77", 6, 12, AT)),
        ({"marketoGUID": '""', "id": "12345678901234567890123"}, Activity("12345678901234567890123", 6, 12, AT)),
        ({"marketoGUID": "5", "id": ""}, Activity("5", 6, 12, AT)),
        ({"marketoGUID": '"a\\u0000\\ud83d"'}, Activity("a\ufffd", 6, 12, AT)),
        ({"fields": '[{"newValue": "cut \\ud83d"}]', "attributes": "", "new": "{}"}, Activity("g", 6, 12, AT)),
    ],
)
async def test_an_entry_in_any_spelling(wire: Wire, activities: Activities, values: dict[str, str], expected: Activity) -> None:
    assert await read(wire, activities, entry(**values)) == [expected]


@pytest.mark.parametrize(
    "broken",
    [
        "1",
        "null",
        "{}",
        entry(leadId=""),
        entry(leadId='"six"'),
        entry(leadId="-6"),
        entry(leadId="6.0"),
        entry(leadId="9223372036854775808"),
        entry(activityTypeId=""),
        entry(marketoGUID="", id=""),
        entry(activityDate=""),
        entry(activityDate="null"),
        entry(activityDate="1410993109"),
        entry(activityDate='"yesterday"'),
        entry(activityDate='"2014-09-17"'),
        entry(activityDate='"2014-09-17T22:31:49"'),
        entry(activityDate='"0001-01-01T00:00:00+1400"'),
    ],
)
async def test_an_entry_that_cant_be_read_spoils_its_page(wire: Wire, activities: Activities, broken: str) -> None:
    with pytest.raises(Fault) as failed:
        await read(wire, activities, entry(), broken, entry())
    assert (failed.value.code, failed.value.nature, failed.value.request_id) == ("garbled", Nature.TRANSIENT, "r#1")
    assert "Owyliphys" not in str(failed.value)


@pytest.mark.parametrize(
    ("value", "merged"),
    [
        ("12", (12,)),
        ('"12"', (12,)),
        ('"[12, 13]"', (12, 13)),
        ('"12,13;12 14"', (12, 13, 14)),
        ("[12, 13]", (12, 13)),
        ('["12", 13]', (12, 13)),
        ('"[6, 12]"', (12,)),
        ('"12 leads on 2014-09-17"', ()),
        ('"[]"', ()),
        ('""', ()),
        ("null", ()),
        ("12.5", ()),
        ("[[12]]", ()),
        ("{}", ()),
        ("true", ()),
    ],
)
async def test_a_merge_names_the_leads_that_are_gone(wire: Wire, activities: Activities, value: str, merged: tuple[int, ...]) -> None:
    attributes = f'[1, {{"name": "Merge Fields", "value": "99"}}, {{"name": "Merge IDs", "value": {value}}}, {{"name": null}}]'
    assert await read(wire, activities, entry(activityTypeId="32", attributes=attributes)) == [Activity("g", 6, 32, AT, merged)]


@pytest.mark.parametrize("attributes", ["", "null", "7", '{"Merge IDs": 12}', '[{"name": "Merge IDs"}]'])
async def test_a_merge_may_not_name_them(wire: Wire, activities: Activities, attributes: str) -> None:
    assert await read(wire, activities, entry(activityTypeId="32", attributes=attributes)) == [Activity("g", 6, 32, AT)]


async def test_other_activities_name_no_merged_leads(wire: Wire, activities: Activities) -> None:
    attributes = '[{"name": "Merge IDs", "value": 12}]'
    assert await read(wire, activities, entry(attributes=attributes)) == [Activity("g", 6, 12, AT)]
