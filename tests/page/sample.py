"""A board with one of each thing that the page can show."""

from datetime import UTC, datetime, timedelta

from syncd.core.gauges import Strangers
from syncd.core.settings import Limits
from syncd.ops.recent import Trouble
from syncd.page.render import Look
from syncd.store.batches import Synced
from syncd.store.board import InstanceBoard, Quota, Slot, Stretch
from syncd.store.deadletters import ByReason, Summary
from syncd.store.holding import Hold
from syncd.store.jobs import JobStatus
from syncd.store.pauses import Pause
from syncd.store.pull_status import BackfillStatus, PullStatus
from syncd.store.status import BytesStatus, CensusStatus, ExportStatus, InstanceStatus, PushStatus
from syncd.store.usage import ApiUser

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def job(state: str, number: int = 7, submitted: datetime = NOW - HOUR) -> JobStatus:
    done = submitted + HOUR / 2 if state == "settled" else None
    return JobStatus(
        id=number,
        push="contacts",
        batch_id=1000 + number,
        state=state,
        row_count=100,
        byte_count=5_000,
        attempt=1,
        submitted_at=submitted,
        started_at=submitted,
        finished_at=done,
        message="said & done",
        chunk_id=3,
        polls=4,
        looked_at=NOW,
        settled_at=done,
        processed=100,
        failed=1,
        warnings=2,
        applied=90,
        warned=3,
        rejected=4,
        unverified=2,
        retried=1,
    )


def pull(name: str = "people", state: str = "running", message: str | None = None) -> PullStatus:
    backfill = BackfillStatus(1, NOW, NOW, 9, 4)
    return PullStatus(
        name,
        state,
        message,
        NOW - HOUR,
        3,
        12,
        40,
        70,
        backfill=backfill,
        source="auto",
        route="extracts",
        leads_due=5,
        due_since=NOW - HOUR,
    )


def instance(name: str = "acme", silent_for: float | None = 1.0, pull_state: str = "running", message: str | None = None) -> InstanceBoard:
    found = InstanceStatus(
        name=name,
        holder="pid 7 on host",
        silent_for=silent_for,
        leads=1_234_567,
        calls_today={"rest": 1_200, "soap": 34},
        api_users=[ApiUser("crm@example.com", 5_000, NOW)],
        extract_bytes=BytesStatus(1_000_000, 5, 500_000_000, 498_999_995),
        census=CensusStatus(NOW - HOUR, NOW, 1_234_600, 36, 3, None),
        pulls=[pull(state=pull_state, message=message), pull("guests")],
        exports=[ExportStatus(1, "people", 0, 2, "queued", "x1", None, None, NOW, None)],
        pushes=[PushStatus("contacts", "running", None, {"pending": 12, "held": 3}, {"applied": 90, "rejected": 4}, NOW - HOUR)],
        live_jobs=[job("importing", 8), job("unconfirmed", 9, NOW - 9 * HOUR)],
        verification=None,
        pauses=[Pause("in", "guests", NOW + HOUR)],
        holds=[Hold("contacts", 4, 3, (1, 2, 3), 3, NOW - HOUR, "a backfill of 3 rows")],
    )
    ours = Slot("ours", "importing", 8, "contacts", 100, NOW - HOUR, NOW + HOUR)
    return InstanceBoard(
        status=found,
        windows={"people": [Stretch("done", NOW - 9 * HOUR, NOW - HOUR, 8), Stretch("open", NOW - HOUR, NOW, 1)]},
        expected_ends={"people": NOW + HOUR},
        slots=[ours, *[Slot("others", "taken")] * 2, *[Slot("nobody", "free")] * 7],
        strangers=Strangers(2, NOW - HOUR),
        recent_jobs=[job("settled")],
        synced=Synced(12, 30, 1, 0, 2),
        failures=Summary(5, 1, 2, (ByReason("contacts", "rejected", "leadScore is no number", 4, NOW),)),
        quota=Quota(1_200, 34, 3_800, 30_000, 50_000),
    )


def look(*boards: InstanceBoard) -> Look:
    said = Trouble(NOW, "warning", "pull_fault", "acme", "pull people", "soap: 20011", "if it stays, syncd check", 3)
    return Look(
        as_of=NOW,
        version="1.2.3",
        boards=boards,
        limits={"acme": Limits()},
        brakes={"acme": (0.5, 1.0)},
        paused_apis={"acme": ["soap"]},
        troubles={"acme": [said], None: [said]},
    )
