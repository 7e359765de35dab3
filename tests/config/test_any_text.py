"""Whatever the file holds, loading it ends in settings or in ConfigErrors."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from syncd.config import ConfigErrors, load
from syncd.config.model import Document

from .conftest import VALID, document
from .test_example import EXAMPLE

KEYS = sorted(
    {*Document.model_fields, *VALID["instances"]["acme"], "acme", "endpoint", "file", "dsn", "limits", "streams", "concurrency"}
    | {"min", "max", "poll", "select", "fields", "where", "history", "subscription_calls", "urgent_reserve", "[key]", "<<", "defaults", ""}
    | {"updated_since", "static_list", "static_list_id", "keys", "type", "values", "lead_id", "first_name", "FirstName"}
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["5m", "soap", "${A}", "${B}", "EMAIL", "P.L"])
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=20
)
PIECES = [
    "&a ",
    "*a",
    "<<: *a\n",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\t",
    "\n",
    "!x ",
    "!!int ",
    "'",
    '"\\ud800"',
    "${A}",
    "? ",
    "|",
    "---\n",
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "syncd.yaml"


def ends_well(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    with suppress(ConfigErrors):
        load(file, {"A": "\udcff\n"})
        return
    with pytest.raises(ConfigErrors) as caught:
        load(file, {"A": "\udcff\n"})
    assert caught.value.problems
    lines = str(caught.value).encode("utf-8").decode("utf-8").splitlines()
    assert len(lines) == len(caught.value.problems)
    assert all(1 <= problem.line <= text.count("\n") + 2 for problem in caught.value.problems)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text(file: Path, text: str) -> None:
    ends_well(file, text)


@given(st.binary())
def test_any_bytes(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigErrors):
        load(file, {})


PLACES = ["database", "instances", "instances.acme", "instances.acme.pulls", "instances.acme.limits", "defaults", "http", "logging"]
PULL_PLACES = [f"instances.acme.pulls.people.{key}" for key in ("select", "select.keys", "fields", "where")]


@given(TREES, st.sampled_from(PLACES + PULL_PLACES))
def test_any_tree(file: Path, tree: Any, place: str) -> None:
    ends_well(file, document({place: tree}))


@given(st.data())
def test_any_damage_to_a_good_file(file: Path, data: st.DataObject) -> None:
    text = EXAMPLE.read_text("utf-8") if data.draw(st.booleans()) else yaml.safe_dump(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(start + 30, len(text))))
        text = text[:start] + data.draw(st.sampled_from(PIECES)) + text[stop:]
    ends_well(file, text)
