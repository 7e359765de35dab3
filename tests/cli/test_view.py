"""`syncd view rebuild`: DDL only, told in plain lines, and refused in one where it can't be done."""

from dataclasses import replace

import asyncpg
import pytest

from syncd.core import drift
from syncd.core.drift import KnownField
from syncd.core.settings import Keys, Pull
from syncd.store import fields
from tests.cli.conftest import Run, Yaml
from tests.store.test_fields import NOW, columns, keep

COMPANY = KnownField("company", "company", "Company", "Company Name", "string", 255, False)
FIRST_NAME = KnownField("firstName", "firstName", "FirstName", "First Name", "string", 255, False)
SCORE = KnownField("leadScore", "leadScore", "LeadScore", "Lead Score", "string", None, False)
PULL = Pull("people", "soap", Keys("IDNUM"), ("LeadScore", "Company", "FirstName"))


@pytest.fixture
async def behind(pool: asyncpg.Pool) -> asyncpg.Pool:
    """A view that a rebuild makes another one of."""
    await keep(pool, [COMPANY, SCORE, FIRST_NAME], [replace(PULL, fields=("LeadScore", "Company"))])
    async with pool.acquire() as connection:
        await fields.remember(connection, "acme", [COMPANY, replace(SCORE, data_type="integer"), FIRST_NAME], NOW)
    return pool


async def test_it_says_what_has_changed(syncd: Run, yaml: Yaml, behind: asyncpg.Pool) -> None:
    yaml.fields = ("FirstName", "LeadScore")
    ran = await syncd("view", "rebuild", "-c", yaml.write())
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "syncd.lead_acme: rebuilt, 2 fields",
        "  company removed: no pull asks for company",
        "  lead_score retyped from text to numeric; values that don't fit are null until pulled anew (syncd backfill)",
        "  first_name added, text",
    ]
    assert list((await columns(behind)).items()) == [("first_name", "text"), ("lead_score", "numeric")]
    assert (await syncd("view", "rebuild", "-c", yaml.file)).out == "syncd.lead_acme: in step already, 2 fields\n"


async def test_columns_are_renamed_as_the_yaml_says(syncd: Run, yaml: Yaml, behind: asyncpg.Pool) -> None:
    yaml.fields = ("LeadScore", "Company")
    file = yaml.write()
    file.write_text(file.read_text().replace("[LeadScore, Company]", "{score: LeadScore, company: Company}"))
    ran = await syncd("view", "rebuild", "-c", file, "--instance", "acme")
    assert "  lead_score renamed to score" in ran.out.splitlines()
    assert await columns(behind) == {"score": "numeric", "company": "text"}


async def test_views_that_depend_on_it_are_named(syncd: Run, yaml: Yaml, behind: asyncpg.Pool) -> None:
    await behind.execute("CREATE VIEW public.report AS SELECT company FROM syncd.lead_acme")
    ran = await syncd("view", "rebuild", "-c", yaml.write())
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "view report depends on view lead_acme" in ran.err
    assert await columns(behind) == {"lead_score": "text", "company": "text"}
    async with behind.acquire() as connection:
        stored = await fields.read(connection, "acme")
    assert {field.name for field in stored if field.column} == {"leadScore", "company"}
    assert drift.appended(stored, [PULL]).retyped == {"lead_score": "numeric"}


async def test_of_an_instance_that_nobody_described_it_says_so(syncd: Run, yaml: Yaml, behind: asyncpg.Pool) -> None:
    yaml.instances = ("beta", "acme")
    ran = await syncd("view", "rebuild", "-c", yaml.write())
    assert (ran.code, ran.err) == (1, "syncd.lead_beta: the fields of beta are not known yet; let syncd run reach Marketo once\n")
    assert ran.out.startswith("syncd.lead_acme: rebuilt"), "one does not keep the other"


async def test_a_role_without_the_right_is_told_so(syncd: Run, yaml: Yaml, behind: asyncpg.Pool) -> None:
    await behind.execute("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD 'guest'; GRANT USAGE ON SCHEMA syncd TO guest")
    await behind.execute("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA syncd TO guest")
    yaml.dsn = f"postgresql://guest:guest@{yaml.dsn.rpartition('@')[2]}"
    ran = await syncd("view", "rebuild", "-c", yaml.write())
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "must be owner of view lead_acme" in ran.err
    await behind.execute("DROP OWNED BY guest; DROP ROLE guest")
