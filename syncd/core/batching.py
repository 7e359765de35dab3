"""What goes by Sync Leads instead of a file, and in which form (protocol 4)."""

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta

MOST_RECORDS = 300
MOST_BYTES = 900_000
"""Of the records of a call: its body may have 1 MB, whichever MB is meant, and has a little around them."""

CALLS_OF_A_FILE = 5
"""What a file costs in calls: its POST, about 3.5 looks at its job, and now and then a file of its results. And it costs a slot."""

COMPANY_FIELDS = frozenset(
    (
        "company",
        "website",
        "site",
        "mainPhone",
        "industry",
        "sicCode",
        "annualRevenue",
        "numberOfEmployees",
        "billingStreet",
        "billingCity",
        "billingState",
        "billingCountry",
        "billingPostalCode",
        "externalCompanyId",
    )
)
"""REST names of Marketo's own fields of a lead's company, which Sync Leads does not write. Describe does not tell them from others."""


GATHER = timedelta(seconds=5)
"""How long a batch that is not full waits for more records: one call costs as much as another."""


class Number(str):
    """A JSON number by its very digits."""

    __slots__ = ()


class Truth(str):
    """A JSON boolean: "true" or "false"."""

    __slots__ = ()


def sync_is_cheaper(row_count: int, byte_count: int) -> bool:
    """Whether rows that fill no file cost fewer calls by Sync Leads, where those of several column sets share a call."""
    return max(row_count / MOST_RECORDS, byte_count / MOST_BYTES) <= CALLS_OF_A_FILE


def may_go_by_sync(list_id: int | None, columns: Iterable[str], row_count: int, byte_count: int, by_file: bool) -> bool:
    """Whether rows of one column set that fill no file go by Sync Leads. `by_file`: it would not have some of them."""
    writable = list_id is None and not by_file and COMPANY_FIELDS.isdisjoint(columns)
    return writable and sync_is_cheaper(row_count, byte_count)


def record_of(lookup_field: str, key: str, cells: Mapping[str, str | None]) -> str:
    """What a call has of one lead; None clears."""
    names = ((lookup_field, key), *sorted(cells.items()))
    return "{" + ",".join(f"{json.dumps(name)}:{_json(value)}" for name, value in names) + "}"


def _json(value: str | None) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, Number | Truth) else json.dumps(value, ensure_ascii=False)
