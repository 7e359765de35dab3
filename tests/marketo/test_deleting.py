"""Deleting leads over loopback HTTP (protocol 3.4)."""

import json as jsontext
from collections.abc import AsyncIterator

import pytest

from syncd.core.faults import Fault
from syncd.marketo.deleting import DeleteAnswer, LeadDeletion
from tests.marketo.wire import Script, Wire, json, opened, reset, rest_api, token


def answered(*entries: str) -> Script:
    return json(f'{{"requestId": "e42b#1", "success": true, "result": [{",".join(entries)}]}}')


DELETED = '{"id": 7, "status": "deleted"}'
NOT_THERE = '{"id": 8, "status": "skipped", "reasons": [{"code": "1004", "message": "Lead not found"}]}'
REFUSED = '{"id": 9, "status": "skipped", "reasons": [{"code": 1008, "message": "No access to partition of a@example.com"}]}'


@pytest.fixture
async def deletion(wire: Wire) -> AsyncIterator[LeadDeletion]:
    wire.script = [token()]
    async with opened() as session:
        yield LeadDeletion(rest_api(wire, session))


async def test_a_call_is_made_as_documented(wire: Wire, deletion: LeadDeletion) -> None:
    wire.script += [answered(DELETED, NOT_THERE, REFUSED)]
    answer = await deletion.delete([7, 8, 9])
    request = wire.requests[1]
    assert (request.method, request.path) == ("POST", "/rest/v1/leads/delete.json")
    assert request.headers["content-type"] == "application/json"
    assert jsontext.loads(request.body) == {"input": [{"id": 7}, {"id": 8}, {"id": 9}]}
    assert (answer.deleted, answer.not_there, dict(answer.refused)) == (1, 1, {"1008": 1})


async def test_a_record_without_a_code_was_refused_all_the_same(wire: Wire, deletion: LeadDeletion) -> None:
    wire.script += [answered('{"id": 7, "status": "skipped"}')]
    assert dict((await deletion.delete([7])).refused) == {"no code": 1}


@pytest.mark.parametrize("entries", [(), (DELETED, DELETED), ('{"id": 7, "status": "gone"}',), ("7",)])
async def test_an_answer_that_says_something_else_says_nothing(wire: Wire, deletion: LeadDeletion, entries: tuple[str, ...]) -> None:
    wire.script += [answered(*entries)]
    with pytest.raises(Fault) as met:
        await deletion.delete([7])
    assert (met.value.code, met.value.executed) == ("garbled", None)


async def test_it_is_sent_once_and_may_be_sent_again(wire: Wire, deletion: LeadDeletion) -> None:
    wire.script += [reset, answered(NOT_THERE)]
    with pytest.raises(Fault) as met:
        await deletion.delete([7])
    assert met.value.executed is None
    assert len(wire.requests) == 2
    assert await deletion.delete([7]) == DeleteAnswer(not_there=1)
