"""Replies that are right but come onto the wire by mischief."""

import asyncio
import gzip
import time
import zlib

import aiohttp
import pytest
from lxml import etree

from syncd.simulator import Fault, Simulator, SimulatorSettings
from syncd.simulator.delivery import BOMB_BYTES, bomb
from syncd.simulator.faults import ENDPOINTS
from tests.simulator.client import ACTION, Client, ManualClock, keyed
from tests.simulator.conftest import Rehearse

SETTINGS = SimulatorSettings(leads=3)
DESCRIBE = "/rest/v1/leads/describe.json"
LEAD = keyed("IDNUM", 1001)
SOAP_HEADERS = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": ACTION}


async def test_slow_drip_never_ends(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("soap", Fault.SLOW_DRIP)
    body = client.envelope(LEAD)
    began = time.monotonic()
    async with client.session.post(client.sim.soap_endpoint, data=body, headers=SOAP_HEADERS) as response:
        assert response.status == 200
        first = await response.content.readexactly(2)
        assert first == b"<?"
        assert time.monotonic() - began >= 0.35
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await response.read()
    assert (await client.soap(LEAD)).ids == [1001]
    await stopped_soon(client)


async def test_slow_drip_goes_on_after_the_reply(rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncd.simulator.delivery.DRIP_SECONDS", 0.0)
    client = await rehearse(SETTINGS)
    client.sim.script("soap", Fault.SLOW_DRIP)
    async with client.session.post(client.sim.soap_endpoint, data=client.envelope(LEAD), headers=SOAP_HEADERS) as response:
        text = await response.content.readexactly(20_000)
    assert etree.fromstring(text.rstrip()).findtext(".//Id") == "1001"
    await stopped_soon(client)


async def stopped_soon(client: Client) -> None:
    """A reply that still drips keeps nobody from stopping."""
    async with asyncio.timeout(3):
        await client.sim.stop()


async def test_redirect_goes_round_for_ever(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("soap", Fault.REDIRECT)
    client.sim.script("describe", Fault.REDIRECT)
    body = client.envelope(LEAD)
    async with client.session.post(client.sim.soap_endpoint, data=body, headers=SOAP_HEADERS, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/soap/mktows/3_1?redirected")
    assert client.sim.report().violations == {}
    with pytest.raises(aiohttp.TooManyRedirects):
        await client.get(DESCRIBE)
    assert client.sim.report().violations == {"redirect followed": 9}
    assert await client.code(DESCRIBE) == "ok"
    assert (await client.soap(LEAD)).ids == [1001]


async def test_wrong_length_sends_all_but_promises_more(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    whole = (await client.soap(LEAD)).text.encode()
    client.sim.script("soap", Fault.WRONG_LENGTH)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.sim.rest_endpoint.rpartition(":")[2]))
    body = client.envelope(LEAD)
    sent = {"Host": "x", "Content-Length": str(len(body))} | SOAP_HEADERS
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    writer.write(f"POST /soap/mktows/3_1 HTTP/1.1\r\n{head}\r\n".encode() + body)
    answered, _, came = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert f"Content-Length: {len(whole) + 100}\r\n".encode() in answered
    assert came == whole


async def test_wrong_length_cuts_the_body_within_http(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    whole = (await client.soap(LEAD)).text.encode()
    client.sim.script("soap", Fault.WRONG_LENGTH_CUT)
    async with client.session.post(client.sim.soap_endpoint, data=client.envelope(LEAD), headers=SOAP_HEADERS) as response:
        assert (response.content_length, await response.read()) == (len(whole) // 2, whole[: len(whole) // 2])
    assert (await client.soap(LEAD)).ids == [1001]


async def test_bomb_is_small_on_the_wire_and_a_gigabyte_behind_it() -> None:
    async with Simulator(SETTINGS, ManualClock()) as sim, aiohttp.ClientSession(auto_decompress=False) as session:
        client = Client(sim, ManualClock(), session)
        whole = (await client.soap(LEAD)).text
        sim.script("soap", Fault.GZIP_BOMB)
        async with session.post(sim.soap_endpoint, data=client.envelope(LEAD), headers=SOAP_HEADERS) as response:
            assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
            packed = await response.read()
    assert len(packed) < 1_100_000
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    start = inflater.decompress(packed, 10_000)
    assert b"<result>   " in start
    assert inflater.decompress(inflater.unconsumed_tail, 50_000_000).isspace()
    assert int.from_bytes(packed[-4:], "little") == BOMB_BYTES + len(whole.encode())


@pytest.mark.parametrize(
    ("body", "seam"),
    [
        (b'<?xml version="1.0"?>\n<a><result><b/></result></a>', b"<result>"),
        (b'<?xml version="1.0"?>\n<a>fault</a>', b"?>"),
        (b'{"requestId":"1"}', b"{"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("size", [0, 5, 1 << 20, (3 << 20) + 7])
def test_bomb_is_valid_and_says_what_the_reply_says(body: bytes, seam: bytes, size: int) -> None:
    head, mark, tail = body.partition(seam) if seam else (b"", b"", body)
    assert gzip.decompress(bomb(body, size)) == head + mark + b" " * size + tail


async def test_garbled_page_is_well_formed_without_its_count(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("soap", Fault.GARBLED_XML)
    async with client.session.post(client.sim.soap_endpoint, data=client.envelope(LEAD), headers=SOAP_HEADERS) as response:
        root = etree.fromstring(await response.read())
    assert root.find(".//returnCount") is None
    assert (root.findtext(".//remainingCount"), root.findtext(".//Id")) == ("0", "1001")


async def test_mischief_at_rest_and_identity(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("identity", Fault.WRONG_LENGTH)
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.login()
    client.sim.script("import", Fault.WRONG_LENGTH_CUT)
    assert (await client.post_import("email\na@example.com\n"))[1].startswith('{"requestId"')
    assert client.sim.report().imports_accepted == 1
    for endpoint in ENDPOINTS:
        for fault in (Fault.HTML_500, Fault.SLOW_DRIP, Fault.REDIRECT, Fault.WRONG_LENGTH, Fault.WRONG_LENGTH_CUT, Fault.GZIP_BOMB):
            client.sim.script(endpoint, fault)
    with pytest.raises(ValueError, match="garbled_xml cannot happen at 'describe'"):
        client.sim.script("describe", Fault.GARBLED_XML)
