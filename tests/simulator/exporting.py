"""What the tests of exports share: the six calls, and an order that fits every settings."""

import csv
import hashlib
import io
import json
import math
from datetime import datetime, timedelta
from typing import Any

from syncd.simulator import ExportModel, SimulatorSettings
from tests.simulator.client import START, Client, code_of

EXPORT = "/bulk/v1/leads/export"
EXACT = ExportModel(overhead_seconds=100.0, rows_per_second=math.inf, sigma=0.0, status_age=0.0)
"""Each job takes a hundred seconds, and its status tells at once."""
SETTINGS = SimulatorSettings(leads=20, updated_since=START - timedelta(days=20), exports=EXACT)


def between(starts: datetime, ends: datetime, kind: str = "updatedAt") -> dict[str, Any]:
    return {kind: {"startAt": f"{starts:%Y-%m-%dT%H:%M:%SZ}", "endAt": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}}


LATELY = between(START - timedelta(days=30), START)


async def create(client: Client, *fields: str, wanted: Any = LATELY, **more: Any) -> dict[str, Any]:
    _, text = await client.post(f"{EXPORT}/create.json", {"fields": fields or ["id"], "format": "CSV", "filter": wanted, **more})
    reply: dict[str, Any] = json.loads(text)
    return reply


async def order(client: Client, export_id: str, what: str = "enqueue") -> dict[str, Any]:
    """Enqueue or cancel."""
    reply: dict[str, Any] = json.loads((await client.post(f"{EXPORT}/{export_id}/{what}.json"))[1])
    return reply


async def queued(client: Client, *fields: str, wanted: Any = LATELY, **more: Any) -> str:
    """Create and enqueue; the exportId."""
    export_id = str((await create(client, *fields, wanted=wanted, **more))["result"][0]["exportId"])
    assert code_of(await order(client, export_id)) == "ok"
    return export_id


async def status(client: Client, export_id: str) -> dict[str, Any]:
    result: dict[str, Any] = (await client.rest(f"{EXPORT}/{export_id}/status.json"))["result"][0]
    return result


def message(reply: dict[str, Any]) -> tuple[str, str]:
    """The code and the message of an error."""
    return code_of(reply), reply["errors"][0]["message"]


async def finished(client: Client, *fields: str, wanted: Any = LATELY, **more: Any) -> str:
    """Create, enqueue and wait for the end; the address of the file."""
    export_id = await queued(client, *fields, wanted=wanted, **more)
    client.clock.advance(100)
    return f"{EXPORT}/{export_id}/file.json"


async def table(client: Client, path: str) -> list[list[str]]:
    """The file, which must be what its status says of it."""
    answered, data, _ = await client.file(path)
    assert answered == 200
    told = await status(client, path.split("/")[-2])
    assert (told["fileSize"], told["fileChecksum"]) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert told["numberOfRecords"] == len(rows) - 1
    return rows
