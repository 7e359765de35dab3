"""The import queue and what it does to leads (protocol section 4)."""

import json
import math
from pathlib import Path

import pytest

from syncd.simulator import ForeignLoad, ImportModel, Limits, SimulatorSettings
from tests.simulator.client import Client, code_of, multipart
from tests.simulator.conftest import Rehearse

SAMPLES = Path(__file__).parent.parent / "samples"
TEN_SECONDS = ImportModel(overhead_seconds=10.0, rows_per_second=math.inf, sigma=0.0)
SETTINGS = SimulatorSettings(leads=20, imports=TEN_SECONDS)


def table(*keys: object, column: str = "email", title: str = "T") -> str:
    return f"{column},title\n" + "".join(f"{key},{title}\n" for key in keys)


async def jobs(client: Client, count: int) -> list[int]:
    """Submit jobs of one row each, all of different keys."""
    return [await client.import_(table(f"job{number}@example.com")) for number in range(count)]


def board(client: Client) -> list[tuple[str, str | None]]:
    return [(slot.state, slot.owner) for slot in client.sim.slots() if slot.state != "free"]


async def test_submitted_reply_is_the_documented_one(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    reply = await client.submit(table("a@example.com"))
    sample = json.loads((SAMPLES / "import-submitted.json").read_text())
    assert list(reply) == list(sample)
    assert list(reply["result"][0]) == list(sample["result"][0])
    assert reply["result"][0] == {"batchId": 1022, "importId": "1022", "status": "Queued"}


async def test_first_come_first_served_by_two_workers(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batches = await jobs(client, 5)
    seen = []
    for _ in range(4):
        seen.append([(await client.status(batch))["status"] for batch in batches])
        client.clock.advance(10)
    running, queued, done = "Importing", "Queued", "Complete"
    assert seen == [
        [running, running, queued, queued, queued],
        [done, done, running, running, queued],
        [done, done, done, done, running],
        [done] * 5,
    ]
    report = client.sim.report()
    assert (report.most_running, report.most_running_ours, report.most_slots_held) == (2, 2, 5)
    assert report.polls == dict.fromkeys(batches, 4)


async def test_looking_late_changes_nothing(rehearse: Rehearse) -> None:
    watched, blind = await rehearse(SETTINGS), await rehearse(SETTINGS)
    for client in (watched, blind):
        await jobs(client, 5)
    for _ in range(60):
        watched.clock.advance(0.5)
        watched.sim.slots()
    blind.clock.advance(30)
    assert list(watched.sim.world) == list(blind.sim.world)
    assert watched.sim.slots() == blind.sim.slots()


async def test_eleventh_job_is_1016(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await jobs(client, 10)
    assert code_of(await client.submit(table("eleventh@example.com"))) == "1016"
    client.clock.advance(10)
    assert code_of(await client.submit(table("eleventh@example.com"))) == "ok"
    report = client.sim.report()
    assert (report.most_slots_held, report.imports_accepted, report.imports_refused) == (10, 11, {"1016": 1})


async def test_strangers_take_slots_and_workers(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    for _ in range(9):
        client.sim.add_foreign_job(5)
    batch = await client.import_(table("a@example.com"))
    assert code_of(await client.submit(table("b@example.com"))) == "1016"
    assert board(client) == [("running", "foreign")] * 2 + [("queued", "foreign")] * 7 + [("queued", "ours")]
    with pytest.raises(ValueError, match="all import slots"):
        client.sim.add_foreign_job(5)
    client.clock.advance(20)
    assert (await client.status(batch))["status"] == "Importing"
    client.sim.add_foreign_job(5)
    client.sim.add_foreign_job(7)
    client.sim.add_foreign_job(9, at_queue=0)
    assert board(client)[0] == ("running", "foreign")
    assert client.sim.report().most_slots_held_ours == 1


async def test_strangers_come_by_themselves(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0, foreign=ForeignLoad(jobs_per_hour=3_600, job_seconds=30)))
    client.clock.advance(600)
    assert {owner for _, owner in board(client)} == {"foreign"}
    report = client.sim.report()
    assert (report.most_slots_held, report.most_running, report.most_slots_held_ours) == (10, 2, 0)


async def test_progress_is_partial_while_importing(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await client.import_(table(*(f"p{number}@example.com" for number in range(8)), "", "ü@example.com"))
    client.clock.advance(5)
    half = await client.status(batch)
    assert (half["status"], half["numOfLeadsProcessed"], half["numOfRowsFailed"]) == ("Importing", 5, 0)
    assert not client.sim.world.by_email("p0@example.com")
    client.clock.advance(5)
    end = await client.status(batch)
    assert (end["status"], end["numOfLeadsProcessed"], end["numOfRowsFailed"]) == ("Complete", 8, 2)
    assert client.sim.world.by_email("p0@example.com")[0].values["title"] == "T"


async def test_complete_reply_is_the_documented_one(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await client.import_(table("a@example.com", "b@example.com", ""))
    client.clock.advance(10)
    reply = await client.rest(f"/bulk/v1/leads/batch/{batch}.json")
    sample = json.loads((SAMPLES / "import-complete.json").read_text())
    assert list(reply) == list(sample)
    assert (batch, reply["result"]) == (1022, sample["result"])


async def test_upsert_by_email_whatever_its_case(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = next(lead for lead in client.sim.world if lead.email)
    email = lead.email or ""
    await client.import_(table(email.swapcase(), "new@example.com"))
    client.clock.advance(10)
    world = client.sim.world
    assert (lead.values["title"], lead.email, lead.updated_at) == ("T", email, client.clock.now())
    assert (len(world), world.by_email("NEW@example.com")[0].id) == (21, 1021)
    assert client.sim.report().rows == {"imported": 2, "created": 1, "updated": 1, "warned": 0, "failed": 0, "unprocessed": 0}


async def test_id_only_updates(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await client.import_(table(1001, 9999, column="id"), "format=csv&lookupField=id")
    client.clock.advance(10)
    assert (await client.status(batch))["numOfRowsFailed"] == 1
    assert client.sim.report().row_failures == {"Lead with id '9999' not found": 1}
    assert (len(client.sim.world), client.sim.world.get(1001).values["title"]) == (20, "T")  # type: ignore[union-attr]


async def test_custom_lookup_field(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await client.import_(table("C-00001001", "C-new", column="customerNumber"), "format=csv&lookupField=customerNumber")
    client.clock.advance(10)
    assert [lead.id for lead in client.sim.world if lead.values.get("title") == "T"] == [1001, 1021]


async def test_later_row_of_one_key_overwrites(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await client.import_("email,title,phone\nk@example.com,first,1\nK@example.com,second,\n")
    client.clock.advance(10)
    (lead,) = client.sim.world.by_email("k@example.com")
    assert (lead.values["title"], lead.values["phone"]) == ("second", "1")
    assert client.sim.report().violations == {"blank cell in import file": 1, "duplicate key in import file": 1}


@pytest.mark.parametrize(("clears", "expected"), [(False, "kept"), (True, None)])
async def test_blank_cell_is_as_the_setting_says(rehearse: Rehearse, clears: bool, expected: str | None) -> None:
    client = await rehearse(SimulatorSettings(leads=0, imports=ImportModel(blank_clears=clears)))
    lead = client.sim.world.create({"email": "k@example.com", "title": "kept"})
    await client.import_("email,title\nk@example.com,\n")
    client.clock.advance(60)
    assert client.sim.world.get(lead.id) is lead
    assert lead.values.get("title") == expected


async def test_same_new_key_in_two_live_jobs(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    first = await client.import_(table("new@example.com", "x@example.com"))
    second = await client.import_(table("NEW@example.com", "y@example.com"))
    client.clock.advance(10)
    assert len(client.sim.world.by_email("new@example.com")) == 2
    await client.import_(table("new@example.com"))
    report = client.sim.report()
    (found,) = report.duplicate_live_keys
    assert (found.lookup_field, found.key, found.first_batch_id, found.second_batch_id) == ("email", "new@example.com", first, second)
    assert (report.duplicate_live_key_count, report.duplicate_leads_created) == (1, 1)
    assert report.violations == {"key in two live jobs": 1, "duplicate leads created by two live jobs": 1}


async def test_list_takes_members_and_one_job_at_a_time(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=5, imports=TEN_SECONDS, static_lists=(("L", 0), ("M", 0))))
    into = "format=csv&listId=1001"
    await client.import_(table(1003, 1002, column="id"), into + "&lookupField=id")
    assert code_of(await client.submit(table("a@example.com"), into)) == "1019"
    assert code_of(await client.submit(table("a@example.com"), "format=csv&listId=1002")) == "ok"
    client.clock.advance(10)
    assert client.sim.world.lists[1001].members == [1002, 1003]
    assert code_of(await client.submit(table("b@example.com"), into)) == "ok"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "format=xls",
        "format=csv&lookupField=shoes",
        "format=csv&listId=7",
        "format=csv&partitionName=X",
        "format=csv&lookupField=leadRating",
    ],
)
async def test_bad_parameters_are_1003(rehearse: Rehearse, query: str) -> None:
    client = await rehearse(SETTINGS)
    assert code_of(await client.submit(table("a@example.com"), query)) == "1003"


async def test_formats(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await client.import_('email\ttitle\nt@example.com\t"a\tb"\n', "format=tsv")
    await client.import_('email;title\ns@example.com;"a;b, c"\n', "format=ssv&partitionName=Default")
    client.clock.advance(10)
    assert [lead.values["title"] for email in ("t", "s") for lead in client.sim.world.by_email(f"{email}@example.com")] == [
        "a\tb",
        "a;b, c",
    ]


@pytest.mark.parametrize("content", ["", "email,title\n", 'email\n"open', "email\n\udcff"])
async def test_empty_or_unreadable_file_is_1003(rehearse: Rehearse, content: str) -> None:
    client = await rehearse(SETTINGS)
    _, body = multipart("MARK")
    sent = body.replace(b"MARK", content.encode("utf-8", "surrogateescape"))
    assert code_of(json.loads((await client.post_import("", body=sent))[1])) == "1003"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"--frontier--", b""),
        (b"--frontier\r\n", b""),
        (b'name="file"', b'name="data"'),
        (b"\r\n\r\n", b""),
        (b"title", b"x\r\n--frontier\r\ny"),
    ],
)
async def test_broken_multipart_is_613(rehearse: Rehearse, old: bytes, new: bytes) -> None:
    client = await rehearse(SETTINGS)
    body = multipart(table("a@example.com"))[1].replace(old, new)
    assert code_of(json.loads((await client.post_import("", body=body))[1])) == "613"


async def test_whole_body_is_limited(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0, limits=Limits(import_body_bytes=400)))
    room = 400 - len(multipart(table("a@example.com", title=""))[1])
    assert (await client.post_import(table("a@example.com", title="x" * room)))[0] == 200
    assert (await client.post_import(table("b@example.com", title="x" * (room + 1))))[0] == 413
    report = client.sim.report()
    assert (report.largest_import, report.imports_accepted, report.imports_refused) == (401, 1, {"http 413": 1})


async def test_batch_lives_for_seven_days(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await client.import_(table("a@example.com"))
    client.clock.advance(7 * 86_400)
    await client.login()
    assert (await client.status(batch))["status"] == "Complete"
    client.clock.advance(1)
    assert await client.code(f"/bulk/v1/leads/batch/{batch}.json") == "1003"
    assert await client.code("/bulk/v1/leads/batch/5.json") == "1003"
