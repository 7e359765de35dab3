"""Bulk import over loopback HTTP (protocol 4)."""

import email
import email.policy
import hashlib
import json as jsontext
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.csvfile import read_rows
from syncd.core.faults import Fault, Nature
from syncd.core.pack import pack
from syncd.core.pending import PendingChange, Target
from syncd.core.settings import Format
from syncd.core.values import ImportStatus
from syncd.marketo.imports import Imports, Submitted, envelope, envelope_bytes
from syncd.marketo.rest import RestApi
from syncd.marketo.token import Token
from syncd.ops.clock import WallClock
from tests.marketo.wire import SAMPLES, Wire, json, opened, token

SUBMITTED = (SAMPLES / "import-submitted.json").read_text()
COMPLETE = (SAMPLES / "import-complete.json").read_text()
FILE = b"email,firstName\r\na@example.com,A\r\n"
SHA256 = hashlib.sha256(FILE).hexdigest()


@pytest.fixture
async def imports(wire: Wire) -> AsyncIterator[Imports]:
    wire.script = [token()]
    async with opened() as session:
        yield Imports(RestApi(session, wire.rest, Token(session, wire.rest, WallClock())))


async def test_a_file_is_submitted_as_documented(wire: Wire, imports: Imports) -> None:
    wire.script += [json(SUBMITTED)]
    submitted = await imports.submit((FILE[:10], FILE[10:]), sha256=SHA256, format="csv")
    assert submitted == Submitted(3404, "queued", "d01f#15d672f8560")
    request = wire.requests[1]
    assert (request.method, request.path) == ("POST", "/bulk/v1/leads.json?format=csv")
    assert int(request.headers["content-length"]) == len(request.body) == len(FILE) + envelope_bytes("csv")
    head = b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n"
    parsed = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    (part,) = parsed.iter_parts()
    assert parsed.get_content_type() == "multipart/form-data"
    assert part.get_param("name", header="content-disposition") == "file"
    assert part.get_filename() == f"{SHA256[:16]}.csv"
    assert part.get_content_type() == "text/csv"
    assert part.get_payload(decode=True) == FILE


async def test_the_query_names_what_is_not_the_default(wire: Wire, imports: Imports) -> None:
    wire.script += [json(SUBMITTED)]
    await imports.submit((FILE,), sha256=SHA256, format="ssv", lookup_field="id", list_id=7, partition="North & South")
    assert wire.requests[1].path == ("/bulk/v1/leads.json?format=ssv&lookupField=id&listId=7&partitionName=North%20%26%20South")


@given(st.binary(max_size=100), st.sampled_from(["csv", "tsv", "ssv"]))
def test_every_envelope_has_the_same_size_and_a_legal_boundary(content: bytes, form: Format) -> None:
    prefix, suffix = envelope(hashlib.sha256(content).hexdigest(), form)
    assert len(prefix) + len(suffix) == envelope_bytes(form)
    boundary = prefix.split(b"\r\n")[0][2:]
    assert len(boundary) <= 70
    assert suffix == b"\r\n--" + boundary + b"--\r\n"
    assert envelope(hashlib.sha256(content).hexdigest(), form) == (prefix, suffix)


nasty = st.one_of(
    st.text(st.sampled_from(",;\t\"\r\n\u2028\u2029\x85 \u00a0\x0b\x0c\x1c\ufeff'\\a-😀"), min_size=1, max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
)


@given(
    drafts=st.lists(st.dictionaries(st.sampled_from(["a", "b c", "d;e", 'f"']), nasty, min_size=1, max_size=2), min_size=1, max_size=15),
    form=st.sampled_from(["csv", "tsv", "ssv"]),
    room=st.integers(60, 160),
)
def test_a_body_carries_any_cells_and_is_never_a_byte_over_its_limit_nor_a_row_under_it(
    drafts: list[dict[str, str]], form: Format, room: int
) -> None:
    limit = envelope_bytes(form) + room
    changes = [PendingChange(number, f"k{number}", f"k{number}", jsontext.dumps(fields)) for number, fields in enumerate(drafts)]
    packing = pack(changes, {}, (), Target("externalId", form, limit, envelope_bytes(form)))
    assert all("more than a file may hold" in reason for _, _, reason in packing.ended)
    arrived = {}
    for chunk in packing.chunks:
        file = (chunk.header + "".join(row.line for row in chunk.rows)).encode()
        prefix, suffix = envelope(hashlib.sha256(file).hexdigest(), form)
        body = prefix + file + suffix
        assert len(body) <= limit
        if chunk.full:
            later = [row for other in packing.chunks if other.columns == chunk.columns for row in other.rows]
            following = min((row for row in later if row.change_ids > chunk.rows[-1].change_ids), key=lambda row: row.change_ids)
            assert len(body) + len(following.line.encode()) > limit
        boundary = prefix.split(b"\r\n")[0]
        received = body.split(boundary)[1].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        assert received == file
        header, *rows = read_rows(received.decode(), form)
        for row, cells in zip(chunk.rows, rows, strict=True):
            arrived[row.change_ids[0]] = dict(zip(header, cells, strict=True))
    rejected = {number for number, _, _ in packing.ended}
    sent = {number: {"externalId": f"k{number}", **fields} for number, fields in enumerate(drafts) if number not in rejected}
    assert arrived == sent


@pytest.mark.parametrize(
    ("reply", "batch_id", "status"),
    [
        ('{"batchId": "3404", "importId": "3404", "status": "QUEUED "}', 3404, "queued"),
        ('{"batchId": 1, "status": "Something new"}', 1, "queued"),
        ('{"batchId": 1}', 1, "queued"),
        ('{"batchId": 1, "status": "Importing"}', 1, "importing"),
    ],
)
async def test_a_job_that_exists_is_never_lost_over_a_spelling(
    wire: Wire, imports: Imports, reply: str, batch_id: int, status: str
) -> None:
    wire.script += [json(f'{{"success": true, "result": [{reply}]}}')]
    assert await imports.submit((FILE,), sha256=SHA256, format="csv") == Submitted(batch_id, status, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("result", ["[]", "[1]", "[{}]", '[{"batchId": "x"}]', '[{"batchId": -1}]', '[{"batchId": true}]'])
async def test_a_reply_without_a_batch_leaves_it_open(wire: Wire, imports: Imports, result: str) -> None:
    wire.script += [json(f'{{"success": true, "result": {result}}}')]
    with pytest.raises(Fault) as failed:
        await imports.submit((FILE,), sha256=SHA256, format="csv")
    assert (failed.value.code, failed.value.executed) == ("garbled", None)


@pytest.mark.parametrize(("code", "nature"), [("1016", Nature.NO_SLOT), ("1019", Nature.LIST_BUSY), ("1003", Nature.PERMANENT)])
async def test_a_refusal_is_known_not_executed(wire: Wire, imports: Imports, code: str, nature: Nature) -> None:
    wire.script += [json(f'{{"requestId": "r", "success": false, "errors": [{{"code": "{code}", "message": "no"}}]}}')]
    with pytest.raises(Fault) as failed:
        await imports.submit((FILE,), sha256=SHA256, format="csv")
    assert (failed.value.nature, failed.value.executed) == (nature, False)


async def test_a_status_as_documented(wire: Wire, imports: Imports) -> None:
    wire.script += [json(COMPLETE)]
    message = "Import completed with errors, 2 records imported (2 members), 1 failed"
    assert await imports.status(1022) == ImportStatus(1022, "complete", 2, 1, 0, message)
    assert wire.requests[1].path == "/bulk/v1/leads/batch/1022.json"


@pytest.mark.parametrize(
    ("spelling", "state"), [("Completed", "complete"), ("complete", "complete"), ("FAILED", "failed"), ("Importing", "importing")]
)
async def test_a_status_is_normalised(wire: Wire, imports: Imports, spelling: str, state: str) -> None:
    wire.script += [json(f'{{"success": true, "result": [{{"batchId": "5", "status": "{spelling}", "numOfRowsFailed": "3"}}]}}')]
    assert await imports.status(5) == ImportStatus(5, state, 0, 3, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("reply", [COMPLETE, COMPLETE.replace("1022", "6").replace("Complete", "Paused")])
async def test_another_batchs_or_an_unknown_status_is_garbled(wire: Wire, imports: Imports, reply: str) -> None:
    wire.script += [json(reply)]
    with pytest.raises(Fault, match="garbled"):
        await imports.status(6)


async def test_result_files_come_as_they_are(wire: Wire, imports: Imports) -> None:
    failures, warnings = ((SAMPLES / f"import-{kind}.csv").read_bytes() for kind in ("failures", "warnings"))
    wire.script += [web.Response(body=failures), web.Response(body=warnings)]
    assert await imports.failures(5) == failures
    assert await imports.warnings(5) == warnings
    paths = [request.path for request in wire.requests[1:]]
    assert paths == ["/bulk/v1/leads/batch/5/failures.json", "/bulk/v1/leads/batch/5/warnings.json"]


@pytest.mark.parametrize(
    ("reply", "nature", "code"),
    [
        (lambda: json('{"success": false, "errors": [{"code": "611", "message": "System error"}]}'), Nature.TRANSIENT, "611"),
        (lambda: json('{"success": true, "result": []}'), Nature.TRANSIENT, "garbled"),
        (lambda: json('{"requestId": "1a2b#15'), Nature.TRANSIENT, "garbled"),
        (lambda: web.Response(text=" <html>"), Nature.TRANSIENT, "garbled"),
        (lambda: web.Response(), Nature.TRANSIENT, "garbled"),
        (lambda: web.Response(status=404, text="not ready"), Nature.TRANSIENT, "http_404"),
        (lambda: web.Response(status=503), Nature.TRANSIENT, "http_503"),
    ],
)
async def test_what_is_no_result_file_is_a_fault(wire: Wire, imports: Imports, reply, nature: Nature, code: str) -> None:  # type: ignore[no-untyped-def]
    wire.script += [reply()]
    with pytest.raises(Fault) as failed:
        await imports.failures(5)
    assert (failed.value.nature, failed.value.code) == (nature, code)
