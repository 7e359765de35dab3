"""The effect of an import job on the leads: insert or update by the lookup field, in the order of the rows."""

from dataclasses import dataclass, field

from syncd.simulator.importfile import ImportFile, Row, normalised_key
from syncd.simulator.world import Lead, World


@dataclass
class Outcome:
    """What became of a job's rows."""

    imported: int = 0
    created: int = 0
    updated: int = 0
    duplicates_created: int = 0
    failed: list[tuple[list[str], str]] = field(default_factory=list)
    warned: list[tuple[list[str], str]] = field(default_factory=list)


class Upsert:
    """One job's rows. Made when the job starts: keys that are new then are created, even if another job is quicker (duplicate leads)."""

    def __init__(self, world: World, file: ImportFile, lookup_field: str) -> None:
        self._world, self._file, self._lookup_field = world, file, lookup_field
        existing = self._leads_by_key()
        self._new_keys = set() if lookup_field == "id" else {key for key in file.keys if not self._matches(key, existing)}
        self._made: dict[str, Lead] = {}
        self._touched: dict[int, Lead] = {}

    def apply(self, share: float, now: float) -> tuple[Outcome, list[int]]:
        """Process the first `share` (0 to 1) of the rows at `now` (unix seconds): the outcome, and the ids of the leads imported."""
        outcome = Outcome()
        existing = self._leads_by_key()
        for row in self._file.rows[: round(len(self._file.rows) * share)]:
            failure = row.failure or self._write(row, existing, outcome, now)
            if failure is not None:
                outcome.failed.append((row.cells, failure))
                continue
            outcome.imported += 1
            if row.warning is not None:
                outcome.warned.append((row.cells, row.warning))
        made = {lead.id for lead in self._made.values()}
        self._world.touch(self._touched.values(), now, [lead for lead in self._touched.values() if lead.id not in made])
        return outcome, list(self._touched)

    def _write(self, row: Row, existing: dict[str, Lead], outcome: Outcome, now: float) -> str | None:
        lead = self._made.get(row.key) or self._matches(row.key, existing)
        if lead is None and self._lookup_field == "id":
            return f"Lead with id '{row.key}' not found"
        if row.key in self._new_keys and row.key not in self._made:
            outcome.duplicates_created += lead is not None
            lead = None
        if lead is None:
            lead = self._made[row.key] = self._world.insert(self._world.still_there(row.values), now)
            outcome.created += 1
        else:
            # The key found the lead: its own cell changes nothing, not even the case of an email.
            values = self._world.still_there(row.values)
            self._world.write(lead, {name: value for name, value in values.items() if name != self._lookup_field})
            outcome.updated += 1
        self._touched[lead.id] = lead
        return None

    def _matches(self, key: str, existing: dict[str, Lead]) -> Lead | None:
        if self._lookup_field == "id":
            return self._world.get(key)
        if self._lookup_field == "email":
            # Emails are not unique: the lead last updated is taken.
            return max(self._world.by_email(key), key=lambda lead: (lead.updated, -lead.id), default=None)
        return existing.get(key)

    def _leads_by_key(self) -> dict[str, Lead]:
        if self._lookup_field in ("id", "email"):
            return {}
        name = self._lookup_field
        return {normalised_key(name, lead.values[name]): lead for lead in self._world if name in lead.values}
