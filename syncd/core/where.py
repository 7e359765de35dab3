"""A pull's `where`: which leads it lets into the mirror."""

from collections.abc import Mapping

from syncd.core.values import LeadRecord

_BOOLEANS = {"1": "true", "0": "false"}


IDS, EMAILS = frozenset({"Id", "id"}), frozenset({"Email", "email"})
"""What the interfaces call the two that every lead has outside of its attributes."""


def keeps(lead: LeadRecord, where: Mapping[str, tuple[str, ...]], kinds: Mapping[str, str] | None = None) -> bool:
    """Whether each field of `where` has one of the values allowed to it; a field without a value has the empty text.

    `kinds` are describe's dataTypes, where the reply itself tells none.
    """
    values = dict.fromkeys(IDS, ("integer", str(lead.lead_id))) | dict.fromkeys(EMAILS, ("email", lead.email or ""))
    values |= {name: (kind, text) for name, kind, text in lead.attributes if name in where}
    kinds = kinds or {}
    return all(
        _is_one_of(kinds.get(name, kind), text, allowed) for name, allowed in where.items() for kind, text in (values.get(name, ("", "")),)
    )


def _is_one_of(kind: str, text: str, allowed: tuple[str, ...]) -> bool:
    if kind == "boolean":  # which has several spellings, in the YAML too
        return truth(text) in map(truth, allowed)
    return text in allowed


def truth(text: str) -> str:
    """One spelling for the several of a boolean."""
    return _BOOLEANS.get(text, text.lower())
