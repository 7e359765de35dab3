"""The example that is shipped says the truth."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

from syncd.config import load
from syncd.config.model import Instance, Keep, Keys, Limits, Pull, Section, Select
from syncd.config.values import BEGINNING
from syncd.core import settings
from syncd.core.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "config" / "syncd.example.yaml"
ENV = {"SYNCD_DATABASE_DSN": "postgresql://localhost/syncd", "ACME_CLIENT_ID": "id"}


def load_copy(text: str, folder: Path) -> Settings:
    (folder / "acme_client_secret").write_text("secret\n")
    (folder / "acme_soap_key").write_text("key\n")
    file = folder / "syncd.yaml"
    file.write_text(text, "utf-8")
    return load(file, ENV)


def test_it_loads(tmp_path: Path) -> None:
    result = load_copy(EXAMPLE.read_text("utf-8"), tmp_path)
    (acme,) = result.instances
    assert acme.rest is not None
    assert acme.soap is not None
    assert (acme.rest.client_id.reveal(), acme.rest.client_secret.reveal()) == ("id", "secret")
    assert (acme.soap.user_id, acme.soap.encryption_key.reveal()) == ("acme_1", "key")
    assert acme.rest.identity == "https://123-ABC-456.mktorest.com/identity"
    assert acme.pulls[0].fields == ("firstName", "lastName", "company", "leadScore")


def test_its_values_are_the_defaults(tmp_path: Path) -> None:
    result = load_copy(EXAMPLE.read_text("utf-8"), tmp_path)
    (acme,) = result.instances
    assert acme.limits == settings.Limits()
    assert acme.network == settings.Network()
    (pull,) = acme.pulls
    assert acme.history == settings.Instance("acme").history
    assert acme.keep == settings.Keep()
    assert pull == settings.Pull("people", "auto", pull.select, pull.fields)
    assert acme.pushes == (settings.Push("contacts"),)
    assert result.http == settings.Http()
    assert result.logging == settings.Logging()


def optional_lines() -> list[str]:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    return [line for line in lines if not line.lstrip().startswith("#") and re.search(r"#.*\bdefault\b", line)]


@pytest.mark.parametrize("line", optional_lines())
def test_a_key_with_a_default_can_be_left_out(line: str, tmp_path: Path) -> None:
    load_copy(EXAMPLE.read_text("utf-8").replace(line, ""), tmp_path)


def test_most_keys_have_a_default() -> None:
    assert len(optional_lines()) > 20


def uncommented(text: str, part: str) -> str:
    """The example with the commented line that holds `part` put to use."""
    (line,) = (line for line in text.splitlines() if line.lstrip().startswith(f"# {part}"))
    return text.replace(line, line.replace("# ", "", 1))


def without(text: str, part: str) -> str:
    (line,) = (line for line in text.splitlines() if line.lstrip().startswith(part))
    return text.replace(line, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("updated_since: beginning", settings.UpdatedSince(BEGINNING)),
        ("static_list: ", settings.StaticList("My Program.My List")),
        ("static_list_id: ", settings.StaticList(1001)),
        ("smart_list: ", settings.SmartList("Active Customers")),
        ("smart_list_id: ", settings.SmartList(1002)),
        ("keys: {type: EMAIL", settings.Keys("EMAIL", ("a@example.com", "b@example.com"))),
        ("keys: {type: IDNUM", settings.Keys("IDNUM", file=Path("keys.txt"))),
    ],
)
def test_each_kind_of_select_that_it_shows(line: str, expected: settings.Select, tmp_path: Path) -> None:
    if isinstance(expected, settings.Keys) and expected.file:
        expected = replace(expected, file=tmp_path / expected.file)
    text = uncommented(without(EXAMPLE.read_text("utf-8"), "updated_since: "), line)
    if isinstance(expected, settings.Keys):
        text = text.replace("source: auto #", "source: soap #")
    assert load_copy(text, tmp_path).instances[0].pulls[0].select == expected


def test_it_tells_the_beginning_and_the_types_of_keys() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert f"beginning # {BEGINNING:%Y-%m-%dT%H:%M:%SZ}" in text
    *types, last = get_args(settings.KeyType)
    assert f"# type: {', '.join(types)} or {last}\n" in text


def test_the_other_fields_and_where_that_it_shows(tmp_path: Path) -> None:
    text = uncommented(without(EXAMPLE.read_text("utf-8"), "fields: ["), "fields: {first_name")
    text = uncommented(without(text, "where: {}"), "where: ")
    (pull,) = load_copy(text, tmp_path).instances[0].pulls
    assert pull.fields == ("firstName", "leadScore", "country", "unsubscribed")
    assert pull.columns == {"firstName": "first_name", "leadScore": "score"}
    assert pull.where == {"country": ("DE", "AT", ""), "unsubscribed": ("false",)}


def test_the_second_pull_that_it_shows(tmp_path: Path) -> None:
    text = EXAMPLE.read_text("utf-8")
    at = text.index("      # guests:")
    end = text.index("\n\n", at)
    _, guests = load_copy(text[:at] + text[at:end].replace("      # ", "      ") + text[end:], tmp_path).instances[0].pulls
    assert guests == settings.Pull(
        "guests",
        "auto",
        settings.StaticList("Events.Guests"),
        ("seatNumber",),
        {"seatNumber": "seat"},
        every=timedelta(hours=1),
    )


@pytest.mark.parametrize("section", [Limits, Select, Keys, Pull, Keep, Instance])
def test_it_shows_every_key(section: type[Section]) -> None:
    text = EXAMPLE.read_text("utf-8")
    assert [key for key in section.model_fields if not re.search(rf"\b{key}:", text)] == []
