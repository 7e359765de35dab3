"""`syncd check` names what is wrong, where it stands and what to do."""

import asyncio
import json
import random
import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from syncd.config import load
from syncd.core.findings import Finding
from syncd.core.quota import Api
from syncd.daemon import Daemon
from syncd.flows.check import probe
from syncd.marketo.wire import open_wire
from syncd.ops.clock import WallClock
from syncd.ops.metrics import Metrics
from syncd.simulator import ExportModel, ScaledClock, Simulator, SimulatorSettings
from syncd.store import requests, schema
from tests.cli.conftest import LONGEST, Run, Yaml

CLOSED = "http://127.0.0.1:1"


def failed(out: str) -> dict[str, tuple[str, str]]:
    """What → (what happened, remedy) of the rows with ✗."""
    lines = [line.strip() for line in out.splitlines()]
    rows = [(line.lstrip("✗ "), after) for line, after in zip(lines, [*lines[1:], ""], strict=True) if line.startswith("✗")]
    return {what: (detail.strip(), after) for row, after in rows for what, _, detail in [row.partition("  ")]}


async def test_all_is_well(syncd: Run, yaml: Yaml, marketo: Simulator, pool: asyncpg.Pool) -> None:
    ran = await syncd("check", "-c", yaml.write())
    assert (ran.code, ran.err) == (0, "")
    assert "✗" not in ran.out
    for what in (
        "configuration",
        "database",
        "schema",
        "REST identity",
        "REST describe",
        "REST bulk import",
        "REST usage",
        "SOAP signature",
    ):
        assert f"✓  {what} " in ran.out
    assert "✓  push contacts: lookup_field  email is a field" in ran.out
    assert "✓  pull people: fields          2 fields, all there" in ran.out
    report = marketo.report()
    assert not report.violations
    assert report.imports_accepted == 0, "a check acts on nothing"
    assert {row["api"]: row["calls"] for row in await pool.fetch("SELECT api, calls FROM syncd.api_usage")} == {"rest": 5, "soap": 1}


@pytest.mark.parametrize("part", ["client_id", "client_secret"])
async def test_wrong_rest_credentials(syncd: Run, yaml: Yaml, part: str) -> None:
    setattr(yaml, part, "mistaken")
    ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 1
    assert failed(ran.out) == {
        "REST identity": (
            "identity refuses the client id or the client secret; REST was not tried further",
            "→ correct instances.acme.rest.client_id or client_secret: compare both with Admin > LaunchPoint, View Details",
        )
    }
    assert "✓  SOAP signature" in ran.out
    assert "mistaken" not in ran.out


@pytest.mark.parametrize("part", ["user_id", "encryption_key"])
async def test_wrong_soap_credentials(syncd: Run, yaml: Yaml, part: str) -> None:
    setattr(yaml, part, "mistaken")
    ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 1
    [(what, (detail, remedy))] = failed(ran.out).items()
    assert what == "SOAP signature"
    assert detail.startswith("getMultipleLeads: 20014 ")
    assert remedy == "→ correct instances.acme.soap.user_id or encryption_key: compare both with Admin > Web Services > SOAP API"
    assert "mistaken" not in ran.out


async def test_programs_get_the_same(syncd: Run, yaml: Yaml, database: str) -> None:
    config = yaml.write()
    ran = await syncd("check", "--json", "-c", config)
    told = json.loads(ran.out)
    assert (ran.code, told["ok"]) == (0, True)
    assert {key: told["findings"][0][key] for key in ("instance", "what", "ok")} == {"instance": None, "what": "configuration", "ok": True}
    yaml.client_secret = "wrong"
    ran = await syncd("check", "--json", "-c", yaml.write())
    told = json.loads(ran.out)
    assert (ran.code, told["ok"]) == (1, False)
    failures = [finding for finding in told["findings"] if not finding["ok"]]
    assert {finding["instance"] for finding in failures} == {"acme"}
    assert "LaunchPoint" in failures[0]["detail"] + failures[0]["remedy"]


async def test_a_secret_file_that_everybody_can_read_is_found(syncd: Run, yaml: Yaml) -> None:
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret"
        secret.write_text(yaml.client_secret)
        secret.chmod(0o644)
        yaml.client_secret = f"{{file: {secret}}}"
        ran = await syncd("check", "-c", yaml.write())
        assert ran.code == 1
        assert failed(ran.out) == {"secret file": (f"every user of this machine can read {secret}", f"→ chmod o-r {secret}")}
        secret.chmod(0o640)
        assert (await syncd("check", "-c", yaml.file)).code == 0


async def test_wrong_endpoints(syncd: Run, yaml: Yaml) -> None:
    yaml.rest, yaml.soap = CLOSED, f"{CLOSED}/soap"
    ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 1
    found = failed(ran.out)
    assert list(found) == ["REST identity", "SOAP signature"]
    assert "127.0.0.1:1" in found["REST identity"][0]
    assert found["REST identity"][1].startswith("→ correct instances.acme.rest.endpoint (or identity); ")
    assert "127.0.0.1:1" in found["SOAP signature"][0]
    assert found["SOAP signature"][1].startswith("→ correct instances.acme.soap.endpoint; ")


async def test_an_endpoint_that_is_not_marketo(syncd: Run, yaml: Yaml, marketo: Simulator) -> None:
    yaml.rest, yaml.soap = f"{marketo.rest_endpoint}/elsewhere", f"{marketo.rest_endpoint}/elsewhere"
    found = failed((await syncd("check", "-c", yaml.write())).out)
    assert found["REST identity"][1].startswith("→ correct instances.acme.rest.endpoint (or identity); ")
    assert found["SOAP signature"][1].startswith("→ correct instances.acme.soap.endpoint; ")


@pytest.mark.parametrize(
    ("dsn", "detail", "remedy"),
    [
        ("postgresql://syncd:hidden@127.0.0.1:1/syncd", "no server answers there", "check host and port in the DSN"),
        ("postgresql://syncd:hidden@nowhere.invalid/syncd", "the host name is not known", "check it in the DSN"),
    ],
)
async def test_wrong_dsn(syncd: Run, yaml: Yaml, dsn: str, detail: str, remedy: str) -> None:
    yaml.dsn = dsn
    ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 1
    [(what, found)] = failed(ran.out).items()
    assert what == "database"
    assert detail in found[0]
    assert remedy in found[1]
    assert found[1].endswith(f"(database.dsn in {yaml.file})")
    assert "✓  SOAP signature" in ran.out, "Marketo is tried all the same"
    assert "hidden" not in ran.out


async def test_wrong_password(syncd: Run, yaml: Yaml) -> None:
    user_and_password, _, rest = yaml.dsn.rpartition("@")
    yaml.dsn = f"{user_and_password.rpartition(':')[0]}:hidden@{rest}"
    found = failed((await syncd("check", "-c", yaml.write())).out)
    assert found["database"][0].endswith("the server refuses the user or the password")
    assert found["database"][1] == f"→ check both in the DSN (database.dsn in {yaml.file})"


async def test_a_database_without_the_schema(syncd: Run, yaml: Yaml, empty_database: str) -> None:
    yaml.dsn = empty_database
    ran = await syncd("check", "-c", yaml.write())
    detail = f"the schema is at revision none, this syncd needs {schema.head()}"
    assert failed(ran.out) == {"schema": (detail, f"→ run syncd migrate -c {yaml.file}")}
    assert "✓  REST bulk import" in ran.out


async def test_misspelt_fields(syncd: Run, yaml: Yaml) -> None:
    yaml.lookup_field, yaml.fields = "Email", ("company", "LeadScor", "FirstName", "Zebra", "memberLevel")
    ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 1
    assert failed(ran.out) == {
        "push contacts: lookup_field": (
            "Marketo has no field with the REST name Email",
            "→ correct instances.acme.pushes.contacts.lookup_field: did you mean email?",
        ),
        "pull people: fields": (
            "Marketo has no field with the SOAP name LeadScor, Zebra, memberLevel",
            "→ correct instances.acme.pulls.people.fields: LeadScor: did you mean LeadScore?; "
            "Zebra: look up its name in Admin > Field Management; memberLevel: only REST has it",
        ),
    }


async def test_lists_that_are_not_there(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    async with Simulator(
        SimulatorSettings(leads=20, static_lists=(("Events.Guests", 12), ("Events.Host", 1))), ScaledClock(1, time.time())
    ) as marketo:
        yaml.rest, yaml.soap = marketo.rest_endpoint, marketo.soap_endpoint
        selects = {
            "guests": "static_list: Events.Guests",
            "host": "static_list_id: 1002",
            "misspelt": "static_list: Events.Gusts",
            "gone": "static_list_id: 99",
        }
        ran = await syncd("check", "-c", with_pulls(yaml, selects))
        assert not marketo.report().violations
    assert ran.code == 1
    assert re.search("✓  pull guests: static list +Events.Guests has 12 members$", ran.out, re.MULTILINE)
    assert re.search("✓  pull host: static list +1002 has 1 member$", ran.out, re.MULTILINE)
    assert failed(ran.out) == {
        "pull misspelt: static list": (
            "Marketo finds no static list Events.Gusts (20111)",
            "→ correct instances.acme.pulls.misspelt.select.static_list: ProgramName.ListName, as Marketo has it now",
        ),
        "pull gone: static list": (
            "Marketo finds no static list 99 (20111)",
            "→ correct instances.acme.pulls.gone.select.static_list_id: its id, as Marketo has it now",
        ),
    }
    assert await pool.fetchval("SELECT calls FROM syncd.api_usage WHERE api = 'soap'") == 5, "a call a list beside the signature's"


async def test_lists_are_not_tried_without_access(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    yaml.encryption_key = "mistaken"
    ran = await syncd("check", "-c", with_pulls(yaml, {"guests": "static_list: Events.Guests"}))
    [(what, (detail, _))] = failed(ran.out).items()
    assert (what, detail.endswith("; static lists were not tried")) == ("SOAP signature", True)
    assert await pool.fetchval("SELECT calls FROM syncd.api_usage WHERE api = 'soap'") == 1


async def test_files_of_keys_that_are_no_use(syncd: Run, yaml: Yaml, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes("\ufeffa@example.com\n\n b@example.com \r\na@example.com\n".encode())
    (tmp_path / "latin.txt").write_bytes(b"\xe9@example.com\n")
    (tmp_path / "empty.txt").write_bytes(b" \n\n")
    file = with_pulls(yaml, {name: f"keys: {{type: EMAIL, file: {name}.txt}}" for name in ("good", "latin", "empty", "absent")})
    ran = await syncd("check", "-c", file)
    assert ran.code == 1
    assert re.search(f"✓  pull good: keys +2 keys in {tmp_path}/good.txt$", ran.out, re.MULTILINE)
    key = "instances.acme.pulls.{}.select.keys.file"
    assert failed(ran.out) == {
        "pull latin: keys": (
            f"the file of keys is not UTF-8 text ({tmp_path}/latin.txt)",
            f"→ save it as UTF-8, one key a line, or correct {key.format('latin')}",
        ),
        "pull empty: keys": (
            f"the file of keys has no key ({tmp_path}/empty.txt)",
            f"→ write one key a line into it, or correct {key.format('empty')}",
        ),
        "pull absent: keys": (
            f"the file of keys can't be read: No such file or directory ({tmp_path}/absent.txt)",
            f"→ put it there, readable for the user whom syncd runs as, or correct {key.format('absent')}",
        ),
    }
    assert (await syncd("status", "-c", file)).code == 0, "all else works without them"


def with_pulls(yaml: Yaml, selects: Mapping[str, str]) -> Path:
    """The YAML with pulls more: name → what stands in `select`."""
    more = "".join(f", {name}: {{source: soap, select: {{{select}}}, fields: [Company]}}" for name, select in selects.items())
    file = yaml.write()
    file.write_text(re.sub(r"(?m)^( +pulls: .*)\}$", lambda line: f"{line[1]}{more}}}", file.read_text()))
    return file


async def test_five_mistakes_are_told_at_once(syncd: Run, yaml: Yaml) -> None:
    file = yaml.write()
    text = "\n".join(
        [
            'database: {dsn: "mysql://localhost/x"}',
            "instances:",
            "  acme:",
            '    rest: {endpoint: "ftp://x", client_id: a, client_secret: {file: not-there}}',
            "    limits: {concurency: 5}",
            "    pushes: {contacts: {format: xml}}",
        ]
    )
    file.write_text(text)
    ran = await syncd("check", "-c", file)
    assert (ran.code, ran.out) == (78, "")
    told = [line.removeprefix(f"{file}:").split(": ")[:2] for line in ran.err.splitlines()]
    assert told == [
        ["1", "database.dsn"],
        ["4", "instances.acme.rest.endpoint"],
        ["4", "instances.acme.rest.client_secret"],
        ["5", "instances.acme.limits.concurency"],
        ["6", "instances.acme.pushes.contacts.format"],
    ]


async def test_only_the_instance_that_is_named(syncd: Run, yaml: Yaml) -> None:
    yaml.instances = ("acme", "beta")
    ran = await syncd("check", "-c", yaml.write(), "--instance", "beta")
    assert ran.code == 0
    assert "\nbeta\n" in ran.out
    assert "\nacme\n" not in ran.out


@asynccontextmanager
async def working(yaml: Yaml) -> AsyncIterator[Daemon]:
    """A daemon in this process."""
    daemon = Daemon(load(yaml.write(), {}), WallClock(), random.Random(1))
    task = asyncio.create_task(daemon.run())
    await asyncio.wait_for(daemon.ready.wait(), LONGEST)
    yield daemon
    daemon.stop()
    await asyncio.wait_for(task, LONGEST)


async def row_in(pool: asyncpg.Pool, table: str) -> None:
    """Wait for the first row of a table of ours."""
    async with asyncio.timeout(LONGEST):
        while True:
            if await pool.fetchval(f"SELECT true FROM syncd.{table} LIMIT 1"):
                return
            await asyncio.sleep(0.02)


async def test_a_running_daemon_makes_the_check(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    yaml.lookup_field = "Email"
    async with working(yaml):
        await row_in(pool, "lease")
        yaml.lookup_field, yaml.client_secret = "email", "wrong"
        ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 1
    assert "✓  daemon                       a running daemon (pid " in ran.out
    assert list(failed(ran.out)) == ["push contacts: lookup_field"], "it is the daemon's configuration that was tried"
    assert await pool.fetchval("SELECT count(*) FROM syncd.request") == 0


async def test_a_daemon_that_ends_leaves_the_check_to_the_command(syncd: Run, yaml: Yaml, database: str, pool: asyncpg.Pool) -> None:
    hung = await asyncpg.connect(database)
    assert await requests.keep_daemons_away(hung, "acme")
    checking = asyncio.ensure_future(syncd("check", "-c", yaml.write()))
    await row_in(pool, "request")
    await hung.close()
    ran = await checking
    assert ran.code == 0
    assert "✓  daemon" not in ran.out
    assert await pool.fetchval("SELECT count(*) FROM syncd.request") == 0


async def test_a_daemon_that_does_not_answer(syncd: Run, yaml: Yaml, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncd.cli.check.PATIENCE", 1.0)
    hung = await asyncpg.connect(database)
    assert await requests.keep_daemons_away(hung, "acme")
    ran = await syncd("check", "-c", yaml.write())
    await hung.close()
    assert failed(ran.out) == {
        "daemon": ("another command has this instance and did not answer within 1 s", "→ look into its log; if it hangs, restart it")
    }


async def test_requests_are_answered_in_order_and_forgotten(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        stale, first, second = [await requests.ask_check(connection, "acme") for _ in range(3)]
        await connection.execute("UPDATE syncd.request SET asked_at = now() - interval '6 minutes' WHERE id = $1", stale)
        other = await requests.ask_check(connection, "beta")
        assert await requests.next_check(pool, "acme") == first
        finding = Finding("REST identity", False, "no answer", "try again")
        await requests.answer(connection, "acme", first, [finding])
        assert await requests.answer_of(connection, first) == [finding]
        assert await requests.answer_of(connection, second) is None
        assert await requests.next_check(pool, "acme") == second
        await requests.withdraw(connection, second)
        assert [row["id"] for row in await pool.fetch("SELECT id FROM syncd.request ORDER BY id")] == [first, other]


REQUEST_EXPIRED = b"""<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Body><E:Fault>
<faultcode>E:Client</faultcode><faultstring>20016 - Request expired</faultstring><detail>
<n:serviceException xmlns:n="http://www.marketo.com/mktows/"><name>mktServiceException</name>
<message>Request expired (20016)</message><code>20016</code></n:serviceException></detail></E:Fault></E:Body></E:Envelope>"""


async def stern(request: web.Request) -> web.Response:
    """A Marketo that gives a token and no rights, and lives an hour ahead."""
    if request.path.endswith("/oauth/token"):
        return web.json_response({"access_token": "t", "token_type": "bearer", "expires_in": 3599, "scope": "s"})
    if "soap" in request.path:
        date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        return web.Response(status=500, body=REQUEST_EXPIRED, content_type="text/xml", headers={"Date": date})
    return web.json_response({"requestId": "r#1", "success": False, "errors": [{"code": "603", "message": "Access denied"}]})


async def test_missing_rights_and_a_wrong_clock(syncd: Run, yaml: Yaml) -> None:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", stern)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yaml.rest = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yaml.soap = f"{yaml.rest}/soap/mktows/3_1"
    found = failed((await syncd("check", "-c", yaml.write())).out)
    await runner.cleanup()
    assert list(found) == ["REST describe", "REST bulk import", "SOAP signature"]
    assert found["REST bulk import"] == (
        "import_status: 603 Access denied, requestId r#1",
        "→ allow the API user to read and write leads: Admin > Users & Roles, the role of that user",
    )
    assert found["REST describe"][1].startswith("→ allow the API user to read leads")
    assert "20016 " in found["SOAP signature"][0]
    seconds = int(found["SOAP signature"][0].rpartition("clock is ")[2].split()[0])
    assert 3_590 <= seconds <= 3_601
    assert found["SOAP signature"][0].endswith("s behind the server's")


class _AwayLedger:
    """A ledger whose database has gone."""

    async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
        raise ConnectionResetError("gone")

    async def give_back(self, api: Api, day: date, unused: int) -> None:
        raise AssertionError("nothing was reserved")


async def test_trouble_with_the_database_is_not_wrapped(yaml: Yaml) -> None:
    instance, clock = load(yaml.write(), {}).instances[0], WallClock()
    async with open_wire(instance, clock, _AwayLedger(), Metrics(), lambda: False) as wire:
        with pytest.raises(ConnectionResetError):
            await probe(instance, wire, clock)


@pytest.mark.parametrize(("allowed", "told"), [(True, "deletions and merges are seen"), (False, "deletions and merges are not seen; give")])
async def test_whether_deletions_are_seen_where_all_pulls_go_by_pages(allowed: bool, told: str, syncd: Run, yaml: Yaml) -> None:
    async with Simulator(SimulatorSettings(leads=20, activities_allowed=allowed), ScaledClock(1, time.time())) as marketo:
        yaml.rest, yaml.soap = marketo.rest_endpoint, marketo.soap_endpoint
        ran = await syncd("check", "-c", yaml.write())
    assert ran.code == 0, "pulls by pages go on without them"
    assert told in ran.out


@pytest.mark.parametrize(
    ("simulated", "code", "told"),
    [
        ({}, 0, "auto: extracts select by updatedAt; the activity log then"),
        ({"exports": ExportModel(updated_at_filter=False)}, 0, "createdAt fills once, activities go on"),
        ({"activities_allowed": False}, 0, "auto: extracts select by updatedAt"),
        ({"activities_allowed": False, "exports": ExportModel(updated_at_filter=False)}, 1, "Read-Only Activity"),
    ],
)
async def test_which_way_a_pull_will_go(simulated: dict[str, Any], code: int, told: str, syncd: Run, yaml: Yaml) -> None:
    async with Simulator(SimulatorSettings(leads=20, **simulated), ScaledClock(1, time.time())) as marketo:
        yaml.rest, yaml.soap = marketo.rest_endpoint, marketo.soap_endpoint
        file = yaml.write()
        file.write_text(file.read_text().replace("source: soap", "source: auto"))
        ran = await syncd("check", "-c", file)
        assert [export.state for export in marketo.exports()] in (["Canceled"], ["Cancelled"], []), "nothing was queued"
    assert ran.code == code
    assert told in ran.out
