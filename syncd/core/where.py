"""A pull's `where`: which leads it lets into the mirror."""

from collections.abc import Mapping

from syncd.core.values import LeadRecord

_BOOLEANS = {"1": "true", "0": "false"}


def keeps(lead: LeadRecord, where: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether each field of `where` has one of the values allowed to it; a field without a value has the empty text."""
    values = {"Id": ("integer", str(lead.lead_id)), "Email": ("email", lead.email or "")}
    values |= {name: (kind, text) for name, kind, text in lead.attributes if name in where}
    return all(_is_one_of(*values.get(name, ("", "")), allowed) for name, allowed in where.items())


def _is_one_of(kind: str, text: str, allowed: tuple[str, ...]) -> bool:
    if kind == "boolean":  # which has several spellings, in the YAML too
        return _boolean(text) in map(_boolean, allowed)
    return text in allowed


def _boolean(text: str) -> str:
    return _BOOLEANS.get(text, text.lower())
