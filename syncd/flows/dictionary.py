"""Describe's dictionary, asked for each hour, and the typed view that is kept in step with it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg
import structlog

from syncd.core import drift
from syncd.core.clock import Clock
from syncd.core.drift import Drift, KnownField, View
from syncd.core.faults import Fault
from syncd.core.mirror import UNDESCRIBED, Vocabulary
from syncd.core.settings import Instance
from syncd.core.values import Field
from syncd.flows.loop import Idle, Outcome
from syncd.marketo.errors import garbled
from syncd.ops.metrics import Metrics
from syncd.store import backfills, fields
from syncd.store.leases import Connection, Lease

FRESH_FOR = timedelta(hours=1)
"""Protocol 3.3 has it cached for a day, and fields come and go at any time: until a field is known to have vanished, its absence reads
as "empty now"."""
ASK_AGAIN_AFTER = timedelta(minutes=10)
VIEW_AGAIN_AFTER = timedelta(minutes=1)
LOOK_EVERY = timedelta(hours=1)
"""How soon the view follows a dictionary that somebody else has asked for."""
REBUILD = "run syncd view rebuild"
NAMES_IN_A_REASON = 5

log = structlog.get_logger()


class Dictionaries:
    """The dictionary of one instance. Without REST there is none, and fields keep the names of their source.

    It is a flow as well: its steps keep the typed view in step with the dictionary, whether a pull has work or not.
    """

    name = "dictionary"

    def __init__(
        self,
        instance: Instance,
        describe: Callable[[], Awaitable[Sequence[Field]]] | None,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.instance = instance.name
        self._pulls = instance.pulls
        self._interfaces = {"soap" if pull.source == "soap" else "rest" for pull in instance.pulls} | (
            {"rest"} if instance.pushes else set()
        )
        self._known: Sequence[KnownField] = ()
        self._describe = describe
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._ask_at: datetime | None = None
        self._vocabulary: Vocabulary | None = None if describe else UNDESCRIBED
        self._asking = asyncio.Lock()
        self._view_is_due = True
        self._told: dict[str, object] = {}
        self._log = log.bind(instance=instance.name)

    async def vocabulary(self) -> Vocabulary:
        """The fields by both interfaces' names; the last answer known will do for as long as Marketo gives no other.

        Raises Fault when there never was any, and what the database says when it is away.
        """
        async with self._asking:
            if self._describe is not None and (self._ask_at is None or self._ask_at <= self._clock.now()):
                await self._ask(self._describe)
            assert self._vocabulary is not None, "there is one, or a Fault was raised"
            return self._vocabulary

    async def fields(self) -> Sequence[KnownField]:
        """The fields as last described, and those that have vanished: the same object until there is another answer. Raises as
        `vocabulary` does."""
        await self.vocabulary()
        return self._known

    async def refresh(self) -> None:
        """Ask describe now, whenever it was asked last. Raises as `vocabulary` does."""
        self._ask_at = None
        await self.vocabulary()

    async def step(self) -> Outcome:
        """Keep the view in step; what is wrong with describe is the pulls' to tell."""
        try:
            await self.vocabulary()
        except Fault:
            return Idle(self._clock.now() + ASK_AGAIN_AFTER)
        if self._view_is_due:
            await self._keep_view()
        now = self._clock.now()
        if self._view_is_due:
            return Idle(now + VIEW_AGAIN_AFTER)
        return Idle(min(self._ask_at or now + FRESH_FOR, now + LOOK_EVERY))

    async def close(self) -> None:
        """Nothing is ever under way."""

    async def _ask(self, describe: Callable[[], Awaitable[Sequence[Field]]]) -> None:
        now = self._clock.now()
        try:
            described = await describe()
            for interface in self._interfaces:
                if not any(getattr(field, interface) for field in described):
                    raise garbled(f"describe lists no field that {interface.upper()} can name", "describe")
        except Fault as fault:
            if self._vocabulary is None:
                self._vocabulary = await self._last_known()
                if self._vocabulary is None:
                    raise
                self._log.warning("dictionary_of_before", fault=fault.code, reason="describe failed; going on with the last one known")
            self._ask_at = now + ASK_AGAIN_AFTER
            return
        await self._remember(drift.known(described), now)
        self._vocabulary = Vocabulary.of(described)
        self._ask_at = now + FRESH_FOR
        self._view_is_due = True

    async def _last_known(self) -> Vocabulary | None:
        async with self._lease.pool.acquire() as connection:
            stored = await fields.read(connection, self.instance)
        self._known = [field for field in stored if field.data_type is not None]
        described = [field.as_described() for field in self._known if not field.vanished]
        return Vocabulary.of(described) if described else None

    async def _remember(self, described: Sequence[KnownField], now: datetime) -> None:
        async with self._lease.transaction() as connection:
            await fields.lock(connection, self.instance)
            before = await fields.read(connection, self.instance)
            drifted = drift.compare(before, described)
            await fields.remember(connection, self.instance, described, now)
            # Where there was no REST before, the mirror has the fields by their SOAP names.
            named_anew = described if before and all(field.data_type is None for field in before) else ()
            await self._order_backfills(connection, drifted.appeared or named_anew)
        names = {field.name for field in described}
        gone = (replace(field, vanished=True) for field in before if field.name not in names and field.data_type is not None)
        self._known = [*described, *gone]
        self._tell(drifted)

    async def _order_backfills(self, connection: Connection, appeared: Sequence[KnownField]) -> None:
        """Leads that don't change would stay without the new fields."""
        for pull in self._pulls:
            names = [field.name for field in appeared if drift.asking(field, (pull,))]
            if names:
                shown = ", ".join(names[:NAMES_IN_A_REASON]) + (
                    f" and {len(names) - NAMES_IN_A_REASON} more" * (len(names) > NAMES_IN_A_REASON)
                )
                await backfills.order(connection, self.instance, pull.name, None, f"new in Marketo: {shown}")

    def _tell(self, drifted: Drift) -> None:
        for field in drifted.appeared:
            self._log.info("field_appeared", field=field.name, type=field.data_type, backfilled=drift.asking(field, self._pulls))
        for field in drifted.vanished:
            self._log.warning(
                "field_vanished",
                field=field.name,
                pulls=drift.asking(field, self._pulls),
                remedy="its values stay as they are; take it out of the pulls that name it",
            )
        for field, before in drifted.retyped:
            same = drift.type_of(before) == drift.type_of(field.data_type)
            remedy = "none needed: its column has the same type either way" if same else REBUILD
            self._log.warning("field_retyped", field=field.name, old=before, new=field.data_type, remedy=remedy)
        self._metrics.field_drift(self.instance, len(drifted.appeared), len(drifted.vanished), len(drifted.retyped))

    async def _keep_view(self) -> None:
        """In a transaction of its own, for the view's readers may keep it waiting."""
        try:
            async with self._lease.transaction() as connection:
                await fields.lock(connection, self.instance)
                if self._describe is None:
                    await fields.name(connection, self.instance, drift.named_fields(self._pulls), self._clock.now())
                stored = await fields.read(connection, self.instance)
                view = drift.appended(stored, self._pulls)
                await fields.give_columns(connection, self.instance, stored, view.columns)
                outcome = await fields.keep_view(connection, self.instance)
        except asyncpg.LockNotAvailableError:
            self._log.info("view_busy", reason="somebody reads it for long; tried again in a minute")
            return
        except (asyncpg.InsufficientPrivilegeError, asyncpg.WrongObjectTypeError) as error:
            self._view_is_due = False
            remedy = f"let the daemon's role create views in the schema syncd and own syncd.lead_{self.instance}; all else goes on"
            self._tell_once("view_not_kept", error=str(error).splitlines()[0], remedy=remedy)
            return
        self._view_is_due = False
        if outcome == "refused":
            self._tell_once("view_not_kept", error="its columns were changed by hand", remedy=REBUILD)
        elif outcome != "kept":
            self._log.info("view_kept", outcome=outcome, view=f"syncd.lead_{self.instance}", fields=len(view.columns))
        self._tell_of(view)

    def _tell_of(self, view: View) -> None:
        if view.retyped or view.renamed:
            self._tell_once("view_behind", retyped=dict(view.retyped), renamed=dict(view.renamed), remedy=REBUILD)
        if view.left_out:
            self._tell_once(
                "view_not_whole", fields=view.left_out, remedy="a view has 1600 columns at most; name the fields that are wanted"
            )

    def _tell_once(self, event: str, **facts: object) -> None:
        """A warning, unless it is the one of the day before."""
        if self._told.get(event) != facts:
            self._log.warning(event, **facts)
        self._told[event] = facts
