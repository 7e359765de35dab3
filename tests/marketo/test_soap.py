"""getMultipleLeads over loopback HTTP."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Secret, Soap
from syncd.core.values import LeadPage, LeadRecord
from syncd.marketo.session import Session
from syncd.marketo.soap import SoapApi
from syncd.marketo.soap_reply import OnPosition
from syncd.ops.clock import ManualClock
from tests.marketo.wire import SAMPLES, Wire, opened, reset, truncated

REPLY = (SAMPLES / "getMultipleLeads-reply.xml").read_text()
FAULT = (SAMPLES / "getMultipleLeads-fault.xml").read_text()
POSITION = "<newStreamPosition>p+/=</newStreamPosition>"
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def session(wire: Wire) -> AsyncIterator[Session]:
    async with opened() as opened_session:
        yield opened_session


def xml(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/xml")


async def first_page(api: SoapApi, on_position: OnPosition | None = None) -> LeadPage[LeadRecord]:
    return await api.lead_page(
        oldest=NOW - timedelta(days=1), latest=NOW, position=None, batch_size=300, fields=("Company",), on_position=on_position
    )


async def test_a_page_over_the_wire(wire: Wire, session: Session) -> None:
    wire.script = [xml(REPLY.replace("<remainingCount>0<", "<remainingCount>7<").replace("<newStreamPosition />", POSITION))]
    told: list[tuple[str | None, int]] = []
    got = await first_page(SoapApi(session, wire.soap, ManualClock(NOW)), lambda *seen: told.append(seen))
    assert (len(got.leads), got.remaining, got.position, got.asked_at) == (2, 7, "p+/=", NOW)
    assert told == [("p+/=", 7)]
    (request,) = wire.requests
    assert (request.method, request.path) == ("POST", "/soap/mktows/3_1")
    assert request.headers["content-type"] == "text/xml; charset=utf-8"
    assert request.headers["soapaction"] == '"http://www.marketo.com/mktows/getMultipleLeads"'
    assert b"<oldestUpdatedAt>2026-04-30T12:00:00+00:00</oldestUpdatedAt>" in request.body


async def test_each_attempt_is_signed_anew_and_dates_the_page(wire: Wire, session: Session) -> None:
    clock = ManualClock(NOW)

    async def later_reset(request: web.Request) -> web.StreamResponse:
        clock.advance(60)
        return await reset(request)

    wire.script = [later_reset, xml(REPLY)]
    got = await first_page(SoapApi(session, wire.soap, clock))
    assert got.asked_at == NOW + timedelta(seconds=60)
    stamps = [re.findall(rb"<requestTimestamp>(.*?)<|<requestSignature>(.*?)<", request.body) for request in wire.requests]
    assert stamps[0] != stamps[1]
    assert stamps[1][1][0] == b"2026-05-01T12:01:00+00:00"


@pytest.mark.parametrize(("code", "nature"), [("20014", Nature.CONFIGURATION), ("20122", Nature.POSITION), ("20016", Nature.SIGNATURE)])
async def test_a_fault_comes_with_http_500(wire: Wire, session: Session, code: str, nature: Nature) -> None:
    wire.script = [xml(FAULT.replace("20014", code), 500)]
    with pytest.raises(Fault) as failed:
        await first_page(SoapApi(session, wire.soap, ManualClock(NOW)))
    assert (failed.value.code, failed.value.nature, failed.value.endpoint) == (code, nature, "getMultipleLeads")
    assert failed.value.clock_skew is not None
    assert len(wire.requests) == 1


@pytest.mark.parametrize("code", ["20123", "20103"])
async def test_the_end_of_the_stream_is_an_empty_last_page(wire: Wire, session: Session, code: str) -> None:
    wire.script = [xml(FAULT.replace("20014", code), 500)]
    told: list[tuple[str | None, int]] = []
    got = await first_page(SoapApi(session, wire.soap, ManualClock(NOW)), lambda *seen: told.append(seen))
    assert got == LeadPage((), 0, None, NOW)
    assert told == [(None, 0)]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda: xml("<html>maintenance"), "garbled"),
        (lambda: xml("<html>maintenance", 503), "http_503"),
        (lambda: xml("<html>maintenance", 500), "http_500"),
        (lambda: xml(REPLY, 500), "http_500"),
        (lambda: web.Response(status=504), "http_504"),
        (lambda: truncated(REPLY[:2000].encode()), "connection"),
        (lambda: xml(REPLY[:2000]), "garbled"),
    ],
)
async def test_trouble_on_the_way_is_transient(wire: Wire, session: Session, reply, code: str) -> None:  # type: ignore[no-untyped-def]
    wire.script = [reply()]
    with pytest.raises(Fault) as failed:
        await first_page(SoapApi(session, wire.soap, ManualClock(NOW)))
    assert (failed.value.nature, failed.value.code) == (Nature.TRANSIENT, code)


async def test_a_refused_key_is_read_again(wire: Wire, session: Session, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("old")
    api = SoapApi(session, Soap(wire.soap.endpoint, "u", Secret(key_file.read_text)), ManualClock(NOW))
    wire.script = [xml(REPLY), xml(FAULT, 500), xml(REPLY), xml(FAULT, 500)]
    await first_page(api)
    key_file.write_text("new")
    with pytest.raises(Fault):
        await first_page(api)
    await first_page(api)
    first, refused, renewed = (re.findall(rb"<requestSignature>(.*?)<", request.body) for request in wire.requests)
    assert first == refused != renewed
    key_file.unlink()
    with pytest.raises(Fault):
        await first_page(api)
    with pytest.raises(Fault, match="can't be read") as failed:
        await first_page(api)
    assert failed.value.nature is Nature.CONFIGURATION
