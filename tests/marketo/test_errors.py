import pytest

from syncd.core.faults import Nature
from syncd.marketo.allowance import SPENT
from syncd.marketo.errors import REST_NATURES, SOAP_NATURES, http_fault, presentable, rest_fault, soap_fault, storable

# The listing of protocol 1.5, row by row.
SOAP_ROWS = [
    ("10001, 20011", {Nature.TRANSIENT}),
    ("20012", {Nature.PERMANENT}),
    ("20013, 20014", {Nature.CONFIGURATION}),
    ("20015", {Nature.QUOTA}),
    ("20016", {Nature.SIGNATURE}),
    ("20017, 20109, 20110, 20114", {Nature.PERMANENT}),
    ("20019", {Nature.PERMANENT}),
    ("20022", {Nature.PERMANENT}),
    ("20023", {Nature.RATE}),
    ("20024", {Nature.RATE}),
    ("20102", {Nature.PERMANENT}),
    ("20103", {Nature.EMPTY}),
    ("20111", {Nature.CONFIGURATION}),
    ("20122", {Nature.POSITION}),
    ("20123", {Nature.EMPTY}),
]
# The listing of protocol 2, row by row, then the record codes of protocol 4.
REST_ROWS = [
    ("502, 503, 504, 604, 608, 611, 614, 713, 719", {Nature.TRANSIENT}),
    ("601, 602", {Nature.TOKEN}),
    (
        "603, 605, 609, 610, 612, 613, 616, 701, 703, 704, 705, 706, 707, 708, 709, 710, 711",
        {Nature.PERMANENT, Nature.CONFIGURATION},
    ),
    ("702", {Nature.EMPTY}),
    ("606", {Nature.RATE}),
    ("607", {Nature.QUOTA}),
    ("615", {Nature.RATE}),
    ("1003", {Nature.PERMANENT}),
    ("1016", {Nature.NO_SLOT}),
    ("1019", {Nature.LIST_BUSY}),
    ("1029", {Nature.NO_SLOT}),
    ("1035", {Nature.CONFIGURATION}),
    ("1001, 1002, 1004, 1005, 1006, 1007, 1008, 1010, 1011, 1021", {Nature.PERMANENT}),
]
REFUSED = [601, 602, 603, *range(605, 611), 612, 613, 615, 616, *range(701, 712), 1001, 1003, 1016, 1019, 1029, 1035, 1999]
UNCONFIRMED = [502, 503, 504, 604, 611, 614, 713, 719, 600, 617, 712, 999, 2000, 5555]


def codes(row: str) -> list[str]:
    return row.split(", ")


@pytest.mark.parametrize(("table", "rows"), [(SOAP_NATURES, SOAP_ROWS), (REST_NATURES, REST_ROWS)], ids=["soap", "rest"])
def test_the_table_is_the_protocols_listing(table: dict[str, Nature], rows: list[tuple[str, set[Nature]]]) -> None:
    listed = {code: natures for row, natures in rows for code in codes(row)}
    assert table.keys() == listed.keys()
    assert all(table[code] in natures for code, natures in listed.items())


def test_undocumented_codes_are_unknown() -> None:
    assert soap_fault("29999", "?", "e").nature is Nature.UNKNOWN
    assert rest_fault("5555", "?", "e", None).nature is Nature.UNKNOWN
    assert http_fault(429, "?", "e").nature is Nature.UNKNOWN


@pytest.mark.parametrize(("code", "executed"), [*((c, False) for c in REFUSED), *((c, None) for c in UNCONFIRMED)])
def test_what_is_known_of_a_refused_call(code: int, executed: bool | None) -> None:
    assert rest_fault(str(code), "?", "e", None).executed is executed


@pytest.mark.parametrize(
    ("message", "nature", "code"),
    [
        ("Too many jobs (10) in queue", Nature.NO_SLOT, "1029_queue"),
        ("", Nature.NO_SLOT, "1029_queue"),
        ("Export daily quota 500MB exceeded", Nature.QUOTA, "1029_quota"),
        ("DAILY QUOTA EXCEEDED", Nature.QUOTA, "1029_quota"),
        ("Job already queued", Nature.PERMANENT, "1029_already"),
    ],
)
def test_1029_is_told_apart_by_its_message(message: str, nature: Nature, code: str) -> None:
    fault = rest_fault("1029", message, "e", "r#1")
    assert (fault.nature, fault.code, fault.request_id, fault.executed) == (nature, code, "r#1", False)


def test_the_quota_of_exports_pauses_no_calls() -> None:
    assert rest_fault("1029", "Export daily quota 500MB exceeded", "e", None).code not in SPENT


@pytest.mark.parametrize(
    ("status", "nature", "executed"),
    [
        (413, Nature.TOO_LARGE, False),
        (414, Nature.PERMANENT, None),
        (500, Nature.TRANSIENT, None),
        (502, Nature.TRANSIENT, None),
        (503, Nature.TRANSIENT, None),
        (404, Nature.UNKNOWN, None),
    ],
)
def test_http_statuses(status: int, nature: Nature, executed: bool | None) -> None:
    fault = http_fault(status, "?", "e")
    assert (fault.nature, fault.executed, fault.code) == (nature, executed, f"http_{status}")


def test_messages_can_be_stored() -> None:
    message = presentable("a\0b\ud83dc")
    assert message == "ab\ufffdc"
    assert storable("\udc00") == "\ufffd"
    assert storable("\U0001f600") == "\U0001f600"


def test_messages_are_short_and_name_no_person() -> None:
    assert presentable("No lead found with EMAIL = jo.e+x@example.com (20103)") == "No lead found with EMAIL = …@… (20103)"
    assert len(presentable("x" * 10_000)) == 300
