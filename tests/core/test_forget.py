"""What a person is found by, and the hash that is kept of it."""

import hashlib
import hmac

import pytest

from syncd.core.forget import Person, kind_of, normal, person_hash


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        ("email", " Ada@Example.COM\r\n", "ada@example.com"),
        ("email", "ÉVE@example.com", "Éve@example.com"),
        ("email", "a\u00a0b@x", "a\u00a0b@x"),
        ("id", " 0042 ", "42"),
        ("customer", "\tA-7 ", "a-7"),
        ("email", " ", ""),
        ("id", "0", ""),
    ],
)
def test_a_key_has_one_form(kind: str, value: str, form: str) -> None:
    assert normal(kind, value) == form
    assert normal(kind, form) == form


def test_the_hash_is_an_hmac_of_instance_kind_and_form() -> None:
    key = bytes(range(32))
    expected = hmac.new(key, b"acme\nemail\nada@example.com", hashlib.sha256).digest()
    assert person_hash(key, "acme", "email", " ADA@example.com") == expected
    others = {person_hash(key, "beta", "email", "ada@example.com"), person_hash(key, "acme", "id", "ada@example.com")}
    assert expected not in others | {person_hash(bytes(32), "acme", "email", "ada@example.com")}


def test_lookup_fields_are_kinds_of_keys() -> None:
    assert [kind_of(field) for field in ("email", "Email", "ID", "customerNumber")] == ["email", "email", "id", "customerNumber"]


def test_a_person_is_found_by_addresses_under_every_push_and_by_others_under_their_own() -> None:
    person = Person.of([("email", "A@x"), ("email", "a@x "), ("id", "7"), ("crm", "K1"), ("crm", " ")])
    assert (person.ids, person.emails) == ([7], ["a@x"])
    assert person.keys_of({"contacts": "email", "leads": "id", "crm": "crm"}) == [
        ("contacts", "a@x"),
        ("crm", "a@x"),
        ("crm", "k1"),
        ("leads", "7"),
        ("leads", "a@x"),
    ]
