"""No slot is spent on what Marketo would refuse, nor on what it has told us; a field that is away is waited for."""

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from structlog.testing import capture_logs

from syncd.core.settings import Mend
from syncd.simulator import Fault
from syncd.simulator.fields import BY_KEY, Field
from tests.flows.conftest import PULL, PUSH, Build, House

NOW = replace(PUSH, flush_after=timedelta())

TITLE = BY_KEY["title"]


def change(number: int, **fields: object) -> tuple[str, str]:
    return f"person{number}@example.com", orjson.dumps(fields).decode()


async def imports_of(home: House) -> int:
    """Files and calls of Sync Leads that were sent."""
    count: int = await home.pool.fetchval("SELECT (SELECT count(*) FROM syncd.import_job) + (SELECT count(*) FROM syncd.sync_batch)")
    return count


def later(home: House) -> None:
    """An hour passes at a stroke, for stepping through it takes long."""
    home.clock.advance(3700)


def described(home: House) -> int:
    return sum(call.count for call in home.simulator.report().calls if call.endpoint == "describe")


async def warnings(home: House) -> float:
    return next(value for name, labels, value in home.metrics.samples() if name == "syncd_fields_awaited")


async def test_what_marketo_would_refuse_spends_no_slot(house: Build) -> None:
    home = await house(pushes=[NOW], checked=True)
    bad = await home.enqueue(
        change(1, leadScore=1.5),
        change(2, leadRating="5"),
        change(3, firstname="Ada"),
        change(4, firstName="x" * 256),
        change(5, firstName="\U0001f600"),
        ("jürgen@example.com", '{"leadScore": 1}'),
        (" ", '{"leadScore": 1}'),
    )
    await home.run(60, home.all_ended)
    assert await home.states() == {"rejected": len(bad)}
    assert await imports_of(home) == 0
    assert (await home.fate(bad[0]))[1] == "leadScore takes whole numbers only"
    (good,) = await home.enqueue(change(6, leadScore=1))
    await home.run(120, home.all_ended)
    assert (await home.fate(good))[0] == "applied"


async def test_values_are_mended_where_the_settings_say_so(house: Build) -> None:
    home = await house(pushes=[replace(NOW, mend=Mend("mend", "round", "cut", "strip"))], checked=True)
    (mended,) = await home.enqueue(change(1, LeadScore=1.5, firstName="x" * 300, lastName="Love\U0001f600lace"))
    await home.run(120, home.all_ended)
    assert (await home.fate(mended))[0] == "applied"
    (lead,) = home.simulator.world.by_email("person1@example.com")
    assert (lead.values["leadScore"], lead.values["firstName"], lead.values["lastName"]) == ("2", "x" * 255, "Lovelace")


async def test_nothing_is_packed_before_describe_has_answered_and_then_an_outage_does_not_matter(house: Build) -> None:
    home = await house(pushes=[NOW], checked=True)
    home.simulator.script("describe", Fault.REST_611, 3)
    await home.enqueue(change(1, leadScore=1))
    await home.run(50)
    assert await home.states() == {"pending": 1}
    await home.run(200, home.all_ended)
    assert await home.states() == {"applied": 1}
    home.simulator.script("describe", Fault.REST_611, 1000)
    await home.restart()
    await home.enqueue(change(2, leadScore=1))
    await home.run(200, home.all_ended)
    assert await home.states() == {"applied": 2}


async def test_a_field_that_describe_does_not_know_is_asked_for_once_more(house: Build) -> None:
    home = await house(pushes=[NOW], checked=True)
    await home.run(5)
    asked = described(home)
    home.simulator.add_field(Field(90, "Shoe Size", "string", "shoeSize", None, 10))
    ids = await home.enqueue(*(change(n, fristName="Ada") for n in range(5)), change(9, shoeSize="7"))
    await home.run(200, home.all_ended)
    assert (await home.fate(ids[0])) == ("rejected", "describe does not know the field fristName; did you mean firstName?")
    assert (await home.fate(ids[-1]))[0] == "applied"
    assert await home.states() == {"rejected": 5, "applied": 1}
    assert described(home) == asked + 1
    await home.enqueue(*(change(n, fristName="Ada") for n in range(3)))
    await home.run(100)
    assert await home.states() == {"rejected": 5, "applied": 1, "parked": 3}, "asked at most each few minutes"
    await home.run(300)
    assert await home.states() == {"rejected": 8, "applied": 1}


async def test_a_field_that_vanishes_holds_its_changes_and_lets_them_go_when_it_is_back(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, flush_after=timedelta(days=1))], checked=True)
    waiting = await home.enqueue(*(change(n, title="Countess") for n in range(3)))
    other = await home.enqueue(change(8, leadScore=1))
    await home.run(5)
    assert await home.states() == {"in_chunk": 4}
    home.simulator.remove_field("title")
    later(home)
    await home.run(10)
    late = await home.enqueue(*(change(n, title="Count") for n in range(2, 6)))
    await home.run(5)
    assert await home.states() == {"parked": 7, "in_chunk": 1}
    assert (await home.fate(waiting[0]))[1] == "the field title has vanished from Marketo: it goes when the field is back"
    assert await home.pool.fetchval("SELECT array_agg(state ORDER BY id) FROM syncd.chunk") == ["dissolved", "open"]
    assert await warnings(home) == 1
    await home.restart(pushes=(NOW,))
    await home.run(300)
    assert await home.states() == {"parked": 7, "applied": 1}
    assert (await home.fate(other[0]))[0] == "applied"
    home.simulator.add_field(TITLE)
    later(home)
    await home.run(200, home.all_ended)
    assert await home.states() == {"applied": 7, "superseded": 1}
    assert (await home.fate(late[0]))[0] == "applied"
    (lead,) = home.simulator.world.by_email("person2@example.com")
    assert lead.values["title"] == "Count"
    assert await warnings(home) == 0


async def test_a_sealed_chunk_dissolves_as_well(house: Build) -> None:
    home = await house(pushes=[NOW], checked=True)
    for _ in range(10):
        home.simulator.add_foreign_job(100_000)
    await home.enqueue(change(1, title="Countess", company="C"))
    await home.run(60, home.a_chunk_is_sealed)
    home.simulator.remove_field("title")
    later(home)
    await home.run(10)
    assert await home.states() == {"parked": 1}


@pytest.mark.parametrize("urgent", [False, True])
async def test_an_open_sync_batch_gives_its_changes_back_as_well(house: Build, urgent: bool) -> None:
    home = await house(pushes=[NOW], checked=True)
    home.simulator.script("sync_leads", Fault.REST_606, 3)  # what comes back from the third waits for some seconds
    lacking, other = '{"title": null, "leadScore": 1}', '{"notes": null}'
    ids = [
        await home.pool.fetchval("SELECT syncd.enqueue('acme', 'contacts', $1, $2, priority => $3)", key, fields, priority)
        for priority in ["urgent" if urgent else "normal"]
        for key, fields in (("a@example.com", lacking), ("b@example.com", other), ("c@example.com", lacking))
    ]
    await home.run(60, lambda: home.one_is_open_after(refused=3))
    home.simulator.remove_field("title")
    assert home.dictionaries is not None
    await home.dictionaries.refresh()
    with capture_logs() as logs:
        await home.run(60, lambda: settled(home, ids[1]))
    assert await home.states() == {"parked": 2, "applied": 1}
    assert (await home.fate(ids[0]))[1] == "the field title has vanished from Marketo: it goes when the field is back"
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["batch_given_up", "changes_parked"]
    assert home.simulator.report().sync_skipped == {}
    home.simulator.add_field(TITLE)
    later(home)
    await home.run(60, home.all_ended)
    assert await home.states() == {"applied": 3}


ECHOED = ("firstName", "lastName", "leadScore", "unsubscribed", "lastWebinarAt")
ECHO = replace(PULL, fields=("FirstName", "LastName", "LeadScore", "Unsubscribed", "Last_Webinar_At"), batch_size=1000)
WRITE_BACK = """
INSERT INTO syncd.outbox (instance, push, key, fields)
SELECT 'acme', 'contacts', email, (SELECT jsonb_object_agg(a.key, a.value) FROM jsonb_each(attributes) a WHERE a.key = ANY ($1))
  FROM syncd.lead WHERE attributes ?| $1
   AND lower(email) IN (SELECT lower(email) FROM syncd.lead GROUP BY 1 HAVING count(*) = 1)
"""


async def mirrored(home: House) -> int:
    count: int = await home.pool.fetchval("SELECT count(*) FROM syncd.lead")
    return count


async def all_mirrored(home: House, leads: int) -> bool:
    return await mirrored(home) >= leads


async def echoed(house: Build, leads: int) -> House:
    """A house that has pulled all leads, and whose application writes each of them back."""
    home = await house(pulls=[ECHO], pushes=[NOW], checked=True, leads=leads)
    await home.run(3600, lambda: all_mirrored(home, leads))
    await home.pool.execute(WRITE_BACK, list(ECHOED))
    await home.run(120, home.all_ended)
    return home


@pytest.fixture(params=[5_000, pytest.param(100_000, marks=pytest.mark.prove)])
def leads(request: pytest.FixtureRequest) -> int:
    return request.param  # type: ignore[no-any-return]


async def test_the_echo_of_a_pull_converges_to_nothing(house: Build, leads: int) -> None:
    home = await echoed(house, leads)
    states = await home.states()
    assert set(states) == {"noop"}
    assert states["noop"] > 0.95 * leads
    assert await imports_of(home) == 0
    assert "Marketo has these values already" in str(await home.pool.fetchval("SELECT min(reason) FROM syncd.change WHERE state = 'noop'"))


async def one(home: House, **fields: object) -> tuple[str, int]:
    """Enqueue for a lead that is in the mirror; returns its state in the end, and how many imports there were in all."""
    (number,) = await home.enqueue((await address(home), orjson.dumps(fields).decode()))
    await home.run(200, home.all_ended)
    return (await home.fate(number))[0], await imports_of(home)


async def address(home: House) -> str:
    email: str = await home.pool.fetchval(
        "SELECT min(email) FROM syncd.lead l WHERE NOT EXISTS (SELECT FROM syncd.lead o"
        " WHERE lower(o.email) = lower(l.email) AND o.lead_id <> l.lead_id)"
    )
    return email


async def test_a_write_back_to_an_old_value_is_sent_and_a_stale_mirror_believed_in_nothing(house: Build) -> None:
    home = await house(pulls=[replace(ECHO, every=timedelta(hours=1))], pushes=[NOW], checked=True, leads=20)
    await home.run(300)
    assert await mirrored(home) == 20
    old = await home.pool.fetchval("SELECT attributes ->> 'firstName' FROM syncd.lead WHERE email = $1", await address(home))
    assert await one(home, firstName=old) == ("noop", 0)
    assert await one(home, firstName="Another") == ("applied", 1)
    assert await one(home, firstName=old) == ("applied", 2), "the mirror has the old value, of a time before"
    assert await one(home, firstName="Another") == ("applied", 3)
    later(home)
    await home.run(60)
    assert await one(home, firstName="Another") == ("noop", 3), "asked for since"
    assert await one(home, firstName=old) == ("applied", 4)
    assert await one(home, firstName=old, company="Elsewhere") == ("applied", 5), "nobody pulls company"


async def test_an_echo_is_sent_while_something_else_is_on_its_way_or_a_list_is_to_be_filled(house: Build) -> None:
    other = replace(NOW, name="others")
    home = await house(pulls=[ECHO], pushes=[NOW, other], checked=True, leads=20)
    await home.run(300)
    email = await address(home)
    values = await home.row("SELECT lead_id, attributes ->> 'firstName' AS name FROM syncd.lead WHERE email = $1", email)
    await home.pool.execute("UPDATE syncd.push SET state = 'paused' WHERE push = 'others'")
    await home.pool.execute("SELECT syncd.enqueue('acme', 'others', $1, '{\"firstName\": \"Other\"}')", email)
    assert await one_of(home, email, values["name"]) == "applied"
    another = await home.row(
        "SELECT email, attributes ->> 'firstName' AS name FROM syncd.lead WHERE email > $1 ORDER BY email DESC LIMIT 1", email
    )
    await home.restart(pushes=(replace(NOW, list_id=1001),))
    (listed,) = await home.enqueue((another["email"], orjson.dumps({"firstName": another["name"]}).decode()))
    await home.run(10)
    assert (await home.fate(listed))[0] == "in_chunk"


async def one_of(home: House, email: str, name: str) -> str:
    (number,) = await home.enqueue((email, orjson.dumps({"firstName": name}).decode()))
    await home.run(100, lambda: settled(home, number))
    return (await home.fate(number))[0]


async def settled(home: House, number: int) -> bool:
    return await home.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.change_history WHERE id = $1)", number) is True


async def test_two_leads_of_one_address_and_a_misfit_are_sent(house: Build) -> None:
    home = await house(pulls=[ECHO], pushes=[NOW], checked=True, leads=20)
    await home.run(300)
    email = await address(home)
    name = await home.pool.fetchval("SELECT attributes ->> 'firstName' FROM syncd.lead WHERE email = $1", email)
    await home.pool.execute('UPDATE syncd.lead SET misfits = \'{"firstName": "x"}\' WHERE email = $1', email)
    assert await one_of(home, email, name) == "applied"
    other = await address(home)
    await home.pool.execute(
        "UPDATE syncd.lead SET email = $1, misfits = NULL WHERE lead_id IN"
        " (SELECT lead_id FROM syncd.lead WHERE email <> $1 ORDER BY lead_id DESC LIMIT 1)",
        other,
    )
    assert await one_of(home, other, name) == "applied"


async def test_echoes_are_known_by_id_too(house: Build) -> None:
    home = await house(pulls=[ECHO], pushes=[replace(NOW, lookup_field="id")], checked=True, leads=20)
    await home.run(300)
    lead = await home.row("SELECT lead_id, attributes ->> 'firstName' AS name FROM syncd.lead ORDER BY lead_id LIMIT 1")
    same, other = await home.enqueue(
        (str(lead["lead_id"]), orjson.dumps({"firstName": lead["name"]}).decode()), (str(lead["lead_id"] + 1), '{"firstName": "Another"}')
    )
    await home.run(200, home.all_ended)
    assert ((await home.fate(same))[0], (await home.fate(other))[0]) == ("noop", "applied")
