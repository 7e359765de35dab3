"""Each change goes exactly one way, each row fits, the newest value wins."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.batching import MOST_BYTES, MOST_RECORDS
from syncd.core.csvfile import read_rows, render_line
from syncd.core.pack import PackedBatch, PackedChunk, Packing, pack
from syncd.core.pending import PendingChange, Target
from syncd.core.settings import ClearWith

EMAIL = Target(lookup_field="email", format="csv", max_body_bytes=10_000, envelope_bytes=0)


def change(number: int, key: str, fields: str | Mapping[str, object], overwritten: str = "") -> PendingChange:
    text = fields if isinstance(fields, str) else json.dumps(fields)
    return PendingChange(number, key, key.strip(" \t\r\n").lower(), text, frozenset(overwritten.split()))


def packed(*changes: PendingChange, target: Target = EMAIL) -> Packing:
    return pack(changes, {}, (), target)


def cells_of(chunk: PackedChunk, target: Target = EMAIL) -> list[dict[str, str]]:
    text = chunk.header + "".join(row.line for row in chunk.rows)
    header, *rows = read_rows(text, target.format)
    return [dict(zip(header, row, strict=True)) for row in rows]


def only_row(packing: Packing) -> dict[str, str]:
    (chunk,) = packing.chunks
    (row,) = cells_of(chunk)
    return row


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**24), 10**24),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    st.just([]),
    st.just("long" * 30),
)
names = st.sampled_from(["a", "b", "c", "email"])
keys = st.sampled_from(["x", "X", " x ", "y", "y\u00a0", "z", "", "w"])
drafts = st.lists(st.tuples(keys, st.dictionaries(names, values, max_size=3), st.sets(names, max_size=1)), max_size=14)
targets = st.builds(
    Target,
    lookup_field=st.sampled_from(["email", "externalId"]),
    format=st.sampled_from(["csv", "tsv", "ssv"]),
    max_body_bytes=st.integers(100, 260),
    envelope_bytes=st.just(40),
)


def open_chunk(target: Target, column: str, filling: int) -> PackedChunk:
    columns = (target.lookup_field, column)
    header = render_line(columns, target.format)
    return PackedChunk(columns, header, id=99, row_count=1, byte_count=len(header.encode()) + filling, next_ordinal=7)


@given(drafts=drafts, target=targets, filling=st.none() | st.integers(5, 250))
def test_every_change_goes_one_way_and_every_file_is_what_it_says(
    drafts: list[tuple[str, dict[str, object], set[str]]], target: Target, filling: int | None
) -> None:
    changes = [change(number, key, fields, " ".join(gone)) for number, (key, fields, gone) in enumerate(drafts, 1)]
    before = [] if filling is None else [open_chunk(target, "a", filling)]
    packing = pack(changes, {"w": 5}, before, target)

    rows = [row for chunk in packing.chunks for row in chunk.rows] + [row for batch in packing.batches for row in batch.rows]
    in_rows = [number for row in rows for number in row.change_ids]
    apart = [ended[0] for ended in packing.ended] + [parked[0] for parked in packing.parked]
    waiting = [waits[0] for waits in packing.waiting]
    assert sorted(in_rows + apart + waiting + packing.left) == [change.id for change in changes]

    placed = [row.key_norm for row in rows]
    assert len(set(placed)) == len(placed)
    for batch in packing.batches:
        assert [row.ordinal for row in batch.rows] == list(range(batch.next_ordinal))
        assert (batch.row_count, batch.byte_count) == (len(batch.rows), sum(len(row.line.encode()) + 1 for row in batch.rows))
        assert all(None in json.loads(row.line).values() for row in batch.rows)
    assert len({id(chunk) for chunk in packing.chunks}) == len(packing.chunks)
    for chunk in packing.chunks:
        earlier = filling if chunk.id is not None and filling is not None else 0
        text = chunk.header + "".join(row.line for row in chunk.rows)
        assert chunk.byte_count == len(text.encode()) + earlier
        assert chunk.row_count == len(chunk.rows) + (chunk.id is not None)
        if chunk.rows:
            assert chunk.byte_count <= target.max_file_bytes
            first = 7 if chunk.id is not None else 0
            assert [row.ordinal for row in chunk.rows] == list(range(first, chunk.next_ordinal))
        sent = [row[target.lookup_field] for row in cells_of(chunk, target)]
        assert len(set(sent)) == len(sent)


@given(drafts=drafts)
def test_the_newest_value_of_each_field_wins_and_only_the_wholly_overwritten_are_superseded(
    drafts: list[tuple[str, dict[str, object], set[str]]],
) -> None:
    changes = [change(number, key, fields, " ".join(gone)) for number, (key, fields, gone) in enumerate(drafts, 1)]
    packing = packed(*changes)
    reasons = {number: state for number, state, _ in packing.ended}
    apart = {number for number, state in reasons.items() if state == "rejected"} | {number for number, _ in packing.parked}
    setters: dict[str, dict[str, int]] = defaultdict(dict)
    expected: dict[str, dict[str, str | None]] = defaultdict(dict)
    for number, (one, (_, fields, gone)) in enumerate(zip(changes, drafts, strict=True), 1):
        if number in apart:
            continue
        for name, value in fields.items():
            if name not in gone | {"email"}:
                setters[one.key_norm][name] = number
                expected[one.key_norm][name] = (value or None) if isinstance(value, str | None) else json.dumps(value)
    rows: dict[str, dict[str, str | None]] = {}
    for chunk in packing.chunks:
        for row, cells in zip(chunk.rows, cells_of(chunk), strict=True):
            assert set(row.change_ids) == set(setters[row.key_norm].values())
            rows[row.key_norm] = {name: cell for name, cell in cells.items() if name != "email"}
    for row in (row for batch in packing.batches for row in batch.rows):
        assert set(row.change_ids) == set(setters[row.key_norm].values())
        record = json.loads(row.line, parse_int=str, parse_float=str)
        del record["email"]
        rows[row.key_norm] = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in record.items()}
    assert rows == {key: cells for key, cells in expected.items() if cells}
    for one in changes:
        carried = one.id in setters[one.key_norm].values()
        assert carried == (one.id not in reasons and one.id not in apart)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(60, 200))
def test_a_chunk_is_full_only_when_the_next_row_did_not_fit(lengths: list[int], limit: int) -> None:
    target = Target("email", "csv", limit, 0)
    packing = packed(*(change(number, f"k{number:03}", {"a": "v" * length}) for number, length in enumerate(lengths, 1)), target=target)
    rows = {row.change_ids[0]: (row, chunk) for chunk in packing.chunks for row in chunk.rows}
    for chunk in packing.chunks:
        after = [number for number in rows if number > chunk.rows[-1].change_ids[0]]
        assert chunk.full == bool(after)
        if after:
            assert chunk.byte_count + len(rows[min(after)][0].line.encode()) > limit


def test_a_row_too_large_for_any_file_is_rejected_and_seals_nothing() -> None:
    target = Target("email", "csv", 100, 20)
    long, short = {"a": "x" * 90}, {"a": "x"}
    packing = packed(change(1, "k1", short), change(2, "k2", long), change(3, "k3", short), change(4, "k4", long), target=target)
    (chunk,) = packing.chunks
    assert [row.change_ids for row in chunk.rows] == [[1], [3]]
    assert not chunk.full
    assert [(number, state) for number, state, _ in packing.ended] == [(2, "rejected"), (4, "rejected")]
    assert "more than a file may hold (80)" in packing.ended[0][2]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("12345678901234567890123", "12345678901234567890123"),
        ("1.10", "1.10"),
        ("-0.000000000000000000000001", "-0.000000000000000000000001"),
        ("1E+3", "1E+3"),
        ("0", "0"),
        ("0.0", "0.0"),
        ("true", "true"),
        ("false", "false"),
        ('" "', " "),
        ('"TRUE"', "TRUE"),
        ('"007"', "007"),
    ],
)
def test_values_are_sent_exactly(value: str, cell: str) -> None:
    assert only_row(packed(change(1, "a@x", f'{{"f": {value}}}'))) == {"email": "a@x", "f": cell}


@pytest.mark.parametrize("value", ["null", '""'])
def test_a_clearing_goes_by_sync_leads_with_the_values_as_they_were_written(value: str) -> None:
    digits = "12345678901234567890123"
    packing = packed(change(1, " A@x", f'{{"f": {value}, "g": {digits}, "h": 0.10, "i": false, "j": "7\\u00e9"}}'))
    ((row,),) = (batch.rows for batch in packing.batches)
    assert row.line == f'{{"email":"A@x","f":null,"g":{digits},"h":0.10,"i":false,"j":"7é"}}'
    assert (row.key_norm, row.change_ids, packing.chunks, packing.parked) == ("a@x", [1], [], [])


@pytest.mark.parametrize(("clear_with", "cell"), [("blank", ""), ("NULL", "NULL")])
def test_a_clearing_can_be_a_cell_of_a_file(clear_with: ClearWith, cell: str) -> None:
    packing = pack([change(1, "a@x", '{"f": null, "g": 1}')], {}, [], replace(EMAIL, clear_with=clear_with))
    assert only_row(packing) == {"email": "a@x", "f": cell, "g": "1"}


@pytest.mark.parametrize(("fields", "list_id"), [('{"f": null}', 7), ('{"f": null, "company": "C"}', None), ('{"website": ""}', None)])
def test_what_sync_leads_cannot_clear_parks(fields: str, list_id: int | None) -> None:
    packing = pack([change(1, "a@x", fields)], {}, [], replace(EMAIL, list_id=list_id))
    ((number, reason),) = packing.parked
    assert number == 1
    assert "clear_with" in reason
    assert not packing.chunks
    assert not packing.batches


def test_a_batch_takes_300_records_and_a_call_has_room_for_them() -> None:
    many = [change(number, f"{number}@x", f'{{"f": null, "g": "{"x" * 5_000}"}}') for number in range(1, 451)]
    packing = packed(*many, *(change(number, f"{number}@x", '{"f": null}') for number in range(1_000, 1_700)))
    assert max(batch.row_count for batch in packing.batches) == MOST_RECORDS
    assert max(batch.byte_count for batch in packing.batches) <= MOST_BYTES
    assert sum(batch.row_count for batch in packing.batches) == 1_150
    (again,) = pack([change(2_000, "z@x", '{"f": null}')], {}, [], EMAIL, PackedBatch(9, 299, 10_000, 299)).batches
    assert (again.id, again.row_count, [row.ordinal for row in again.rows]) == (9, 300, [299])


@pytest.mark.parametrize(
    ("key", "fields", "why"),
    [
        ("a@x", '{"f": {}}', "no text, number or boolean"),
        ("a@x", '{"f": [1]}', "no text, number or boolean"),
        (" \t", '{"f": 1}', "the key is empty"),
        ("a@x", "{}", "sets no field"),
        ("a@x", '{"email": "A@X "}', "sets no field"),
        ("a@x", '{"email": "b@x", "f": 1}', "differs from its key"),
    ],
)
def test_what_no_file_can_carry_is_rejected_with_its_reason(key: str, fields: str, why: str) -> None:
    ((number, state, reason),) = packed(change(1, key, fields)).ended
    assert (number, state) == (1, "rejected")
    assert why in reason


def test_the_own_lookup_field_may_be_among_the_fields() -> None:
    assert only_row(packed(change(1, " A@x", {"email": "a@X", "f": 1}))) == {"email": "A@x", "f": "1"}


def test_the_own_lookup_field_is_compared_with_the_key_although_later_changes_named_it_too() -> None:
    ((_, state, reason),) = packed(change(1, "a@x", {"email": "b@x", "f": 1}, "email")).ended
    assert (state, reason) == ("rejected", "its email differs from its key, by which the lead is looked up")


def test_a_letter_that_the_database_does_not_fold_is_the_same_letter() -> None:
    target = Target("externalId", "csv", 1000, 0)
    one = PendingChange(1, "Ünal", "Ünal", '{"externalId": "Ünal", "f": 1}')
    assert len(packed(one, target=target).chunks) == 1


def test_what_later_changes_have_set_is_not_set_again() -> None:
    packing = packed(change(1, "a@x", {"f": 1, "g": None}, "g"), change(2, "b@x", {"f": 1}, "f g"))
    assert only_row(packing) == {"email": "a@x", "f": "1"}
    assert packing.ended == [(2, "superseded", "later changes set its fields again")]


def test_changes_of_one_key_ride_in_one_row_until_nothing_of_them_is_left() -> None:
    packing = packed(change(1, "a@x", {"f": 1}), change(2, "A@X", {"f": 2, "g": 2}), change(3, "a@x", {"f": 3}))
    assert only_row(packing) == {"email": "a@x", "f": "3", "g": "2"}
    assert packing.chunks[0].rows[0].change_ids == [2, 3]
    assert packing.ended == [(1, "superseded", "change 3 set its fields again")]


def test_other_keys_than_emails_that_differ_by_case_wait_their_turn_in_order() -> None:
    target = Target("externalId", "csv", 1000, 0)
    packing = packed(*(change(number, key, {"f": number}) for number, key in enumerate(["Ab", " Ab", "aB", "Ab"], 1)), target=target)
    assert [row.change_ids for chunk in packing.chunks for row in chunk.rows] == [[2]]
    assert packing.left == [3, 4]


def test_a_claimed_key_waits_for_its_chunk() -> None:
    packing = pack([change(1, "a@x", {"f": 1}), change(2, "b@x", {})], {"a@x": 7, "b@x": 8}, (), EMAIL)
    assert packing == Packing(waiting=[(1, 7), (2, 8)])


def test_an_open_chunk_goes_on_and_a_full_one_is_told() -> None:
    target = Target("email", "csv", 60, 0)
    before = open_chunk(target, "a", 40)
    packing = pack([change(1, "k1", {"a": "v" * 10})], {}, [before], target)
    full, new = packing.chunks
    assert full is before
    assert (full.full, full.rows, new.full) == (True, [], False)
    assert new.id is None


def test_a_retry_has_the_place_of_what_it_retries() -> None:
    retry = PendingChange(9, "a@x", "a@x", '{"f": "old", "g": "old"}', place=1)
    packing = packed(change(2, "a@x", {"f": "new"}), retry)
    assert only_row(packing) == {"email": "a@x", "f": "new", "g": "old"}
    hollow = PendingChange(9, "a@x", "a@x", '{"f": "old"}', place=1)
    assert packed(change(2, "a@x", {"f": "new"}), hollow).ended == [(9, "superseded", "change 2 set its fields again")]
