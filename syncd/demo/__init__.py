"""The rehearsal: an embedded Postgres, a simulated Marketo, the very daemon that `syncd run` starts, and a proof that both sides agree."""

import asyncio
import contextlib
import shlex
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime, timedelta

from rich.console import Console
from rich.live import Live

from syncd.daemon import Daemon
from syncd.demo.proof import prove
from syncd.demo.report import show
from syncd.demo.stage import DemoOptions, Rehearsal, prepare
from syncd.demo.traffic import INSTANCE, PULL
from syncd.demo.view import Glance
from syncd.store.binaries import find_binaries
from syncd.store.embedded import EmbeddedPostgresError

__all__ = ["DemoOptions", "run"]

STOPPED_WITHIN = 10.0  # seconds, real
STALLED_AFTER = 60.0  # seconds, real, without anything moving; or as long as ten minutes of the rehearsal's clock
LINE_EVERY = 3.0  # seconds, real
LOOK_EVERY = 0.5  # seconds, real
CLOCKS_DIFFER = timedelta(seconds=2)  # at most: Marketo's time is told to the second
LOOKING_SHARE = 0.1  # of the time, at most, goes into looking: at large sizes the counts take longer

IN_STATE = "SELECT state, count(*) AS changes FROM syncd.change WHERE instance = $1 GROUP BY state"
LEADS = "SELECT count(*) FROM syncd.lead WHERE instance = $1 AND deleted_at IS NULL"
UNSETTLED = "SELECT EXISTS (SELECT FROM syncd.outbox WHERE instance = $1 AND state <> 'parked')"
CAUGHT_UP = """
SELECT planned_until > $3 AND NOT EXISTS (SELECT FROM syncd.pull_window w WHERE (w.instance, w.pull) = (p.instance, p.pull)
                                                                      AND w.state IN ('open', 'blocked') AND w.starts_at <= $3)
   AND NOT EXISTS (SELECT FROM syncd.lead_due d WHERE (d.instance, d.pull) = (p.instance, p.pull))
  FROM syncd.pull p WHERE instance = $1 AND pull = $2
"""
# A look at both logs that began since, and marked again what was written after it had gone.
LOSSES_SEEN = """
SELECT count(DISTINCT stream) = 2 AND NOT EXISTS (SELECT FROM syncd.lead_gone g JOIN syncd.lead l USING (instance, lead_id)
                                                   WHERE instance = $1 AND l.deleted_at IS NULL)
  FROM syncd.activity_token WHERE instance = $1 AND stream IN ('deletions', 'merges') AND NOT under_way AND looked_at > $2
"""
DUE = "SELECT count(*) FROM syncd.lead_due WHERE instance = $1"
QUERIES = (
    ("how the changes ended", "SELECT state, count(*) FROM syncd.change GROUP BY 1 ORDER BY 2 DESC"),
    ("what Marketo refused", "SELECT id, key, reason FROM syncd.change WHERE state = 'rejected' LIMIT 20"),
    ("the import jobs", "SELECT id, batch_id, state, row_count, byte_count, applied, warned, rejected FROM syncd.import_job ORDER BY id"),
    ("the mirror", "SELECT lead_id, email, attributes FROM syncd.lead LIMIT 5"),
)


class RehearsalError(Exception):
    """The rehearsal could not come to its end; one line that says why."""


async def run(options: DemoOptions, console: Console | None = None) -> int:
    """Rehearse the whole job. Returns 0 when everything agrees, 1 when not, 128 and its number when stopped by a signal.

    Call it from the main thread: it listens to signals, and the embedded server ends with the thread that started it.
    """
    console = console or Console()
    work = asyncio.ensure_future(_rehearse(options, console))
    with _signals(work) as received:
        try:
            return await work
        except asyncio.CancelledError:
            if not received:
                raise
            console.print("stopped; nothing is left behind", style="dim")
            return 128 + received[0]
        except (RehearsalError, EmbeddedPostgresError) as error:
            console.print(f"✗ {error}", style="bold red", markup=False)
            return 1


@contextmanager
def _signals(work: "asyncio.Future[int]") -> Iterator[list[int]]:
    """Let the first signal cancel `work`; further ones must not disturb its cleaning up. Yields those received."""
    loop, received = asyncio.get_running_loop(), list[int]()

    def stop(number: int) -> None:
        if not received:
            work.cancel()
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # the terminal was closed; under nohup it is ignored
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _rehearse(options: DemoOptions, console: Console) -> int:
    began, processor = time.monotonic(), time.process_time()
    async with AsyncExitStack() as stack:
        rehearsal = await prepare(options, console, stack)
        async with _daemon(rehearsal) as daemon:
            await _until_at_rest(rehearsal, daemon)
        proof = await prove(
            rehearsal.connection,
            rehearsal.simulator,
            rehearsal.settings.instances[0],
            rehearsal.application.enqueued,
            not options.faults,
            rehearsal.others.lost,
        )
        show(proof, console, time.monotonic() - began, time.process_time() - processor)
        if options.keep:
            await _keep(rehearsal)
        return 0 if proof.holds else 1


@asynccontextmanager
async def _daemon(rehearsal: Rehearsal) -> AsyncIterator["asyncio.Task[None]"]:
    """The daemon while the body runs, then stopped as a signal would stop it."""
    daemon = Daemon(rehearsal.settings, rehearsal.clock)
    running = asyncio.create_task(daemon.run())
    try:
        yield running
    finally:
        daemon.stop()
        await asyncio.wait((running,), timeout=STOPPED_WITHIN)
        if not running.done():
            running.cancel()
            await asyncio.wait((running,))
    if running.exception() is not None:
        raise RehearsalError(f"the daemon broke off: {running.exception()!r}") from running.exception()


async def _until_at_rest(rehearsal: Rehearsal, daemon: "asyncio.Task[None]") -> None:
    """Let application and strangers do their part, and show it, until nothing is left to do on either side."""
    tasks = [
        asyncio.create_task(rehearsal.application.run(rehearsal.postgres.dsn, rehearsal.clock)),
        asyncio.create_task(rehearsal.others.run(rehearsal.clock)),
    ]
    watch = asyncio.create_task(_watch(rehearsal, tasks))
    try:
        await asyncio.wait((watch, daemon), return_when=asyncio.FIRST_COMPLETED)
        if not watch.done():
            error = None if daemon.cancelled() else daemon.exception()
            raise RehearsalError(f"the daemon ended too early: {error!r}; {_last_words(rehearsal)}")
        watch.result()
    finally:
        for task in (watch, *tasks):
            task.cancel()
        await asyncio.gather(watch, *tasks, return_exceptions=True)


async def _watch(rehearsal: Rehearsal, tasks: list["asyncio.Task[None]"]) -> None:
    """Show glances until all is at rest. Raises RehearsalError when nothing moves any more."""
    stalled_after = max(STALLED_AFTER, 600 / rehearsal.options.speed)
    rest: datetime | None = None
    moved_at = time.monotonic()
    seen: object = None
    with _screen(rehearsal) as draw:
        while True:
            began = time.monotonic()
            now = await _glance(rehearsal)
            draw(now)
            for task in tasks:
                if task.done():
                    task.result()
            progress = (now.leads, now.changes, now.enqueued, now.due)  # at last it is the log alone that is read, by what it names
            if progress != seen:
                seen, moved_at = progress, began
            elif began - moved_at > stalled_after:
                raise RehearsalError(f"nothing has moved for {stalled_after:.0f} s: {rehearsal.board.line(now)}; {_last_words(rehearsal)}")
            if not all(task.done() for task in tasks) or await _has_work(rehearsal):
                rest = None
            elif rest is None:
                rest = rehearsal.clock.now()
            elif await _has_caught_up(rehearsal, rest):
                return
            await asyncio.sleep(max(LOOK_EVERY, (time.monotonic() - began) / LOOKING_SHARE))


async def _has_work(rehearsal: Rehearsal) -> bool:
    """Whether a change is not settled yet, or an import may still change leads in Marketo (one whose reply was lost, say)."""
    return any(slot.owner == "ours" for slot in rehearsal.simulator.slots()) or bool(
        await rehearsal.connection.fetchval(UNSETTLED, INSTANCE)
    )


async def _has_caught_up(rehearsal: Rehearsal, rest: datetime) -> bool:
    """Whether the mirror knows all that has happened up to `rest`."""
    lost_at = rehearsal.others.lost_at
    if lost_at is not None and not await rehearsal.connection.fetchval(LOSSES_SEEN, INSTANCE, lost_at + CLOCKS_DIFFER):
        return False
    return bool(await rehearsal.connection.fetchval(CAUGHT_UP, INSTANCE, PULL, rest))


async def _glance(rehearsal: Rehearsal) -> Glance:
    connection, simulator = rehearsal.connection, rehearsal.simulator
    return Glance(
        leads=await connection.fetchval(LEADS, INSTANCE),
        changes={row["state"]: row["changes"] for row in await connection.fetch(IN_STATE, INSTANCE)},
        at=time.monotonic(),
        leads_in_marketo=len(simulator.world),
        enqueued=rehearsal.application.enqueued,
        to_enqueue=rehearsal.options.changes,
        slots=simulator.slots(),
        calls_last_20s=simulator.report().calls_last_20s,
        calls_limit=rehearsal.settings.instances[0].limits.calls_per_20s,
        exports=simulator.exports(),
        due=await connection.fetchval(DUE, INSTANCE),
    )


@contextmanager
def _screen(rehearsal: Rehearsal) -> Iterator[Callable[[Glance], None]]:
    """Where glances are shown: a board on a terminal, else a line every few seconds."""
    console, board = rehearsal.console, rehearsal.board
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            yield lambda now: live.update(board.draw(now), refresh=True)
        return
    last = -LINE_EVERY

    def tell(now: Glance) -> None:
        nonlocal last
        if now.at - last >= LINE_EVERY:
            last = now.at
            console.print(board.line(now), soft_wrap=True, highlight=False, markup=False)

    yield tell


def _last_words(rehearsal: Rehearsal) -> str:
    """The end of the daemon's log, which goes with the temporary folder."""
    lines = [line for line in rehearsal.log.read_text("utf-8").splitlines() if "event=metrics" not in line]
    return "\n  ".join(["the end of its log:", *lines[-12:]])


async def _keep(rehearsal: Rehearsal) -> None:
    """Say how to look into the database, and leave it up until the user has seen enough."""
    psql = shutil.which("psql") or str(find_binaries(None).directory / "psql")
    command = f"{psql} {shlex.quote(rehearsal.postgres.tcp_dsn)}"
    lines = ["", "The database is up. To look into it:", f"  {command}"]
    for what, query in QUERIES:
        lines += [f"-- {what}", f"  {query};"]
    lines.append("Ctrl-C stops it and removes it.")
    for line in lines:
        rehearsal.console.print(line, soft_wrap=True, markup=False, highlight=False)
    with contextlib.suppress(asyncio.CancelledError):  # by the signal, see _signals
        await asyncio.Event().wait()
