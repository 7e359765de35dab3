"""The day's calls of all integrations, over loopback HTTP."""

from datetime import date

import pytest

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Limits
from syncd.marketo.rest import RestApi
from syncd.marketo.token import Token
from syncd.marketo.usage import Usage, usage
from syncd.ops.clock import WallClock
from tests.marketo.wire import Wire, json, opened, token

ENTRY = '{"date":"2015-10-17","total":1120,"users":[{"userId":"some.body@example.com","count":200},{"userId":"other","count":920}]}'
OLDER = '{"date":"2015-10-16","total":7,"users":[]}'


def envelope(result: str) -> str:
    return f'{{"requestId": "r#1", "success": true, "result": {result}}}'


async def asked(wire: Wire, text: str, limits: Limits | None = None) -> Usage:
    wire.script = [token(), json(text)]
    async with opened(limits=limits or Limits()) as session:
        return await usage(RestApi(session, wire.rest, Token(session, wire.rest, WallClock())))


async def test_the_total_and_each_users_calls(wire: Wire) -> None:
    found = await asked(wire, envelope(f"[{ENTRY}]"))
    assert found == Usage(1120, {"some.body@example.com": 200, "other": 920}, date(2015, 10, 17))
    assert wire.requests[1].path == "/rest/v1/stats/usage.json"
    assert "@" not in repr(found)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("[]", Usage()),
        (f"[{OLDER}, {ENTRY}, {OLDER}]", Usage(1120, {"some.body@example.com": 200, "other": 920}, date(2015, 10, 17))),
        ('[{"date":"2015-10-17","total":0}]', Usage(0, {}, date(2015, 10, 17))),
        ('[{"date":"2015-10-17","total":3,"users":null}]', Usage(3, {}, date(2015, 10, 17))),
        (
            '[{"date":"2015-10-17","total":3,"users":[{"userId":"a\\u0000b","count":1},{"userId":"ab","count":2}]}]',
            Usage(3, {"ab": 3}, date(2015, 10, 17)),
        ),
    ],
)
async def test_what_it_may_look_like(wire: Wire, result: str, expected: Usage) -> None:
    assert await asked(wire, envelope(result)) == expected


@pytest.mark.parametrize(
    "result",
    [
        '{"total": 1}',
        "[1]",
        "[{}]",
        '[{"date":"2015-10-17"}]',
        '[{"total":1}]',
        '[{"date":"yesterday","total":1}]',
        '[{"date":"2015-10-17","total":"1"}]',
        '[{"date":"2015-10-17","total":true}]',
        '[{"date":"2015-10-17","total":-1}]',
        '[{"date":"2015-10-17","total":9223372036854775807}]',
        '[{"date":"2015-10-17","total":1,"users":{}}]',
        '[{"date":"2015-10-17","total":1,"users":[{"userId":"a"}]}]',
        '[{"date":"2015-10-17","total":1,"users":[{"userId":"a","count":-1}]}]',
        '[{"date":"2015-10-17","total":1,"users":[{"userId":"","count":1}]}]',
    ],
)
async def test_anything_else_is_garbled(wire: Wire, result: str) -> None:
    with pytest.raises(Fault) as met:
        await asked(wire, envelope(result))
    assert (met.value.code, met.value.nature) == ("garbled", Nature.TRANSIENT)


async def test_a_missing_right_is_told(wire: Wire) -> None:
    with pytest.raises(Fault) as met:
        await asked(wire, '{"requestId":"r#2","success":false,"errors":[{"code":"603","message":"Access denied"}]}')
    assert met.value.nature is Nature.CONFIGURATION


async def test_it_may_use_the_reserve(wire: Wire) -> None:
    everything_reserved = Limits(subscription_calls=5, urgent_reserve=5)
    assert (await asked(wire, envelope(f"[{ENTRY}]"), everything_reserved)).total == 1120
