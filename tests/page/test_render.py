"""What the page says of what was read."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from lxml.html import HtmlElement

from syncd.core.words import without_addresses
from syncd.page import render
from syncd.page.html import Html, element, joined, table, text
from syncd.page.todo import todo_of
from syncd.store.attaching import Attached, FaultCount
from syncd.store.comparing import Compared
from tests.page.sample import NOW, instance, look

PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")))


@given(PRINTABLE)
def test_a_text_comes_out_as_it_went_in_and_is_no_markup(given_text: str) -> None:
    (shown,) = html.fragments_fromstring(element("p", given_text, title=given_text))
    assert isinstance(shown, HtmlElement)
    assert (shown.text or "", shown.get("title"), len(shown), len(shown.attrib)) == (*[without_addresses(given_text)] * 2, 0, 1)


def test_markup_is_not_escaped_twice() -> None:
    assert element("p", element("b", "a & b"), None, 3) == "<p><b>a &amp; b</b>3</p>"
    assert joined("<", Html("<i>")) == "&lt;<i>"
    assert text('o\'ne "two"') == "o&#x27;ne &quot;two&quot;"


def test_attributes_are_written_as_html_has_them() -> None:
    assert element("meta", name="a", http_equiv="b") == '<meta name="a" http-equiv="b">'
    assert element("p", class_=None, hidden=True, id=False) == "<p hidden></p>"


def test_cells_of_a_table_are_escaped() -> None:
    assert "<td>&lt;b&gt;</td>" in table("c", ["a", "b"], [["1", "<b>"]])


def test_addresses_are_left_out_of_texts() -> None:
    assert without_addresses("Invalid email address: ada.l+x@example.com, twice (bob@b.de)") == "Invalid email address: …@…, twice (…@…)"
    assert without_addresses("a @ b, pid 7 on host") == "a @ b, pid 7 on host"


def test_one_of_each_thing_is_shown() -> None:
    page = html.document_fromstring(render.document(look(instance())))
    words = " ".join(" ".join(map(str, page.itertext())).split())
    for told in (
        "3 things need a person",
        "1,234,567 leads in the mirror",
        "3 changes of contacts held",
        "syncd plan -i acme --push contacts --plan 4",
        "syncd release -i acme --push contacts --plan 4",
        "syncd discard -i acme --push contacts --plan 4",
        "The import 9 is unconfirmed",
        "5 changes failed",
        "4 of 9 windows",
        "2026-03-02 13:00:00Z",
        "2 slots were others' when Marketo last told",
        "5,000 of 50,000",
        "25 of 50 calls in 20 s, 5 of 5 at a time",
        "the SOAP API waits for its quota to be reset",
        "1.0 MB completed",
        "1,234,600 leads at Marketo's, 36 missing here, 3 surplus",
        "Sync Leads answered 12 calls: applied 30, rejected 1, retried 2.",
        "leadScore is no number",
        "if it stays, syncd check",
        "paused: guests until 2026-03-02 13:00:00Z",
        "syncd 1.2.3",
    ):
        assert told in words, told
    assert "crm@example.com" not in words


def test_the_worst_comes_first_and_nothing_is_made_up() -> None:
    good = replace(instance(), failures=replace(instance().failures, changes=0))
    good = replace(good, status=replace(good.status, live_jobs=[], holds=[]))
    assert todo_of(good, NOW) == []
    assert "All is well" in render.main(look(good))
    dead = replace(good, status=replace(good.status, silent_for=90.0), failures=instance().failures)
    assert [each.level for each in todo_of(dead, NOW)] == ["bad", "warn"]
    never = replace(good, status=replace(good.status, holder=None, silent_for=None))
    assert [each.commands for each in todo_of(never, NOW)] == [("syncd run",)]


def test_an_instance_that_left_the_yaml_needs_nobody_while_no_daemon_works_for_it() -> None:
    left = replace(instance(silent_for=90.0), configured=False)
    assert todo_of(left, NOW) == []
    told = render.main(look(left))
    assert "not in the configuration" in told
    assert 'class="bad"' not in told
    elsewhere = replace(instance(pull_state="blocked"), configured=False)
    assert "The pull people is blocked" in [each.what for each in todo_of(elsewhere, NOW)], "another daemon serves it"


def test_a_push_that_a_bad_canary_has_stopped_needs_a_person() -> None:
    found = instance()
    stopped = replace(found.status.pushes[0], state="held", message="of a canary of 2 changes 1 failed")
    told = todo_of(replace(found, status=replace(found.status, pushes=[stopped])), NOW)
    assert [(each.level, each.why) for each in told if each.what == "The push contacts is held"] == [
        ("bad", "of a canary of 2 changes 1 failed")
    ]


TABLE = Attached(1, "contacts", "crm.contact", "d", NOW, None, True)
VIEW = Compared(NOW, NOW, 9, 0, 0, 0, 0, 0, 0, None, None)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (TABLE, None),
        (replace(TABLE, faults=[FaultCount("no_key", 2, 9, NOW)]), None),
        (replace(TABLE, compared=VIEW), None),
        (
            replace(TABLE, faults=[FaultCount("no_key", 2, 9, NOW), FaultCount("22012", 2, 3, NOW)]),
            ("Changes of 3 rows of crm.contact, for contacts, were lost", "its triggers failed by error 22012"),
        ),
        (
            replace(TABLE, fires=False),
            (
                "crm.contact, which contacts follows, is not followed",
                "its triggers are missing or disabled: what is written to it goes nowhere",
            ),
        ),
        (
            replace(TABLE, compared=replace(VIEW, based_at=None)),
            ("crm.contact, which contacts follows, is not compared", "its first snapshot is not complete"),
        ),
    ],
)
def test_what_a_table_loses_needs_a_person(table: Attached, told: tuple[str, str] | None) -> None:
    found = instance()
    following = replace(found.status.pushes[0], table=table)
    todo = todo_of(replace(found, status=replace(found.status, pushes=[following])), NOW)
    found_now = [(each.level, each.what, each.why, each.commands) for each in todo if "crm.contact" in each.what]
    assert found_now == ([("bad", *told, ("syncd attach -i acme --push contacts",))] if told else [])


def test_without_an_instance_it_says_so() -> None:
    assert "No daemon has worked for any instance yet" in render.main(look())
