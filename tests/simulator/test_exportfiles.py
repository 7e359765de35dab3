"""What is in an export's file, and how it is sent (protocol section 3.1)."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncd.simulator import Fault, SimulatorSettings, World
from syncd.simulator.exportfile import ExportFile, of_pieces, rendered
from tests.simulator.client import START
from tests.simulator.conftest import Rehearse
from tests.simulator.exporting import EXACT, EXPORT, LATELY, SETTINGS, between, create, finished, queued, table

NASTY = {
    "email": "ada@example.com",
    "firstName": 'say "hi", you',
    "notes": "two\r\nlines\rthree\nfour",
    "leadScore": "-7",
    "accountNumber": "12345678901234567890123",
    "lifetimeValue": "10.50",
    "unsubscribed": "true",
    "dateOfBirth": "1999-12-31",
    "lastWebinarAt": "2015-05-11T07:54:00-06:00",
    "title": "null",
}
ALWAYS = between(START, START + timedelta(days=1))


async def test_cells_are_the_documented_ones(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=0))
    client.sim.world.create(NASTY)
    path = await finished(client, *NASTY, "phone", "id", wanted=ALWAYS)
    header, row = await table(client, path)
    assert header == [*NASTY, "phone", "id"]
    assert row == [*(NASTY | {"lastWebinarAt": "2015-05-11T13:54:00Z"}).values(), "null", "1001"]
    _, data, headers = await client.file(path)
    assert data.startswith(b"email,firstName,notes,")
    assert b'ada@example.com,"say ""hi"", you","two\r\nlines\rthree\nfour",-7,' in data
    assert headers["Content-Type"].startswith("text/csv")


async def test_a_file_is_the_truth(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=500))
    names = [name for name in client.sim.world.catalogue.by_rest if name not in ("id", "email")]
    header, *rows = await table(client, await finished(client, "id", "email", *names))
    found = {int(row[0]): dict(zip(header[1:], row[1:], strict=True)) for row in rows}
    expected = {}
    for lead_id, email, values in client.sim.world.rest_truth(names):
        shown = {"email": email or "null"} | {name: values.get(name, "null") for name in names}
        if "lastWebinarAt" in values:
            assert datetime.fromisoformat(found[lead_id]["lastWebinarAt"]) == datetime.fromisoformat(values["lastWebinarAt"])
        expected[lead_id] = shown | {"lastWebinarAt": found[lead_id]["lastWebinarAt"]}
    assert found == expected


async def test_columns_may_have_other_names(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    path = await finished(client, "id", "firstName", columnHeaderNames={"firstName": "First, Name"})
    assert (await table(client, path))[0] == ["id", "First, Name"]


async def test_a_long_list_of_fields_is_silently_cut(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, exports=replace(EXACT, field_list_chars=len("id,title,phone"))))
    assert (await table(client, await finished(client, "id", "title", "phone")))[0] == ["id", "title", "phone"]
    assert (await table(client, await finished(client, "id", "title", "company")))[0] == ["id", "title"]


@pytest.mark.parametrize(
    ("kind", "starts", "ends", "found"),
    [
        ("updatedAt", 10, 20, [1001, 1002]),
        ("updatedAt", 11, 20, [1002]),
        ("updatedAt", 10, 19, [1001]),
        ("createdAt", 0, 5, [1001, 1002, 1003]),
        ("createdAt", 1, 5, [1003]),
        ("updatedAt", 0, 1, []),
    ],
)
async def test_both_ends_of_a_range_are_in_it(rehearse: Rehearse, kind: str, starts: int, ends: int, found: list[int]) -> None:
    client = await rehearse(replace(SETTINGS, leads=0))
    for _ in range(2):
        client.sim.world.create({})
    client.clock.advance(5)
    client.sim.world.create({})
    for lead_id in (1001, 1002, 1003):
        client.clock.advance(5 if lead_id == 1001 else 10)
        client.sim.world.update(lead_id, {"title": "T"})
    wanted = between(START + timedelta(seconds=starts), START + timedelta(seconds=ends), kind)
    rows = await table(client, await finished(client, "id", wanted=wanted))
    assert sorted(int(row[0]) for row in rows[1:]) == found


async def test_lists_are_filters(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, static_lists=(("P.L", 0),)))
    client.sim.world.add_members(1001, [1005, 1003])
    smart = client.sim.world.create_smart_list("Odd ones", lambda lead: lead.id % 2 == 1 and lead.id < 1006)
    assert (smart.id, client.sim.world.smart_list_named("Odd ones")) == (2001, smart)
    with pytest.raises(ValueError, match="there is a smart list"):
        client.sim.world.create_smart_list("Odd ones", lambda _: True)
    for wanted, found in (
        ({"staticListId": 1001}, [1003, 1005]),
        ({"staticListName": "P.L"}, [1003, 1005]),
        ({"smartListId": 2001}, [1001, 1003, 1005]),
        ({"smartListName": "Odd ones"}, [1001, 1003, 1005]),
    ):
        rows: list[Any] = await table(client, await finished(client, "id", wanted=wanted))
        assert [int(row[0]) for row in rows[1:]] == found


async def test_generated_leads_were_born_before_their_update(rehearse: Rehearse) -> None:
    world = World(SimulatorSettings(leads=500), START.timestamp())
    assert all(SimulatorSettings().updated_since.timestamp() <= lead.created <= lead.updated for lead in world)
    assert len({lead.created for lead in world}) > 490
    assert len(world.log) == 0


async def test_ranges(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=3_000))
    path = await finished(client, "id", "firstName", "notes")
    _, whole, _ = await client.file(path)
    size = len(whole)
    for wanted, start, end in ((f"bytes=0-{size - 1}", 0, size), ("bytes=100-199", 100, 200), ("bytes=70000-", 70_000, size)):
        status, data, headers = await client.file(path, wanted)
        assert (status, data, headers["Content-Range"]) == (206, whole[start:end], f"bytes {start}-{end - 1}/{size}")
        assert headers["Content-Length"] == str(end - start)
    assert (await client.file(path, f"bytes=10-{size + 99}"))[1] == whole[10:]
    status, _, headers = await client.file(path, f"bytes={size}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    assert (await client.file(path, "bytes=-5"))[0] == 200
    report = client.sim.report()
    assert (list(report.downloads.values()), report.downloaded_bytes > 3 * size) == ([6], True)


async def test_files_not_ready_and_unknown_are_404(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, exports=replace(EXACT, not_ready_seconds=30)))
    export_id = await queued(client)
    path = f"{EXPORT}/{export_id}/file.json"
    assert await client.get(path) == (404, "Not Found")
    client.clock.advance(110)
    assert (await client.get(path))[0] == 404
    client.clock.advance(20)
    assert (await client.get(path))[0] == 200
    assert (await client.get(f"{EXPORT}/nobody/file.json"))[0] == 404
    assert client.sim.report().violations == {"file asked for too early": 1}


async def test_planted_files_are_served_in_pieces(rehearse: Rehearse, tmp_path: Path) -> None:
    client = await rehearse(SETTINGS)
    begun = []

    def source() -> Iterator[bytes]:
        begun.append(1)
        yield from (b"%07d\n" % number for number in range(1_000))

    whole = b"".join(source())
    begun.clear()
    (tmp_path / "planted.csv").write_bytes(whole)
    client.sim.plant_export(source, 999, len(whole), hashlib.sha256(whole).hexdigest())
    client.sim.plant_export(tmp_path / "planted.csv", 999)
    client.sim.plant_export(whole, 999)
    client.sim.plant_export(source, 999)
    assert len(begun) == 1
    for _ in range(4):
        path = await finished(client)
        assert len(await table(client, path)) == 1_000
        assert (await client.file(path, "bytes=4004-4019"))[1] == whole[4004:4020]
    assert len(await table(client, await finished(client))) == 21


def test_pieces_from_any_byte_on() -> None:
    file = of_pieces(lambda: (b"abc", b"", b"defg", b"h"), 1)
    assert file == ExportFile(1, 8, hashlib.sha256(b"abcdefgh").hexdigest(), file.source)
    for start in range(9):
        for end in range(start, 9):
            assert b"".join(file.pieces(start, end)) == b"abcdefgh"[start:end]


def test_leads_are_rendered_quickly() -> None:
    world = World(SimulatorSettings(leads=2_000), START.timestamp())
    fields = list(world.catalogue.by_rest.values())
    began = time.process_time()
    file = rendered((lead for _ in range(10) for lead in world), fields, {}, frozenset())
    assert (file.records, file.size > 4_000_000) == (20_000, True)
    assert time.process_time() - began < 5


async def test_odd_content_is_in_size_and_checksum(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=0))
    for number in range(12):
        client.sim.world.create({"firstName": "first, Name", "title": f"T{number}"})
    marks = {
        Fault.FILE_NUL: b'"f\0irst, Name"',
        Fault.FILE_U2028: '"f\u2028irst, Name"'.encode(),
        Fault.FILE_STRAY_CR: b"f\rirst Name,",
        Fault.FILE_BAD_QUOTES: b'"f"irst, Name"',
        Fault.FILE_HEADER_CHANGED: b"firstName,Job Title\n",
    }
    for fault, mark in marks.items():
        client.sim.script("export_file", fault)
        path = await finished(client, "firstName", "title", wanted=ALWAYS)
        status, data, _ = await client.file(path)
        told = (await client.rest(path.replace("file", "status")))["result"][0]
        assert (status, data.count(mark), told["numberOfRecords"]) == (200, 1 if fault is Fault.FILE_HEADER_CHANGED else 2, 12)
        assert (told["fileSize"], told["fileChecksum"]) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    clean = await table(client, await finished(client, "firstName", "title", wanted=ALWAYS))
    assert clean[:2] == [["firstName", "title"], ["first, Name", "T0"]]
    assert client.sim.report().faults_injected == {fault.value: 1 for fault in marks}


async def test_a_range_may_be_off_by_one(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    path = await finished(client)
    _, whole, _ = await client.file(path)
    size = len(whole)
    client.sim.script("export_file", Fault.RANGE_OFF_BY_ONE, times=4)
    shown = [await client.file(path, wanted) for wanted in ("bytes=10-19", f"bytes=10-{size - 1}", "bytes=0-", None)]
    assert [data for _, data, _ in shown] == [whole[9:19], whole[9 : size - 1], whole[1:] + b"\n", whole]
    assert [headers.get("Content-Range") for _, _, headers in shown] == [
        f"bytes 10-19/{size}",
        f"bytes 10-{size - 1}/{size}",
        f"bytes 0-{size - 1}/{size}",
        None,
    ]


async def test_field_names_are_checked_at_once(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    assert (await create(client, "Legacy_Segment", wanted=LATELY))["errors"][0]["code"] == "1003"
