"""Sync Leads over loopback HTTP (protocol 4)."""

import json as jsontext
from collections.abc import AsyncIterator

import pytest

from syncd.core.batching import Number, record_of
from syncd.core.faults import Fault, Nature
from syncd.marketo.sync import SyncAnswer, Synced, SyncLeads
from tests.marketo.wire import Script, Wire, json, opened, reset, rest_api, token, truncated

RECORDS = (
    record_of("email", "a@example.com", {"title": "Gräfin", "notes": None}),
    record_of("email", "b@example.com", {"leadScore": Number("1.0")}),
)


def answered(*entries: str) -> Script:
    return json(f'{{"requestId": "e42b#14272d07d78", "success": true, "result": [{",".join(entries)}]}}')


CREATED = '{"id": 50, "status": "created"}'
UPDATED = '{"id": 51, "status": "updated"}'


def skipped(reasons: str) -> str:
    return f'{{"status": "skipped", "reasons": {reasons}}}'


@pytest.fixture
async def sync(wire: Wire) -> AsyncIterator[SyncLeads]:
    wire.script = [token()]
    async with opened() as session:
        yield SyncLeads(rest_api(wire, session))


async def write(sync: SyncLeads, lookup_field: str = "email", partition: str | None = None) -> SyncAnswer:
    return await sync.write(RECORDS, lookup_field=lookup_field, partition=partition, urgent=False)


async def test_a_call_is_made_as_documented(wire: Wire, sync: SyncLeads) -> None:
    wire.script += [answered(CREATED, UPDATED)]
    await write(sync)
    request = wire.requests[1]
    assert (request.method, request.path) == ("POST", "/rest/v1/leads.json")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer tok"
    assert int(request.headers["content-length"]) == len(request.body)
    assert jsontext.loads(request.body, parse_float=str) == {
        "action": "createOrUpdate",
        "lookupField": "email",
        "input": [{"email": "a@example.com", "notes": None, "title": "Gräfin"}, {"email": "b@example.com", "leadScore": "1.0"}],
    }


async def test_the_answers_are_in_the_order_of_the_records(wire: Wire, sync: SyncLeads) -> None:
    wire.script += [answered(UPDATED, CREATED)]
    assert await write(sync) == SyncAnswer([Synced("written", 51), Synced("written", 50)], "e42b#14272d07d78")


async def test_a_partition_is_named(wire: Wire, sync: SyncLeads) -> None:
    wire.script += [answered(CREATED, UPDATED)]
    await write(sync, partition='North & "South"')
    assert jsontext.loads(wire.requests[1].body)["partitionName"] == 'North & "South"'


@pytest.mark.parametrize(("lookup_field", "action"), [("id", "updateOnly"), ("externalId", "createOrUpdate")])
async def test_by_id_leads_are_only_updated(wire: Wire, sync: SyncLeads, lookup_field: str, action: str) -> None:
    """Marketo gives ids itself: it creates none by one (protocol 4)."""
    wire.script += [answered(UPDATED, UPDATED)]
    await write(sync, lookup_field)
    body = jsontext.loads(wire.requests[1].body)
    assert (body["action"], body["lookupField"]) == (action, lookup_field)


@pytest.mark.parametrize(
    ("reasons", "code", "message"),
    [
        ('[{"code": "1007", "message": "Multiple lead match lookup criteria"}]', "1007", "Multiple lead match lookup criteria"),
        ('[{"code": 1006, "message": "no"}, {"code": "1001", "message": "second"}]', "1006", "no"),
        ('[{"code": "1003", "message": "a@example.com is\\u0000 bad"}]', "1003", "…@… is bad"),
        ("[1]", "", ""),
        ("[]", "", ""),
        ("null", "", ""),
        ("7", "", ""),
    ],
)
async def test_a_skipped_record_tells_its_first_reason(wire: Wire, sync: SyncLeads, reasons: str, code: str, message: str) -> None:
    wire.script += [answered(CREATED, skipped(reasons))]
    answer = await write(sync)
    assert answer.records == [Synced("written", 50), Synced("skipped", None, code, message)]


async def test_a_reason_that_was_cut_amid_a_character_is_a_reason(wire: Wire, sync: SyncLeads) -> None:
    """As JSON it is half of a surrogate pair; were the answer no answer, the same records would be sent for ever."""
    wire.script += [answered(UPDATED, skipped('[{"code": "1006", "message": "Invalid value \\ud83d"}]'))]
    assert (await write(sync)).records == [Synced("written", 51), Synced("skipped", None, "1006", "Invalid value ?")]


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (CREATED,),
        (CREATED, UPDATED, UPDATED),
        (CREATED, '{"id": 1}'),
        (CREATED, '{"id": 1, "status": "Something new"}'),
        (CREATED, "null"),
        (CREATED, "7"),
    ],
)
async def test_an_answer_that_does_not_fit_the_records_leaves_them_open(wire: Wire, sync: SyncLeads, entries: tuple[str, ...]) -> None:
    wire.script += [answered(*entries)]
    with pytest.raises(Fault) as failed:
        await write(sync)
    assert (failed.value.nature, failed.value.code, failed.value.executed) == (Nature.TRANSIENT, "garbled", None)
    assert failed.value.request_id == "e42b#14272d07d78"


@pytest.mark.parametrize("lost", [reset, truncated(b'{"requestId": "r"', "application/json"), json("<html>"), json('{"success"')])
async def test_a_lost_answer_leaves_open_whether_they_were_written_and_is_not_asked_for_again(
    wire: Wire, sync: SyncLeads, lost: Script
) -> None:
    wire.script += [lost]
    with pytest.raises(Fault) as failed:
        await write(sync)
    assert (failed.value.nature, failed.value.executed) == (Nature.TRANSIENT, None)
    assert len(wire.requests) == 2, "the token, and one call"


@pytest.mark.parametrize(("code", "nature"), [("606", Nature.RATE), ("1003", Nature.PERMANENT), ("603", Nature.CONFIGURATION)])
async def test_a_refusal_is_known_not_executed(wire: Wire, sync: SyncLeads, code: str, nature: Nature) -> None:
    wire.script += [json(f'{{"requestId": "r", "success": false, "errors": [{{"code": "{code}", "message": "no"}}]}}')]
    with pytest.raises(Fault) as failed:
        await write(sync)
    assert (failed.value.nature, failed.value.code, failed.value.executed) == (nature, code, False)
