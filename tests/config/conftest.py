import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.config import ConfigErrors, Problem, load
from syncd.core.settings import Settings

VALID: dict[str, Any] = {
    "database": {"dsn": "postgresql://localhost/syncd"},
    "instances": {
        "acme": {
            "rest": {"endpoint": "https://rest.example.com", "client_id": "id", "client_secret": "secret"},
            "soap": {"endpoint": "https://soap.example.com/3_1", "user_id": "user", "encryption_key": "key"},
            "pulls": {"people": {"source": "soap", "select": {"updated_since": "2016-01-01T00:00:00Z"}}},
            "pushes": {"contacts": {}},
        }
    },
}


def document(changes: Mapping[str, Any], *, without: str | None = None) -> str:
    """VALID as YAML, with the values of `changes` at their dotted paths and without the key at `without`."""
    content = copy.deepcopy(VALID)
    for path, value in changes.items():
        *parents, key = path.split(".")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
        section[key] = value
    if without is not None:
        *parents, key = without.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        del section[key]
    return yaml.safe_dump(content)


Load = Callable[..., Settings]
Problems = Callable[..., tuple[Problem, ...]]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Loads a text as syncd.yaml in tmp_path."""

    def read(text: str, **env: str) -> Settings:
        file = tmp_path / "syncd.yaml"
        file.write_text(text, "utf-8")
        return load(file, env)

    return read


@pytest.fixture
def problems(loaded: Load, tmp_path: Path) -> Problems:
    """The problems of a text, none of which may take more than a line."""

    def read(text: str, **env: str) -> tuple[Problem, ...]:
        with pytest.raises(ConfigErrors) as caught:
            loaded(text, **env)
        found = caught.value.problems
        assert found
        assert str(caught.value).splitlines() == [str(problem) for problem in found]
        assert {problem.file for problem in found} == {str(tmp_path / "syncd.yaml")}
        return found

    return read
