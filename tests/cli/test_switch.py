"""`syncd switch-source`: the mirror, its place and its view go on under another source."""

import json
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
import yaml as pyyaml

from syncd.config import load
from syncd.simulator import Credentials, Simulator
from tests.cli.conftest import Run

UNTIL = datetime(2026, 2, 20, tzinfo=UTC)
PULL_ROW = (
    "INSERT INTO syncd.pull (instance, pull, selector, planned_until, planned_at, source) VALUES ('acme', 'people', $1, $2, $2, 'soap')"
)
LEAD = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, misfits, digests, first_seen_at, changed_at, asked_at)
VALUES ('acme', $1, 'a@x', $2, $3, '{"people": "abcdef:abcdef0123"}', $4, $4, $4)
"""
FIELDS = """
INSERT INTO syncd.field (instance, field, ordinal, soap_name, display_name, read_only, first_seen_at, position, column_name, column_type)
SELECT 'acme', n, i, n, n, false, now(), i, lower(n), 'text' FROM unnest($1::text[]) WITH ORDINALITY AS f (n, i)
"""
HISTORY = """
INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new) VALUES ('acme', 1, 'people', $1, 'Company', '"A"', '"B"')
"""


@pytest.fixture
def write(tmp_path: Path, database: str, marketo: Simulator) -> Path:
    credentials = Credentials()
    file = tmp_path / "syncd.yaml"
    file.write_text(f"""
database: {{dsn: "{database}"}}
instances:
  acme:
    rest: {{endpoint: "{marketo.rest_endpoint}", client_id: {credentials.client_id}, client_secret: {credentials.client_secret}}}
    soap: {{endpoint: "{marketo.soap_endpoint}", user_id: {credentials.soap_user_id}, encryption_key: {credentials.encryption_key}}}
    pulls:
      people:
        source: soap
        select: {{updated_since: 2016-01-01T00:00:00Z}}
        fields: {{company_name: Company, score: LeadScore, segment: Legacy_Segment}}
        where: {{Country: [DE, '']}}
        every: 1m
        batch_size: 100
http: null
""")
    return file


@pytest.fixture
async def soap_only(pool: asyncpg.Pool) -> None:
    """What a daemon without REST has left: SOAP's names, a window half walked, a view, some history."""
    await pool.execute(PULL_ROW, '{"kind": "updated_since", "of": "x", "fields": [], "where": {}}', UNTIL)
    window = "INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at, position, leads)"
    await pool.execute(f"{window} VALUES ('acme', 'people', 'soap', $1, $2, $2, 'somewhere', 7)", datetime(2026, 2, 1, tzinfo=UTC), UNTIL)
    await pool.execute(LEAD, 1, '{"Company": "B", "LeadScore": 12345678901234567890123, "Legacy_Segment": "old"}', None, UNTIL)
    await pool.execute(LEAD, 2, '{"Company": "Old", "company": "New"}', '{"LeadScore": "many"}', UNTIL)
    await pool.execute(LEAD, 3, '{"firstName": "Ada"}', None, UNTIL)
    await pool.execute("SELECT syncd.ensure_lead_history('acme', $1)", UNTIL.date())
    await pool.execute(HISTORY, UNTIL)
    await pool.execute(FIELDS, ["Company", "LeadScore", "Legacy_Segment"])
    await pool.execute("SELECT syncd.keep_lead_view('acme', false)")


@pytest.mark.usefixtures("soap_only")
async def test_a_soap_only_pull_goes_on_through_rest(syncd: Run, write: Path, pool: asyncpg.Pool) -> None:
    ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", "auto")
    assert ran.code == 0, ran.err
    leads = [json.loads(row["attributes"]) for row in await pool.fetch("SELECT attributes::text FROM syncd.lead ORDER BY lead_id")]
    assert leads == [
        {"company": "B", "leadScore": 12345678901234567890123, "Legacy_Segment": "old"},
        {"company": "New"},
        {"firstName": "Ada"},
    ]
    assert await pool.fetchval("SELECT attributes ->> 'leadScore' FROM syncd.lead WHERE lead_id = 1") == "12345678901234567890123"
    assert await pool.fetchval("SELECT misfits ->> 'leadScore' FROM syncd.lead WHERE lead_id = 2") == "many"
    assert await pool.fetchval("SELECT digests ->> 'people' FROM syncd.lead WHERE lead_id = 1") == "abcdef:"
    assert await pool.fetchval("SELECT field FROM syncd.lead_history") == "company"
    view = await pool.fetchrow("SELECT company, leadscore, legacy_segment FROM syncd.lead_acme WHERE lead_id = 1")
    assert tuple(view or ()) == ("B", "12345678901234567890123", "old"), "its columns show the same leads by the other names"
    window = await pool.fetchrow("SELECT source, position, leads, state FROM syncd.pull_window")
    assert tuple(window or ()) == ("bulk_extract", None, 0, "open")
    state = await pool.fetchrow("SELECT source, planned_until FROM syncd.pull")
    assert tuple(state or ()) == ("auto", UNTIL)
    assert "2 leads have their" in ran.out
    assert "2026-02-20" in ran.out
    assert "left out: Legacy_Segment" in ran.out
    following = pyyaml.safe_load(ran.out.partition("start syncd run:\n")[2])
    assert following == {
        "people": {
            "source": "auto",
            "select": {"updated_since": "2016-01-01T00:00:00Z"},
            "fields": {"company_name": "company", "score": "leadScore"},
            "where": {"country": ["DE", ""]},
            "every": "1m",
        }
    }
    text = pyyaml.safe_load(write.read_text())
    text["instances"]["acme"]["pulls"] = following
    written = write.with_name("following.yaml")
    written.write_text(pyyaml.safe_dump(text))
    assert load(written, {}).instances[0].pulls[0].source == "auto", "it can be used as it is"


@pytest.mark.usefixtures("soap_only")
async def test_done_twice_it_has_nothing_to_do(syncd: Run, write: Path, pool: asyncpg.Pool) -> None:
    for _ in range(2):
        ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", "bulk_extract")
        assert ran.code == 0, ran.err
    assert "leads have their" not in ran.out
    assert await pool.fetchval("SELECT count(*) FROM syncd.lead WHERE attributes ? 'Company'") == 0


@pytest.mark.usefixtures("soap_only")
async def test_to_activities_the_open_window_is_read_from_the_log(syncd: Run, write: Path, pool: asyncpg.Pool) -> None:
    ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", "activities")
    assert ran.code == 0, ran.err
    assert await pool.fetchval("SELECT state FROM syncd.pull_window") == "abandoned"
    assert await pool.fetchval("SELECT planned_until FROM syncd.pull") == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.usefixtures("soap_only")
async def test_beside_a_daemon_it_does_nothing(syncd: Run, write: Path, pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        await connection.fetchval("SELECT pg_advisory_lock($1, hashtext('acme'))", 0x73796E63)
        ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", "auto")
        await connection.fetchval("SELECT pg_advisory_unlock_all()")
    assert (ran.code, "stop it first" in ran.err) == (1, True)
    assert await pool.fetchval("SELECT count(*) FROM syncd.lead WHERE attributes ? 'Company'") == 2


@pytest.mark.parametrize(("to", "why"), [("soap", "has source: soap already"), ("nothing", "--to")])
async def test_what_makes_no_sense(to: str, why: str, syncd: Run, write: Path) -> None:
    ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", to)
    assert ran.code in (1, 2)
    assert why in ran.err


async def test_a_pull_that_never_began_only_needs_its_yaml(syncd: Run, write: Path) -> None:
    ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", "auto")
    assert (ran.code, "just write source: auto" in ran.err) == (1, True)


@pytest.mark.usefixtures("soap_only")
async def test_views_that_depend_on_ours_keep_all_as_it_was(syncd: Run, write: Path, pool: asyncpg.Pool) -> None:
    await pool.execute("CREATE VIEW report AS SELECT company FROM syncd.lead_acme")
    ran = await syncd("switch-source", "-c", write, "--pull", "people", "--to", "auto")
    assert (ran.code, "views of yours depend" in ran.err) == (1, True)
    assert await pool.fetchval("SELECT source FROM syncd.pull") == "soap"
    assert await pool.fetchval("SELECT count(*) FROM syncd.lead WHERE attributes ? 'Company'") == 2
