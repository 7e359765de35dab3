"""The moving lead database. Nothing runs in the background: `move_to` brings it up to a moment when somebody looks."""

import math
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from syncd.simulator.catalogue import Catalogue
from syncd.simulator.clock import seeded
from syncd.simulator.fields import Field
from syncd.simulator.index import UpdateIndex, UpdateKey
from syncd.simulator.people import invent, stir
from syncd.simulator.settings import SimulatorSettings

_FIRST_LIST_ID = 1_001
_ID = re.compile(r"\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,100}", re.ASCII)
_DEFAULT_FIELDS = Catalogue()


@dataclass(slots=True)
class Lead:
    """A person record. `values` holds text by REST name (SOAP name where there is no other), without empty ones."""

    id: int
    values: dict[str, str]
    updated: int
    catalogue: Catalogue = field(default=_DEFAULT_FIELDS, compare=False, repr=False)
    """The fields of the instance it lives in; `values` may hold more: those of fields that are gone."""

    @property
    def email(self) -> str | None:
        return self.values.get("email")

    @property
    def updated_at(self) -> datetime:
        return datetime.fromtimestamp(self.updated, UTC)

    def soap_values(self) -> dict[str, str]:
        """The values by SOAP name; those that SOAP does not know are left out."""
        return {name: self.values[field.key] for name, field in self.catalogue.by_soap.items() if field.key in self.values}


@dataclass(slots=True)
class StaticList:
    """A named static list; the members' ids are kept sorted."""

    id: int
    name: str
    members: list[int] = field(default_factory=list)

    def add(self, lead_ids: Iterable[int]) -> None:
        known = set(self.members)
        for lead_id in lead_ids:
            if lead_id not in known:
                known.add(lead_id)
                insort(self.members, lead_id)

    def remove(self, lead_ids: Iterable[int]) -> None:
        gone = set(lead_ids)
        self.members = [member for member in self.members if member not in gone]

    def page(self, after: int, size: int) -> tuple[list[int], int]:
        """The next members with an id above `after`, and how many are left beyond them."""
        start = bisect_right(self.members, after)
        page = self.members[start : start + size]
        return page, len(self.members) - start - len(page)


class World:
    """All leads and static lists of the simulated instance, as of the moment last moved to (unix seconds)."""

    def __init__(self, settings: SimulatorSettings, now: float) -> None:
        self._now = now
        self.catalogue = Catalogue()
        self._leads: dict[int, Lead] = {}
        self._ids_by_email: dict[str, list[int]] = {}
        self._next_id = settings.first_lead_id
        self._index = UpdateIndex()
        self.lists: dict[int, StaticList] = {}
        self._chance = seeded(settings.seed, "movement")
        self._updates, self._creations = settings.movement.updates_per_second, settings.movement.creations_per_second
        self._generate(settings)
        self._next_event = self._after(now)

    def __len__(self) -> int:
        return len(self._leads)

    def __iter__(self) -> Iterator[Lead]:
        """The leads in the order of their ids."""
        return iter(self._leads.values())

    def get(self, lead_id: int | str) -> Lead | None:
        """The lead with this id; a text that is no id (a 64-bit integer) finds none."""
        if isinstance(lead_id, int):
            return self._leads.get(lead_id)
        return self._leads.get(int(lead_id)) if _ID.fullmatch(lead_id) else None

    def truth(self, fields: Iterable[str] | None = None) -> Iterator[tuple[int, str | None, dict[str, str]]]:
        """Each lead as (id, email, values), in id order, as a faithful mirror fed over SOAP must hold it.

        `fields` are the SOAP names asked for (all by default). Values are the very texts SOAP answers with, by REST name (SOAP
        name where there is no other); empty ones are absent; id and email stand outside, as they do in a `leadRecord`. Raises
        KeyError for a name that SOAP does not know, or no longer.
        """
        return self._values_of(self.catalogue.by_soap, fields)

    def rest_truth(self, fields: Iterable[str] | None = None) -> Iterator[tuple[int, str | None, dict[str, str]]]:
        """Each lead as (id, email, values), in id order, as a mirror fed over REST must hold it but for how a value is written.

        `fields` are the REST names asked for (all by default). Values are the texts the world keeps, by REST name; empty ones are
        absent; id and email stand outside. Numbers, truths and dates are the same text everywhere (a number that JSON cannot write,
        such as `+1` or `.5`, comes from leads.json as `1` and `0.5`). A datetime is kept with the instance's offset and shown in UTC:
        compare moments. An extract writes an empty value as `null`: a lead whose text is "null" must be compared as empty there, not
        over leads.json. Raises KeyError for a name that REST does not know, or no longer.
        """
        return self._values_of(self.catalogue.by_rest, fields)

    def _values_of(self, known: Mapping[str, Field], names: Iterable[str] | None) -> Iterator[tuple[int, str | None, dict[str, str]]]:
        wanted = known.values() if names is None else [known[name] for name in names]
        keys = [each.key for each in wanted if each.key not in ("id", "email")]
        for lead in self:
            yield lead.id, lead.email, {key: lead.values[key] for key in keys if key in lead.values}

    def by_email(self, email: str) -> list[Lead]:
        """Every lead with this address, whatever its case, in id order."""
        return [self._leads[lead_id] for lead_id in self._ids_by_email.get(email.strip().lower(), ())]

    def window(self, oldest: int, latest: int, after: UpdateKey | None, size: int) -> tuple[list[Lead], int]:
        """A page of the leads updated in [oldest, latest] (unix seconds), and how many are left."""
        keys, left = self._index.page(oldest, latest, after, size)
        return [self._leads[lead_id] for _, lead_id in keys], left

    def list_named(self, name: str) -> StaticList | None:
        return next((each for each in self.lists.values() if each.name == name), None)

    def create_list(self, name: str, ids: Iterable[int] = ()) -> StaticList:
        """A new static list; its id is the next one after 1000. Raises ValueError when the name is taken, KeyError for an unknown lead."""
        if self.list_named(name) is not None:
            raise ValueError(f"there is a list '{name}'")
        made = StaticList(_FIRST_LIST_ID + len(self.lists), name)
        made.add(self._living(ids))
        self.lists[made.id] = made
        return made

    def add_members(self, list_id: int, ids: Iterable[int]) -> None:
        """Put leads on a list; those on it stay. No lead's update time moves. Raises KeyError for an unknown list or lead."""
        self.lists[list_id].add(self._living(ids))

    def remove_members(self, list_id: int, ids: Iterable[int]) -> None:
        """Take leads off a list; those not on it are passed over. No lead's update time moves. Raises KeyError for an unknown list."""
        self.lists[list_id].remove(ids)

    def create(self, values: Mapping[str, str]) -> Lead:
        """A new lead as of now. `values` by REST name (SOAP name where there is no other)."""
        lead = self.insert(values, self._now)
        self.touch([lead], self._now, [])
        return lead

    def update(self, lead_id: int, values: Mapping[str, str]) -> Lead:
        """Set (or, with '', clear) some values of a lead as of now. Raises KeyError for an unknown id."""
        lead = self._leads[lead_id]
        self.write(lead, values)
        self.touch([lead], self._now)
        return lead

    def delete(self, lead_id: int) -> None:
        """Remove a lead from the database and from every list. Raises KeyError for an unknown id."""
        lead = self._leads.pop(lead_id)
        self._forget_email(lead)
        self._index.replace([(lead.updated, lead.id)], [])
        for each in self.lists.values():
            each.remove([lead_id])

    def insert(self, values: Mapping[str, str], now: float) -> Lead:
        """A new lead that stands in no window until it is touched."""
        lead = Lead(self._next_id, {}, int(now), self.catalogue)
        self._next_id += 1
        self._leads[lead.id] = lead
        self.write(lead, values)
        return lead

    def write(self, lead: Lead, values: Mapping[str, str]) -> None:
        """Set values without moving the lead's update time; '' clears."""
        unknown = [name for name in values if name not in self.catalogue.by_key]
        if unknown:
            raise KeyError(f"no such field: {', '.join(unknown)}")
        if "email" in values:
            self._forget_email(lead)
        for name, value in values.items():
            if value:
                lead.values[name] = value
            else:
                lead.values.pop(name, None)
        if values.get("email"):
            insort(self._ids_by_email.setdefault(values["email"].strip().lower(), []), lead.id)
        if "leadScore" in values or "leadRating" not in lead.values:
            score = lead.values.get("leadScore", "0")
            # Retyped, the score may be any text.
            lead.values["leadRating"] = "hot" if _NUMBER.fullmatch(score) and int(score) >= 80 else "cold"

    def still_there(self, values: Mapping[str, str]) -> dict[str, str]:
        """Those of the values whose fields are there: a field may go between a wish to set it and the deed."""
        return {name: value for name, value in values.items() if name in self.catalogue.by_key}

    def touch(self, leads: Iterable[Lead], now: float, known: Iterable[Lead] | None = None) -> None:
        """Move the update time of `leads` to now. `known` are those of them that stand in the index already (all by default)."""
        touched = list(leads)
        old = [(lead.updated, lead.id) for lead in (touched if known is None else known)]
        for lead in touched:
            lead.updated = int(now)
        self._index.replace(old, [(lead.updated, lead.id) for lead in touched])

    def move_to(self, now: float) -> None:
        """Let others update and create leads up to `now` (unix seconds); going back in time is ignored."""
        while self._next_event <= now:
            self._now = self._next_event
            if self._leads and self._chance.random() * (self._updates + self._creations) < self._updates:
                self._stir_one()
            else:
                self.create(self.still_there(invent(self._chance, self._next_id)))
            self._next_event = self._after(self._now)
        self._now = max(self._now, now)

    def _living(self, ids: Iterable[int]) -> list[int]:
        found = list(ids)
        unknown = [lead_id for lead_id in found if lead_id not in self._leads]
        if unknown:
            raise KeyError(f"no such lead: {', '.join(map(str, unknown))}")
        return found

    def _stir_one(self) -> None:
        # Ids may have holes after deletions: take the next one that lives.
        first = next(iter(self._leads))
        lead_id = self._chance.randrange(first, self._next_id)
        while lead_id not in self._leads:
            lead_id = lead_id + 1 if lead_id + 1 < self._next_id else first
        self.update(lead_id, self.still_there(stir(self._chance)))

    def _after(self, now: float) -> float:
        rate = self._updates + self._creations
        return now + self._chance.expovariate(rate) if rate > 0 else math.inf

    def _forget_email(self, lead: Lead) -> None:
        if lead.email:
            ids = self._ids_by_email[lead.email.strip().lower()]
            ids.remove(lead.id)
            if not ids:
                del self._ids_by_email[lead.email.strip().lower()]

    def _generate(self, settings: SimulatorSettings) -> None:
        chance = seeded(settings.seed, "leads")
        since = settings.updated_since.timestamp()
        burst_at = chance.uniform(since, self._now)
        for number in range(settings.leads):
            lead = self.insert(invent(chance, self._next_id), self._now)
            lead.updated = int(burst_at if number < settings.burst_leads else chance.uniform(since, self._now))
            if number % 500 == 499:
                # Emails are not unique: now and then two leads share one.
                self.write(lead, {"email": self._leads[lead.id - 1].email or ""})
        self._index = UpdateIndex((lead.updated, lead.id) for lead in self)
        for name, members in settings.static_lists:
            self.create_list(name, chance.sample(list(self._leads), min(members, len(self._leads))))
