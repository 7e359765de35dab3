"""`syncd migrate`, `status` and `simulate`, and how commands come to an embedded database."""

import json
import re
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from syncd.cli.opening import open_database, running_dsn
from syncd.config import load
from syncd.core.settings import Database
from syncd.store import migrate, schema
from syncd.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.cli.conftest import Run, Start, Yaml

README = Path(__file__).parents[2] / "README.md"


async def test_migrate_says_from_and_to(syncd: Run, yaml: Yaml, empty_database: str) -> None:
    yaml.dsn = empty_database
    ran = await syncd("migrate", "-c", yaml.write())
    assert (ran.code, ran.out) == (0, f"migrated from nothing to {schema.head()}\n")
    assert await migrate.current(empty_database) == schema.head()
    assert (await syncd("migrate", "-c", yaml.file)).out == f"at {schema.head()} already\n"


async def test_migrate_without_rights_is_one_line(syncd: Run, yaml: Yaml, empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    await connection.execute("DROP ROLE IF EXISTS nobody_much; CREATE ROLE nobody_much LOGIN PASSWORD 'x'")
    await connection.execute("CREATE SCHEMA syncd; GRANT USAGE ON SCHEMA syncd TO nobody_much")
    yaml.dsn = f"postgresql://nobody_much:x@{empty_database.rpartition('@')[2]}"
    ran = await syncd("migrate", "-c", yaml.write())
    assert (ran.code, ran.err) == (1, "the database failed: permission denied for schema syncd; run syncd check\n")
    await connection.execute("DROP OWNED BY nobody_much; DROP ROLE nobody_much")
    await connection.close()


async def test_the_sql_needs_neither_yaml_nor_database(syncd: Run) -> None:
    ran = await syncd("migrate", "--sql", "-c", "/none.yaml")
    assert ran.code == 0
    assert "CREATE TABLE syncd.outbox (" in ran.out
    assert "COMMENT ON TABLE  syncd.request" in ran.out


async def insert_some(pool: asyncpg.Pool) -> None:
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', 'a@example.com', '{}') FROM generate_series(1, 3)")
    await pool.execute("INSERT INTO syncd.push (instance, push, state, message) VALUES ('acme', 'contacts', 'blocked', E'603 \\x1b[31m')")
    await pool.execute(
        """INSERT INTO syncd.pull (instance, pull, selector, planned_until) VALUES ('acme', 'people', 's', now() - interval '3 hours')"""
    )
    await pool.execute(
        """INSERT INTO syncd.lease VALUES ('acme', 1, gen_random_uuid(), 'host-a', 42, now(), now() - interval '3 seconds')"""
    )


async def test_status_for_people(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_some(pool)
    yaml.instances = ("acme", "beta")
    ran = await syncd("status", "-c", yaml.write())
    assert ran.code == 0
    assert "\x1b" not in ran.out, "no colours, nor Marketo's, when not on a terminal"
    assert "pid 42 on host-a, last sign of life 3 s ago" in ran.out
    assert "contacts  blocked  pending 3" in ran.out
    assert "people  running" in ran.out
    assert "3 h" in ran.out
    assert ran.out.endswith("beta: no daemon has worked for it yet, and no changes wait; start syncd run\n")


async def test_status_tells_the_ways_of_pulls(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_some(pool)
    await pool.execute(
        """UPDATE syncd.pull SET source = 'auto', follows = 'activities', routed_at = now(), route_reason = E'cheap\\x1b[31m',
                  selector = '{"kind": "updated_since"}'"""
    )
    await pool.execute(
        """INSERT INTO syncd.lead_due (instance, pull, lead_id, reason, noted_at)
           SELECT 'acme', 'people', n, 'changed', now() - interval '4 hours' FROM generate_series(1, 1234) n"""
    )
    await pool.execute(
        """INSERT INTO syncd.export (instance, pull, window_id, part, parts, state, export_id, fields, wanted, estimate, begun_at, asked_at)
           VALUES ('acme', 'people', 1, 1, 3, 'queued', 'ce45a7a1', '{id}', '{}', 20000000, now() - interval '5 minutes', now())"""
    )
    await pool.execute(
        "INSERT INTO syncd.census (instance, started_at, finished_at, leads, missing) VALUES ('acme', now(), now(), 5000, 3)"
    )
    ran = await syncd("status", "-c", yaml.write())
    assert (ran.code, "\x1b" in ran.out) == (0, False)
    pulls, ways = re.findall("^people .*$", ran.out, re.MULTILINE)
    assert re.split("  +", ways) == ["people", "auto", "extracts by updatedAt, then the activity log", "1,234, for 4 h", "cheap [31m"]
    assert "  4 h  " in pulls, "as far behind as the lead that is due for longest"
    (export,) = re.findall("^1  +people, .*$", ran.out, re.MULTILINE)
    assert re.split("  +", export) == ["1", "people, part 2 of 3", "ce45a7a1", "queued", "5 min"]
    assert "0.0 MB completed, 20.0 MB expected of exports under way, 480.0 MB of 500.0 MB left until midnight US Central" in ran.out
    assert "5,000 leads at Marketo's; 3 were missing from the mirror, 0 in it no longer at Marketo's" in ran.out


async def test_status_for_programs(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_some(pool)
    await pool.execute("SELECT syncd.enqueue('other', 'x', 'k', '{}')")
    ran = await syncd("status", "-c", yaml.write(), "--instance", "acme", "--json")
    [acme] = json.loads(ran.out)["instances"]
    assert (acme["name"], acme["pushes"][0]["live"]) == ("acme", {"pending": 3})
    assert datetime.fromisoformat(acme["pulls"][0]["watermark"]).tzinfo is not None


async def test_a_server_that_is_away_is_1(syncd: Run, yaml: Yaml) -> None:
    yaml.dsn = "postgresql://syncd:hidden@127.0.0.1:1/syncd"
    ran = await syncd("status", "-c", yaml.write())
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("database postgresql://syncd@127.0.0.1:1/syncd: no server answers there")


async def test_a_missing_schema_is_78(syncd: Run, yaml: Yaml, empty_database: str) -> None:
    yaml.dsn = empty_database
    ran = await syncd("status", "-c", yaml.write())
    assert (ran.code, ran.err.count("\n")) == (78, 1)
    assert ran.err.endswith("run syncd migrate\n")


async def test_a_missing_database_is_78(syncd: Run, yaml: Yaml) -> None:
    yaml.dsn = yaml.dsn.replace("/test_", "/none_")
    ran = await syncd("status", "-c", yaml.write())
    assert (ran.code, ran.err.count("\n")) == (78, 1)
    assert "the server has no such database" in ran.err


async def test_simulate_prints_a_configuration_that_loads(start: Start, tmp_path: Path) -> None:
    simulator = await start("simulate", "--port", "0", "--leads", "3", "--speed", "5")
    hint = await simulator.line("^# Its Marketo runs here")
    assert " --clock 5@" in hint
    simulator.signal(signal.SIGINT)
    code, said = await simulator.end()
    assert code == 0
    snippet, _, report = said.partition("# Its Marketo")
    file = tmp_path / "syncd.yaml"
    file.write_text(snippet)
    [instance] = load(file, {}).instances
    assert instance.name == "rehearsal"
    assert "violations       none" in report

    (of_readme,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    shown = "\n".join(line for line in snippet.splitlines() if line and not line.startswith("#"))
    since = re.compile(r"(?<=updated_since: )\S+(?=T00:00:00Z)")
    (began,) = since.findall(shown)
    assert timedelta(days=7) <= datetime.now(UTC) - datetime.fromisoformat(f"{began}T00:00:00+00:00") < timedelta(days=8)
    assert since.sub("A-WEEK-AGO", re.sub(r"(127\.0\.0\.1):\d+", r"\1:8899", shown)) == since.sub("A-WEEK-AGO", of_readme.rstrip("\n"))


async def test_all_that_simulate_prints_is_there(syncd: Run, start: Start, tmp_path: Path, database: str) -> None:
    simulator = await start("simulate", "--port", "0", "--leads", "3")
    printed = ""
    while "# Its Marketo runs here" not in printed:
        printed += await simulator.line("")
    (tmp_path / "syncd.yaml").write_text(printed.replace("embedded: rehearsal-postgres", f'dsn: "{database}"'))
    ran = await syncd("check", "-c", tmp_path / "syncd.yaml")
    assert ran.code == 0, ran.out
    assert re.search("✓  pull guests: static list +Events.Guests has 3 members$", ran.out, re.MULTILINE), "as many as there are"


async def test_simulate_on_a_taken_port(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = await (await start("simulate", "--port", port)).end()
    assert (code, said) == (1, f"cannot listen on 127.0.0.1:{port} (Address already in use); choose another --port\n")


async def test_a_running_embedded_server_is_shared(postgres: EmbeddedPostgres, postgres_directory: Path) -> None:
    async with open_database(Database(embedded=postgres_directory)) as dsn:
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SELECT current_user") == "syncd"
        await connection.close()
    assert postgres.pid is not None, "it was not ours to stop"


async def test_no_embedded_server_runs_where_there_is_none(tmp_path: Path) -> None:
    assert running_dsn(tmp_path) is None
    (tmp_path / "taken").write_text("")
    with pytest.raises(EmbeddedPostgresError):
        async with open_database(Database(embedded=tmp_path / "taken")):
            pass
