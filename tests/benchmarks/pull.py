"""`make bench-pull`: syncd's pull beside what a user would write, beside its own steps, and beside the machine's limit.

All sides are given the same replies and take turns, round by round; what is printed are medians over the rounds, and medians of
the rounds' ratios. zeep and xmltodict are given fewer leads, as they take so much longer; each round's leads are new ones. The whole
path keeps no history, since the other side keeps none; the write step alone does. It walks as many windows side by side as a pull
does by default; like the other side, it is one process.
"""

import argparse
import asyncio
import logging
import os
import platform
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
import structlog
from rich.console import Console

from syncd.cli.running import collect_rarely, loop_factory
from syncd.core.mirror import MirrorRow
from syncd.store import migrate
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.leases import Lease, Pool
from syncd.store.pool import create_pool
from tests.benchmarks import latency, ours, report
from tests.benchmarks.cost import Cost, measured, own_heap
from tests.benchmarks.others import WithZeep, rows_by_xmltodict, rows_by_zeep
from tests.benchmarks.pages import Page, changed, invented, shares_of

PAGE = 300  # Adobe's advice (protocol 1.3)
KINDS = ("new", "changed", "unchanged")
# One turn of a side is not to be disturbed by what an earlier one has left behind.
SERVER = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off"}


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure: pages a round of narrow leads and of wide ones, of which zeep gets some; pages of each latency window."""

    rounds: int
    narrow: int
    wide: int
    zeep: int
    latency_rounds: int
    latency_pages: int


FULL = Size(rounds=5, narrow=64, wide=20, zeep=5, latency_rounds=2, latency_pages=16)
SMALL = Size(rounds=1, narrow=4, wide=4, zeep=1, latency_rounds=1, latency_pages=1)


class Sides:
    """Everything that takes turns on leads of one width, and what it cost so far: "side kind" → a cost a round."""

    def __init__(self, pool: Pool, server: int, path: ours.WholePath, zeep: WithZeep, size: Size, *, wide: bool) -> None:
        self._pool = pool
        self._server = server
        self._path = path
        self._zeep = zeep
        self._size = size
        self._wide = wide
        self._walked = 10_000_000 if wide else 0
        self.costs: dict[str, list[Cost]] = defaultdict(list)
        self.stalls: list[tuple[float, float]] = []
        self.wal: dict[str, list[float]] = defaultdict(list)
        self.page_bytes = 0

    async def round(self) -> None:
        """One turn of each side."""
        pages = self._size.wide if self._wide else self._size.narrow
        people = invented(self._walked, pages * PAGE, wide=self._wide)
        self._walked += len(people)
        before, after = (shares_of(each, PAGE, ours.PULL.streams, wide=self._wide) for each in (people, changed(people)))
        self.page_bytes = len(before[0][0].body)
        self._read(before[0][: self._size.zeep])
        for kind, walked in zip(KINDS, (before, after, after), strict=True):
            await self._written(kind, walked)

    def _read(self, pages: list[Page]) -> None:
        """The steps that need no database."""
        leads = sum(page.leads for page in pages)
        with own_heap():
            self.stalls += map(ours.longest_stall, pages)
        with measured(leads) as cost:
            parsed = [ours.parsed(page) for page in pages]
        self.costs["parse"].append(cost)
        with measured(leads) as cost:
            for records in parsed:
                ours.mirrored(records)
        self.costs["mirror"].append(cost)
        del parsed
        self._zeep.replay(pages)
        with measured(leads) as cost:
            for page in pages:
                rows_by_zeep(self._zeep.parsed(page.position))
        self.costs["zeep parse"].append(cost)
        with measured(leads) as cost:
            for page in pages:
                rows_by_xmltodict(page.body)
        self.costs["xmltodict parse"].append(cost)

    async def _written(self, kind: str, shares: list[list[Page]]) -> None:
        pages = [page for share in shares for page in share]
        leads = sum(page.leads for page in pages)
        rows = [ours.mirrored(ours.parsed(page)) for page in pages]
        if kind == "new":
            await self._copied(rows)
        if kind == "unchanged":
            await self._pool.execute("VACUUM syncd.lead")  # else the first readers tidy up after the changed rows, and that is WAL
        for writers in (1, 2):
            at = await self._wal_position()
            with measured(leads, self._server) as cost:
                await ours.write(self._pool, f"written by {writers}", rows, writers)
            self.costs[f"write {writers} {kind}"].append(cost)
            self.wal[f"write {writers} {kind}"].append((await self._wal_position() - at) / leads)
        del rows
        at = await self._wal_position()
        with measured(leads, self._server) as cost:
            await self._path.walk(shares)
        self.costs[f"path {kind}"].append(cost)
        self.wal[f"path {kind}"].append((await self._wal_position() - at) / leads)
        some = shares[0][: self._size.zeep]
        with measured(sum(page.leads for page in some), self._server) as cost:
            self._zeep.walk(some)
        self.costs[f"zeep {kind}"].append(cost)

    async def _copied(self, rows: list[list[MirrorRow]]) -> None:
        every = [row for page in rows for row in page]
        for writers in (1, 2):
            whole = [[ours.copy_lines(f"copied by {writers}", every[number::writers])] for number in range(writers)]
            with measured(len(every), self._server) as cost:
                await ours.copy(self._pool, whole)
            self.costs[f"copy {writers}"].append(cost)
        paged = [ours.copy_lines("copied by the page", page) for page in rows]
        with measured(len(every), self._server) as cost:
            await ours.copy(self._pool, [paged])
        self.costs["copy paged"].append(cost)

    async def _wal_position(self) -> int:
        return await self._pool.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")  # type: ignore[no-any-return]


async def main(size: Size, console: Console) -> None:
    """Measure, and print what was measured."""
    collect_rarely()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syncd-bench-", ignore_cleanup_errors=True)))
        folder.chmod(0o711)  # as root the server runs as `nobody`
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres", SERVER))
        await migrate.upgrade(postgres.dsn)
        pool = await create_pool(postgres.dsn, application_name="syncd benchmark", min_size=8, max_size=8)
        stack.push_async_callback(pool.close)
        lease, holder = await ours.lease_of(postgres.dsn, pool, "acme")
        stack.callback(holder.terminate)
        console.print(_machine(await pool.fetchval("SHOW server_version")))
        path, zeep_side = ours.WholePath(lease), WithZeep(postgres.dsn)
        stack.callback(zeep_side.close)
        assert postgres.pid is not None
        far, far_holder = await ours.lease_of(postgres.dsn, pool, "far away")
        stack.callback(far_holder.terminate)
        await _latency(console, far, size)  # first, while this process is as small as a daemon
        await path.prepare()
        for wide in (False, True):
            sides = Sides(pool, postgres.pid, path, zeep_side, size, wide=wide)
            for _ in range(size.rounds):
                await sides.round()
            report.print_costs(console, sides.costs, sides.wal, f"{50 if wide else 10} fields, replies of {sides.page_bytes:,} bytes")
            report.print_ratios(console, sides.costs, sides.stalls, sides.wal)


async def _latency(console: Console, lease: Lease, size: Size) -> None:
    shares = defaultdict(list)
    async with latency.marketo(size.latency_pages * latency.PAGE) as endpoint:
        for _ in range(size.latency_rounds):
            for streams in (1, latency.WINDOWS):
                shares[streams].append(await latency.pull(endpoint, lease, streams))
    report.print_latency(console, shares)


def _machine(postgres: str) -> str:
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, PostgreSQL {postgres}, "
        f"lxml {version('lxml')}, asyncpg {version('asyncpg')}, zeep {version('zeep')}, xmltodict {version('xmltodict')}, "
        f"psycopg {version('psycopg')} ({psycopg.pq.__impl__})"
    )


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--small", action="store_true", help="a few pages of each, to see that it runs")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # as `syncd run`
        runner.run(main(SMALL if arguments.parse_args().small else FULL, Console(width=150, highlight=False)))
