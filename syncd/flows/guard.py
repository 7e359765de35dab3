"""The guards of pushes: canaries are sent ahead and judged, and what comes too fast or creates too many is held."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from syncd.core.clock import Clock
from syncd.core.guard import Known, Surge, bad_canary, canary_is_due, create_reason, digest_of, hold_reason, percent, verdict
from syncd.core.guard import Why as CanaryWhy
from syncd.core.settings import Guard as Settings
from syncd.core.settings import Push
from syncd.flows.gate import creations, surging
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.store import forgetting, guards, holding, pauses, pushes
from syncd.store.guards import Fate
from syncd.store.holding import PIECE
from syncd.store.leases import Connection, Lease

log = structlog.get_logger()

FAILED = frozenset({"rejected", "unverified", "parked"})
ENDED = frozenset({"applied", "warned", "superseded", "noop", "cancelled"}) | FAILED
"""Of what is parked nobody knows when it will go: a canary does not wait for it."""
KEEP_COUNTS = timedelta(days=7)
FORGET_EVERY = timedelta(hours=1)
SAMPLE = 5  # ids


class _AfterCommit:
    """Lines of the log that wait until what they tell of is committed."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger) -> None:
        self._logger = logger
        self._waiting: list[Callable[[], None]] = []

    def info(self, event: str, **told: object) -> None:
        self._waiting.append(partial(self._logger.info, event, **told))

    def warning(self, event: str, **told: object) -> None:
        self._waiting.append(partial(self._logger.warning, event, **told))

    def error(self, event: str, **told: object) -> None:
        self._waiting.append(partial(self._logger.error, event, **told))

    def forget(self) -> None:
        self._waiting.clear()

    def tell(self) -> None:
        for line in self._waiting:
            line()


class Guard:
    """Looks at each guarded push once a second; one piece of holding at a time."""

    name = "guard"

    def __init__(self, instance: str, settings: Sequence[Push], lease: Lease, clock: Clock) -> None:
        self.instance = instance
        self._guarded = [(push, push.guard, digest_of(push)) for push in settings if push.guard is not None]
        self._lease = lease
        self._clock = clock
        self._forget_at = datetime.min.replace(tzinfo=UTC)
        self._later = _AfterCommit(log.bind(instance=instance))

    async def step(self) -> Outcome:
        """Each push once: register what it does, hold a piece of its surge, judge its canary, look at what waits."""
        now = self._clock.now()
        running = await pushes.running(self._lease.pool, self.instance)
        worked = 0
        for push, guard, digest in self._guarded:
            self._later.forget()
            async with self._lease.transaction() as connection:
                worked += await self._see_to(connection, push, guard, digest, push.name in running, now)
            self._later.tell()
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY
            async with self._lease.transaction() as connection:
                await guards.forget_counts(connection, self.instance, now - KEEP_COUNTS)
        return Worked(worked) if worked else Idle(now + SECOND)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _see_to(self, connection: Connection, push: Push, guard: Settings, digest: str, runs: bool, now: datetime) -> int:
        known = await guards.known(connection, self.instance, push.name)
        if known is None or known.digest != digest:
            why: CanaryWhy = "first" if known is None else "mapping"
            await guards.expect(connection, self.instance, push.name, digest, why)
            if known is not None and known.canary == "bad":
                await pushes.let_go(connection, self.instance, push.name)  # others settings may mend it; they have a canary of their own
                await pauses.enforce(connection, self.instance, now)
            return 1
        if known.surge is not None:
            return await self._hold(connection, push, guard, known, known.surge)
        if not runs:
            return 0
        if known.canary == "bad":  # and the push was forgotten meanwhile, as the configuration had lost it
            return await guards.try_again(connection, self.instance, push.name)
        if known.canary == "under_way":
            known = await self._judge(connection, push, guard, known, now)
        return 0 if known is None else await self._look(connection, push, guard, known, now)

    async def _look(self, connection: Connection, push: Push, guard: Settings, known: Known, now: datetime) -> int:
        """Begin a canary or a surge, or hold what would create too many leads."""
        waiting = await guards.oldest(connection, self.instance, push.name, PIECE if guard.max_created is not None else guard.canary)
        beyond = await surging(connection, self.instance, push, known)
        if waiting and canary_is_due(known, beyond is not None, now):
            ids = [each.id for each in waiting[: guard.canary]]
            why = "surge" if known.canary == "good" else known.why
            await guards.begin_canary(connection, self.instance, push.name, why, ids, now)
            self._later.info("canary_begun", push=push.name, why=why, changes=len(ids))
        if beyond is not None:
            assert guard.hold_above is not None
            reason = hold_reason(guard.hold_above)
            await holding.begin_surge(connection, self.instance, push.name, beyond.since, beyond.first_id, reason, now)
            if known.held_at is None:
                since = beyond.since.isoformat()
                self._later.warning("surge_begun", push=push.name, reason=reason, since=since, at_least=beyond.changes)
            return 1
        if guard.max_created is None:
            return 0
        urgent = await guards.oldest_urgent(connection, self.instance, push.name, PIECE)
        over: frozenset[int] = frozenset()
        for those in (waiting if known.canary == "good" else [], urgent):  # as their claims look at them
            over |= (await creations(connection, self.instance, push, those, now))[0]
        if not over:
            return 0
        reason = create_reason(guard.max_created)
        if known.held_at is None:
            sample, remedy = sorted(over)[:SAMPLE], self._commands(push)
            self._later.warning("creations_held", push=push.name, reason=reason, sample=sample, remedy=remedy)
        return await holding.hold_these(connection, self.instance, push.name, sorted(over), reason, now)

    async def _hold(self, connection: Connection, push: Push, guard: Settings, known: Known, surge: Surge) -> int:
        """A piece of the surge; of its canary nothing, which is on its way."""
        reason = hold_reason(guard.hold_above or 0)
        held, last = await holding.hold_surge(connection, self.instance, push.name, surge, known.canary_ids, reason)
        if last:
            for each in await holding.holds(connection, self.instance, push.name):
                if each.plan_id is None:
                    found, remedy = {"changes": each.changes, "sample": each.ids}, self._commands(push)
                    self._later.warning("surge_held", push=push.name, reason=reason, remedy=remedy, **found)
        return held or 1

    async def _judge(self, connection: Connection, push: Push, guard: Settings, known: Known, now: datetime) -> Known | None:
        """Look how the canary has gone. None: it goes on, or the push is held, and there is nothing else to be done."""
        assert known.begun_at is not None
        fates = await guards.fates(connection, known.canary_ids, known.begun_at - timedelta(days=1))
        forgotten = [fate for fate in fates if fate.reason == forgetting.REFUSED]  # that says nothing of what the push does to leads
        failed = [fate for fate in fates if fate.state in FAILED and fate not in forgotten]
        cancelled, under_way = _sum(fates, {"cancelled"}) + _sum(forgotten), _sum(fates) - _sum(fates, ENDED)
        size, failures = _sum(fates), _sum(failed)
        canary = verdict(size, under_way, failures, cancelled, guard.canary_max_failures)
        if canary == "under_way":
            return None
        await guards.end_canary(connection, self.instance, push.name, canary, failures, now)
        level = self._later.warning if canary == "bad" else self._later.info
        most = percent(guard.canary_max_failures)
        level("canary_ended", push=push.name, canary=canary, changes=size, failed=failures, cancelled=cancelled, most=most)
        if canary == "bad":
            told = [(fate.state, fate.reason, fate.changes) for fate in failed]
            message = bad_canary(size, told, cancelled, guard.canary_max_failures, self._commands(push, only_held=False))
            await pushes.hold(connection, self.instance, push.name, message)
            self._later.error("push_held", push=push.name, remedy=self._commands(push, only_held=False))
            return None
        return await guards.known(connection, self.instance, push.name)

    def _commands(self, push: Push, only_held: bool = True) -> str:
        which = f"-i {self.instance} --push {push.name}"
        return f"syncd release {which} lets them go, syncd discard {which}{' --held' if only_held else ''} cancels them"


def _sum(fates: Sequence[Fate], states: frozenset[str] | set[str] | None = None) -> int:
    return sum(fate.changes for fate in fates if states is None or fate.state in states)
