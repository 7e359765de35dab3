import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from syncd.marketo.soap_request import LastUpdated, LeadKeys, Selector, StaticList, get_multiple_leads, signature, w3c
from tests.marketo.wire import SAMPLES

PACIFIC = timezone(timedelta(hours=-7))
NOW = datetime(2013, 8, 2, 15, 47, 6, tzinfo=PACIFIC)
SIGNATURE = re.compile(rb"(?<=<requestSignature>)[0-9a-f]{40}(?=</requestSignature>)")
# What XML 1.0 can carry: no stream position that came in a reply holds anything else.
CARRIED = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\ufffe", "\uffff"]))


def request(
    selector: Selector, position: str | None = None, batch_size: int = 100, fields: tuple[str, ...] = (), user_id: str = "U"
) -> bytes:
    return get_multiple_leads(
        user_id=user_id,
        encryption_key="key",
        now=NOW,
        selector=selector,
        position=position,
        batch_size=batch_size,
        fields=fields,
    )


def without_layout(document: bytes) -> bytes:
    return re.sub(rb">\s+<", b"><", document.strip())


def params(built: bytes) -> bytes:
    body = re.search(rb"<ns1:paramsGetMultipleLeads>(.*)</ns1:paramsGetMultipleLeads>", built)
    assert body is not None
    return body[1]


def test_the_documented_request_byte_for_byte() -> None:
    keys = LeadKeys("EMAIL", ("formtest1@marketo.com", "joe@marketo.com"))
    built = request(keys, user_id="demo17_1_809934544BFABAE58E5D27")
    documented = without_layout((SAMPLES / "getMultipleLeads-request.xml").read_bytes())
    assert SIGNATURE.sub(b"-", built) == SIGNATURE.sub(b"-", documented)


def test_the_documented_window() -> None:
    latest, oldest = (datetime(2013, 8, 6, hour, minute, tzinfo=PACIFIC) for hour, minute in ((15, 45), (12, 0)))
    built = request(LastUpdated(oldest, latest), "8UJZetaMb1V6uUZl+L7DcPP2jG+PMmtpF", 300, ("FirstName", "Company"))
    assert params(built) == (
        b'<leadSelector xsi:type="ns1:LastUpdateAtSelector">'
        b"<latestUpdatedAt>2013-08-06T15:45:00-07:00</latestUpdatedAt>"
        b"<oldestUpdatedAt>2013-08-06T12:00:00-07:00</oldestUpdatedAt></leadSelector>"
        b"<streamPosition>8UJZetaMb1V6uUZl+L7DcPP2jG+PMmtpF</streamPosition><batchSize>300</batchSize>"
        b"<includeAttributes><stringItem>FirstName</stringItem><stringItem>Company</stringItem></includeAttributes>"
    )


@pytest.mark.parametrize(("wanted", "inner"), [(7, b"<staticListId>7<"), ("Program.List & Co", b"<staticListName>Program.List &amp; Co<")])
def test_a_static_list_by_name_or_id(wanted: int | str, inner: bytes) -> None:
    built = params(request(StaticList(wanted)))
    assert built.startswith(b'<leadSelector xsi:type="ns1:StaticListSelector">' + inner)


def test_optional_elements_are_left_out() -> None:
    built = params(request(StaticList(7), position="", fields=()))
    assert built.endswith(b"</leadSelector><batchSize>100</batchSize>")


def test_the_signature_is_the_documented_hmac() -> None:
    expected = hmac.new(b"key", b"2013-08-02T15:47:06-07:00U", hashlib.sha1).hexdigest()
    assert signature("U", "key", "2013-08-02T15:47:06-07:00") == expected
    assert f"<requestSignature>{expected}<".encode() in request(StaticList(1))


def test_times_are_whole_seconds_with_an_offset() -> None:
    assert w3c(datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC)) == "2026-01-02T03:04:05+00:00"
    with pytest.raises(AssertionError):
        w3c(datetime(2026, 1, 2))  # noqa: DTZ001


@given(CARRIED | st.sampled_from(["a\r\nb\tc", "]]>", "&amp;", "  padded  "]))
def test_a_position_arrives_as_it_came(position: str) -> None:
    parsed = etree.fromstring(request(StaticList(1), position))
    assert (parsed.findtext(".//streamPosition") or "") == position
