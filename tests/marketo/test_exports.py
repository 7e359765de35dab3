"""Bulk extract over loopback HTTP (protocol 3.1): jobs. What a download may meet is in test_download.py."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from aiohttp import web

from syncd.core.faults import Fault, Nature
from syncd.core.values import CreatedBetween, ExportFilter, ExportStatus, InSmartList, InStaticList, UpdatedBetween
from syncd.marketo.exports import MOST_PAGES, Exports
from tests.marketo.wire import SAMPLES, Wire, json, opened, rest_api, token

COMPLETED = (SAMPLES / "export-completed.json").read_text()
ID = "ce45a7a1-f19d-4ce2-882c-a3c795940a7d"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def exports(wire: Wire) -> AsyncIterator[Exports]:
    wire.script = [token()]
    async with opened() as session:
        yield Exports(rest_api(wire, session))


def envelope(*entries: str, rest: str = "") -> web.Response:
    return json(f'{{"requestId": "r#1", "success": true, {rest} "result": [{", ".join(entries)}]}}')


async def test_a_job_is_created_as_documented(wire: Wire, exports: Exports) -> None:
    wire.script += [envelope(f'{{"exportId": "{ID}", "status": "Created", "createdAt": "2017-01-21T19:47:30Z", "format": "CSV"}}')]
    created = await exports.create(["email", "näme"], UpdatedBetween(START, START + timedelta(days=31)))
    assert created == ExportStatus(ID, "created", created_at=datetime(2017, 1, 21, 19, 47, 30, tzinfo=UTC))
    request = wire.requests[1]
    assert (request.method, request.path) == ("POST", "/bulk/v1/leads/export/create.json")
    assert request.headers["content-type"] == "application/json"
    assert request.body.decode() == (
        '{"fields":["email","näme"],"format":"CSV",'
        '"filter":{"updatedAt":{"startAt":"2026-01-01T00:00:00Z","endAt":"2026-02-01T00:00:00Z"}}}'
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (
            CreatedBetween(START, START + timedelta(seconds=1, microseconds=999_999)),
            {"createdAt": {"startAt": "2026-01-01T00:00:00Z", "endAt": "2026-01-01T00:00:01Z"}},
        ),
        (
            UpdatedBetween(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=3))), START),
            {"updatedAt": {"startAt": "2025-12-31T23:00:00Z", "endAt": "2026-01-01T00:00:00Z"}},
        ),
        (UpdatedBetween(START, START), {"updatedAt": {"startAt": "2026-01-01T00:00:00Z", "endAt": "2026-01-01T00:00:00Z"}}),
        (InStaticList(7), {"staticListId": 7}),
        (InStaticList("Program.List"), {"staticListName": "Program.List"}),
        (InSmartList(8), {"smartListId": 8}),
        (InSmartList("9"), {"smartListName": "9"}),
    ],
)
async def test_one_filter_of_a_kind(wire: Wire, exports: Exports, wanted: ExportFilter, expected: object) -> None:
    wire.script += [envelope('{"exportId": "x", "status": "Created"}')]
    await exports.create(["a"], wanted)
    assert orjson.loads(wire.requests[1].body) == {"fields": ["a"], "format": "CSV", "filter": expected}


@pytest.mark.parametrize(
    "wanted",
    [
        UpdatedBetween(START, START + timedelta(days=31, seconds=1)),
        CreatedBetween(START, START + timedelta(days=32)),
        UpdatedBetween(START, START - timedelta(seconds=1)),
        UpdatedBetween(START.replace(tzinfo=None), START.replace(tzinfo=None)),
    ],
)
async def test_a_span_that_marketo_would_refuse_is_a_bug_of_ours(wire: Wire, exports: Exports, wanted: ExportFilter) -> None:
    with pytest.raises(AssertionError):
        await exports.create(["a"], wanted)
    assert wire.requests == []


@pytest.mark.parametrize("status", ['"Something new"', "null", '"CREATED "'])
async def test_a_job_that_exists_is_never_lost_over_a_spelling(wire: Wire, exports: Exports, status: str) -> None:
    entry = f'{{"exportId": 77, "status": {status}, "createdAt": "then", "numberOfRecords": -1, "fileSize": "x", "fileChecksum": 5}}'
    wire.script += [envelope(entry), envelope(entry)]
    assert await exports.create(["a"], InStaticList(1)) == ExportStatus("77", "created")


@pytest.mark.parametrize(
    "entry", ["", "1", "{}", '{"exportId": null}', '{"exportId": "../x"}', '{"exportId": "a", "x": 1}, {"exportId": "b"}']
)
async def test_a_reply_without_a_job_leaves_it_open(wire: Wire, exports: Exports, entry: str) -> None:
    wire.script += [envelope(entry)]
    with pytest.raises(Fault) as failed:
        await exports.create(["a"], InStaticList(1))
    assert (failed.value.nature, failed.value.code, failed.value.executed) == (Nature.TRANSIENT, "garbled", None)
    assert failed.value.request_id == "r#1"


@pytest.mark.parametrize(
    ("code", "message", "told", "nature"),
    [
        ("1003", "Invalid field name 'x'", "1003", Nature.PERMANENT),
        ("1035", "Unsupported filter type for target subscription: updatedAt", "1035", Nature.CONFIGURATION),
        ("1029", "Too many jobs (10) in queue", "1029_queue", Nature.NO_SLOT),
    ],
)
async def test_a_refusal_is_known_not_executed(wire: Wire, exports: Exports, code: str, message: str, told: str, nature: Nature) -> None:
    wire.script += [json(f'{{"requestId": "r", "success": false, "errors": [{{"code": "{code}", "message": "{message}"}}]}}')]
    with pytest.raises(Fault) as failed:
        await exports.create(["x"], UpdatedBetween(START, START))
    assert (failed.value.code, failed.value.nature, failed.value.executed, failed.value.message) == (told, nature, False, message)


async def test_a_job_is_enqueued_and_cancelled_by_empty_posts(wire: Wire, exports: Exports) -> None:
    wire.script += [envelope(f'{{"exportId": "{ID}", "status": "Queued"}}'), envelope(f'{{"exportId": "{ID}", "status": "Cancelled"}}')]
    assert await exports.enqueue(ID) == ExportStatus(ID, "queued")
    assert await exports.cancel(ID) == ExportStatus(ID, "cancelled")
    posts = wire.requests[1:]
    assert [(post.method, post.path) for post in posts] == [
        ("POST", f"/bulk/v1/leads/export/{ID}/enqueue.json"),
        ("POST", f"/bulk/v1/leads/export/{ID}/cancel.json"),
    ]
    assert [(post.body, post.headers["content-length"]) for post in posts] == [(b"", "0")] * 2


async def test_a_job_that_was_enqueued_is_not_lost_over_a_spelling(wire: Wire, exports: Exports) -> None:
    wire.script += [envelope(f'{{"exportId": "{ID}", "status": "Waiting"}}')]
    assert await exports.enqueue(ID) == ExportStatus(ID, "queued")


async def test_a_status_as_documented(wire: Wire, exports: Exports) -> None:
    wire.script += [json(COMPLETED)]
    assert await exports.status(ID) == ExportStatus(
        export_id=ID,
        state="completed",
        records=122323,
        bytes=123424,
        sha256="d9c73f0b6960c71623c8bafe29603b3e8e20fd0e4eeaefd119c0227506ea9be4",
        created_at=datetime(2017, 1, 21, 19, 47, 30, tzinfo=UTC),
    )
    assert (wire.requests[1].method, wire.requests[1].path) == ("GET", f"/bulk/v1/leads/export/{ID}/status.json")


@pytest.mark.parametrize(
    ("spelling", "state"),
    [
        ("Created", "created"),
        ("QUEUED", "queued"),
        ("Processing", "processing"),
        ("Canceled", "cancelled"),
        ("cancelled ", "cancelled"),
        ("Complete", "completed"),
        ("COMPLETED", "completed"),
        ("Failed", "failed"),
    ],
)
async def test_a_status_is_normalised(wire: Wire, exports: Exports, spelling: str, state: str) -> None:
    wire.script += [envelope(f'{{"exportId": "x", "status": "{spelling}"}}')]
    assert await exports.status("x") == ExportStatus("x", state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('"numberOfRecords": "12", "fileSize": "9223372036854775807"', ExportStatus("x", "completed", 12, 2**63 - 1)),
        ('"numberOfRecords": 0, "fileSize": 0', ExportStatus("x", "completed", 0, 0)),
        ('"numberOfRecords": true, "fileSize": 1.5', ExportStatus("x", "completed")),
        ('"numberOfRecords": "²", "fileSize": 9223372036854775808', ExportStatus("x", "completed")),
        (f'"fileChecksum": "SHA256:{"AB" * 32}"', ExportStatus("x", "completed", sha256="ab" * 32)),
        (f'"fileChecksum": "{"ab" * 32}"', ExportStatus("x", "completed")),
        ('"fileChecksum": "sha256:ab"', ExportStatus("x", "completed")),
        ('"fileChecksum": "md5:abc"', ExportStatus("x", "completed")),
        ('"message": "for jo@example.com\\u0000"', ExportStatus("x", "completed", message="for …@…")),
        ('"errorMsg": "no"', ExportStatus("x", "completed", message="no")),
        ('"createdAt": "2026-01-01T01:00:00+0100"', ExportStatus("x", "completed", created_at=START)),
        ('"createdAt": "2026-01-01T00:00:00"', ExportStatus("x", "completed")),
        ('"createdAt": 5, "message": 5, "more": {}', ExportStatus("x", "completed")),
    ],
)
async def test_what_else_a_status_may_tell(wire: Wire, exports: Exports, told: str, expected: ExportStatus) -> None:
    wire.script += [envelope(f'{{"exportId": "x", "status": "Completed", {told}}}')]
    assert await exports.status("x") == expected


@pytest.mark.parametrize("entry", ['{"exportId": "y", "status": "Failed"}', '{"exportId": "x", "status": "Paused"}', '{"exportId": "x"}'])
async def test_another_jobs_or_an_unknown_status_is_garbled(wire: Wire, exports: Exports, entry: str) -> None:
    wire.script += [envelope(entry), envelope(entry)]
    for call in (exports.status("x"), exports.cancel("x")):
        with pytest.raises(Fault, match="garbled"):
            await call


async def test_the_list_is_asked_for_by_state_and_read_page_by_page(wire: Wire, exports: Exports) -> None:
    wire.script += [
        envelope('{"exportId": "a", "status": "Completed"}', '{"exportId": "b", "status": "Queued"}', rest='"nextPageToken": "x=&y",'),
        envelope('{"exportId": "b", "status": "Processing"}', '{"exportId": "c", "status": "Canceled"}'),
    ]
    found = await exports.jobs(("completed", "queued", "cancelled"))
    assert found == [ExportStatus("a", "completed"), ExportStatus("b", "queued"), ExportStatus("c", "cancelled")]
    assert [urlsplit(request.path).path for request in wire.requests[1:]] == ["/bulk/v1/leads/export.json"] * 2
    queries = [parse_qs(urlsplit(request.path).query) for request in wire.requests[1:]]
    assert queries == [
        {"status": ["Completed,Queued,Canceled"]},
        {"status": ["Completed,Queued,Canceled"], "nextPageToken": ["x=&y"]},
    ]


async def test_a_list_of_everything_and_of_nothing(wire: Wire, exports: Exports) -> None:
    wire.script += [json('{"success": true}'), envelope(rest='"nextPageToken": "x",')]
    assert await exports.jobs() == []
    assert await exports.jobs() == []
    assert wire.requests[1].path == "/bulk/v1/leads/export.json"
    assert len(wire.requests) == 3


async def test_a_list_that_repeats_itself_ends(wire: Wire, exports: Exports) -> None:
    wire.script += [envelope('{"exportId": "a", "status": "Queued"}', rest='"nextPageToken": "x",') for _ in range(9)]
    assert await exports.jobs() == [ExportStatus("a", "queued")]
    assert len(wire.requests) == 3


async def test_a_list_without_an_end_is_garbled(wire: Wire, exports: Exports) -> None:
    wire.script += [envelope(f'{{"exportId": "{n}", "status": "Queued"}}', rest='"nextPageToken": "x",') for n in range(MOST_PAGES + 9)]
    with pytest.raises(Fault, match="garbled"):
        await exports.jobs()
    assert len(wire.script) == 9


@pytest.mark.parametrize("entry", ["1", '{"status": "Queued"}', '{"exportId": "a", "status": "Lost"}'])
async def test_a_job_that_cant_be_read_is_not_left_out_of_the_list(wire: Wire, exports: Exports, entry: str) -> None:
    wire.script += [envelope('{"exportId": "b", "status": "Queued"}', entry)]
    with pytest.raises(Fault, match="garbled"):
        await exports.jobs()
