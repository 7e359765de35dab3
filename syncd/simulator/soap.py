"""The SOAP side: signature check, selectors, pages, faults (protocol section 1)."""

import hmac
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape

from syncd.simulator.clock import seeded
from syncd.simulator.fields import BY_SOAP, Field
from syncd.simulator.lists import StaticList
from syncd.simulator.report import Recorder
from syncd.simulator.selectors import LastUpdateAt, LeadKeys, Positions, StaticListMembers
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.soap_request import GetMultipleLeads, SoapHeader, SoapRequest, moment_of
from syncd.simulator.wire import Call, MarketoFault, Reply
from syncd.simulator.world import Lead, World

_LONGEST_WINDOW = timedelta(days=30)
_ACTION = '"http://www.marketo.com/mktows/getMultipleLeads"'
_CONTENT_TYPE = "text/xml;charset=utf-8"
_KEY_TYPES = (
    "IDNUM",
    "COOKIE",
    "EMAIL",
    "LEADOWNEREMAIL",
    "SFDCACCOUNTID",
    "SFDCCONTACTID",
    "SFDCLEADID",
    "SFDCLEADOWNERID",
    "SFDCOPPTYID",
)
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:ns1="http://www.marketo.com/mktows/">'
    "<SOAP-ENV:Body><ns1:successGetMultipleLeads><result>"
)
_TAIL = "</result></ns1:successGetMultipleLeads></SOAP-ENV:Body></SOAP-ENV:Envelope>"

Attributes = dict[str, tuple[str, str]]
"""(key, everything before the value) of each attribute, in the order of their names; Id and Email have elements of their own."""


def _attributes(by_soap: Mapping[str, Field]) -> Attributes:
    return {
        name: (field.key, f"<attribute><attrName>{escape(name)}</attrName><attrType>{field.soap_type}</attrType><attrValue>")
        for name, field in sorted(by_soap.items())
        if name not in ("Id", "Email")
    }


_ATTRIBUTES = _attributes(BY_SOAP)
# An XML parser would turn a bare carriage return into a newline.
_ENTITIES = {"\r": "&#13;"}

Page = tuple[list[Lead], int, tuple[int, int]]
"""Leads, how many are left, and the cursor behind the last of them."""


class SoapApi:
    """Answers getMultipleLeads."""

    def __init__(self, settings: SimulatorSettings, world: World, recorder: Recorder) -> None:
        self._settings, self._world, self._recorder = settings, world, recorder
        self._positions = Positions(settings.seed)
        self._chance = seeded(settings.seed, "short pages")
        self._version, self._attributes = -1, Attributes()

    def answer(self, call: Call) -> Reply:
        """The page asked for. Raises the documented faults."""
        self._check_transport(call)
        request = SoapRequest(call.body, lambda kind: self._recorder.violation(call.now, kind))
        self._authenticate(request.header(), call.now)
        asked = request.get_multiple_leads()
        for name in asked.attributes or ():
            if name not in self._world.catalogue.by_soap:
                self._recorder.violation(call.now, "unknown attribute asked for")
        leads, left, cursor = self._page(asked, call)
        position = self._positions.issue(asked.selector, cursor) if left else ""
        return Reply(200, _rendered(leads, left, position, asked.attributes, self._known()).encode(), _CONTENT_TYPE)

    def _known(self) -> Attributes:
        catalogue = self._world.catalogue
        if self._version != catalogue.version:
            self._version, self._attributes = catalogue.version, _attributes(catalogue.by_soap)
        return self._attributes

    def _check_transport(self, call: Call) -> None:
        if not call.headers.get("Content-Type", "").lower().startswith("text/xml"):
            self._recorder.violation(call.now, "SOAP without Content-Type text/xml")
        if call.headers.get("SOAPAction") != _ACTION:
            self._recorder.violation(call.now, "SOAP without its SOAPAction")

    def _authenticate(self, header: SoapHeader, now: float) -> None:
        credentials = self._settings.credentials
        signed = header.timestamp + header.user_id
        expected = hmac.digest(credentials.encryption_key.encode(), signed.encode(), "sha1").hex()
        known = hmac.compare_digest(header.user_id.encode(), credentials.soap_user_id.encode())
        if not known or not hmac.compare_digest(header.signature.encode(), expected.encode()):
            self._recorder.violation(now, "wrong SOAP user or signature")
            raise MarketoFault(20014, "Authentication failed")
        age = now + self._settings.clock_skew - moment_of(header.timestamp, "requestTimestamp").timestamp()
        if abs(age) > self._settings.signature_life:
            self._recorder.violation(now, "SOAP timestamp too old or in the future")
            raise MarketoFault(20016, "Request expired")

    def _page(self, asked: GetMultipleLeads, call: Call) -> Page:
        size = min(self._settings.soap_batch_limit, asked.batch_size or self._settings.soap_batch_limit)
        if "short_page" in call.oddities:
            size = self._chance.randrange(size)
        cursor = self._positions.open(asked.selector, asked.position) if asked.position else None
        selector = asked.selector
        if isinstance(selector, LastUpdateAt):
            return self._updated(selector, cursor, size, call.now)
        if isinstance(selector, StaticListMembers):
            return self._members(self._list(selector), cursor, size)
        return self._by_keys(selector, cursor, size)

    def _updated(self, selector: LastUpdateAt, cursor: tuple[int, int] | None, size: int, now: float) -> Page:
        latest = selector.latest or datetime.fromtimestamp(now, UTC)
        if latest - selector.oldest > _LONGEST_WINDOW:
            raise MarketoFault(20022, "Time range is longer than 30 days")
        oldest_second = math.ceil(selector.oldest.timestamp())
        leads, left = self._world.window(oldest_second, int(latest.timestamp()), cursor, size)
        start = cursor or (oldest_second, 0)
        return leads, left, (leads[-1].updated, leads[-1].id) if leads else start

    def _list(self, selector: StaticListMembers) -> StaticList:
        found = self._world.lists.get(selector.id or 0) if selector.name is None else self._world.list_named(selector.name)
        if found is None:
            raise MarketoFault(20111, "List not found")
        return found

    def _members(self, members: StaticList, cursor: tuple[int, int] | None, size: int) -> Page:
        after = cursor[0] if cursor else 0
        ids, left = members.page(after, size)
        leads = [lead for lead_id in ids if (lead := self._world.get(lead_id)) is not None]
        return leads, left, (ids[-1] if ids else after, 0)

    def _by_keys(self, selector: LeadKeys, cursor: tuple[int, int] | None, size: int) -> Page:
        if selector.key_type not in _KEY_TYPES:
            raise MarketoFault(20102, "Bad lead key type")
        leads = self._matching(selector)
        if not leads:
            raise MarketoFault(20103, "No lead found")
        start = cursor[0] if cursor else 0
        page = leads[start : start + size]
        return page, max(0, len(leads) - start - len(page)), (start + len(page), 0)

    def _matching(self, selector: LeadKeys) -> list[Lead]:
        found: dict[int, Lead] = {}
        for value in selector.values:
            if selector.key_type == "EMAIL":
                found |= {lead.id: lead for lead in self._world.by_email(value)}
            elif selector.key_type == "IDNUM" and (lead := self._world.get(value)) is not None:
                found[lead.id] = lead
        return list(found.values())


def soap_fault(code: int, message: str) -> Reply:
    """A fault in the documented form: HTTP 500."""
    text = escape(message)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body><SOAP-ENV:Fault>'
        f"<faultcode>SOAP-ENV:{'Client' if code >= 20012 else 'Server'}</faultcode><faultstring>{code} - {text}</faultstring>"
        '<detail><ns1:serviceException xmlns:ns1="http://www.marketo.com/mktows/">'
        f"<name>mktServiceException</name><message>{text} ({code})</message><code>{code}</code>"
        "</ns1:serviceException></detail></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>"
    )
    return Reply(500, body.encode(), _CONTENT_TYPE, str(code))


def _rendered(leads: list[Lead], left: int, position: str, attributes: tuple[str, ...] | None, known: Attributes = _ATTRIBUTES) -> str:
    wanted = set(known if attributes is None else attributes)
    shown = [attribute for name, attribute in known.items() if name in wanted]
    records = "".join(_record(lead, shown) for lead in leads)
    record_list = f"<leadRecordList>{records}</leadRecordList>" if leads else '<leadRecordList xsi:nil="true" />'
    stream = f"<newStreamPosition>{position}</newStreamPosition>" if position else "<newStreamPosition />"
    return f"{_HEAD}<returnCount>{len(leads)}</returnCount><remainingCount>{left}</remainingCount>{stream}{record_list}{_TAIL}"


def _record(lead: Lead, shown: list[tuple[str, str]]) -> str:
    values = lead.values
    attributes = "".join(f"{before}{escape(values[key], _ENTITIES)}</attrValue></attribute>" for key, before in shown if key in values)
    email = f"<Email>{escape(lead.email)}</Email>" if lead.email else _nothing("Email", lead.id)
    foreign = '<ForeignSysPersonId xsi:nil="true" /><ForeignSysType xsi:nil="true" />' if lead.id % 5 < 4 else ""
    listed = f"<leadAttributeList>{attributes}</leadAttributeList>" if attributes else _nothing("leadAttributeList", lead.id)
    return f"<leadRecord><Id>{lead.id}</Id>{email}{foreign}{listed}</leadRecord>"


def _nothing(name: str, lead_id: int) -> str:
    # All three have been seen; which one is fixed by the id, so that a lead always looks the same.
    return (f'<{name} xsi:nil="true" />', "", f"<{name} />" if name == "leadAttributeList" else "")[lead_id % 3]
