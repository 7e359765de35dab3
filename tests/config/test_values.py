from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncd.config.values import BEGINNING, NotAllowed, duration, duration_text, list_name, moment, since, size

MILLISECOND = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("250ms", timedelta(milliseconds=250)),
        ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
        ("0s", timedelta()),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "1.5h", "-5m", "m", "5M", "5m5m", "30m1h", "5w", "\u0665m", "999999999d999999999h", "1" * 5000 + "s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(NotAllowed):
        duration(text)


@given(st.integers(0, 10**15).map(lambda count: count * MILLISECOND))
def test_durations_round_trip(value: timedelta) -> None:
    assert duration(duration_text(value)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9900000", 9_900_000),
        ("9_900_000", 9_900_000),
        ("9900kB", 9_900_000),
        ("9.9MB", 9_900_000),
        ("9MiB", 9 * 2**20),
        ("9.9 MB", 9_900_000),
        ("1KiB", 1024),
        ("12B", 12),
        ("0.5KiB", 512),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "1.5", "9.9999999MB", "9.9mb", "9M", "MB", "1e6", "-5000kB", "9" * 5000])
def test_no_sizes(text: str) -> None:
    with pytest.raises(NotAllowed):
        size(text)


@given(st.integers(0, 10**9), st.sampled_from([("B", 1), ("kB", 1000), ("MB", 10**6), ("KiB", 1024), ("MiB", 2**20)]))
def test_sizes_round_trip(count: int, unit: tuple[str, int]) -> None:
    assert size(f"{count}{unit[0]}") == count * unit[1]


@given(st.integers(0, 10**12))
def test_sizes_in_decimals_round_trip(count: int) -> None:
    assert size(f"{count // 10**6}.{count % 10**6:06}MB") == count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-01-01T00:00:00Z", datetime(2016, 1, 1, tzinfo=UTC)),
        ("2016-01-01T00:00:00+02:00", datetime(2015, 12, 31, 22, tzinfo=UTC)),
        ("2016-01-01", datetime(2016, 1, 1, tzinfo=UTC)),
        ("2016-01-01 12:30", datetime(2016, 1, 1, 12, 30, tzinfo=UTC)),
        ("2016-01-01T00:00:00.999Z", datetime(2016, 1, 1, tzinfo=UTC)),
        ("2016-1-2", datetime(2016, 1, 2, tzinfo=UTC)),
        ("2016-1-2 3:04:05.6 -5", datetime(2016, 1, 2, 8, 4, 5, tzinfo=UTC)),
        ("2016-1-2t3:04:05Z", datetime(2016, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2016", "2016-13-01", "2016-2-30", "9999-12-31T23:59:59-05:00", "1999-12-31"])
def test_no_times(text: str) -> None:
    with pytest.raises(NotAllowed):
        moment(text)


@given(
    st.datetimes(datetime(2000, 1, 2), datetime(9999, 1, 1)).map(lambda time: time.replace(microsecond=0)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60),
)
@example(datetime(2000, 1, 1, tzinfo=UTC), 0)
def test_times_round_trip(time: datetime, offset: int) -> None:
    time = time.replace(tzinfo=timezone(timedelta(minutes=offset)))
    read = moment(time.isoformat())
    assert read == time
    assert read.tzinfo is UTC


def test_since_the_beginning() -> None:
    assert since("beginning") == BEGINNING == datetime(2006, 1, 1, tzinfo=UTC)
    assert since("2016-01-01") == datetime(2016, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "Beginning", "beginning ", "the beginning", "1999-12-31"])
def test_since_no_time(text: str) -> None:
    with pytest.raises(NotAllowed, match=r"; beginning takes all$"):
        since(text)


@pytest.mark.parametrize("text", ["Program.List", "P.L", "Program.List.of.2016", "My Program.My List", "Über.Größe"])
def test_names_of_lists(text: str) -> None:
    assert list_name(text) == text


@pytest.mark.parametrize("text", ["", "List", "1001", "Program.", ".List", " . ", ".", "Program.List\0", "Program.\ud800"])
def test_no_names_of_lists(text: str) -> None:
    with pytest.raises(NotAllowed):
        list_name(text)
