"""`syncd plan` reckons with what is known, says what is guessed, and spends nothing."""

import json
from datetime import UTC, datetime

import asyncpg
import pytest

from syncd.cli.plan import Known, planned
from syncd.core.settings import Instance, Keys, Limits, Pull, Rest, Secret, Soap, StaticList, UpdatedSince
from syncd.simulator import Simulator
from tests.cli.conftest import Run, Yaml

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
REST = Rest("https://rest.example.com", "https://rest.example.com/identity", Secret("id"), Secret("secret"))
SOAP = Soap("https://soap.example.com", "user", Secret("key"))
PULL = Pull("people", "auto", UpdatedSince(datetime(2016, 1, 1, tzinfo=UTC)), ("firstName", "lastName"))
NOTHING_KNOWN = Known(0, (), None)


def instance(soap: Soap | None = None) -> Instance:
    return Instance("acme", REST, soap, limits=Limits(daily_calls=30_000, export_daily_bytes=500_000_000), pulls=(PULL,))


def test_without_leads_it_asks_for_their_number() -> None:
    with pytest.raises(Exception, match="--leads"):
        planned(instance(), PULL, NOTHING_KNOWN, NOW, None, None)


def test_three_million_leads_by_each_way() -> None:
    plan = planned(instance(SOAP), PULL, NOTHING_KNOWN, NOW, 3_000_000, 30)
    extract, ids, soap = plan.filling
    assert (extract.way, ids.way, soap.way) == ("extract", "extract of ids", "soap")
    assert extract.bytes == 3_000_000 * plan.bytes_per_lead
    assert ids.bytes == 27_000_000
    assert 10_000 <= ids.calls < 11_000
    assert plan.steady == {"bulk_extract": 288 * 6, "activities": 288 * 2, "soap": 288}
    assert "guess" in " ".join(plan.notes)


def test_what_extracts_have_weighed_goes_before_a_guess() -> None:
    plan = planned(instance(), PULL, Known(1_000, (), 512.4), NOW, None, None)
    assert (plan.leads, plan.bytes_per_lead) == (1_000, 512)
    assert not any("guess" in note for note in plan.notes)


def test_a_list_is_extracted_and_nothing_else() -> None:
    plan = planned(instance(), Pull("guests", "auto", StaticList(7)), Known(100, (), None), NOW, None, None)
    assert [price.way for price in plan.filling] == ["extract"]
    assert plan.steady == {}


def test_keys_have_no_plan() -> None:
    with pytest.raises(Exception, match="goes by keys"):
        planned(instance(SOAP), Pull("some", "soap", Keys("IDNUM", ("1",))), Known(1, (), None), NOW, None, None)


async def test_the_command(syncd: Run, yaml: Yaml, marketo: Simulator) -> None:
    ran = await syncd("plan", "-c", yaml.write(), "--pull", "people")
    assert (ran.code, ran.out) == (2, "")
    assert "--leads" in ran.err
    ran = await syncd("plan", "-c", yaml.write(), "--pull", "people", "--leads", "3000000")
    assert ran.code == 0, ran.err
    assert "3,000,000 leads, 2 fields" in ran.out
    assert "bulk_extract" in ran.out
    told = json.loads((await syncd("plan", "-c", yaml.write(), "--pull", "people", "--leads", "3000000", "--json")).out)
    assert {entry["source"] for entry in told["filling"]} == {"bulk_extract", "auto, reading by id", "soap"}
    assert marketo.report().calls == (), "it asks nobody"


async def test_it_reckons_with_the_mirrors_leads(syncd: Run, yaml: Yaml, database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)"
        " SELECT 'acme', n, '{}', '{\"people\": \"d\"}', now(), now(), now() FROM generate_series(1, 1234) n"
    )
    await connection.close()
    ran = await syncd("plan", "-c", yaml.write(), "--pull", "people")
    assert ran.code == 0, ran.err
    assert "1,234 leads" in ran.out
