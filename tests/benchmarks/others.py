"""What a user would write without syncd: zeep by Marketo's WSDL (protocol 1), and psycopg's executemany into a jsonb table."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import requests
import xmltodict
import zeep
from psycopg.types.json import Jsonb

from tests.benchmarks.pages import Page

NAMESPACE = "http://www.marketo.com/mktows/"
ENDPOINT = "http://localhost/soap/mktows/3_1"
WSDL = """
<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:xs="http://www.w3.org/2001/XMLSchema"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:t="http://www.marketo.com/mktows/" targetNamespace="http://www.marketo.com/mktows/">
  <wsdl:types><xs:schema targetNamespace="http://www.marketo.com/mktows/">
    <xs:complexType name="LeadSelector" abstract="true"/>
    <xs:complexType name="LastUpdateAtSelector"><xs:complexContent><xs:extension base="t:LeadSelector"><xs:sequence>
      <xs:element name="latestUpdatedAt" type="xs:dateTime" minOccurs="0" nillable="true"/>
      <xs:element name="oldestUpdatedAt" type="xs:dateTime"/>
    </xs:sequence></xs:extension></xs:complexContent></xs:complexType>
    <xs:complexType name="ArrayOfString"><xs:sequence>
      <xs:element name="stringItem" type="xs:string" minOccurs="0" maxOccurs="unbounded"/>
    </xs:sequence></xs:complexType>
    <xs:complexType name="Attribute"><xs:sequence>
      <xs:element name="attrName" type="xs:string"/>
      <xs:element name="attrType" type="xs:string" minOccurs="0"/>
      <xs:element name="attrValue" type="xs:string" minOccurs="0" nillable="true"/>
    </xs:sequence></xs:complexType>
    <xs:complexType name="ArrayOfAttribute"><xs:sequence>
      <xs:element name="attribute" type="t:Attribute" minOccurs="0" maxOccurs="unbounded" nillable="true"/>
    </xs:sequence></xs:complexType>
    <xs:complexType name="LeadRecord"><xs:sequence>
      <xs:element name="Id" type="xs:long" minOccurs="0" nillable="true"/>
      <xs:element name="Email" type="xs:string" minOccurs="0" nillable="true"/>
      <xs:element name="ForeignSysPersonId" type="xs:string" minOccurs="0" nillable="true"/>
      <xs:element name="ForeignSysType" type="xs:string" minOccurs="0" nillable="true"/>
      <xs:element name="leadAttributeList" type="t:ArrayOfAttribute" minOccurs="0" nillable="true"/>
    </xs:sequence></xs:complexType>
    <xs:complexType name="ArrayOfLeadRecord"><xs:sequence>
      <xs:element name="leadRecord" type="t:LeadRecord" minOccurs="0" maxOccurs="unbounded" nillable="true"/>
    </xs:sequence></xs:complexType>
    <xs:complexType name="Result"><xs:sequence>
      <xs:element name="returnCount" type="xs:int"/>
      <xs:element name="remainingCount" type="xs:int"/>
      <xs:element name="newStreamPosition" type="xs:string"/>
      <xs:element name="leadRecordList" type="t:ArrayOfLeadRecord" minOccurs="0" nillable="true"/>
    </xs:sequence></xs:complexType>
    <xs:element name="AuthenticationHeader"><xs:complexType><xs:sequence>
      <xs:element name="mktowsUserId" type="xs:string"/>
      <xs:element name="requestSignature" type="xs:string"/>
      <xs:element name="requestTimestamp" type="xs:string"/>
    </xs:sequence></xs:complexType></xs:element>
    <xs:element name="paramsGetMultipleLeads"><xs:complexType><xs:sequence>
      <xs:element name="leadSelector" type="t:LeadSelector" minOccurs="0"/>
      <xs:element name="lastUpdatedAt" type="xs:dateTime" minOccurs="0"/>
      <xs:element name="streamPosition" type="xs:string" minOccurs="0"/>
      <xs:element name="batchSize" type="xs:int" minOccurs="0"/>
      <xs:element name="includeAttributes" type="t:ArrayOfString" minOccurs="0"/>
    </xs:sequence></xs:complexType></xs:element>
    <xs:element name="successGetMultipleLeads"><xs:complexType><xs:sequence>
      <xs:element name="result" type="t:Result"/>
    </xs:sequence></xs:complexType></xs:element>
  </xs:schema></wsdl:types>
  <wsdl:message name="asked"><wsdl:part name="params" element="t:paramsGetMultipleLeads"/></wsdl:message>
  <wsdl:message name="answered"><wsdl:part name="success" element="t:successGetMultipleLeads"/></wsdl:message>
  <wsdl:message name="signed"><wsdl:part name="header" element="t:AuthenticationHeader"/></wsdl:message>
  <wsdl:portType name="MktowsPort"><wsdl:operation name="getMultipleLeads">
    <wsdl:input message="t:asked"/><wsdl:output message="t:answered"/>
  </wsdl:operation></wsdl:portType>
  <wsdl:binding name="MktowsApi" type="t:MktowsPort">
    <soap:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>
    <wsdl:operation name="getMultipleLeads">
      <soap:operation soapAction="http://www.marketo.com/mktows/getMultipleLeads"/>
      <wsdl:input><soap:header message="t:signed" part="header" use="literal"/><soap:body use="literal"/></wsdl:input>
      <wsdl:output><soap:body use="literal"/></wsdl:output>
    </wsdl:operation>
  </wsdl:binding>
  <wsdl:service name="Mktows"><wsdl:port name="MktowsApi" binding="t:MktowsApi">
    <soap:address location="ENDPOINT"/>
  </wsdl:port></wsdl:service>
</wsdl:definitions>
""".replace("ENDPOINT", ENDPOINT)

TABLE = """
CREATE TABLE users_own_lead (lead_id bigint PRIMARY KEY, email text, attributes jsonb NOT NULL, changed_at timestamptz NOT NULL)
"""
UPSERT = """
INSERT INTO users_own_lead (lead_id, email, attributes, changed_at) VALUES (%s, %s, %s, now())
ON CONFLICT (lead_id) DO UPDATE SET email = excluded.email, attributes = excluded.attributes, changed_at = excluded.changed_at
"""
Row = tuple[int, str | None, dict[str, str]]


class Replaying(zeep.Transport):
    """zeep's transport without a network: the WSDL and the pages come from memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bodies: Mapping[str, bytes] = {}

    def load(self, url: str) -> bytes:
        return WSDL.encode()

    def post(self, address: str, message: bytes, headers: Mapping[str, str]) -> requests.Response:
        position = re.search(rb"<streamPosition>([^<]*)<", message)
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Type"] = "text/xml; charset=utf-8"
        response._content = self.bodies[position[1].decode() if position else ""]
        return response


class WithZeep:
    """Walks pages with zeep, and writes each with psycopg in a transaction."""

    def __init__(self, dsn: str) -> None:
        self._transport = Replaying()
        self._client = zeep.Client("marketo.wsdl", transport=self._transport)  # type: ignore[no-untyped-call]
        self._selector = self._client.get_type(f"{{{NAMESPACE}}}LastUpdateAtSelector")  # type: ignore[no-untyped-call]
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute(TABLE)

    def close(self) -> None:
        self._connection.close()

    def replay(self, pages: Sequence[Page]) -> None:
        """Have these pages answered from now on."""
        self._transport.bodies = {page.position: page.body for page in pages}

    def parsed(self, position: str) -> Any:
        """zeep's objects for one page."""
        span = {"latestUpdatedAt": "2026-01-02T00:00:00Z", "oldestUpdatedAt": "2026-01-01T00:00:00Z"}
        selector = self._selector(**span)
        header = {"mktowsUserId": "u", "requestSignature": "s", "requestTimestamp": "t"}
        following = {"streamPosition": position} if position else {}
        return self._client.service.getMultipleLeads(leadSelector=selector, batchSize=300, **following, _soapheaders={"header": header})

    def walk(self, pages: Sequence[Page]) -> None:
        """From the replies' bytes to rows in the table."""
        self.replay(pages)
        for page in pages:
            rows = [(lead_id, email, Jsonb(attributes)) for lead_id, email, attributes in rows_by_zeep(self.parsed(page.position))]
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(UPSERT, rows)


def rows_by_zeep(result: Any) -> list[Row]:
    """What zeep's objects say, as plain values."""
    rows = []
    for lead in result.leadRecordList.leadRecord:
        attributes = lead.leadAttributeList.attribute if lead.leadAttributeList else ()
        rows.append((lead.Id, lead.Email, {each.attrName: each.attrValue for each in attributes}))
    return rows


def rows_by_xmltodict(body: bytes) -> list[Row]:
    """The same by xmltodict."""
    page = xmltodict.parse(body, force_list=("leadRecord", "attribute"))
    result = page["SOAP-ENV:Envelope"]["SOAP-ENV:Body"]["ns1:successGetMultipleLeads"]["result"]
    rows = []
    for lead in result["leadRecordList"]["leadRecord"]:
        attributes = (lead.get("leadAttributeList") or {}).get("attribute", ())
        email = lead.get("Email")  # a dictionary where it is nil
        values = {each["attrName"]: each["attrValue"] for each in attributes}
        rows.append((int(lead["Id"]), email if isinstance(email, str) else None, values))
    return rows
