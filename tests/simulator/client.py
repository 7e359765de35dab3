"""A client of the tests' own: it speaks the protocol with as little help as possible."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import ClientSession
from lxml import etree

from syncd.simulator import Credentials, Simulator

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ACTION = '"http://www.marketo.com/mktows/getMultipleLeads"'


class ManualClock:
    """Virtual time: it moves when it is told to, or when somebody sleeps."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@dataclass
class SoapReply:
    """A parsed answer: a page, or the code of a fault."""

    status: int
    text: str
    code: str | None
    returned: int
    remaining: int
    position: str
    leads: list[tuple[int, str | None, dict[str, str]]]

    @property
    def ids(self) -> list[int]:
        return [lead_id for lead_id, _, _ in self.leads]


class Client:
    """Asks one simulator."""

    def __init__(self, sim: Simulator, clock: ManualClock, session: ClientSession) -> None:
        self.sim, self.clock, self.session = sim, clock, session
        self.credentials = Credentials()
        self.token = ""

    def envelope(self, params: str, *, key: str | None = None, at: datetime | None = None) -> bytes:
        """A signed envelope around the children of paramsGetMultipleLeads."""
        timestamp = (at or self.clock.now()).isoformat(timespec="seconds")
        user = self.credentials.soap_user_id
        secret = (key or self.credentials.encryption_key).encode()
        signature = hmac.new(secret, (timestamp + user).encode(), hashlib.sha1).hexdigest()
        return (
            '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"'
            ' xmlns:ns1="http://www.marketo.com/mktows/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
            f"<SOAP-ENV:Header><ns1:AuthenticationHeader><mktowsUserId>{user}</mktowsUserId>"
            f"<requestSignature>{signature}</requestSignature><requestTimestamp>{timestamp}</requestTimestamp>"
            "</ns1:AuthenticationHeader></SOAP-ENV:Header><SOAP-ENV:Body><ns1:paramsGetMultipleLeads>"
            f"{params}</ns1:paramsGetMultipleLeads></SOAP-ENV:Body></SOAP-ENV:Envelope>"
        ).encode()

    async def soap(self, params: str, *, key: str | None = None, at: datetime | None = None) -> SoapReply:
        return await self.post_soap(self.envelope(params, key=key, at=at))

    async def post_soap(self, body: bytes, headers: Mapping[str, str] | None = None) -> SoapReply:
        sent = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": ACTION} if headers is None else headers
        async with self.session.post(self.sim.soap_endpoint, data=body, headers=sent) as response:
            return parsed(response.status, await response.text())

    async def login(self) -> dict[str, Any]:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.credentials.client_id,
            "client_secret": self.credentials.client_secret,
        }
        async with self.session.post(f"{self.sim.rest_endpoint}/identity/oauth/token", data=form) as response:
            reply: dict[str, Any] = await response.json()
        self.token = reply["access_token"]
        return reply

    async def get(self, path: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(self.sim.rest_endpoint + path, headers=headers) as response:
            return response.status, await response.text()

    async def rest(self, path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(self.sim.rest_endpoint + path, headers=headers) as response:
            reply: dict[str, Any] = await response.json()
            return reply

    async def file(self, path: str, wanted: str | None = None) -> tuple[int, bytes, dict[str, str]]:
        """A file, or the range of it that is wanted, with the headers of the reply."""
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Range": wanted} if wanted else {})
        async with self.session.get(self.sim.rest_endpoint + path, headers=headers) as response:
            return response.status, await response.read(), dict(response.headers)

    async def read(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """A read as `POST …?_method=GET`, its query string as form body."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.post(f"{self.sim.rest_endpoint}{path}?_method=GET", data=form, headers=headers) as response:
            reply: dict[str, Any] = await response.json()
            return reply

    async def post(self, path: str, body: Any = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.post(self.sim.rest_endpoint + path, json=body, headers=headers) as response:
            return response.status, await response.text()

    async def code(self, path: str) -> str:
        """The error code of a REST call, or 'ok'."""
        return code_of(await self.rest(path))

    async def post_import(self, table: str, query: str = "format=csv", body: bytes | None = None) -> tuple[int, str]:
        content_type, sent = multipart(table)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        url = f"{self.sim.rest_endpoint}/bulk/v1/leads.json?{query}"
        async with self.session.post(url, data=sent if body is None else body, headers=headers) as response:
            return response.status, await response.text()

    async def submit(self, table: str, query: str = "format=csv") -> dict[str, Any]:
        reply: dict[str, Any] = json.loads((await self.post_import(table, query))[1])
        return reply

    async def import_(self, table: str, query: str = "format=csv") -> int:
        """Submit and return the batchId."""
        return int((await self.submit(table, query))["result"][0]["batchId"])

    async def status(self, batch_id: int) -> dict[str, Any]:
        result: dict[str, Any] = (await self.rest(f"/bulk/v1/leads/batch/{batch_id}.json"))["result"][0]
        return result


def code_of(reply: dict[str, Any]) -> str:
    return "ok" if reply["success"] else str(reply["errors"][0]["code"])


def multipart(table: str) -> tuple[str, bytes]:
    """Content type and whole body of an upload."""
    head = '--frontier\r\nContent-Disposition: form-data; name="file"; filename="leads.csv"\r\nContent-Type: text/csv\r\n\r\n'
    return "multipart/form-data; boundary=frontier", f"{head}{table}\r\n--frontier--\r\n".encode()


def updated_between(oldest: datetime, latest: datetime | None = None, rest: str = "") -> str:
    """Parameters with a LastUpdateAtSelector; `rest` follows the selector."""
    until = f"<latestUpdatedAt>{latest.isoformat()}</latestUpdatedAt>" if latest else ""
    since = f"<oldestUpdatedAt>{oldest.isoformat()}</oldestUpdatedAt>"
    return f'<leadSelector xsi:type="ns1:LastUpdateAtSelector">{until}{since}</leadSelector>{rest}'


def keyed(key_type: str, *keys: object, rest: str = "") -> str:
    """Parameters with a LeadKeySelector."""
    items = "".join(f"<stringItem>{escape(str(key))}</stringItem>" for key in keys)
    return f'<leadSelector xsi:type="ns1:LeadKeySelector"><keyType>{key_type}</keyType><keyValues>{items}</keyValues></leadSelector>{rest}'


def at_position(position: str) -> str:
    return f"<streamPosition>{escape(position)}</streamPosition>"


def parsed(status: int, text: str) -> SoapReply:
    """A page or a fault; anything else raises."""
    root = etree.fromstring(text.encode())
    if status != 200:
        code = root.findtext(".//detail//code")
        return SoapReply(status, text, code, 0, 0, "", [])
    leads = [
        (
            int(record.findtext("Id") or 0),
            record.findtext("Email") or None,
            {a.findtext("attrName") or "": a.findtext("attrValue") or "" for a in record.iterfind("leadAttributeList/attribute")},
        )
        for record in root.iterfind(".//leadRecord")
    ]
    returned, remaining = int(root.findtext(".//returnCount") or -1), int(root.findtext(".//remainingCount") or -1)
    return SoapReply(status, text, None, returned, remaining, root.findtext(".//newStreamPosition") or "", leads)
