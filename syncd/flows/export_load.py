"""Files of completed exports → the mirror: staged as they come, then written with the end of their window in one transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import asyncpg
import structlog

from syncd.core.faults import Fault
from syncd.core.mirror import Vocabulary
from syncd.core.retry import decide
from syncd.core.settings import Instance, Pull, SmartList, StaticList
from syncd.core.windows import Window
from syncd.flows.asking import asker_of
from syncd.flows.export_file import Download, Misread, Spoilt
from syncd.flows.exporting import CENSUS, POLL, Exporting, Reach, shares
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.flows.plan import LOOK_EVERY
from syncd.flows.reading import asked_fields, where_on_the_wire
from syncd.store import cursors, due, exports, forgetting, gone, leads, lists, planning, staging
from syncd.store.cursors import ExtractWindow
from syncd.store.exports import Export
from syncd.store.leads import Asker, Upserted
from syncd.store.leases import Connection
from syncd.store.staging import Part, Slice, Staged

log = structlog.get_logger()

MOST_SPOILT = 3
"""Whole downloads that were not what Marketo had said; then the window is asked for anew."""

OnCensus = Callable[[Connection, Window, Sequence[int], datetime, datetime], Awaitable[None]]
"""Given a window of the census, ids that it lists, when they were asked for, and now: called in the transaction that ends the window."""

UNREADABLE = (asyncpg.BadCopyFileFormatError, asyncpg.CharacterNotInRepertoireError, Misread)


@dataclass(slots=True)
class _Loaded:
    """What a window has brought, in leads."""

    leads: int = 0
    created: int = 0
    changed: int = 0
    refused: int = 0
    dropped: int = 0
    nuls: int = 0
    forgotten: int = 0

    def add(self, upserted: Upserted) -> None:
        self.created += upserted.created
        self.changed += upserted.changed
        self.refused += upserted.refused
        self.dropped += upserted.dropped


@dataclass(frozen=True, slots=True)
class _Load:
    """A window to be loaded: its exports, one for each part of its fields."""

    window: ExtractWindow
    jobs: Sequence[Export]
    pull: Pull | None
    asked_at: datetime


class ExportLoader:
    """One of an instance's two: they load different windows."""

    def __init__(
        self,
        instance: Instance,
        number: int,
        shared: Exporting,
        vocabulary: Callable[[], Awaitable[Vocabulary]],
        reach: Reach,
        on_census: OnCensus | None = None,
    ) -> None:
        self.instance = instance.name
        self.name = f"export load/{number}"
        self._settings = instance
        self._pulls = {pull.name: pull for pull in instance.pulls}
        self._shared = shared
        self._vocabulary = vocabulary
        self._api, self._lease, self._clock = reach.api, reach.lease, reach.clock
        self._metrics, self._jitter = reach.metrics, reach.jitter
        self._on_census = on_census
        self._tidy = number > 0
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """Load one window whose exports are completed; or wait for one."""
        if not self._tidy:
            await self._tidy_up()
        load = await self._next()
        if isinstance(load, Idle):
            return load
        self._shared.loading.add(load.window.id)
        try:
            return await self._load(load)
        except Fault as fault:
            return await self._met(fault, load)
        except Spoilt as spoilt:
            return await self._spoilt(str(spoilt), load)
        finally:
            self._shared.loading.discard(load.window.id)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _tidy_up(self) -> None:
        async with self._lease.transaction() as connection:
            dropped = await staging.drop_leftovers(connection, self.instance)
        self._tidy = True
        if dropped:
            self._log.info("stagings_dropped", count=dropped, reason="a daemon before us ended while it loaded them")

    async def _next(self) -> _Load | Idle:
        now, pool = self._clock.now(), self._lease.pool
        windows: dict[int, list[Export]] = {}
        for job in await exports.unfinished(pool, self.instance):
            windows.setdefault(job.window_id, []).append(job)
        for window_id, jobs in windows.items():
            if len(jobs) < jobs[0].parts or any(job.state != "completed" for job in jobs) or window_id in self._shared.loading:
                continue
            if now < self._shared.load_again_at.get(window_id, (0, now))[1]:
                continue
            pull = self._pulls.get(jobs[0].pull)
            window = await cursors.extract_window(pool, window_id)
            if window is None or (pull is None and jobs[0].pull != CENSUS) or window_id in self._shared.loading:
                continue
            asked = [job.asked_at for job in jobs if job.asked_at is not None]
            return _Load(window, sorted(jobs, key=lambda job: job.part), pull, min(asked))
        return Idle(now + (LOOK_EVERY if windows else POLL.min))  # none that is to be queued yet is completed sooner

    async def _load(self, load: _Load) -> Outcome:
        vocabulary = await self._vocabulary()
        dictionary = vocabulary.rest
        where: Mapping[str, tuple[str, ...]] = {}
        if load.pull is not None and not load.window.ids_only:
            asked_fields(load.pull, dictionary)  # raises Fault where `where` goes by a field that has vanished
            where = where_on_the_wire(load.pull, dictionary)
        came = _Loaded()
        try:
            parts = [await self._stage(job, came) for job in load.jobs]
            names = {name for part in parts for name in part.fields}
            if missing := [name for name in where if name not in names]:
                raise Spoilt(f"the file lacks {', '.join(missing)}, which the pull's where goes by by now")
            async with self._lease.transaction() as connection:
                await staging.begin(connection)
                for part in parts:  # a lead that one of them lacks is left out of all
                    refused = await forgetting.refuse_staged(connection, self.instance, part.export, part.fields)
                    came.forgotten = max(came.forgotten, refused)
            staged = Staged.of(parts, dictionary, where)
            asker = self._asker(load.pull, vocabulary, names) if load.pull is not None else None
            await self._write(load, staged, asker, came)
        finally:
            async with self._lease.transaction() as connection:
                await staging.drop(connection, [job.id for job in load.jobs])
        self._shared.load_again_at.pop(load.window.id, None)
        self._tell(load, came)
        return Worked(came.leads)

    def _asker(self, pull: Pull, vocabulary: Vocabulary, names: set[str]) -> Asker:
        """The pull, as far as the file tells of what it owns: of fields that came to be since then it tells nothing."""
        asker = asker_of(self._settings, pull, vocabulary)
        told = {vocabulary.rest.names.get(name, name) for name in names}
        return replace(asker, owned=None if asker.owned is None else [name for name in asker.owned if name in told])

    async def _stage(self, job: Export, came: _Loaded) -> Part:
        """Bring a file into its staging table: as it is where it is well-formed, else read leniently."""
        part = Part(job.id, job.fields)
        reason: str | None = None
        for lenient in (False, True):
            async with self._lease.transaction() as connection:
                await staging.make(connection, part)
            download = Download(self.instance, self._api, job, lenient)
            async with self._lease.pool.acquire() as connection, aclosing(download.pieces()) as pieces:
                try:
                    records = await staging.copy(connection, part, pieces)
                except UNREADABLE as error:
                    reason = type(error).__name__
                else:
                    reason = await self._count(part, job, records)
                    if reason is None:
                        came.nuls += download.nuls
                        return part
            self._log.info("export_misread", pull=job.pull, window=job.window_id, export=job.id, lenient=lenient, reason=reason)
        raise Spoilt(f"its file can't be read: {reason}")

    async def _count(self, part: Part, job: Export, records: int) -> str | None:
        """What is wrong with the rows that were read; None when nothing is."""
        if job.records is not None and records != job.records:
            return f"{records} records were read of the {job.records} promised"
        async with self._lease.transaction() as connection:
            without_id = await staging.index(connection, part)
        return f"{without_id} records have no id" if without_id else None

    async def _write(self, load: _Load, staged: Staged, asker: Asker | None, came: _Loaded) -> None:
        window, after = load.window, 0
        async with self._lease.transaction() as connection:
            await staging.begin(connection)
            while (piece := await staging.next_slice(connection, staged, after)) is not None:
                after, now = piece.upto, self._clock.now()  # of a file that takes minutes others write meanwhile
                if asker is None or window.ids_only:
                    await self._note_ids(connection, load, staged, piece, came, now)
                else:
                    came.add(await leads.upsert_staged(connection, self.instance, asker, staged, piece, load.asked_at, now))
                    await self._note_members(connection, load, staged, piece, came, now)
            now = self._clock.now()
            # A deletion that was told meanwhile found no lead to mark.
            await gone.reapply(connection, self.instance, load.asked_at, now, self._settings.history is not None)
            for job in load.jobs:
                await exports.to_loaded(connection, job.id, now)
            await self._finish(connection, load, came, now)

    async def _note_ids(self, connection: Connection, load: _Load, staged: Staged, piece: Slice, came: _Loaded, now: datetime) -> None:
        """The ids of a census, or those whose leads are to be read one by one."""
        ids = await staging.ids(connection, staged, piece)
        came.leads += len(ids)
        if load.pull is None:
            if self._on_census is not None and load.window.window is not None:
                await self._on_census(connection, load.window.window, ids, load.asked_at, now)
        else:
            await due.note(connection, self.instance, load.pull.name, ids, "listed", now, load.window.id)
            if (name := list_of(load.pull)) is not None:
                await lists.seen(connection, self.instance, name, load.window.id, ids, now)

    async def _note_members(self, connection: Connection, load: _Load, staged: Staged, piece: Slice, came: _Loaded, now: datetime) -> None:
        assert load.pull is not None
        ids = await staging.ids(connection, staged, piece)
        came.leads += len(ids)
        if (name := list_of(load.pull)) is not None:
            await lists.seen(connection, self.instance, name, load.window.id, ids, now)

    async def _finish(self, connection: Connection, load: _Load, came: _Loaded, now: datetime) -> None:
        window, expected = load.window, max(job.records or 0 for job in load.jobs)
        if load.pull is not None and (name := list_of(load.pull)) is not None:
            left = await lists.walked(connection, self.instance, name, window.id, now)
            self._log.debug("list_walked", pull=load.pull.name, window=window.id, members=came.leads, left=left)
        if load.pull is not None and window.ids_only:
            await cursors.ids_loaded(connection, window.id, came.leads, expected)
            await cursors.finish_if_read(connection, window.id, now)
        elif await cursors.finish(connection, window.id, came.leads, expected, now, came.dropped) is None:
            raise AssertionError(f"window {window.id} was moved by somebody else under our lease")

    def _tell(self, load: _Load, came: _Loaded) -> None:
        name = load.jobs[0].pull
        self._metrics.extract(self.instance, name, came.leads, came.nuls, came.created, came.changed, came.dropped)
        self._metrics.export_ended(self.instance, name, "loaded", len(load.jobs))
        self._metrics.forgotten(self.instance, "census" if load.pull is None else "extract", came.forgotten)
        self._log.info(
            "export_loaded",
            pull=name,
            window=load.window.id,
            exports=[job.id for job in load.jobs],
            leads=came.leads,
            created=came.created,
            changed=came.changed,
            overtaken=came.refused,
            dropped=came.dropped,
            nuls=came.nuls,
            forgotten=came.forgotten,
            in_some_parts_only=max(0, max(job.records or 0 for job in load.jobs) - came.leads - came.forgotten),
        )

    async def _met(self, fault: Fault, load: _Load) -> Outcome:
        """A file that could not be had now: tried again as long as Marketo keeps it."""
        now = self._clock.now()
        faults = self._shared.load_again_at.get(load.window.id, (0, now))[0] + 1
        again_at = decide(fault, faults, now, self._jitter.random()).at
        self._shared.load_again_at[load.window.id] = faults, again_at
        self._metrics.fault(self.instance, fault)
        async with self._lease.transaction() as connection:
            for job in load.jobs:
                await exports.in_vain(connection, job.id, fault, now)
        bound = self._log.bind(pull=load.jobs[0].pull, window=load.window.id, exports=[job.id for job in load.jobs])
        bound.warning("export_not_loaded", fault=str(fault), attempt=faults, again_at=again_at.isoformat())
        return Worked(0)

    async def _spoilt(self, message: str, load: _Load) -> Outcome:
        """Not what Marketo said: the whole once more, then once more what it says, and in the end another export."""
        now = self._clock.now()
        attempts, expired = 0, False
        for job in load.jobs:
            await self._ask_anew(job, now)
        async with self._lease.transaction() as connection:
            for job in load.jobs:
                attempts = max(attempts, await exports.spoilt(connection, job.id, message) or 0)
            if attempts >= MOST_SPOILT:
                expired = True
                for job in load.jobs:
                    await exports.to_expired(connection, job.id, message, now)
                halves = shares(load.window)
                if halves is not None and "read" in message:
                    await planning.split(connection, load.window.id, halves, now)
        self._shared.load_again_at[load.window.id] = attempts, now + POLL.min * attempts
        bound = self._log.bind(pull=load.jobs[0].pull, window=load.window.id, exports=[job.id for job in load.jobs])
        bound.warning("export_expired" if expired else "export_spoilt", reason=message, attempt=attempts)
        return Worked(0)

    async def _ask_anew(self, job: Export, now: datetime) -> None:
        """What Marketo said of the file may have been wrong, too; it is not asked more often than it looks itself."""
        if job.export_id is None or (job.looked_at is not None and job.looked_at + POLL.min > now):
            return
        with suppress(Fault):
            status = await self._api.status(job.export_id)
            async with self._lease.transaction() as connection:
                await exports.told_anew(connection, job.id, status, now)


def list_of(pull: Pull) -> str | None:
    """What the list that a pull selects is called among the memberships."""
    match pull.select:
        case StaticList(name):
            return str(name)
        case SmartList(name):
            return f"smart list {name}"
    return None
