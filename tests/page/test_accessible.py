"""Who can't see it, uses a keyboard, a phone or no script, gets the same page."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from lxml import html
from lxml.html import HtmlElement

from syncd.page import render
from syncd.page.assets import DARK, LIGHT, POLICY, SCRIPT, STYLE
from tests.page.sample import instance, look

FULL = render.document(look(instance(), instance("globex", silent_for=90.0, pull_state="blocked", message="1003 no")))
IDLE = render.document(look())
AWAY = render.unavailable("1.2.3", "ConnectionRefusedError")


@pytest.fixture(params=[FULL, IDLE, AWAY], ids=["full", "idle", "away"])
def page(request: pytest.FixtureRequest) -> HtmlElement:
    return html.document_fromstring(request.param)


def test_it_names_itself_its_language_and_its_landmarks(page: HtmlElement) -> None:
    assert page.get("lang") == "en"
    assert page.findtext(".//title")
    assert [len(page.findall(f".//{name}")) for name in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert page.find(".//meta[@name='viewport']") is not None


def test_headings_skip_no_level(page: HtmlElement) -> None:
    levels = [int(each.tag[1]) for each in page.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels


def test_ids_are_unique_and_what_is_labelled_by_one_has_it(page: HtmlElement) -> None:
    ids = Counter(each.get("id") for each in page.iter() if each.get("id"))
    assert not [name for name, count in ids.items() if count > 1]
    assert {each.get("aria-labelledby") for each in page.iter() if each.get("aria-labelledby")} <= set(ids)


def test_tables_say_what_they_are_and_what_their_cells_are_under(page: HtmlElement) -> None:
    for table in page.iter("table"):
        assert table.findtext("caption")
        assert {each.get("scope") for each in table.iterfind("thead/tr/th")} == {"col"}
        assert {each.get("scope") for each in table.iterfind("tbody/tr/th")} == {"row"}
        wide = table.getparent()
        assert wide is not None
        assert (wide.get("tabindex"), wide.get("role"), bool(wide.get("aria-label"))) == ("0", "region", True), (
            "it scrolls by keyboard, too"
        )


def test_pictures_and_meters_are_told_in_words(page: HtmlElement) -> None:
    for each in [*page.iter("svg"), *page.iter("meter")]:
        assert each.get("aria-label")
        assert each.tag == "meter" or each.get("role") == "img"


def test_nothing_comes_from_elsewhere_and_nothing_is_styled_or_run_inline(page: HtmlElement) -> None:
    for each in page.iter():
        assert each.get("src") is None
        assert each.tag != "link"
        assert not [name for name in each.attrib if name == "style" or name.startswith("on")]
        assert each.get("href", "/").startswith("/")
    assert "http" not in re.sub(r"http-equiv", "", STYLE + SCRIPT)


def test_without_a_script_it_is_loaded_anew(page: HtmlElement) -> None:
    again = page.find(".//noscript/meta")
    assert again is not None
    assert (again.get("http-equiv"), again.get("content")) == ("refresh", str(render.AGAIN))


def test_the_policy_allows_its_own_style_and_script_and_no_other() -> None:
    assert POLICY.count("sha256-") == 2
    assert "unsafe" not in POLICY
    assert f"<style>{STYLE}</style>" in FULL
    assert f"<script>{SCRIPT}</script>" in FULL


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "card"])
@pytest.mark.parametrize("ink", ["ink", "soft", "good", "warn", "bad", "link"])
def test_texts_stand_out_from_their_ground(palette: dict[str, str], ground: str, ink: str) -> None:
    lighter, darker = sorted((luminance(palette[ground]), luminance(palette[ink])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5, "WCAG AA"


def test_each_colour_that_is_used_is_in_both_palettes() -> None:
    used = set(re.findall(r"var\(--([a-z]+)\)", STYLE))
    assert used <= LIGHT.keys() == DARK.keys()


def test_a_full_page_is_not_heavy() -> None:
    assert len(FULL) < 40_000
