"""Who is to be forgotten, and the keyed hashes by which they are known after that."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

EMAIL, ID = "email", "id"

Key = tuple[str, str]
"""What a person is found by: its kind (email, id, or another lookup field), and the value in its normal form."""

_BLANKS = " \t\r\n"


def kind_of(lookup_field: str) -> str:
    """Which kind of key a push's lookup field is."""
    return lookup_field.lower() if lookup_field.lower() in (EMAIL, ID) else lookup_field


def normal(kind: str, value: str) -> str:
    """The one form of a key, however it is written; only ASCII has cases, as nobody agrees on the others."""
    stripped = value.strip(_BLANKS)
    if kind == ID:
        return stripped.lstrip("0")
    return stripped.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def person_hash(key: bytes, instance: str, kind: str, value: str) -> bytes:
    """HMAC-SHA-256 of a key; syncd.person_hash (0006_forget.sql) makes the same in SQL."""
    return hmac.digest(key, f"{instance}\n{kind}\n{normal(kind, value)}".encode("utf-8", "replace"), "sha256")


@dataclass(frozen=True, slots=True)
class Person:
    """All that a person is found by."""

    keys: frozenset[Key]

    @classmethod
    def of(cls, keys: Iterable[Key]) -> "Person":
        """A person by keys in whatever form; empty ones find nobody."""
        return cls(frozenset((kind, text) for kind, value in keys if (text := normal(kind, value))))

    @property
    def ids(self) -> list[int]:
        """The ids of their leads."""
        return sorted(int(value) for kind, value in self.keys if kind == ID)

    @property
    def emails(self) -> list[str]:
        """Their addresses."""
        return sorted(value for kind, value in self.keys if kind == EMAIL)

    def keys_of(self, pushes: Mapping[str, str]) -> list[tuple[str, str]]:
        """Push and key of changes that may be about them. `pushes` says of each push which kind its keys are."""
        return sorted((push, value) for push, kind in pushes.items() for own, value in self.keys if own in (kind, EMAIL))
