"""`make bench-push`: pending changes claimed into chunks, and sealed chunks rendered, beside psql's `\\copy` and `split -C`.

Claims are the packer's own steps, in turns on a database where 10,000 changes wait and on one where a million do. Rendering takes
turns with psql, which is given the same rows in a flat table and cuts them into files of the same size; it also writes the files
that we need not, and breaks a record that holds a line end. Rows/s say little on another machine: the yardstick is the least that
any claim does, one UPDATE of as many rows to another state under two partial indexes.
"""

import argparse
import asyncio
import logging
import os
import platform
import resource
import subprocess
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import structlog
from rich.console import Console
from rich.table import Table

from syncd.cli.running import collect_rarely
from syncd.core.settings import Limits, Push
from syncd.flows.loop import Worked
from syncd.flows.push import Packer
from syncd.marketo.imports import envelope, envelope_bytes
from syncd.ops.clock import WallClock
from syncd.ops.metrics import Metrics
from syncd.store import chunks, migrate, pushes
from syncd.store.binaries import find_binaries
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.leases import Lease, Pool
from syncd.store.pool import create_pool
from tests.benchmarks import ours
from tests.benchmarks.cost import MEGABYTE, Cost, Costs, measured, median, ratio

# One turn of a side is not to be disturbed by what an earlier one has left behind.
SERVER = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off"}
PUSH = Push("contacts")
FIELDS = ("firstName", "lastName", "company", "title", "phone", "city", "leadScore", "unsubscribed")
# ($1, $2]: the numbers of the changes; one in five has a value that needs quotes
PENDING = """
INSERT INTO syncd.outbox (instance, push, key, fields)
SELECT 'acme', 'contacts', 'lead.' || n || '@example.com', jsonb_build_object(
       'firstName', 'First ' || n % 977, 'lastName', 'Größmann-' || n, 'company', CASE n % 5 WHEN 0 THEN 'Example, "Inc." ' ELSE 'Grün GmbH ' END || n % 9973,
       'title', 'Head of R&D, section ' || n % 31, 'phone', '+1 555 ' || n, 'city', 'São Paulo', 'leadScore', n % 120, 'unsubscribed', n % 7 = 0)
  FROM generate_series($1::bigint + 1, $2::bigint) n
"""  # noqa: E501
FLAT = """
CREATE TABLE flat AS
SELECT key AS email, fields ->> 'city' AS city, fields ->> 'company' AS company, fields ->> 'firstName' AS "firstName",
       fields ->> 'lastName' AS "lastName", fields ->> 'leadScore' AS "leadScore", fields ->> 'phone' AS phone,
       fields ->> 'title' AS title, fields ->> 'unsubscribed' AS unsubscribed
  FROM syncd.outbox WHERE chunk_id = ANY ($1::bigint[]) ORDER BY chunk_id, ordinal
"""
YARDSTICK = """
DROP TABLE IF EXISTS yardstick;
CREATE TABLE yardstick AS
SELECT id, instance, push, key, fields, created_at, 'pending' AS state FROM syncd.outbox ORDER BY id DESC LIMIT 50000;
ALTER TABLE yardstick ADD PRIMARY KEY (id);
CREATE INDEX ON yardstick (instance, push, id) WHERE state = 'pending';
CREATE INDEX ON yardstick (instance, push, id) WHERE state = 'packed';
"""
ONE_UPDATE = "UPDATE yardstick SET state = 'packed'"
YARDSTICK_RATE = 1_000_000 / 8.7  # rows/s where a claim of 30,000 rows/s was measured (8.7 s for a million)
SEALED = "SELECT id, row_count, byte_count, sha256 FROM syncd.chunk WHERE state = 'sealed' ORDER BY id"
SPARE = """
SELECT max($1 - c.byte_count - (SELECT max(octet_length(line)) FROM syncd.chunk_row r WHERE r.chunk_id = c.id)), max(c.byte_count)
  FROM syncd.chunk c WHERE c.state = 'sealed'
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Changes that wait in the large backlog and in the small one, chunks rendered in a turn, their bytes."""

    rounds: int
    large: int
    small: int
    chunks: int
    max_body_bytes: int


FULL = Size(rounds=5, large=1_000_000, small=10_000, chunks=2, max_body_bytes=PUSH.max_body_bytes)
SMALL = Size(rounds=1, large=60_000, small=1_000, chunks=2, max_body_bytes=100_000)


class Backlog:
    """A database in which changes wait, and the packer that claims them."""

    def __init__(self, lease: Lease, server: int, size: Size) -> None:
        self.pool: Pool = lease.pool
        self._server = server
        self._enqueued = 0
        push = Push(PUSH.name, max_body_bytes=size.max_body_bytes)
        self._packer = Packer("acme", [push], Limits(import_slots=10_000), lease, WallClock(), Metrics())

    async def enqueue(self, count: int) -> None:
        """`count` changes more, each of a lead of its own."""
        await self.pool.execute(PENDING, self._enqueued, self._enqueued + count, timeout=600)
        self._enqueued += count

    async def claim(self, count: int) -> Cost:
        """What claiming at least `count` changes costs, until they are committed and full chunks sealed."""
        with measured(0, self._server) as cost:
            while cost.leads < count:
                outcome = await self._packer.step()
                assert isinstance(outcome, Worked), "the backlog is used up"
                cost.leads += outcome.count
        return cost


async def update_once(pool: Pool, server: int) -> Cost:
    """What one UPDATE costs, of as many rows as there are in the yardstick."""
    await pool.execute(YARDSTICK, timeout=600)
    with measured(50_000, server) as cost:
        await pool.execute(ONE_UPDATE, timeout=600)
    return cost


async def render(pool: Pool, server: int, ids: list[int]) -> Cost:
    """What the bodies of sealed chunks cost, hash compared, one after the other as they are sent."""
    with measured(0, server) as cost:
        for chunk_id in ids:
            chunk = await chunks.get(pool, chunk_id)
            file = await chunks.render(pool, chunk_id)
            assert await asyncio.to_thread(lambda: sha256(file).digest()) == chunk.sha256  # noqa: B023 - awaited here
            prefix, suffix = envelope(chunk.sha256.hex(), chunk.format)
            assert len(prefix) + len(file) + len(suffix) == chunk.byte_count + envelope_bytes(chunk.format)
            cost.leads += chunk.row_count
    return cost


def copy_and_split(psql: Path, dsn: str, server: int, folder: Path, rows: int, max_bytes: int) -> Cost:
    """psql's file of the flat table, cut where lines end."""
    whole = folder / "whole.csv"
    parts = urlsplit(dsn)
    environment = {**os.environ, "PGPASSWORD": parts.password or ""}
    without_password = dsn.replace(f":{parts.password}@", "@")
    base = _children()
    with measured(rows, server) as cost:
        command = [str(psql), "--no-psqlrc", "-q", "-d", without_password, "-c", f"\\copy flat TO '{whole}' (FORMAT csv, HEADER)"]
        subprocess.run(command, check=True, env=environment)
        subprocess.run(["split", "-C", str(max_bytes), whole, folder / "part."], check=True)
    cost.cpu += _children() - base
    for path in folder.iterdir():
        path.unlink()
    return cost


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def measure(small: Backlog, large: Backlog, dsn: str, server: int, folder: Path, size: Size) -> dict[str, list[Cost]]:
    """Both claims and both renderings, in turns."""
    costs: dict[str, list[Cost]] = defaultdict(list)
    await large.enqueue(size.large)
    # Enough for the chunks that are rendered; while the buffers are cold nothing is measured.
    ids: list[int] = []
    while len(ids) < size.chunks:
        await large.claim(1)
        ids = [row["id"] for row in await large.pool.fetch(SEALED)][: size.chunks]
    await large.pool.execute(FLAT, ids, timeout=600)
    rows = await large.pool.fetchval("SELECT count(*) FROM flat")
    psql = find_binaries(None).directory / "psql"
    await small.enqueue(size.small)
    await small.claim(size.small)
    for _ in range(size.rounds):
        await small.enqueue(size.small)
        costs["claim small"].append(await small.claim(size.small))
        costs["claim large"].append(await large.claim(size.small))
        costs["yardstick"].append(await update_once(large.pool, server))
        costs["render"].append(await render(large.pool, server, ids))
        costs["psql"].append(copy_and_split(psql, dsn, server, folder, rows, size.max_body_bytes))
    return costs


def print_costs(console: Console, costs: Costs, size: Size, spare: int, largest: int) -> None:
    """Rows/s, CPU and memory of each side, then the figures."""
    table = Table(title="pending changes → chunks → bodies", title_justify="left")
    for heading in ("", "rows/s", "CPU s per 100,000", "with PostgreSQL's", "peak MB over base"):
        table.add_column(heading, justify="right" if heading else "left")
    for side, name in (
        ("claim small", f"claim, {size.small:,} pending"), ("claim large", f"claim, {size.large:,} pending"),
        ("yardstick", "one UPDATE"), ("render", "sealed chunk → body"), ("psql", "psql \\copy + split -C"),
    ):  # fmt: skip
        each = costs[side]
        table.add_row(
            name, f"{median(each, lambda cost: cost.rate):,.0f}", f"{median(each, lambda cost: cost.cpu_per_lead) * 1e5:.2f}",
            f"{median(each, lambda cost: cost.all_cpu_per_lead) * 1e5:.2f}", f"{max(cost.memory for cost in each) / MEGABYTE:.0f}",
        )  # fmt: skip
    console.print(table)

    def less_cpu(cost: Cost) -> float:
        return 1 / cost.all_cpu_per_lead

    by_cpu = median(costs["claim large"], less_cpu)
    console.print(f"claim: {by_cpu:,.0f} rows/s of one core's CPU, PostgreSQL's included (wanted ≥ 30,000)")
    for name, wanted, one, other in (
        ("claim against one UPDATE", f"≥ {30_000 / YARDSTICK_RATE:.2f}", "claim large", "yardstick"),
        ("claim, large backlog against small", "the same", "claim large", "claim small"),
        ("sealed chunk → body against psql \\copy + split -C", "≥ 0.75", "render", "psql"),
    ):
        console.print(f"{name}: {ratio(costs, one, other):.2f}, {ratio(costs, one, other, less_cpu):.2f} by CPU (wanted {wanted})")
    console.print(f"full bodies: the largest {largest:,} of {size.max_body_bytes:,} bytes, each within one row of it: {spare < 0}")
    console.print("memory: wanted ≤ 64 MB over base")


async def main(size: Size, console: Console) -> None:
    """Measure, and print what was measured."""
    collect_rarely()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syncd-bench-", ignore_cleanup_errors=True)))
        folder.chmod(0o711)  # as root the server runs as `nobody`
        postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres", SERVER))
        assert postgres.pid is not None
        connection = await asyncpg.connect(postgres.dsn)
        await connection.execute("CREATE DATABASE small")
        await connection.close()
        backlogs = []
        for dsn in (postgres.dsn.replace("@/syncd?", "@/small?"), postgres.dsn):
            await migrate.upgrade(dsn)
            pool = await create_pool(dsn, application_name="syncd benchmark", min_size=2, max_size=2)
            stack.push_async_callback(pool.close)
            lease, holder = await ours.lease_of(dsn, pool, "acme")
            stack.callback(holder.terminate)
            async with lease.transaction() as transaction:
                await pushes.register(transaction, "acme", [PUSH.name])
            backlogs.append(Backlog(lease, postgres.pid, size))
        console.print(
            f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
            f"PostgreSQL {await pool.fetchval('SHOW server_version')}, asyncpg {version('asyncpg')}"
        )
        files = folder / "files"
        files.mkdir()
        costs = await measure(backlogs[0], backlogs[1], postgres.dsn, postgres.pid, files, size)
        limit = size.max_body_bytes - envelope_bytes(PUSH.format)
        spare, largest = await backlogs[1].pool.fetchrow(SPARE, limit) or (0, 0)
        print_costs(console, costs, size, spare, largest + envelope_bytes(PUSH.format))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--small", action="store_true", help="a few thousand changes, to see that it runs")
    asyncio.run(main(SMALL if arguments.parse_args().small else FULL, Console(width=120, highlight=False)))
