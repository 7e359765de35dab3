"""What an export may ask for (protocol section 3.1)."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.simulator.client import START, code_of
from tests.simulator.conftest import Rehearse
from tests.simulator.exporting import EXACT, EXPORT, LATELY, SETTINGS, between, create, message


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        ({"filter": None}, "1003", "no filter"),
        ({"filter": {}}, "1003", "no filter"),
        ({"filter": {**LATELY, "staticListId": 1001}}, "1003", "2 filters"),
        ({"filter": {"shoes": 1}}, "1003", "shoes"),
        ({"filter": between(START - timedelta(days=31, seconds=1), START)}, "1003", "longer than 31 days"),
        ({"filter": between(START, START - timedelta(seconds=1))}, "1003", "before startAt"),
        (
            {"filter": {"updatedAt": {"startAt": "2026-05-01T00:00:00.000Z", "endAt": "2026-05-02T00:00:00Z"}}},
            "1003",
            "without milliseconds",
        ),
        ({"filter": {"updatedAt": {"startAt": "2026-05-01", "endAt": "2026-05-02T00:00:00Z"}}}, "1003", "startAt"),
        ({"filter": {"createdAt": {"startAt": "2026-05-01T00:00:00Z"}}}, "1003", "endAt"),
        ({"filter": {"staticListId": 7}}, "1003", "'7'"),
        ({"filter": {"staticListName": "Nobody"}}, "1003", "'Nobody'"),
        ({"filter": {"smartListId": 1}}, "1003", "'1'"),
        ({"fields": ["id", "Company"]}, "1003", "'Company'"),
        ({"fields": []}, "1003", "fields"),
        ({"format": "XML"}, "1003", "XML"),
    ],
)
async def test_wrong_orders_are_refused(rehearse: Rehearse, changed: dict[str, Any], code: str, text: str) -> None:
    client = await rehearse(SETTINGS)
    _, answer = await client.post(f"{EXPORT}/create.json", {"fields": ["id"], "format": "CSV", "filter": LATELY} | changed)
    refused, why = message(json.loads(answer))
    assert (refused, text in why) == (code, True), why
    assert client.sim.report().exports_created == 0


async def test_filters_that_are_not_to_be_had_are_1035(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, exports=replace(EXACT, updated_at_filter=False, smart_lists=False)))
    assert message(await create(client)) == ("1035", "Unsupported filter type for target subscription: updatedAt")
    for wanted in ({"smartListId": 2001}, {"smartListName": "S"}):
        assert message(await create(client, wanted=wanted))[0] == "1035"
    assert code_of(await create(client, wanted=between(START, START, "createdAt"))) == "ok"


async def test_bodies_must_be_json(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    for content_type, body, code in (("text/plain", b"{}", "612"), ("application/json", b"{", "609"), ("application/json", b"[]", "1003")):
        headers = {"Authorization": f"Bearer {client.token}", "Content-Type": content_type}
        url = f"{client.sim.rest_endpoint}{EXPORT}/create.json"
        async with client.session.post(url, data=body, headers=headers) as response:
            assert code_of(await response.json()) == code
