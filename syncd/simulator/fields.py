"""The fields of the simulated instance: what describe says of them, and what a cell must look like to be imported."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

# Marketo answers in the subscription's zone; a fixed offset other than zero keeps readers honest about offsets.
ZONE = timezone(timedelta(hours=-6))
_CONTROL = {code: None for code in range(32) if code not in (9, 10, 13)} | {0xFFFE: None, 0xFFFF: None}
_INTEGER = re.compile(r"[+-]?\d{1,100}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d{1,100}(\.\d*)?|\.\d+)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+")
_BOOLEANS = {"true": "true", "1": "true", "false": "false", "0": "false"}


class BadValueError(ValueError):
    """A cell that cannot be imported; its text is the failure reason."""


@dataclass(frozen=True)
class Field:
    """One field as describe tells it. Either of the names may be missing, not both."""

    id: int
    display_name: str
    data_type: str
    rest: str | None
    soap: str | None
    length: int | None = None
    read_only: bool = False
    company: bool = False
    """Whether it is an attribute of the lead's company, which Sync Leads does not set; describe does not tell."""

    @property
    def key(self) -> str:
        """The name under which a lead keeps the value: the REST name, or the SOAP name where there is no other."""
        name = self.rest or self.soap
        assert name is not None
        return name

    @property
    def soap_type(self) -> str:
        """The attrType in a reply; a formula shows as what it computes."""
        return "string" if self.data_type == "formula" else self.data_type

    def described(self) -> dict[str, Any]:
        """The entry of `describe.json` (protocol section 3.3)."""
        entry: dict[str, Any] = {"id": self.id, "displayName": self.display_name, "dataType": self.data_type}
        if self.length is not None:
            entry["length"] = self.length
        if self.rest is not None:
            entry["rest"] = {"name": self.rest, "readOnly": self.read_only}
        if self.soap is not None:
            entry["soap"] = {"name": self.soap, "readOnly": self.read_only}
        return entry

    def normalised(self, cell: str) -> str:
        """The text a lead keeps for a non-blank cell. Raises `BadValueError` with the reason when it does not fit."""
        value = _NORMALISERS.get(self.data_type, str)(self._clean(cell))
        if value is None:
            raise BadValueError(f"Invalid value for field '{self.key}' of type {self.data_type}")
        if self.length is not None and len(value) > self.length:
            raise BadValueError(f"Value for field '{self.key}' is longer than {self.length} characters")
        return value

    @staticmethod
    def _clean(cell: str) -> str:
        # What XML cannot carry could never be read back over SOAP.
        return cell.translate(_CONTROL) if not cell.isprintable() else cell


def is_email_address(text: str) -> bool:
    """Whether Marketo would take this for an address that can receive mail; if not, the row gets a warning."""
    return _EMAIL.fullmatch(text) is not None


def datetime_text(moment: datetime) -> str:
    """W3C date-time with offset, to the second."""
    return moment.astimezone(ZONE).isoformat(timespec="seconds")


def utc_text(text: str) -> str:
    """A kept datetime as REST shows it: ISO in UTC with a Z. What is none (of a field retyped since) stays as it is."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError):
        return text


def _integer(cell: str) -> str | None:
    return str(int(cell)) if _INTEGER.fullmatch(cell.strip()) else None


def _decimal(cell: str) -> str | None:
    return cell.strip() if _DECIMAL.fullmatch(cell.strip()) else None


def _boolean(cell: str) -> str | None:
    return _BOOLEANS.get(cell.strip().lower())


def _date(cell: str) -> str | None:
    try:
        return date.fromisoformat(cell.strip()).isoformat() if _DATE.fullmatch(cell.strip()) else None
    except ValueError:
        return None


def _datetime(cell: str) -> str | None:
    try:
        moment = datetime.fromisoformat(cell.strip())
        return datetime_text(moment if moment.tzinfo else moment.replace(tzinfo=ZONE))
    except (ValueError, OverflowError):
        return None


def _email(cell: str) -> str | None:
    if not cell.isascii():
        raise BadValueError("Email address has characters outside ASCII")
    return cell.strip()


_NORMALISERS: dict[str, Callable[[str], str | None]] = {
    "integer": _integer,
    "score": _integer,
    "float": _decimal,
    "currency": _decimal,
    "percent": _decimal,
    "boolean": _boolean,
    "date": _date,
    "datetime": _datetime,
    "email": _email,
}

CATALOGUE: tuple[Field, ...] = (
    Field(1, "Id", "integer", "id", "Id", read_only=True),
    Field(2, "Company Name", "string", "company", "Company", 255, company=True),
    Field(3, "Email Address", "email", "email", "Email", 255),
    Field(4, "First Name", "string", "firstName", "FirstName", 255),
    Field(5, "Last Name", "string", "lastName", "LastName", 255),
    Field(6, "Job Title", "string", "title", "Title", 255),
    Field(7, "Phone Number", "phone", "phone", "Phone", 255),
    Field(8, "Website", "url", "website", "Website", 255, company=True),
    Field(9, "Country", "string", "country", "Country", 255),
    Field(10, "Lead Score", "integer", "leadScore", "LeadScore"),
    Field(11, "Unsubscribed", "boolean", "unsubscribed", "Unsubscribed"),
    Field(12, "Date of Birth", "date", "dateOfBirth", "DateofBirth"),
    Field(13, "Date of purchase", "date", "dateOfPurchase", "Date_of_purchase"),
    Field(14, "Last Webinar At", "datetime", "lastWebinarAt", "Last_Webinar_At"),
    Field(15, "Lifetime Value", "currency", "lifetimeValue", "Lifetime_Value"),
    Field(16, "Account Number", "integer", "accountNumber", "Account_Number"),
    Field(17, "Notes", "text", "notes", "Notes", 30_000),
    Field(18, "Customer Number", "string", "customerNumber", "Customer_Number", 64),
    Field(19, "Member Level", "string", "memberLevel", None, 64),
    Field(20, "Legacy Segment", "string", None, "Legacy_Segment", 64),
    Field(21, "Lead Rating", "formula", "leadRating", "Lead_Rating", read_only=True),
)
BY_KEY: dict[str, Field] = {each.key: each for each in CATALOGUE}
BY_REST: dict[str, Field] = {each.rest: each for each in CATALOGUE if each.rest}
BY_SOAP: dict[str, Field] = {each.soap: each for each in CATALOGUE if each.soap}
