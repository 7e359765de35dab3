"""Invented people: the values of generated leads. All addresses lie in domains reserved for examples."""

import random
from datetime import UTC, date, datetime, timedelta

from syncd.simulator.fields import datetime_text

_FIRST = ("Ada", "Benji", "Chloé", "Dmitri", "Eşref", "Fatima", "Grace", "Hiroshi", "Ingrid", "José", "Kwame", "Lena", "Zoë")
_LAST = ("Almeida", "Brontë", "Chen", "D'Arcy", "Eriksson", "Fischer", "García", "Haddad", "Ito", "Nordstrom", "O'Neill", "Wójcik")
_COMPANY = ('Bolt & "Nut" Co', "Example, Inc.", "Grün GmbH", "House Targaryen", "Marketo Test", "Ümlaut AG", "<Brackets> Ltd", "東京商事")
_TITLE = ("CEO", "Buyer", "Head of R&D", "Engineer", "VP, Sales", "null", "")
_COUNTRY = ("Brazil", "Côte d'Ivoire", "Germany", "Japan", "Türkiye", "United States", "")
_NOTES = (
    'She said "call me"',
    "two\nlines",
    "emoji 🚀 inside",
    "tab\tand; semicolon, comma",
    " spaces around ",
    "a < b & c > d",
    "",
    "",
    "",
)
_DOMAIN = ("example.com", "example.org", "example.net")
_WITHOUT_EMAIL = 0.01
_BEGINNING = datetime(2016, 1, 1, tzinfo=UTC)


def invent(chance: random.Random, lead_id: int) -> dict[str, str]:
    """Field values of a new lead by REST name (SOAP name where there is no other); what is empty is absent."""
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    domain = chance.choice(_DOMAIN)
    values = {
        "firstName": first,
        "lastName": last,
        "company": chance.choice(_COMPANY),
        "title": chance.choice(_TITLE),
        "country": chance.choice(_COUNTRY),
        "notes": chance.choice(_NOTES),
        "phone": f"+1 555 {chance.randrange(10_000_000):07}",
        "website": f"https://www.{domain}/?lead={lead_id}&ok=1" if chance.random() < 0.5 else "",
        "leadScore": str(chance.randrange(-5, 120)),
        "unsubscribed": "true" if chance.random() < 0.1 else "false",
        "dateOfBirth": (date(1940, 1, 1) + timedelta(days=chance.randrange(25_000))).isoformat() if chance.random() < 0.6 else "",
        "dateOfPurchase": (date(2012, 1, 1) + timedelta(days=chance.randrange(5_000))).isoformat() if chance.random() < 0.3 else "",
        "lastWebinarAt": datetime_text(_BEGINNING + timedelta(seconds=chance.randrange(300_000_000))) if chance.random() < 0.4 else "",
        "lifetimeValue": f"{chance.randrange(10_000_000) / 100:.2f}" if chance.random() < 0.5 else "",
        "accountNumber": str(10**22 + lead_id * 7_919),
        "customerNumber": f"C-{lead_id:08}",
        "memberLevel": chance.choice(("gold", "silver", "")),
        "Legacy_Segment": chance.choice(("A1", "B2", "")),
    }
    if chance.random() >= _WITHOUT_EMAIL:
        local = "".join(letter for letter in f"{first}.{last}" if letter.isascii() and (letter.isalnum() or letter == "."))
        values["email"] = f"{local}.{lead_id}@{domain}"
    return {name: value for name, value in values.items() if value}


def stir(chance: random.Random) -> dict[str, str]:
    """What an update by someone else sets; an empty text clears."""
    changes = {"leadScore": str(chance.randrange(-5, 200))}
    if chance.random() < 0.3:
        changes["title"] = chance.choice(_TITLE)
    if chance.random() < 0.3:
        changes["notes"] = chance.choice(_NOTES)
    return changes
