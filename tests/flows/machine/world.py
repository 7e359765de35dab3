"""The world of one plan: real Postgres, the flows of a daemon, the model of Marketo, and time that passes when the plan says so."""

import json
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from uuid import uuid4

import asyncpg

from syncd.core.settings import Instance, Limits, Push
from syncd.flows.loop import Flow, Idle
from syncd.flows.push import Packer, Submitter
from syncd.flows.settle import Settler
from syncd.flows.sweep import Sweep
from syncd.flows.sync import Syncer
from syncd.ops.clock import ManualClock
from syncd.ops.metrics import Metrics
from syncd.store import batches, deadletters, discarding, imports, leases, pauses, pushes
from syncd.store.leases import Connection, Lease, LeaseLost, Pool
from tests.flows.machine import judge, plans
from tests.flows.machine.marketo import BAD, LEADS, POISON, WARN, Died, Marketo
from tests.flows.machine.plans import PUSHES, Action, New, Plan

INSTANCE = "acme"
OTHER = {"contacts": {"format": "ssv"}, "members": {"format": "csv", "list_id": 8}, "crm": {"format": "csv"}}
ENQUEUE = "SELECT syncd.enqueue($1, $2, $3, $4, priority => $5)"
SHORTEST_NAP, LONGEST_NAP = 5.0, 600.0  # seconds
STEPS_IN_A_ROW = 8
STARVES_AFTER = timedelta(hours=36)  # a spent quota waits until midnight, an unconfirmed import for 6 hours
TABLES = (
    "outbox, change_history, chunk, chunk_row, sync_batch, sync_record, key_claim, import_job, claim_mark, push, pause, lease, lease_fence"
)
KNOWN = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT $1, lead_id, email, '{}', '{}', now(), now(), now()
  FROM unnest($2::bigint[], $3::text[]) AS l (lead_id, email) ON CONFLICT DO NOTHING
"""
CLEAR = f"TRUNCATE {', '.join(f'syncd.{name}' for name in TABLES.split(', '))} RESTART IDENTITY"


class Away(asyncpg.ConnectionDoesNotExistError):
    """The database did not say whether it committed."""


class FusedLease(Lease):
    """A lease whose transactions go wrong where the plan says so."""

    fuse: plans.Fuse | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        fuse, self.fuse = self.fuse, None
        if fuse is not None and fuse.after > 0:
            self.fuse, fuse = replace(fuse, after=fuse.after - 1), None
        error = None if fuse is None else Died() if fuse.fatal else Away("connection was closed in the middle of operation")
        async with super().transaction() as connection:
            yield connection
            if fuse is not None and error is not None and not fuse.committed:
                raise error
        if error is not None:
            raise error


class World:
    """Acts out a plan; `judge` is asked after each action, and at rest."""

    def __init__(self, pool: Pool, plan: Plan) -> None:
        self.pool = pool
        # Never before the database's own clock, by which changes are created.
        self.clock = ManualClock(datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time(12), UTC))
        self.limits = Limits(import_slots=plan.import_slots, import_running=plan.import_running)
        run = timedelta(seconds=plan.run_seconds)
        self.marketo = Marketo(self.clock, run, plan.import_slots, plan.import_running, plan.body_limit)
        self.ids: set[int] = set()  # of changes that were committed
        self._metrics = Metrics()
        self._jitter = random.Random(1)
        self._stack = AsyncExitStack()
        self._open: dict[int, tuple[asyncpg.pool.PoolConnectionProxy[asyncpg.Record], asyncpg.transaction.Transaction, list[int]]] = {}
        self._serial = 0
        self._epoch = 0

    async def __aenter__(self) -> "World":
        await self.pool.execute(CLEAR)
        await self.pool.execute(KNOWN, INSTANCE, list(LEADS.values()), list(LEADS))
        self._session = await self._stack.enter_async_context(self.pool.acquire())
        await self._start(tuple(PUSHES), other=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        for slot in list(self._open):
            await self._end(slot, commits=False)
        await leases.release(self._session, INSTANCE)
        await self._stack.aclose()

    async def act(self, action: Action) -> None:
        """Do it; whoever dies of it is followed by another process. Then nothing may be amiss."""
        epoch, sent = self._epoch, len(self.marketo.sent)
        try:
            await self._do(action)
        except (Died, LeaseLost):
            self.marketo.nobody_knows(sent)
            if self._epoch == epoch:
                await self._start(tuple(self._pushes), self._other)
        except Away:
            self.marketo.nobody_knows(sent)  # the loop would back off, and step again
        self.marketo.pass_time()
        await judge.look(self.pool, self.ids, self.limits.import_slots)

    async def come_to_rest(self) -> None:
        """Let all troubles end, and time pass until every change has its end."""
        for slot in list(self._open):
            await self._end(slot, commits=True)
        self.marketo.during = None
        self.marketo.script = deque(outcome for outcome in self.marketo.script if not outcome.startswith("dies"))
        self.marketo.calls = deque(outcome for outcome in self.marketo.calls if not outcome.startswith("dies"))
        self.marketo.status_away, self.marketo.results = False, "ok"
        for choice in [pause.choice for pause in await pauses.read(self.pool, INSTANCE)]:
            await self._resume(choice.name)
        self._lease.fuse = None
        await self._start(tuple(PUSHES), self._other)
        nap, before, moved_at = SHORTEST_NAP, None, self.clock.now()
        while (standing := await judge.standing(self.pool)).under_way:
            # Flows look every second: nothing is missed when a look comes later.
            nap = min(2 * nap, LONGEST_NAP) if standing == before else SHORTEST_NAP
            moved_at = moved_at if standing == before else self.clock.now()
            assert self.clock.now() - moved_at < STARVES_AFTER, await judge.left(self.pool)
            before = standing
            for flow in self._flows.values():
                for _ in range(STEPS_IN_A_ROW):
                    if isinstance(await flow.step(), Idle):
                        break
            self.clock.advance(max(nap, self.marketo.busy_for()))
        self.clock.advance(timedelta(days=1).total_seconds())
        self.marketo.pass_time()
        await judge.look(self.pool, self.ids, self.limits.import_slots)
        await judge.at_rest(self.pool, self.marketo, {name: push.lookup_field for name, push in PUSHES.items()})

    async def _do(self, action: Action) -> None:
        match action:
            case plans.Enqueue(changes):
                async with self.pool.acquire() as connection, connection.transaction():
                    self.ids.update(await self._insert(connection, changes))
            case plans.Fill(push, count, first, field):
                changes = tuple(New(push, f"{n}@x.io", {field: "plain"}) for n in range(first, first + count))
                await self._do(plans.Enqueue(changes))
            case plans.Begin(slot, changes) if slot not in self._open:
                connection = await self.pool.acquire()
                transaction = connection.transaction()
                await transaction.start()
                self._open[slot] = connection, transaction, await self._insert(connection, changes)
            case plans.End(slot, commits) if slot in self._open:
                await self._end(slot, commits)
            case plans.Wait(seconds):
                self.clock.advance(seconds)
            case plans.Run(rounds):
                for _ in range(rounds):
                    outcomes = [await flow.step() for flow in self._flows.values()]
                    self.clock.advance(5 if all(isinstance(outcome, Idle) for outcome in outcomes) else 0.2)
            case plans.Pack() | plans.Sweep() | plans.Submit() | plans.Sync() | plans.Settle():
                await self._step(action)
            case plans.Foreign() | plans.Weather():
                self._let_marketo(action)
            case plans.Restart(names, other, graceful):
                if graceful:
                    with suppress(Died, LeaseLost, Away):
                        for flow in self._flows.values():
                            await flow.close()
                await self._start(names, other)
            case plans.Fuse():
                self._lease.fuse = action
            case plans.Pause() | plans.Resume() | plans.Discard() | plans.Retry():
                await self._operate(action)

    async def _step(self, action: plans.Step) -> None:
        flow = self._flows[type(action).__name__]
        if isinstance(action, plans.Submit | plans.Sync | plans.Settle) and action.during:

            async def during(actions: Sequence[Action] = action.during) -> None:
                for each in actions:
                    await self.act(each)

            self.marketo.during = during
        if isinstance(action, plans.Submit):
            self.marketo.script.extend([action.outcome] if action.outcome != "ok" else [])
        if isinstance(action, plans.Sync):
            self.marketo.calls.extend([action.outcome] if action.outcome != "ok" else [])
        # Without a POST now, it is the next one's: rare luck should not be wasted.
        await flow.step()

    def _let_marketo(self, action: plans.Foreign | plans.Weather) -> None:
        match action:
            case plans.Foreign(count, seconds, list_id):
                for _ in range(count):
                    self.marketo.add_foreign(timedelta(seconds=seconds), list_id)
            case plans.Weather(status_away, results):
                self.marketo.status_away, self.marketo.results = status_away, results

    async def _operate(self, action: plans.Pause | plans.Resume | plans.Discard | plans.Retry) -> None:
        """As the commands do, beside the daemon."""
        now = self.clock.now()
        match action:
            case plans.Pause(name):
                async with self.pool.acquire() as connection, connection.transaction():
                    await pauses.pause(connection, INSTANCE, pauses.Choice("out", name), None, now)
            case plans.Resume(name):
                await self._resume(name)
            case plans.Discard(push, key):
                chosen = discarding.Chosen(INSTANCE, push, now, key)
                async with self.pool.acquire() as connection:
                    await discarding.cancel(connection, chosen, (await discarding.find(connection, chosen)).newest, now)
            case plans.Retry(limit):
                lookup_fields = {name: push.lookup_field for name, push in PUSHES.items()}
                async with self.pool.acquire() as connection:
                    await deadletters.retry(connection, INSTANCE, lookup_fields, deadletters.Selection(pushes=list(PUSHES)), limit)

    async def _resume(self, name: str) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await pauses.resume(connection, INSTANCE, pauses.Choice("out", name))

    async def _insert(self, connection: Connection, changes: Sequence[New]) -> list[int]:
        return [
            await connection.fetchval(
                ENQUEUE, INSTANCE, new.push, new.key, json.dumps(self._fields(new)), "urgent" if new.urgent else "normal"
            )
            for new in changes
        ]

    def _fields(self, new: New) -> dict[str, object]:
        """No value twice: it tells whose it is."""
        lookup_field = PUSHES[new.push].lookup_field
        fields: dict[str, object] = {}
        for name, kind in sorted(new.fields.items()):
            self._serial += 1
            n = self._serial
            fields[name] = {
                "number": n,
                "odd": f' o{n}, "q";\r\n\t\u2028é🦊 ',
                "long": "x" * 150 + str(n),
                "bad": f"{BAD} {n}",
                "warn": f"{WARN} {n}",
                "poison": f"{POISON} {n}",
                "null": None,
            }.get(kind, f"v{n}")
            if kind in ("own key", "wrong key"):
                fields[lookup_field] = new.key.upper() if kind == "own key" else "nobody"
        return fields

    async def _end(self, slot: int, commits: bool) -> None:
        connection, transaction, ids = self._open.pop(slot)
        if commits:
            await transaction.commit()
            self.ids.update(ids)
        else:
            await transaction.rollback()
        await self.pool.release(connection)

    async def _start(self, names: Sequence[str], other: bool) -> None:
        """What the daemon does when it has taken the lease: whoever had it can write no more."""
        await leases.release(self._session, INSTANCE)
        taken = await leases.acquire(self._session, self.pool, INSTANCE, uuid4(), 15)
        assert taken is not None
        self._pushes, self._other = names, other
        self._lease = lease = FusedLease(INSTANCE, taken.epoch, self.pool, self._session, 0.0)
        self._epoch = lease.epoch
        settings = tuple(_with_other(PUSHES[name]) if other else PUSHES[name] for name in names)
        now = self.clock.now()
        async with lease.transaction() as connection:
            await imports.orphaned(connection, INSTANCE)
            await batches.orphaned(connection, INSTANCE)
            await pushes.register(connection, INSTANCE, list(names))
            await pauses.enforce(connection, INSTANCE, now)
        limits, clock, metrics, jitter = self.limits, self.clock, self._metrics, self._jitter
        self._flows: dict[str, Flow] = {
            "Sweep": Sweep(Instance(INSTANCE, limits=limits, history=None, pushes=settings), lease, clock),
            "Pack": Packer(INSTANCE, settings, limits, lease, clock, metrics),
            "Submit": Submitter(INSTANCE, settings, limits, self.marketo, lease, clock, metrics, jitter),
            "Sync": Syncer(INSTANCE, settings, self.marketo, lease, clock, metrics, jitter),
            "Settle": Settler(INSTANCE, settings, limits, self.marketo, lease, clock, metrics, jitter),
        }


def _with_other(push: Push) -> Push:
    return replace(push, **OTHER[push.name])  # type: ignore[arg-type]
