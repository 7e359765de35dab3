"""What must hold at the end of a rehearsal: each check with its verdict and the figures behind it."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from syncd.core.settings import Instance
from syncd.demo.compare import SHOWN, Comparison, canonical, compare
from syncd.simulator import Report, Simulator, World
from syncd.store.leases import Connection

MARKETO_SLOTS, MARKETO_RUNNING = 10, 2  # protocol section 4

OUTCOMES = "SELECT state, count(*) AS changes FROM syncd.change WHERE instance = $1 GROUP BY state ORDER BY changes DESC"
IDS = "SELECT count(*) AS rows, count(DISTINCT id) AS ids FROM syncd.change WHERE instance = $1"
REASONS = """
SELECT state, regexp_replace(reason, '(change|by) [0-9]+', '\\1 …') AS reason, count(*) AS changes
  FROM syncd.change WHERE instance = $1 AND state IN ('rejected', 'warned', 'unverified', 'parked', 'cancelled')
 GROUP BY 1, 2 ORDER BY changes DESC, reason
"""
# One row per key and file: a job's rows of an outcome are the distinct keys of the changes that it ended so.
JOBS_OUT_OF_STEP = """
WITH told AS (
    SELECT import_job_id AS id, count(DISTINCT lower(btrim(key, E' \\t\\r\\n'))) FILTER (WHERE state = 'applied') AS applied,
           count(DISTINCT lower(btrim(key, E' \\t\\r\\n'))) FILTER (WHERE state = 'warned') AS warned,
           count(DISTINCT lower(btrim(key, E' \\t\\r\\n'))) FILTER (WHERE state = 'rejected') AS rejected,
           count(DISTINCT lower(btrim(key, E' \\t\\r\\n'))) FILTER (WHERE state = 'unverified') AS unverified
      FROM syncd.change WHERE instance = $1 AND settled_at IS NOT NULL AND import_job_id IS NOT NULL GROUP BY 1
)
SELECT j.id FROM syncd.import_job j LEFT JOIN told t USING (id)
 WHERE j.instance = $1 AND j.state = 'settled'
   AND (j.applied + j.warned + j.rejected + j.unverified + j.retried <> j.row_count
        OR (j.applied, j.warned, j.rejected, j.unverified)
           <> (coalesce(t.applied, 0), coalesce(t.warned, 0), coalesce(t.rejected, 0), coalesce(t.unverified, 0)))
 ORDER BY j.id
"""
JOBS = """
SELECT count(*) FILTER (WHERE state = 'settled') AS settled, count(*) AS tried, coalesce(sum(applied + warned), 0)::bigint AS imported,
       coalesce(sum(rejected), 0)::bigint AS rejected
  FROM syncd.import_job WHERE instance = $1
"""
MARKED = "SELECT lead_id, merged_into FROM syncd.lead WHERE instance = $1 AND deleted_at IS NOT NULL"
# A noop says what Marketo has as an applied change does: it may be the same word once more, after a call that got no answer.
IN_ORDER = """
SELECT lower(btrim(key, E' \\t\\r\\n')) AS key, fields::text AS fields, state FROM syncd.change
 WHERE instance = $1 AND state IN ('applied', 'warned', 'noop', 'unverified') ORDER BY 1, id
"""


Expected = Mapping[str, set[str | None]]
Lost = Mapping[int, int | None]
"""Leads that are gone, and which lead each was merged into."""


@dataclass(frozen=True)
class Check:
    name: str
    holds: bool
    detail: str


@dataclass(frozen=True)
class Proof:
    comparison: Comparison
    outcomes: Mapping[str, int]
    reasons: Sequence[tuple[str, str, int]]
    """State, reason, changes; the most frequent first."""
    report: Report
    checks: Sequence[Check]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


async def prove(
    connection: Connection, simulator: Simulator, instance: Instance, enqueued: int, faultless: bool, lost: Lost | None = None
) -> Proof:
    """Check everything, once both sides are at rest.

    `enqueued` is what the application says it has committed, `lost` all that has gone, where somebody knows.
    """
    name, report, pull = instance.name, simulator.report(), instance.pulls[0]
    if pull.source == "soap":
        comparison = await compare(simulator.world.truth(pull.fields), connection, name)
    else:
        comparison = await compare(simulator.world.rest_truth(pull.fields), connection, name, nothing=("null",))
    outcomes = {row["state"]: row["changes"] for row in await connection.fetch(OUTCOMES, name)}
    reasons = [(row["state"], row["reason"] or "", row["changes"]) for row in await connection.fetch(REASONS, name)]
    checks = [
        _sides_agree(comparison),
        await _accounted_for(connection, name, enqueued, outcomes),
        await last_value_wins(connection, name, simulator.world),
        await _jobs_add_up(connection, name, report, faultless),
        *([] if lost is None else [await losses_marked(connection, name, lost)]),
        *_within_limits(instance, report),
        *([] if pull.source == "soap" else _extracts(instance, report)),
        *([_followed(report)] if pull.source == "auto" else []),
    ]
    return Proof(comparison, outcomes, reasons, report, checks)


def _sides_agree(comparison: Comparison) -> Check:
    detail = f"{comparison.marketo.records:,} records, every field"
    if not comparison.agrees:
        more = comparison.differing - len(comparison.differences)
        detail = "; ".join(comparison.differences) + (f"; and {more:,} more" if more else "")
    return Check("both sides agree", comparison.agrees, detail)


async def _accounted_for(connection: Connection, instance: str, enqueued: int, outcomes: Mapping[str, int]) -> Check:
    counted = await connection.fetchrow(IDS, instance)
    assert counted is not None
    unsettled = sum(outcomes.get(state, 0) for state in ("pending", "in_chunk", "in_batch", "held"))
    holds = counted["rows"] == counted["ids"] == enqueued and not unsettled
    detail = f"{enqueued:,} enqueued, {counted['rows']:,} in the view syncd.change"
    if counted["rows"] != counted["ids"]:
        detail += f" with {counted['ids']:,} different ids"
    return Check("every change accounted for", holds, detail + (f", {unsettled:,} not settled" if unsettled else ""))


async def losses_marked(connection: Connection, instance: str, lost: Lost) -> Check:
    """What is marked has gone, and where to; that nothing else is left unmarked shows the comparison."""
    marked = {row["lead_id"]: row["merged_into"] for row in await connection.fetch(MARKED, instance)}
    merged = sum(winner is not None for winner in lost.values())
    wrong = [lead_id for lead_id, winner in marked.items() if lead_id not in lost or lost[lead_id] != winner]
    detail = f"{len(lost) - merged:,} deleted, {merged:,} merged; {len(marked):,} of them had been pulled"
    return Check("leads that are gone", not wrong, detail + (f"; marked wrongly: {wrong[:SHOWN]}" if wrong else ""))


async def last_value_wins(connection: Connection, instance: str, world: World) -> Check:
    """Replay each key's changes in the order of their ids: Marketo must hold what that comes to."""
    keys, wrong, shown = 0, 0, list[str]()
    async with connection.transaction():
        async for key, expected in _replayed(connection, instance):
            keys += 1
            leads = world.by_email(key)
            if len(leads) != 1:
                off = [f"{len(leads)} leads"]
            else:
                off = sorted(name for name, values in expected.items() if _held(leads[0].values, name) not in values)
            if expected and off:
                wrong += 1
                shown.append(f"lead {leads[0].id if leads else '(none)'}: {', '.join(off)}")
    more = f", {wrong:,} hold something else: {'; '.join(shown[:SHOWN])}" if wrong else ""
    return Check("the last value of each key won", not wrong, f"{keys:,} keys replayed{more}")


async def _replayed(connection: Connection, instance: str) -> AsyncIterator[tuple[str, Expected]]:
    """Each key with the values that its fields may hold now; without the fields of which nobody can tell."""
    expected: dict[str, set[str | None]] = {}
    current: str | None = None
    async for row in connection.cursor(IN_ORDER, instance, prefetch=1000):
        if current is not None and row["key"] != current:
            yield current, expected
            expected = {}
        current = row["key"]
        for name, value in json.loads(row["fields"], parse_int=Decimal, parse_float=Decimal).items():
            if row["state"] != "unverified":
                expected[name] = {_sent(name, value)}
            elif name in expected:
                # Either this one or what stood there before; after nothing known, it may be anything.
                expected[name].add(_sent(name, value))
    if current is not None:
        yield current, expected


def _sent(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else format(value, "f") if isinstance(value, Decimal) else json.dumps(value)
    return canonical(name, text)


def _held(values: Mapping[str, str], name: str) -> str | None:
    return canonical(name, values[name]) if name in values else None


async def _jobs_add_up(connection: Connection, instance: str, report: Report, faultless: bool) -> Check:
    out_of_step = [row["id"] for row in await connection.fetch(JOBS_OUT_OF_STEP, instance)]
    jobs = await connection.fetchrow(JOBS, instance)
    assert jobs is not None
    detail = f"{jobs['settled']:,} import jobs settled, {jobs['tried']:,} attempts"
    holds = not out_of_step
    if out_of_step:
        detail += f"; the sums of jobs {out_of_step[:SHOWN]} differ from their changes"
    # A job whose reply was lost ran in Marketo without being settled here: only without faults must the rows be the same.
    ours, theirs = (jobs["imported"], jobs["rejected"]), (report.rows["imported"], report.rows["failed"])
    if faultless and ours != theirs:
        holds = False
        detail += f"; imported and refused rows: {ours} here, {theirs} in Marketo"
    return Check("the sums of each job", holds, detail)


def _within_limits(instance: Instance, report: Report) -> list[Check]:
    calls, body = instance.limits.calls_per_20s, max(push.max_body_bytes for push in instance.pushes)
    broken: dict[str, Any] = dict(report.violations)
    return [
        _at_most(
            "import slots held", report.most_slots_held_ours, instance.limits.import_slots, f"{report.most_slots_held} with strangers'"
        ),
        _at_most("imports running", report.most_running_ours, instance.limits.import_running, f"{report.most_running} with strangers'"),
        _at_most("largest import body", report.largest_import, body, "bytes"),
        _at_most("calls in the busiest 20 s", report.busiest_20s, calls, f"{report.calls_counted:,} calls in all"),
        Check("no violation of the protocol", not broken, ", ".join(f"{kind}: {count:,}" for kind, count in broken.items()) or "none"),
        Check("no key in two live jobs", not report.duplicate_live_key_count, f"{report.duplicate_live_key_count:,}"),
        Check("no duplicate leads", not report.duplicate_leads_created, f"{report.duplicate_leads_created:,}"),
    ]


def _extracts(instance: Instance, report: Report) -> list[Check]:
    limits, largest = instance.limits, max(report.export_bytes.values(), default=0)
    too_soon = report.violations.get("export polled within a minute", 0)
    looks = f"{sum(report.export_polls.values()):,} looks at {report.exports_enqueued:,} exports"
    return [
        _at_most("export slots held", report.most_exports_held_ours, limits.export_slots, f"{report.most_exports_held} with strangers'"),
        _at_most(
            "exports running", report.most_exports_running_ours, limits.export_running, f"{report.most_exports_running} with strangers'"
        ),
        Check("no export looked at twice a minute", not too_soon, looks),
        _at_most("bytes of extracts in a day", largest, limits.export_daily_bytes, f"{report.downloaded_bytes:,} downloaded"),
    ]


def _followed(report: Report) -> Check:
    detail = f"{report.activities_served:,} activities read, and {report.leads_read:,} leads by their ids"
    return Check("news by the activity log", report.leads_read > 0, detail)


def _at_most(name: str, most: int, limit: int, detail: str) -> Check:
    return Check(name, most <= limit, f"{most:,} of at most {limit:,}; {detail}")
