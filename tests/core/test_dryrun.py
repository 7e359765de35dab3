"""What a course of packing counts: each change once, and only what comes again is remembered."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.dryrun import Course, Page
from syncd.core.pack import pack
from syncd.core.pending import PendingChange, Target
from syncd.core.tally import Fate

TARGET = Target(lookup_field="email", format="csv", max_body_bytes=400, envelope_bytes=0)
CLAIM = 3


def change(number: int, key: str, **fields: object) -> PendingChange:
    return PendingChange(number, key, key, orjson.dumps(fields).decode(), place=number)


def walk(
    changes: Sequence[PendingChange], claim: int = CLAIM, fates: Mapping[str, Fate] | None = None, target: Target = TARGET
) -> tuple[Course, int]:
    """All rounds, as flows/dryrun.py has them."""
    course = Course(None)
    by_id = {each.id: each for each in changes}
    ids = sorted(by_id)
    course.tally.changes = len(ids)
    rounds = 0
    while ids:
        rounds += 1
        for begin in range(0, len(ids), claim):
            some = course.overwritten(by_id[each] for each in ids[begin : begin + claim])
            again = {by_id[each].key_norm for each in ids[begin + claim :]}
            packing = pack(some, course.claimed(each.key_norm for each in some), course.chunks, target, course.batch)
            course.take(Page(some, again, (fates or {}) if rounds == 1 else {}), packing)
        flush(course, by_id, claim, fates or {}, target)
        ids = sorted(course.next_round())
    return course, rounds


def flush(course: Course, by_id: Mapping[int, PendingChange], claim: int, fates: Mapping[str, Fate], target: Target) -> None:
    for rare in course.flush(claim):
        some = course.overwritten(by_id[each] for each in sorted(rare.ids))
        packing = pack(some, {}, (), replace(target, by_sync=True), course.batch)
        course.take_rare(packing, Page(some, (), fates), frozenset(rare.ids))


def total(course: Course) -> int:
    tally = course.tally
    return tally.carried + tally.superseded + sum((tally.noop + tally.rejected + tally.parked).values())


keys = st.sampled_from(["a", "b", "c", "d", ""])
values: st.SearchStrategy[object] = st.one_of(st.none(), st.integers(0, 9), st.just([]), st.just("x" * 500))
fields = st.dictionaries(st.sampled_from(["one", "two", "company"]), values, max_size=3)


@given(st.lists(st.tuples(keys, fields), max_size=30), st.integers(1, 8))
def test_each_change_is_counted_once(drawn: list[tuple[str, dict[str, object]]], claim: int) -> None:
    changes = [change(number, key, **fields) for number, (key, fields) in enumerate(drawn, 1)]
    course, rounds = walk(changes, claim, dict.fromkeys("abcd", "created"))
    assert total(course) == len(changes) == course.tally.changes
    sent = {each.key_norm for each in changes}
    assert course.tally.created <= len(sent)
    assert course.tally.created + course.tally.updated == course.tally.rows
    assert rounds <= len(changes) + 1


def test_a_key_is_created_once_and_then_updated() -> None:
    changes = [change(number, "a", **{f"f{number}": number, "company": number}) for number in range(1, 9)]
    course, rounds = walk(changes, 2, {"a": "created"})
    assert (course.tally.created, course.tally.updated) == (1, course.tally.rows - 1)
    assert rounds == course.tally.rows


def test_what_a_later_change_has_sent_is_not_set_again() -> None:
    """A released change of a former section has a lower id than what has gone."""
    pending, _ = walk([change(7, "a", one=7, two=7), change(9, "b", one=9)])
    held = Course(None)
    held.after(pending)
    (later,) = held.overwritten([change(3, "a", one=3, company=3)])
    assert later.overwritten == frozenset(), "only what comes again is remembered"
    course = Course(None)
    some = [change(7, "a", one=7, two=7)]
    course.take(Page(some, {"a"}), pack(some, {}, (), TARGET))
    held.after(course)
    (later,) = held.overwritten([change(3, "a", one=3, company=3)])
    assert later.overwritten == {"one", "two"}


def test_files_are_as_full_as_the_packers() -> None:
    changes = [change(number, f"key{number:03}", company="Acme", one="x" * 20) for number in range(60)]
    course, _ = walk(changes)
    whole = pack(changes, {}, (), TARGET)
    assert course.tally.files == len(whole.chunks) > 2
    assert course.tally.file_bytes == sum(chunk.byte_count for chunk in whole.chunks)


def test_rare_rows_share_calls() -> None:
    changes = [change(number, f"key{number}", **{f"f{number % 7}": number}) for number in range(50)]
    course, _ = walk(changes, 20)
    assert (course.tally.files, course.tally.rows, course.tally.rare, course.tally.calls) == (0, 50, 50, 1)


def test_the_sample_does_not_depend_on_the_claims() -> None:
    def sample(claim: int) -> Collection[tuple[int, ...]]:
        changes = [change(number, f"key{number}", one=number) for number in range(100)]
        return [row.change_ids for row in walk(changes, claim)[0].sample()]

    assert sample(3) == sample(50)
    assert len(sample(3)) == 20


def test_what_describe_does_not_know_is_rejected_and_what_has_vanished_is_parked() -> None:
    course = Course(None, vanished={"gone"})
    packing = pack([], {}, (), TARGET)
    packing.lacking = [(1, "gone", "gone it is"), (2, "odd", "unknown: describe is asked once more before it is rejected")]
    course.take(Page([change(1, "a", gone=1), change(2, "b", odd=1)]), packing)
    assert (course.tally.parked, course.tally.rejected) == (Counter({"gone it is": 1}), Counter({"unknown": 1}))
