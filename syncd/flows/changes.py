"""News of a pull by the activity log: which leads are new or have changed is noted, and `fetch.py` reads them by their ids."""

import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.following import SCORE_CHANGE, watched, watches_scores
from syncd.core.mirror import Vocabulary
from syncd.core.settings import Instance, Pull
from syncd.core.values import ActivityPage
from syncd.flows.looks import ACTIVITY_PERMISSION, Looks, Page
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.flows.reading import asked_fields
from syncd.flows.standing import Standing
from syncd.marketo.activities import Activities
from syncd.ops.metrics import Metrics
from syncd.store import activities, backfills, due, pulls
from syncd.store.leases import Lease
from syncd.store.pulls import PullState

log = structlog.get_logger()

LOOK_EVERY = timedelta(seconds=5)
"""How soon a pull that waits for its time sees a backfill, or that it is to follow the log."""

CHANGES, SCORES = "changes", "scores"


def stream_of(pull: str) -> str:
    """The stream of a pull's changes, as the database names it. It begins before a fill is planned, so that nothing lies between."""
    return f"pull {pull}"


class Changes:
    """Looks at the log each `every`, for one pull; a pull that follows windows rests here.

    The watermark of the pull is the start of its last complete look, less the margin.
    """

    def __init__(
        self,
        instance: Instance,
        pull: Pull,
        api: Activities,
        vocabulary: Callable[[], Awaitable[Vocabulary]],
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
        marketo_now: Callable[[], datetime],
    ) -> None:
        self.instance = instance.name
        self.name = f"changes {pull.name}"
        self._pull = pull
        self._filled = pull.source != "activities"
        self._api = api
        self._vocabulary = vocabulary
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._marketo_now = marketo_now
        self._standing = Standing(instance.name, pull.name, lease, clock, metrics, jitter)
        streams = {CHANGES: stream_of(pull.name), SCORES: f"{stream_of(pull.name)} scores"}
        self._looks = {
            which: Looks(instance.name, stream, pull.overlap, api.token_since, lease, marketo_now) for which, stream in streams.items()
        }
        self._streams = streams
        self._to_read: list[str] = []
        self._began_at: datetime | None = None
        self._next_at: datetime | None = None
        self._log = log.bind(instance=instance.name, pull=pull.name)

    async def step(self) -> Outcome:
        """Read and write one page; or wait for the time of the next look."""
        state = await self._standing.running()
        now = self._clock.now()
        if state is None:
            return Idle(now + SECOND)
        if state.follows != "activities":
            return Idle(now + LOOK_EVERY)
        if state.backfill is not None and not self._filled:
            return await self._backfill(state, now)
        if not self._to_read and self._next_at is not None and now < self._next_at <= now + self._pull.every:
            return Idle(min(self._next_at, now + LOOK_EVERY))
        try:
            outcome = await self._look(state)
        except Fault as fault:
            return await self._standing.met(fault, ACTIVITY_PERMISSION)
        self._standing.well()
        return outcome

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _look(self, state: PullState) -> Outcome:
        vocabulary = await self._vocabulary()
        asked_fields(self._pull, vocabulary.rest)
        if not self._to_read:
            self._to_read = [CHANGES, SCORES] if watches_scores(self._pull, vocabulary) else [CHANGES]
            self._began_at, self._next_at = None, self._clock.now() + self._pull.every
        which = self._to_read[0]
        fields = watched(self._pull, vocabulary)

        async def read(token: str) -> ActivityPage:
            if which == SCORES:
                return await self._api.of_types(token, (SCORE_CHANGE,))
            return await self._api.lead_changes(token, fields)

        await self._looks[which].begin(self._since(state))
        return await self._write(which, await self._looks[which].page(read))

    async def _write(self, which: str, page: Page) -> Outcome:
        async with self._lease.transaction() as connection:
            now = self._clock.now()
            fresh = await self._looks[which].write(connection, page)
            ids = {activity.lead_id for activity in fresh}
            refused = await due.note(connection, self.instance, self._pull.name, ids, "changed", now)
            ends = page.last and len(self._to_read) == 1
            began_at = min(self._began_at or page.began_at, page.began_at)
            if ends:
                until = began_at - self._pull.margin
                await pulls.followed(connection, self.instance, self._pull.name, until, now, self._filled)
        self._metrics.forgotten(self.instance, "activity", refused)
        if page.last:
            self._began_at = began_at
            self._to_read.pop(0)
        if fresh:
            self._log.debug("changes_noted", which=which, activities=len(fresh), leads=len(ids))
        return Worked(len(ids))

    def _since(self, state: PullState) -> datetime:
        """Where the log is first read: from what a former source has left, or from the first time selected; beside a fill, from now."""
        assert state.planned_until is not None, "a pull that follows the log selects by time"
        if state.planned_at is not None:
            return state.planned_until - self._pull.overlap
        return self._marketo_now() - self._pull.overlap if self._filled else state.planned_until

    async def _backfill(self, state: PullState, now: datetime) -> Outcome:
        """Without a fill there are no windows: what the mirror has is read again, and from `since` on the log."""
        assert state.backfill is not None
        self._to_read = []
        async with self._lease.transaction() as connection:
            known = await due.note_held(connection, self.instance, self._pull.name, "listed", now)
            if state.backfill_since is not None:
                for stream in self._streams.values():
                    await activities.forget(connection, self.instance, stream)
                await pulls.begin_again(connection, self.instance, self._pull.name, self._backfill_since(state.backfill_since))
            await backfills.nothing_to_do(connection, state.backfill, now)
        self._next_at = None
        self._log.info("backfill_planned", backfill=state.backfill, since=state.backfill_since, leads_at_most=known)
        return Worked(0)

    def _backfill_since(self, since: datetime) -> datetime:
        return max(since, self._pull.since or since)
