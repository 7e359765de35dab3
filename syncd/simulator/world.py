"""The moving lead database. Nothing runs in the background: `move_to` brings it up to a moment when somebody looks."""

import re
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from syncd.simulator.catalogue import Catalogue
from syncd.simulator.clock import seeded
from syncd.simulator.fields import Field
from syncd.simulator.index import UpdateIndex, UpdateKey
from syncd.simulator.lists import SmartList, StaticList
from syncd.simulator.log import ActivityLog
from syncd.simulator.movement import Mover
from syncd.simulator.people import invent
from syncd.simulator.settings import SimulatorSettings

_FIRST_LIST_ID = 1_001
_FIRST_SMART_LIST_ID = 2_001
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
    created: int = 0
    """The second of its birth, as `updated` that of its latest update."""

    @property
    def email(self) -> str | None:
        return self.values.get("email")

    @property
    def full_name(self) -> str:
        return " ".join(name for name in (self.values.get("firstName"), self.values.get("lastName")) if name)

    @property
    def updated_at(self) -> datetime:
        return datetime.fromtimestamp(self.updated, UTC)

    def soap_values(self) -> dict[str, str]:
        """The values by SOAP name; those that SOAP does not know are left out."""
        return {name: self.values[field.key] for name, field in self.catalogue.by_soap.items() if field.key in self.values}


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
        self.smart_lists: dict[int, SmartList[Lead]] = {}
        self._merges_are_deletions = settings.merges_are_deletions
        self._logging = False
        self.log = ActivityLog(settings.activities, settings.seed)
        self._generate(settings)
        self._logging = True
        self._mover = Mover(settings, now)

    def __len__(self) -> int:
        return len(self._leads)

    def __iter__(self) -> Iterator[Lead]:
        """The leads in the order of their ids."""
        return iter(self._leads.values())

    @property
    def next_id(self) -> int:
        """What the next new lead's id will be."""
        return self._next_id

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

    def create_smart_list(self, name: str, holds: Callable[[Lead], bool]) -> SmartList[Lead]:
        """A new smart list of the leads that `holds` is true for; ids count from 2001. Raises ValueError when the name is taken."""
        if self.smart_list_named(name) is not None:
            raise ValueError(f"there is a smart list '{name}'")
        made = SmartList(_FIRST_SMART_LIST_ID + len(self.smart_lists), name, holds)
        self.smart_lists[made.id] = made
        return made

    def smart_list_named(self, name: str) -> SmartList[Lead] | None:
        return next((each for each in self.smart_lists.values() if each.name == name), None)

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
        lead = self._remove(lead_id)
        self.log.deleted(lead_id, lead.full_name, self._now)

    def merge(self, winner_id: int, loser_ids: Iterable[int]) -> Lead:
        """Let leads go into another: it gets the values that it lacks from them, in their order, and they vanish, from lists too.

        Their places on lists do not go to the winner. Raises KeyError for an unknown id, ValueError where the winner is a loser too or
        there is no loser.
        """
        winner, losers = self._leads[winner_id], [self._leads[lead_id] for lead_id in dict.fromkeys(loser_ids)]
        if not losers or winner in losers:
            raise ValueError("a merge needs losers beside the winner")
        lacking = dict[str, str]()
        for loser in losers:
            lacking |= {key: value for key, value in loser.values.items() if key not in winner.values and key not in lacking}
            self._remove(loser.id)
            if self._merges_are_deletions:
                self.log.deleted(loser.id, loser.full_name, self._now)
        self.write(winner, self.still_there(lacking))
        self.touch([winner], self._now)
        self.log.merged(winner.id, winner.full_name, [loser.id for loser in losers], self._now)
        return winner

    def _remove(self, lead_id: int) -> Lead:
        lead = self._leads.pop(lead_id)
        self.log.forget(lead_id)
        self._forget_email(lead)
        self._index.replace([(lead.updated, lead.id)], [])
        for each in self.lists.values():
            each.remove([lead_id])
        return lead

    def insert(self, values: Mapping[str, str], now: float) -> Lead:
        """A new lead that stands in no window until it is touched."""
        lead = Lead(self._next_id, {}, int(now), self.catalogue, created=int(now))
        self._next_id += 1
        self._leads[lead.id] = lead
        if self._logging:
            self.log.born(lead.id)
        self.write(lead, values)
        return lead

    def write(self, lead: Lead, values: Mapping[str, str]) -> None:
        """Set values without moving the lead's update time; '' clears. What changed is logged when the lead is touched next."""
        unknown = [name for name in values if name not in self.catalogue.by_key]
        if unknown:
            raise KeyError(f"no such field: {', '.join(unknown)}")
        if "email" in values:
            self._forget_email(lead)
        for name, value in values.items():
            if self._logging and (old := lead.values.get(name)) != (value or None):
                self.log.wrote(lead.id, name, old, value or None)
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
            self.log.touched(lead.id, lead.updated, self._now)
        self._index.replace(old, [(lead.updated, lead.id) for lead in touched])

    def move_to(self, now: float) -> None:
        """Let others update, create, delete and merge leads up to `now` (unix seconds); going back in time is ignored."""
        while (moment := self._mover.next) <= now:
            self._now = moment
            self._mover.step(self)
        self._now = max(self._now, now)

    def _living(self, ids: Iterable[int]) -> list[int]:
        found = list(ids)
        unknown = [lead_id for lead_id in found if lead_id not in self._leads]
        if unknown:
            raise KeyError(f"no such lead: {', '.join(map(str, unknown))}")
        return found

    def _forget_email(self, lead: Lead) -> None:
        if lead.email:
            ids = self._ids_by_email[lead.email.strip().lower()]
            ids.remove(lead.id)
            if not ids:
                del self._ids_by_email[lead.email.strip().lower()]

    def _generate(self, settings: SimulatorSettings) -> None:
        chance, births = seeded(settings.seed, "leads"), seeded(settings.seed, "births")
        since = settings.updated_since.timestamp()
        burst_at = chance.uniform(since, self._now)
        for number in range(settings.leads):
            lead = self.insert(invent(chance, self._next_id), self._now)
            lead.updated = int(burst_at if number < settings.burst_leads else chance.uniform(since, self._now))
            lead.created = int(births.uniform(min(since, lead.updated), lead.updated))
            if number % 500 == 499:
                # Emails are not unique: now and then two leads share one.
                self.write(lead, {"email": self._leads[lead.id - 1].email or ""})
        self._index = UpdateIndex((lead.updated, lead.id) for lead in self)
        for name, members in settings.static_lists:
            self.create_list(name, chance.sample(list(self._leads), min(members, len(self._leads))))
