"""The pages that every side of `make bench-pull` is given: replies of the simulator's own rendering, held in memory."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from syncd.simulator import Lead, soap
from syncd.simulator.people import invent

ID_STEP = 7  # ids of a real instance have gaps
POSITION = "8UJZetaMb1V6uUZl+L7DcPP2jG+PMmtpF{:08}"


def _text(chance: random.Random) -> str:
    return f"{chance.choice(('north', 'Überseestraße', 'R&D', 'gold'))} {chance.randrange(1_000_000)}"


def _date(chance: random.Random) -> str:
    return f"20{chance.randrange(10, 26)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"


# The simulated instance has 18 fields beside id and email: wide leads get these on top, of the types that instances have most of.
CUSTOM: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "Custom_Text": ("string", _text),
    "Custom_Region": ("string", _text),
    "Custom_Count": ("integer", lambda chance: str(chance.randrange(100_000))),
    "Custom_Reason": ("string", _text),
    "Custom_Seen_At": ("datetime", lambda chance: f"{_date(chance)}T09:15:{chance.randrange(10, 60)}-06:00"),
    "Custom_Amount": ("currency", lambda chance: f"{chance.randrange(10_000_000) / 100:.2f}"),
    "Custom_Segment": ("string", _text),
    "Custom_Day": ("date", _date),
    "Custom_Flag": ("boolean", lambda chance: chance.choice(("true", "false"))),
    "Custom_Link": ("url", lambda chance: f"https://www.example.com/campaigns/{chance.randrange(1_000_000)}?source=mail&ok=1"),
}
WIDE = {f"{name}_{number}": each for number in range(4) for name, each in CUSTOM.items()}
NARROW_FIELDS = ("Company", "Country", "Customer_Number", "FirstName", "LastName", "LeadScore", "Lead_Rating", "Notes", "Phone", "Title",
                 "Unsubscribed", "Website", "Last_Webinar_At")  # fmt: skip
WIDE_FIELDS = (*soap._ATTRIBUTES, *WIDE)

for _name, (_kind, _) in WIDE.items():
    soap._ATTRIBUTES[_name] = (_name, f"<attribute><attrName>{_name}</attrName><attrType>{_kind}</attrType><attrValue>")


@dataclass(frozen=True, slots=True)
class Page:
    """One reply: the position it is asked for by ('' for the first), its body, and how many leads it holds."""

    position: str
    body: bytes
    leads: int


def invented(first: int, count: int, *, wide: bool) -> list[Lead]:
    """`count` leads from the number `first` on, with about 50 attributes that hold a value, or 10."""
    return [Lead(number * ID_STEP, _values(number * ID_STEP, wide), 0) for number in range(first, first + count)]


def changed(leads: Sequence[Lead]) -> list[Lead]:
    """The same leads, each with another score."""
    return [Lead(lead.id, lead.values | {"leadScore": str(int(lead.values["leadScore"]) + 1000)}, 0) for lead in leads]


def pages_of(leads: list[Lead], size: int, *, wide: bool) -> list[Page]:
    """The replies to a walk over `leads`, `size` at a time."""
    fields = WIDE_FIELDS if wide else NARROW_FIELDS
    pages = []
    for start in range(0, len(leads), size):
        here, left = leads[start : start + size], max(0, len(leads) - start - size)
        position = POSITION.format(here[0].id) if start else ""
        following = POSITION.format(leads[start + size].id) if left else ""
        pages.append(Page(position, soap._rendered(here, left, following, fields).encode(), len(here)))
    return pages


def shares_of(leads: list[Lead], size: int, shares: int, *, wide: bool) -> list[list[Page]]:
    """The replies to walks over equal shares of `leads`, one window each."""
    many = len(leads) // shares
    return [pages_of(leads[start : start + many], size, wide=wide) for start in range(0, len(leads), many)]


def _values(lead_id: int, wide: bool) -> dict[str, str]:
    chance = random.Random(lead_id)
    values = invent(chance, lead_id) | {"leadRating": "cold"}
    return values | {name: value(chance) for name, (_, value) in WIDE.items()} if wide else values
