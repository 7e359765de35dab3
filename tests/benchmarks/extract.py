"""`make bench-extract`: a file of an extract loaded by syncd's way, beside the csv module, `mirror_row` and pages of upserts.

Both sides are given the same bytes from memory in pieces as the network gives them, take turns, and write to a mirror that is empty
(new), then to one that has it all (unchanged). Memory is the peak above what there was before, of a file twenty times as large too.
"""

import argparse
import asyncio
import csv
import hashlib
import io
import random
import resource
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import structlog
from rich.console import Console
from rich.table import Table

from syncd.cli.running import loop_factory
from syncd.core.csvfile import render_line
from syncd.core.mirror import Dictionary, Vocabulary, mirror_row
from syncd.core.route import Route
from syncd.core.settings import Instance, Limits, Pull, UpdatedSince
from syncd.core.values import ExportStatus, LeadRecord, UpdatedBetween
from syncd.core.windows import Window
from syncd.flows.asking import asker_of
from syncd.flows.export_load import ExportLoader
from syncd.flows.exporting import Exporting, Reach
from syncd.flows.plan import register
from syncd.marketo.exports import Exports
from syncd.ops.clock import WallClock
from syncd.ops.metrics import Metrics
from syncd.store import cursors, exports, leads, leases, migrate, planning, routes
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.leases import Lease
from syncd.store.pool import create_pool
from tests.benchmarks.cost import MEGABYTE, Cost, Costs, measured, median, ratio

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = {
    **{f"text{number}": "string" for number in range(14)},
    "phone": "phone", "website": "url", "notes": "text",
    "score": "score", "employees": "integer", "revenue": "currency",
    "unsubscribed": "boolean", "optedIn": "boolean",
    "birthday": "date", "createdAt": "datetime", "updatedAt": "datetime",
}  # fmt: skip
FIELDS = ("id", "email", *KINDS)
DICTIONARY = Dictionary({name: name for name in FIELDS}, KINDS)
PULL = Pull("people", "bulk_extract", UpdatedSince(SINCE), FIELDS)
PIECE = 64 * 1024
PAGE = 1_000
WORDS = ("Grün GmbH", "Example, Inc.", 'Bolt & "Nut" Co', "two\nlines", "null", "Head of R&D", "São Paulo", "a plain value", "", "", "")


def lines(size: int, seed: int) -> Iterator[bytes]:
    """A file of about `size` bytes, its header aside; about 400 bytes a lead, every fifth text quoted."""
    chance, number, written = random.Random(seed), 0, 0
    while written < size:
        number += 1
        texts = [chance.choice(WORDS) for _ in range(14)]
        some = f"{number:06}"
        cells = [
            str(1_000_000 + number), f"lead.{some}@example.com", *texts,
            f"+1 555 {some}", f"https://www.example.com/{some}", "a longer note about a lead, written by somebody " * 2,
            str(chance.randrange(-5, 120)), str(chance.randrange(10_000)), f"{chance.randrange(10_000_000) / 100:.2f}",
            chance.choice(("true", "false")), "false",
            f"19{chance.randrange(50, 99)}-0{chance.randrange(1, 9)}-1{chance.randrange(9)}",
            f"2026-01-{chance.randrange(10, 32)}T1{chance.randrange(9)}:05:09Z",
            f"2026-02-{chance.randrange(10, 28)}T1{chance.randrange(9)}:05:09Z",
        ]  # fmt: skip
        line = render_line([cell or "null" for cell in cells], "csv").encode()
        written += len(line)
        yield line


@dataclass
class File:
    """On the disk, so that what is measured is not what holds it."""

    path: Path
    records: int
    size: int
    sha256: str

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while piece := file.read(PIECE):
                yield piece


def make_file(path: Path, size: int, seed: int, fields: Any) -> File:
    """Columns in the order that the export asks for."""
    digest, total, records = hashlib.sha256(), 0, 0
    places = [FIELDS.index(name) for name in fields]
    with path.open("wb") as file:
        header = render_line(fields, "csv").encode()
        file.write(header)
        digest.update(header)
        total += len(header)
        for line in lines(size, seed):
            (row,) = csv.reader(io.StringIO(line.decode(), newline=""))
            line = render_line([row[place] for place in places], "csv").encode()
            file.write(line)
            digest.update(line)
            total += len(line)
            records += 1
    return File(path, records, total, digest.hexdigest())


class FromDisk:
    """Stands where the export endpoints stand."""

    file: File

    async def download(self, export_id: str, start: int, size: int | None, sink: Callable[[bytes], Awaitable[None]]) -> None:
        for piece in self.file.pieces(start):
            await sink(piece)
            await asyncio.sleep(0)


class Bench:
    """One database, and both ways into it."""

    def __init__(self, pool: Any, server: int | None, directory: Path) -> None:
        self._pool, self._server, self._directory = pool, server, directory
        self._api, self._clock = FromDisk(), WallClock()
        self._windows = 0

    async def _vocabulary(self) -> Vocabulary:
        return Vocabulary(Dictionary({}), DICTIONARY)

    async def _prepared(self, lease: Lease, size: int, seed: int) -> tuple[ExportLoader, File]:
        """A window whose export is completed, and its file."""
        now, start = datetime.now(UTC), SINCE + timedelta(days=self._windows)
        self._windows += 1
        instance = Instance(lease.instance, pulls=(PULL,))
        async with lease.transaction() as connection:
            await register(connection, instance, now)
            await routes.choose(connection, lease.instance, PULL.name, Route(False, False, "windows", "a benchmark"), now)
            window = Window(start, start + timedelta(days=1))
            await planning.plan(connection, lease.instance, PULL.name, "bulk_extract", [window], now, now)
        (opened,) = await cursors.to_ask_for(self._pool, lease.instance, PULL.name)
        async with lease.transaction() as connection:
            wanted = UpdatedBetween(window.starts_at, window.ends_at)
            export, fields = await exports.begin(connection, lease.instance, PULL.name, opened.id, (0, 1), FIELDS, wanted, None, now)
        file = make_file(self._directory / f"{export}.csv", size, seed, fields)  # takes longer than a transaction may idle
        async with lease.transaction() as connection:
            await exports.to_created(connection, export, f"e-{export}", now)
            await exports.asked(connection, export, now)
            status = ExportStatus(f"e-{export}", "completed", file.records, file.size, file.sha256)
            await exports.looked(connection, export, status, now)
        reach = Reach(cast("Exports", self._api), lease, self._clock, Metrics(), random.Random(1))
        self._api.file = file
        loader = ExportLoader(instance, 1, Exporting(Limits()), self._vocabulary, reach)
        return loader, file

    async def ours(self, lease: Lease, size: int, seed: int) -> tuple[Cost, File]:
        loader, file = await self._prepared(lease, size, seed)
        with measured(file.size, self._server) as cost:
            await loader.step()
        count = await self._pool.fetchval("SELECT count(*) FROM syncd.lead WHERE instance = $1", lease.instance)
        assert count == file.records, (count, file.records)
        return cost, file

    async def by_csv(self, lease: Lease, file: File) -> Cost:
        """What one would write: the csv module over the whole text, rows brought into the mirror's form, pages of upserts."""
        instance = Instance(lease.instance, pulls=(PULL,))
        asker = asker_of(instance, PULL, await self._vocabulary())
        async with lease.transaction() as connection:
            await leads.ensure_history(connection, lease.instance, datetime.now(UTC).date())
        with measured(file.size, self._server) as cost:
            now, page = datetime.now(UTC), []
            with file.path.open(encoding="utf-8", newline="") as text:
                reader = csv.reader(text)
                header = next(reader)
                at_id, at_email = header.index("id"), header.index("email")
                others = [(place, name) for place, name in enumerate(header) if place not in (at_id, at_email)]
                for row in reader:
                    attributes = [(name, "string", row[place]) for place, name in others if row[place] not in ("", "null")]
                    email = row[at_email]
                    page.append(mirror_row(LeadRecord(int(row[at_id]), None if email == "null" else email, attributes), DICTIONARY))
                    if len(page) == PAGE:
                        async with lease.transaction() as connection:
                            await leads.upsert(connection, lease.instance, asker, page, now, now)
                        page = []
                if page:
                    async with lease.transaction() as connection:
                        await leads.upsert(connection, lease.instance, asker, page, now, now)
        return cost


@asynccontextmanager
async def opened(stack: AsyncExitStack) -> AsyncIterator[Bench]:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syncd-bench-")))
    directory.chmod(0o755)
    server = await stack.enter_async_context(EmbeddedPostgres(directory / "pg"))
    await migrate.upgrade(server.dsn)
    pool = await create_pool(server.dsn, application_name="syncd bench", min_size=2, max_size=6)
    stack.push_async_callback(pool.close)
    yield Bench(pool, getattr(server, "pid", None), directory)


async def run(size: int, rounds: int, large: int, console: Console) -> tuple[Costs, Cost]:
    costs: dict[str, list[Cost]] = defaultdict(list)
    async with AsyncExitStack() as stack, opened(stack) as bench:
        dsn_pool = bench._pool

        async def lease(name: str) -> Lease:
            connection = await dsn_pool.acquire()
            stack.push_async_callback(dsn_pool.release, connection)
            held = await leases.acquire(connection, dsn_pool, name, uuid4(), 15.0)
            assert held is not None
            return held

        one, two = await lease("extract"), await lease("csv")
        for number in range(rounds):
            await dsn_pool.execute("TRUNCATE syncd.lead, syncd.lead_history")
            for kind in ("new", "unchanged"):
                cost, file = await bench.ours(one, size, number)
                costs[f"ours {kind}"].append(cost)
                costs[f"csv {kind}"].append(await bench.by_csv(two, file))
                file.path.unlink()
                console.print(f"round {number + 1}, {kind}: {cost.wall:.2f} s")
        await dsn_pool.execute("TRUNCATE syncd.lead, syncd.lead_history")
        whole, file = await bench.ours(one, large, 99)
        file.path.unlink()
    return costs, whole


def print_costs(console: Console, costs: Costs, whole: Cost, size: int, large: int) -> None:
    table = Table(title=f"a file of {size / 1e6:.0f} MB", title_justify="left")
    for heading in ("", "MB/s", "Python's CPU, % of wall", "peak MB over base"):
        table.add_column(heading, justify="right" if heading else "left")
    for side in ("ours new", "ours unchanged", "csv new", "csv unchanged"):
        each = costs[side]
        table.add_row(
            side, f"{median(each, lambda c: c.rate / 1e6):.1f}", f"{median(each, lambda c: 100 * c.cpu / c.wall):.0f}",
            f"{max(c.memory for c in each) / MEGABYTE:.0f}",
        )  # fmt: skip
    table.add_row(
        f"ours new, {large / 1e6:.0f} MB",
        f"{whole.rate / 1e6:.1f}",
        f"{100 * whole.cpu / whole.wall:.0f}",
        f"{whole.memory / MEGABYTE:.0f}",
    )
    console.print(table)
    for kind in ("new", "unchanged"):
        by_cpu = ratio(costs, f"ours {kind}", f"csv {kind}", lambda cost: 1 / cost.all_cpu_per_lead)
        by_wall = ratio(costs, f"ours {kind}", f"csv {kind}")
        console.print(f"{kind}: {by_wall:.2f} times the csv module's way, {by_cpu:.2f} by CPU (wanted ≥ 1.3 for new)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"Python's CPU ≤ 10 % of wall, memory ≤ 150 MB whatever the file: peak of the process {peak:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="only to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=200, help="MB of the large file")
    options = parser.parse_args()
    size, large = (200_000, 1_000_000) if options.small else (10_000_000, options.large * 1_000_000)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    console = Console(width=110, file=sys.stdout)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # as `syncd run`
        costs, whole = runner.run(run(size, 1 if options.small else options.rounds, large, console))
    print_costs(console, costs, whole, size, large)


if __name__ == "__main__":
    main()
