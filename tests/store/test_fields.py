"""The dictionary in the database, and the typed view that a DBA's queries read: it never fails, and only ever grows at its end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.core import drift
from syncd.core.drift import KnownField
from syncd.core.mirror import Dictionary, mirror_row
from syncd.core.settings import Keys, Pull
from syncd.core.values import LeadRecord
from syncd.store import fields
from syncd.store.fields import Outcome
from syncd.store.leases import Connection, Pool

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
ALL = Pull("all", "soap", Keys("IDNUM"))
TYPES = ("string", "text", "integer", "score", "float", "currency", "percent", "boolean", "date", "datetime", "formula")
FIELDS = [KnownField(f"{kind}Field", f"{kind}Field", f"{kind.upper()}", f"The {kind}", kind, None, False) for kind in TYPES]
COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) AS type, col_description(attrelid, attnum) AS comment
  FROM pg_attribute WHERE attrelid = 'syncd.lead_acme'::regclass AND attnum > 6 ORDER BY attnum
"""
INSERT = """
INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT 'acme', n, a::jsonb, '{}', now(), now(), now() FROM unnest($1::text[]) WITH ORDINALITY AS u (a, n)
ON CONFLICT (instance, lead_id) DO UPDATE SET attributes = excluded.attributes
"""


async def keep(pool: Pool, described: Sequence[KnownField], pulls: Sequence[Pull] = (ALL,), rebuild: bool = False) -> Outcome:
    """What the daemon does with an answer of describe, or the command does at a rebuild."""
    async with pool.acquire() as connection, connection.transaction():
        await fields.lock(connection, "acme")
        await fields.remember(connection, "acme", described, NOW)
        stored = await fields.read(connection, "acme")
        view = (drift.rebuilt if rebuild else drift.appended)(stored, pulls)
        await fields.give_columns(connection, "acme", stored, view.columns)
        return await fields.keep_view(connection, "acme", rebuild)


async def columns(pool: Pool | Connection) -> dict[str, str]:
    return {row["attname"]: row["type"] for row in await pool.fetch(COLUMNS)}


async def test_what_describe_said_is_remembered(pool: Pool) -> None:
    first, second, third = FIELDS[:3]
    changed = replace(first, data_type="integer", display_name="Anew")
    async with pool.acquire() as connection:
        await fields.remember(connection, "acme", [first, second], NOW)
        assert await fields.read(connection, "acme") == [first, second]
        assert await fields.read(connection, "beta") == []
        await fields.remember(connection, "acme", [third, changed], NOW + timedelta(days=1))
        assert {field.name: field for field in await fields.read(connection, "acme")} == {
            third.name: third,
            changed.name: changed,
            second.name: replace(second, vanished=True),
        }
        await fields.remember(connection, "acme", [second], NOW + timedelta(days=2))
    row = await pool.fetchrow("SELECT vanished_at, first_seen_at FROM syncd.field WHERE field = $1", second.name)
    assert row is not None
    assert tuple(row) == (None, NOW)
    row = await pool.fetchrow("SELECT retyped_from, retyped_at, vanished_at FROM syncd.field WHERE field = $1", first.name)
    assert row is not None
    assert tuple(row) == ("string", NOW + timedelta(days=1), NOW + timedelta(days=2))


async def test_the_answer_of_the_day_before_writes_nothing(pool: Pool) -> None:
    await keep(pool, FIELDS)
    written = "SELECT array_agg(xmin::text ORDER BY field) FROM syncd.field"
    before = await pool.fetchval(written)
    assert await keep(pool, FIELDS) == "kept"
    assert await pool.fetchval(written) == before


async def test_columns_are_real_and_explained(pool: Pool) -> None:
    assert await keep(pool, FIELDS) == "made"
    assert {row["attname"]: (row["type"], row["comment"]) for row in await pool.fetch(COLUMNS)} == {
        "string_field": ("text", "The string (string)"),
        "text_field": ("text", "The text (text)"),
        "integer_field": ("numeric", "The integer (integer)"),
        "score_field": ("numeric", "The score (score)"),
        "float_field": ("numeric", "The float (float)"),
        "currency_field": ("numeric", "The currency (currency)"),
        "percent_field": ("numeric", "The percent (percent)"),
        "boolean_field": ("boolean", "The boolean (boolean)"),
        "date_field": ("date", "The date (date)"),
        "datetime_field": ("timestamp with time zone", "The datetime (datetime)"),
        "formula_field": ("text", "The formula (formula)"),
    }


async def test_every_part_of_the_view_is_explained(pool: Pool) -> None:
    await keep(pool, FIELDS)
    bare = "SELECT attname FROM pg_attribute WHERE attrelid = 'syncd.lead_acme'::regclass AND col_description(attrelid, attnum) IS NULL"
    assert await pool.fetch(bare) == []
    assert "The leads of acme" in await pool.fetchval("SELECT obj_description('syncd.lead_acme'::regclass)")


@given(
    st.integers(-(10**23), 10**23),
    st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**15), max_value=10**15),
    st.booleans(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_the_mirror_keeps_comes_out_of_the_view(
    pool: Pool, whole: int, number: Decimal, flag: bool, day: date, moment: datetime, text: str
) -> None:
    await keep(pool, FIELDS)
    moment = moment.replace(microsecond=0)
    given = {"integer": str(whole), "float": f"{number:f}", "boolean": str(flag), "date": f"{day}", "datetime": moment.isoformat()}
    lead = LeadRecord(1, None, [(kind.upper(), kind, value) for kind, value in (given | {"string": text}).items()])
    row = mirror_row(lead, Dictionary.of_soap([field.as_described() for field in FIELDS]))
    await pool.execute(INSERT, [row.attributes])
    seen = await pool.fetchrow(
        "SELECT integer_field, float_field, boolean_field, date_field, datetime_field, string_field FROM syncd.lead_acme"
    )
    assert seen is not None
    assert tuple(seen) == (whole, number, flag, day, moment, text)


NEARLY = st.sampled_from(
    [
        *("2024-02-30", "0000-01-01", "9999-12-31", "today", "infinity", "-infinity", "epoch", "2026-03-02 ", "99999-01-01", "Jan-01-99"),
        *("2026-03-02T12:00:00Z", "2026-02-29T12:00:00Z", "2026-03-02T25:00:00Z", "2026-03-02T24:00:00Z", "0000-00-00T00:00:00Z", "now"),
        *("2026-03-02T12:00:00+99:99", "____-__-__", "____-__-__T__:__:__Z", "NaN", "1e999", "true", "12.5", "", " ", "²²²²-¹¹-¹¹"),
    ]
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=24)
DATE_LIKE = st.from_regex(r"[0-9A-Za-z]{4}-[0-9A-Za-z]{2}-[0-9A-Za-z]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?", fullmatch=True)
NUMBER = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
ANY = st.recursive(
    st.none() | st.booleans() | NUMBER | NEARLY | DATE_LIKE | TEXT,
    lambda each: st.lists(each, max_size=2) | st.dictionaries(TEXT, each, max_size=2),
    max_leaves=3,
)


@given(st.lists(st.lists(ANY, min_size=len(FIELDS), max_size=len(FIELDS)), min_size=1, max_size=10))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_the_view_never_fails(pool: Pool, leads: list[list[Any]]) -> None:
    await keep(pool, FIELDS)
    texts = []
    for values in leads:
        try:
            texts.append(orjson.dumps(dict(zip((field.name for field in FIELDS), values, strict=True))).decode())
        except TypeError:  # an integer that orjson has no room for
            texts.append("{}")
    await pool.execute(INSERT, texts)
    assert len(await pool.fetch("SELECT lead_acme::text FROM syncd.lead_acme")) >= len(leads)
    numbers = await pool.fetch(
        "SELECT lead_id, integer_field, boolean_field, date_field FROM syncd.lead_acme WHERE lead_id <= $1", len(leads)
    )
    for row in numbers:
        kept = orjson.loads(texts[row["lead_id"] - 1])
        whole, flag = kept.get("integerField"), kept.get("booleanField")
        assert (row["integer_field"] is not None) == (isinstance(whole, int | float) and not isinstance(whole, bool))
        assert row["boolean_field"] == (flag if isinstance(flag, bool) else None)
        assert row["date_field"] is None or isinstance(kept["dateField"], str)


@pytest.mark.parametrize("value", ["2024-02-30", "today", "infinity", "0000-01-01", "12:00", "2026-03-02T12:00:00Z"])
async def test_what_is_no_date_is_null(pool: Pool, value: str) -> None:
    assert await pool.fetchval("SELECT syncd.as_date($1)", value) is None


@pytest.mark.parametrize("value", ["2024-02-30T12:00:00Z", "now", "infinity", "2026-03-02", "2026-03-02T12:00:00", "2026-03-02T25:00:00Z"])
async def test_what_is_no_moment_is_null(pool: Pool, value: str) -> None:
    assert await pool.fetchval("SELECT syncd.as_moment($1)", value) is None


async def test_columns_are_only_appended(pool: Pool) -> None:
    first, second, third = FIELDS[0], FIELDS[2], FIELDS[8]
    only = replace(ALL, fields=("INTEGER",))
    assert await keep(pool, [first, second], [only]) == "made"
    assert await keep(pool, [third, first, second], [ALL]) == "extended"
    assert list((await columns(pool)).items()) == [("integer_field", "numeric"), ("date_field", "date"), ("string_field", "text")]
    assert await keep(pool, [first, replace(second, data_type="string", display_name="Anew")], [ALL]) == "kept"
    assert list((await columns(pool)).items()) == [("integer_field", "numeric"), ("date_field", "date"), ("string_field", "text")]
    comments = [row["comment"] for row in await pool.fetch(COLUMNS)]
    assert comments == ["Anew (string)", "The date (date), vanished from Marketo on 2026-03-02", "The string (string)"]
    assert await keep(pool, [first, replace(second, data_type="string")], [only], rebuild=True) == "rebuilt"
    assert await columns(pool) == {"integer_field": "text"}


async def test_a_view_shows_its_own_instance_and_deleted_leads(pool: Pool) -> None:
    await keep(pool, FIELDS)
    await pool.execute(INSERT, ['{"stringField": "a"}', '{"stringField": "b"}'])
    await pool.execute("UPDATE syncd.lead SET deleted_at = now(), merged_into = 2 WHERE lead_id = 1")
    await pool.execute(INSERT.replace("'acme'", "'beta'"), ["{}"])
    rows = await pool.fetch("SELECT lead_id, string_field, deleted_at IS NULL AS lives, merged_into FROM syncd.lead_acme ORDER BY 1")
    assert [tuple(row) for row in rows] == [(1, "a", False, 2), (2, "b", True, None)]


async def test_names_that_sql_must_quote_harm_nobody(pool: Pool) -> None:
    odd = "o'clock\\\"; DROP TABLE syncd.lead --%s"
    pull = replace(ALL, fields=(odd,), columns={odd: 'sel"ect'})
    assert await keep(pool, [KnownField(odd, odd, odd, odd, odd, None, False)], [pull]) == "made"
    await pool.execute(INSERT, [orjson.dumps({odd: "value"}).decode()])
    assert await pool.fetchval('SELECT "sel""ect" FROM syncd.lead_acme') == "value"


async def test_the_instance_that_is_called_like_an_index_is_told(pool: Pool) -> None:
    with pytest.raises(asyncpg.WrongObjectTypeError, match="lead_by_email is there already"):
        await pool.fetchval("SELECT syncd.keep_lead_view('by_email', false)")


async def test_rights_and_owner_survive_a_rebuild(pool: Pool) -> None:
    await pool.execute("DROP ROLE IF EXISTS view_owner; DROP ROLE IF EXISTS view_reader; CREATE ROLE view_owner; CREATE ROLE view_reader")
    rights = "SELECT relacl::text, pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'syncd.lead_acme'::regclass"
    try:
        await keep(pool, FIELDS)
        await pool.execute("GRANT USAGE, CREATE ON SCHEMA syncd TO view_owner; ALTER VIEW syncd.lead_acme OWNER TO view_owner")
        await pool.execute("GRANT SELECT ON syncd.lead_acme TO view_reader WITH GRANT OPTION; GRANT SELECT ON syncd.lead_acme TO PUBLIC")
        before = await pool.fetchrow(rights)
        assert await keep(pool, FIELDS[:1], rebuild=True) == "rebuilt"
        after = await pool.fetchrow(rights)
        assert before is not None
        assert after is not None
        assert (sorted(after[0].strip("{}").split(",")), after[1]) == (sorted(before[0].strip("{}").split(",")), "view_owner")
    finally:
        await pool.execute("DROP OWNED BY view_owner, view_reader CASCADE; DROP ROLE view_owner; DROP ROLE view_reader")


async def test_a_view_that_others_depend_on_is_left_alone(pool: Pool) -> None:
    await keep(pool, FIELDS)
    await pool.execute("CREATE VIEW public.report AS SELECT integer_field FROM syncd.lead_acme")
    before = await columns(pool)
    with pytest.raises(asyncpg.DependentObjectsStillExistError) as refused:
        await keep(pool, FIELDS[:1], rebuild=True)
    assert "view report depends on view lead_acme" in (refused.value.detail or "")
    assert await columns(pool) == before
    assert await pool.fetchval("SELECT count(*) FROM syncd.field WHERE position IS NOT NULL") == len(FIELDS)


async def test_columns_that_somebody_changed_are_refused_until_rebuilt(pool: Pool) -> None:
    await keep(pool, FIELDS)
    await pool.execute("ALTER VIEW syncd.lead_acme RENAME COLUMN text_field TO mine")
    assert await keep(pool, FIELDS) == "refused"
    assert await keep(pool, FIELDS, rebuild=True) == "rebuilt"
    await pool.execute("DROP VIEW syncd.lead_acme")
    assert await keep(pool, FIELDS) == "made"


async def test_somebody_who_reads_for_long_is_not_waited_for(pool: Pool) -> None:
    await keep(pool, FIELDS[:1])
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM syncd.lead_acme")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await keep(pool, FIELDS)
    assert await keep(pool, FIELDS) == "extended"
