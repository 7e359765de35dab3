"""The example that is shipped says the truth."""

import re
from pathlib import Path

import pytest

from syncd.config import load
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
    assert acme.pulls[0].fields == ("FirstName", "LastName", "Company", "LeadScore")


def test_its_values_are_the_defaults(tmp_path: Path) -> None:
    result = load_copy(EXAMPLE.read_text("utf-8"), tmp_path)
    (acme,) = result.instances
    assert acme.limits == settings.Limits()
    assert acme.network == settings.Network()
    (pull,) = acme.pulls
    assert pull == settings.Pull("people", "soap", pull.updated_since, pull.fields)
    assert acme.pushes == (settings.Push("contacts"),)
    assert result.http == settings.Http()
    assert result.logging == settings.Logging()


def optional_lines() -> list[str]:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    return [line for line in lines if not line.lstrip().startswith("#") and re.search(r"#.*\bdefault\b", line)]


@pytest.mark.parametrize("line", optional_lines())
def test_a_key_with_a_default_can_be_left_out(line: str, tmp_path: Path) -> None:
    # the section above it must not become null when the only key goes
    text = EXAMPLE.read_text("utf-8").replace(line, "").replace("http:\n\n", "http: {}\n")
    load_copy(text, tmp_path)


def test_most_keys_have_a_default() -> None:
    assert len(optional_lines()) > 20
