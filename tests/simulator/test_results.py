"""Rows that fail or warn, and the files that tell of them (protocol section 4)."""

from pathlib import Path

import pytest

from syncd.simulator import Fault, ImportModel, SimulatorSettings
from tests.simulator.client import Client
from tests.simulator.conftest import Rehearse

SAMPLES = Path(__file__).parent.parent / "samples"
SETTINGS = SimulatorSettings(leads=3, imports=ImportModel(overhead_seconds=10.0, sigma=0.0))


async def finished(client: Client, table: str, query: str = "format=csv") -> str:
    """Import to the end; the address of the batch."""
    batch = await client.import_(table, query)
    client.clock.advance(60)
    return f"/bulk/v1/leads/batch/{batch}"


async def test_failures_file_is_the_documented_one(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await finished(client, "firstName,lastName,phone\nBenji,Nordstrom,212-555-2323\n")
    assert await client.get(f"{batch}/failures.json") == (200, (SAMPLES / "import-failures.csv").read_text())


async def test_warnings_file_is_the_documented_one_and_the_row_is_imported(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    header = "firstName,lastName,email,title,company,leadScore"
    batch = await finished(client, f"{header}\nAerys,Targaryen,INVALID_EMAIL,Targaryen,House Targaryen,0\nA,B,a@example.com,T,C,1\n")
    assert await client.get(f"{batch}/warnings.json") == (200, (SAMPLES / "import-warnings.csv").read_text())
    assert client.sim.world.by_email("invalid_email")[0].values["leadScore"] == "0"


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("leadScore", "1.5", "Invalid value for field 'leadScore' of type integer"),
        ("leadScore", "many", "Invalid value for field 'leadScore' of type integer"),
        ("unsubscribed", "maybe", "Invalid value for field 'unsubscribed' of type boolean"),
        ("dateOfBirth", "2026-02-30", "Invalid value for field 'dateOfBirth' of type date"),
        ("dateOfBirth", "20260228", "Invalid value for field 'dateOfBirth' of type date"),
        ("dateOfBirth", "2026-W01-1", "Invalid value for field 'dateOfBirth' of type date"),
        ("lastWebinarAt", "9999-12-31T23:00:00-10:00", "Invalid value for field 'lastWebinarAt' of type datetime"),
        ("lastWebinarAt", "yesterday", "Invalid value for field 'lastWebinarAt' of type datetime"),
        ("lifetimeValue", "12,50", "Invalid value for field 'lifetimeValue' of type currency"),
        ("customerNumber", "x" * 65, "Value for field 'customerNumber' is longer than 64 characters"),
    ],
)
async def test_cell_that_does_not_fit_fails_its_row(rehearse: Rehearse, column: str, cell: str, reason: str) -> None:
    client = await rehearse(SETTINGS)
    batch = await finished(client, f'email,{column}\nbad@example.com,"{cell}"\n')
    quoted = f'"{cell}"' if "," in cell else cell
    assert (await client.get(f"{batch}/failures.json"))[1].splitlines()[1] == f"bad@example.com,{quoted},{reason}"
    assert not client.sim.world.by_email("bad@example.com")


async def test_email_outside_ascii_fails(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await finished(client, "email\nzoë@example.com\n")
    assert client.sim.report().row_failures == {"Email address has characters outside ASCII": 1}


async def test_values_that_fit_are_kept_exactly(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    cells = {
        "accountNumber": "12345678901234567890123",
        "lifetimeValue": "10.50",
        "unsubscribed": "TRUE",
        "dateOfBirth": "1999-12-31",
        "lastWebinarAt": "2026-01-01T00:00:00Z",
        "notes": 'a "quoted"\nline, 🚀',
    }
    quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells.values())
    await finished(client, f"email,{','.join(cells)}\nok@example.com,{quoted}\n")
    values = client.sim.world.by_email("ok@example.com")[0].values
    expected = cells | {"unsubscribed": "true", "lastWebinarAt": "2025-12-31T18:00:00-06:00"}
    assert {name: values[name] for name in cells} == expected


async def test_emoji_may_cut_a_value(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0, imports=ImportModel(cut_at_emoji=True)))
    await finished(client, "email,notes\nok@example.com,é up 🚀 and away\n")
    assert client.sim.world.by_email("ok@example.com")[0].values["notes"] == "é up "


async def test_file_without_rows_is_as_the_setting_says(rehearse: Rehearse) -> None:
    expected = {"header": (200, "email,Import Failure Reason\n"), "empty": (200, ""), "not_found": (404, "Not Found")}
    for form in ("header", "empty", "not_found"):
        client = await rehearse(SimulatorSettings(leads=0, imports=ImportModel(empty_results=form)))
        batch = await finished(client, "email\nok@example.com\n")
        assert await client.get(f"{batch}/failures.json") == expected[form]


async def test_results_come_only_after_the_end(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await client.import_('email\n""\nx@example.com\n')
    assert (await client.get(f"/bulk/v1/leads/batch/{batch}/failures.json"))[0] == 404


async def test_format_of_the_import_is_kept(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await finished(client, "email;title;leadScore\n;a,b;1\n", "format=ssv")
    expected = "email;title;leadScore;Import Failure Reason\n;a,b;1;Value for lookup field 'email' not found\n"
    assert (await client.get(f"{batch}/failures.json"))[1] == expected


async def test_seen_oddities_on_demand(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    batch = await finished(client, "email,title,phone\n,A,\n,B,7\n")
    client.sim.script("failures", Fault.RESULTS_WITHOUT_EMPTY_COLUMN)
    client.sim.script("failures", Fault.RESULTS_SHORT_ROW)
    client.sim.script("failures", Fault.RESULTS_404)
    reason = "Value for lookup field 'email' not found"
    without = (await client.get(f"{batch}/failures.json"))[1]
    short = (await client.get(f"{batch}/failures.json"))[1]
    assert without == f"title,phone,Import Failure Reason\nA,,{reason}\nB,7,{reason}\n"
    assert short == f"email,title,phone,Import Failure Reason\n,A,{reason}\n,B,7,{reason}\n"
    assert (await client.get(f"{batch}/failures.json"))[0] == 404
    assert (await client.get(f"{batch}/failures.json"))[0] == 200


async def test_headers_and_shapes_are_noted(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await finished(client, "email,FirstName,leadRating,title,title\na@example.com,x,y,1,2\nb@example.com,x\n")
    assert client.sim.report().violations == {
        "header not spelt as describe spells it": 1,
        "read-only field in import file": 1,
        "column twice in header": 1,
        "row of the wrong width": 1,
    }
