"""A lead's story: what was pulled and what was sent, in order of time, found by walks of indexes."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.mirror import Dictionary, mirror_row
from syncd.core.settings import Push
from syncd.core.values import LeadRecord
from syncd.store import leads, lists, story
from syncd.store.leads import Asker
from syncd.store.leases import Lease, Pool
from syncd.store.story import Changed, Deleted, FieldChange, Joined, Left, Seen, Sent, Story
from tests.store.outgoing import PUSH, apply, claim, enqueue, under_way

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
PUSHES = {"contacts": "email"}


async def pulled(pool: Pool, lead_id: int, email: str | None, at: datetime, pull: str = "people", **fields: tuple[str, str] | str) -> None:
    typed = [(name, *(("string", value) if isinstance(value, str) else value)) for name, value in fields.items()]
    row = mirror_row(LeadRecord(lead_id, email, typed), Dictionary({}))
    async with pool.acquire() as connection, connection.transaction():
        await leads.ensure_history(connection, "acme", at.date())
        await leads.upsert(connection, "acme", Asker(pull, "123abc", None), [row], at, at)


async def told(pool: Pool, who: str, pushes: Mapping[str, str] = PUSHES, last: int = 200) -> Sequence[Story]:
    return await story.stories(pool, "acme", who, pushes, last)


async def the_story(pool: Pool, who: str, pushes: Mapping[str, str] = PUSHES, last: int = 200) -> Story:
    (found,) = await told(pool, who, pushes, last)
    return found


async def test_nothing_is_known(pool: Pool) -> None:
    await pulled(pool, 1, "a@x", T[0])
    for who in ("b@x", "2", "9" * 30, "²", "", " "):
        assert await told(pool, who) == []
    assert await story.stories(pool, "other", "a@x", PUSHES, 200) == []


async def test_changes_of_one_answer_are_one_event(pool: Pool) -> None:
    await pulled(pool, 1, "a@x", T[0], f="1", g="2", n=("integer", "1"))
    await pulled(pool, 1, "b@x", T[2], f="3", n=("integer", "12345678901234567890123"))
    await pulled(pool, 1, "b@x", T[3], f="4", n=("integer", "many"))
    found = await the_story(pool, " 1 ")
    assert found.lead is not None
    assert (found.lead.email, json.loads(found.lead.attributes), found.lead.misfits) == ("b@x", {"f": "4"}, '{"n": "many"}')
    assert found.events == (
        Seen(T[0]),
        Changed(
            T[2],
            "people",
            (
                FieldChange("email", '"a@x"', '"b@x"'),
                FieldChange("f", '"1"', '"3"'),
                FieldChange("g", '"2"', None),
                FieldChange("n", "1", "12345678901234567890123"),
            ),
        ),
        Changed(T[3], "people", (FieldChange("f", '"3"', '"4"'), FieldChange("n", "12345678901234567890123", '"many"'))),
    )
    assert found.older == 0


async def test_lists_and_the_end(pool: Pool) -> None:
    await pulled(pool, 1, "a@x", T[0])
    async with pool.acquire() as connection:
        await lists.seen(connection, "acme", "P.News", 1, [1, 2], T[1])
        await lists.seen(connection, "acme", "P.Old", 1, [1], T[2])
        await lists.walked(connection, "acme", "P.Old", 2, T[4])
    await pool.execute("UPDATE syncd.lead SET deleted_at = $1, merged_into = 7 WHERE lead_id = 1", T[5])
    found = await the_story(pool, "A@X")
    assert found.events == (Seen(T[0]), Joined(T[1], "P.News"), Joined(T[2], "P.Old"), Left(T[4], "P.Old"), Deleted(T[5], 7))


async def test_what_was_sent_by_the_address(pool: Pool, lease: Lease) -> None:
    await pulled(pool, 1, "Ada@x", T[0])
    first = await enqueue(pool, " aDA@X\t", f=1)
    await enqueue(pool, "other@x", f=1)
    await enqueue(pool, "ada@x", push="others", f=1)
    await apply(lease)
    second = await enqueue(pool, "ada@x", f=2)
    await under_way(lease)
    third = await enqueue(pool, "ada@x", f=3)
    await claim(lease)
    found = await the_story(pool, "ada@x")
    seen, *sent = found.events
    assert isinstance(seen, Seen)
    assert [(each.id, each.state, each.batch_id, json.loads(each.fields)) for each in sent if isinstance(each, Sent)] == [
        (first, "applied", 7, {"f": 1}),
        (second, "in_chunk", 7, {"f": 2}),
        (third, "pending", None, {"f": 3}),
    ]
    assert [each.settled_at is None for each in sent if isinstance(each, Sent)] == [False, True, True]
    assert await the_story(pool, "1") == found
    both = await the_story(pool, "1", {"contacts": "email", "others": "email"})
    assert len(both.events) == 5


async def test_only_the_last_are_told(pool: Pool, lease: Lease) -> None:
    for minute in range(1, 10):
        await pulled(pool, 1, "a@x", T[minute], f=str(minute))
    ids = [await enqueue(pool, "a@x", f=number) for number in range(3)]
    await apply(lease)
    ids += [await enqueue(pool, "a@x", f=number) for number in range(4)]
    all_of_it = await the_story(pool, "1")
    assert (len(all_of_it.events), all_of_it.older) == (1 + 8 + 7, 0)
    for last in (1, 2, 5, 7, 9, 15):
        some = await the_story(pool, "1", last=last)
        assert some.events == all_of_it.events[-last:]
        assert some.older == 16 - last
    assert [each.id for each in all_of_it.events if isinstance(each, Sent)] == ids


async def test_an_address_of_several_leads(pool: Pool) -> None:
    for lead_id in (3, 1, 2):
        await pulled(pool, lead_id, "A@x" if lead_id == 1 else "a@X", T[0])
    await enqueue(pool, "a@x", f=1)
    found = await told(pool, "a@x")
    assert [each.lead and each.lead.lead_id for each in found] == [1, 2, 3]
    assert all(isinstance(each.events[-1], Sent) for each in found)


@pytest.mark.parametrize(("lookup_field", "key"), [("id", "1"), ("crmId", "C-7"), ("score", "12345678901234567890123"), ("Email", "A@X")])
async def test_keys_of_other_fields(pool: Pool, lookup_field: str, key: str) -> None:
    await pulled(pool, 1, "a@x", T[0], crmId="c-7", score=("integer", "12345678901234567890123"))
    for other in ("2", "a@y", "C-8", key):
        await enqueue(pool, other, f=1)
    found = await the_story(pool, "a@x", {"contacts": lookup_field})
    assert [each.key for each in found.events if isinstance(each, Sent)] == [key]


async def test_a_lead_that_was_never_pulled(pool: Pool, lease: Lease) -> None:
    sent = await enqueue(pool, "new@x", f=1)
    await apply(lease)
    found = await the_story(pool, "New@x")
    assert found.lead is None
    assert [each.id for each in found.events if isinstance(each, Sent)] == [sent]
    by_id = Push("contacts", "id")
    await enqueue(pool, "4711", f=1)
    await claim(lease, by_id)
    assert len((await the_story(pool, "4711", {"contacts": "id"})).events) == 1
    assert await told(pool, "4711") == [], "of a push by email no key is an id"
    assert PUSH.lookup_field == "email"


async def test_only_the_outbox_is_walked_whole(pool: Pool, lease: Lease) -> None:
    await pulled(pool, 1, "a@x", T[0], f="1")
    await pulled(pool, 1, "a@x", T[1], f="2")
    await enqueue(pool, "a@x", f=1)
    await apply(lease)
    keys = (["contacts"], ["a@x"])
    queries: list[tuple[str, tuple[object, ...]]] = [
        (story.BY_ID, (1,)),
        (story.BY_EMAIL, ("a@x",)),
        (story.ATTRIBUTES, (1, ["f"])),
        (story.CHANGED, (1, 5)),
        (story.CHANGED_COUNT, (1,)),
        (story.LISTS, (1,)),
        (story.SETTLED, (*keys, 5)),
        (story.SETTLED_COUNT, keys),
    ]
    for query, values in queries:
        plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {query}", "acme", *values))
        assert "Seq Scan" not in plan, plan
        assert "Index" in plan, plan
    plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {story.LIVE}", "acme", *keys, 5))
    assert "import_job_by_chunk" in plan, plan
