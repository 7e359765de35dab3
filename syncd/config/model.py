"""The YAML's keys and what each may hold. Values arrive as the texts that were written; defaults are `core/settings.py`'s."""

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from syncd.config import secrets, values
from syncd.config.kinds import (
    YEAR,
    FieldNames,
    InstanceName,
    KeyTexts,
    Name,
    SecretText,
    Text,
    TextOrFile,
    UnwantedTexts,
    Url,
    WantedTexts,
    around,
    duration,
    from_text,
    path,
    size,
    whole,
)
from syncd.config.values import NotAllowed
from syncd.core.settings import ClearWith, Format, Hours, KeyType, Secret, Source

# Which default an absent key has is said once, in core/settings.py: only the keys that were given are handed on.
ABSENT: Any = Field(default=None)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """The keys that the YAML has, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Database(Section):
    dsn: Annotated[Secret | None, around(lambda given, around: None if given is None else secrets.dsn(given, around))] = ABSENT
    embedded: Annotated[Path | None, path(secrets.folder)] = ABSENT


class Rest(Section):
    endpoint: Annotated[str, from_text(values.rest_endpoint, "a URL")]
    identity: Annotated[str | None, from_text(values.endpoint, "a URL or null", or_null=True)] = ABSENT
    client_id: SecretText
    client_secret: SecretText


class Soap(Section):
    endpoint: Url
    user_id: TextOrFile
    encryption_key: SecretText


class Network(Section):
    proxy: Annotated[str | None, from_text(values.proxy, "a URL or null", or_null=True)] = ABSENT
    ca_file: Annotated[Path | None, path(secrets.readable_file)] = ABSENT
    timeout: Annotated[timedelta, duration(timedelta(seconds=1), timedelta(minutes=10))] = ABSENT


class Limits(Section):
    calls_per_20s: Annotated[int, whole(6, 100, ": Marketo allows 100 to all integrations together")] = ABSENT
    concurrency: Annotated[int, from_text(values.concurrency, "a whole number")] = ABSENT
    daily_calls: Annotated[int, whole(100, None)] = ABSENT
    subscription_calls: Annotated[int | None, from_text(values.subscription_calls, "a whole number or null", or_null=True)] = ABSENT
    urgent_reserve: Annotated[int, from_text(values.urgent_reserve, "a whole number")] = ABSENT
    import_slots: Annotated[int, whole(1, 10, ": Marketo has 10 for all integrations together")] = ABSENT
    import_running: Annotated[int, whole(1, 2, ": Marketo runs 2 imports at a time")] = ABSENT
    export_slots: Annotated[int, whole(1, 10, ": Marketo has 10 for all integrations together")] = ABSENT
    export_running: Annotated[int, whole(1, 2, ": Marketo runs 2 exports at a time")] = ABSENT
    export_daily_bytes: Annotated[int, size(1_000_000, 1_000_000_000_000)] = ABSENT


class Keys(Section):
    type: KeyType
    values: KeyTexts = ABSENT
    file: Annotated[Path | None, path(secrets.later_file)] = ABSENT


class Select(Section):
    """One kind of leads; the others are absent or null, as rules.py sees to."""

    updated_since: Annotated[datetime | None, from_text(values.since, "a time such as 2016-01-01T00:00:00Z", or_null=True)] = ABSENT
    static_list: Annotated[str | None, from_text(values.list_name, "a list's name", or_null=True)] = ABSENT
    static_list_id: Annotated[int | None, from_text(lambda text: values.whole(text, 1, None), "a list's id", or_null=True)] = ABSENT
    smart_list: Annotated[str | None, from_text(values.text, "a list's name", or_null=True)] = ABSENT
    smart_list_id: Annotated[int | None, from_text(lambda text: values.whole(text, 1, None), "a list's id", or_null=True)] = ABSENT
    keys: Keys | None = None


class Pull(Section):
    source: Source
    select: Select
    fields: FieldNames = ABSENT
    where: dict[Text, WantedTexts] | None = None
    every: Annotated[timedelta, duration(timedelta(seconds=1))] = ABSENT
    batch_size: Annotated[int, whole(1, 1000, ": Marketo returns no more; it recommends 300 at most")] = ABSENT
    streams: Annotated[int, from_text(values.streams, "a whole number")] = ABSENT
    window: Annotated[timedelta, duration(timedelta(minutes=1), timedelta(days=30), ": Marketo refuses a time range of over 30 days")] = (
        ABSENT
    )
    overlap: Annotated[timedelta, duration(timedelta())] = ABSENT
    margin: Annotated[timedelta, duration(timedelta())] = ABSENT


class Poll(Section):
    min: Annotated[timedelta, duration(timedelta(seconds=1), timedelta(minutes=10))] = ABSENT
    max: Annotated[timedelta, duration(timedelta(seconds=1), timedelta(minutes=10))] = ABSENT


class Mend(Section):
    spelling: Literal["reject", "mend"] = ABSENT
    decimals: Literal["reject", "round"] = ABSENT
    length: Literal["reject", "cut"] = ABSENT
    astral: Literal["reject", "strip"] = ABSENT


def _outbox_or_table(given: object) -> object:
    if given == "outbox":
        return None
    if not isinstance(given, dict):
        raise NotAllowed("outbox, or a mapping such as {table: crm.contact, key: email}")
    return given


def _column_or_constant(given: object) -> object:
    if given is None:
        raise ValueError("needs a column, or a mapping such as {column: opt_out} or {const: CRM}")
    return {"column": given} if isinstance(given, str) else given


class FromTable(Section):
    table: Text
    key: Text
    where: Annotated[str | None, from_text(values.text, "an SQL condition or null", or_null=True)] = None
    every: Annotated[timedelta, duration(timedelta(seconds=10))] = ABSENT
    on_delete: dict[Text, Annotated[str | None, from_text(values.text, "a text or null", or_null=True)]] = ABSENT


class FieldFrom(Section):
    """One of the two, as rules.py sees to."""

    column: Annotated[str | None, from_text(values.text, "a column's name", or_null=True)] = None
    const: Annotated[str | None, from_text(values.text, "a text", or_null=True)] = None


class Guard(Section):
    canary: Annotated[int, whole(1, 10_000)] = ABSENT
    canary_max_failures: Annotated[Decimal, from_text(values.share, "a share such as 2%")] = ABSENT
    hold_above: Annotated[int | None, from_text(values.per_hour, "a rate such as 20000/h, or null", or_null=True)] = ABSENT
    max_created: Annotated[int | None, from_text(values.per_day, "a rate such as 5000/d, or null", or_null=True)] = ABSENT


def _rule(given: object) -> object:
    """`only_set` for short."""
    if isinstance(given, str) and given != "only_set":
        raise NotAllowed("only_set, or a mapping such as {never: false}")
    return {"only_set": "true"} if given == "only_set" else given


class FieldRule(Section):
    only_set: Annotated[bool, from_text(values.truth, "true or false")] = ABSENT
    never: UnwantedTexts = ABSENT
    owner: Literal["us", "marketo"] = ABSENT


class Push(Section):
    lookup_field: Text = ABSENT
    mode: Literal["upsert", "update_only"] = ABSENT
    format: Format = ABSENT
    list_id: Annotated[int | None, from_text(lambda text: values.whole(text, 1, None), "a list's id or null", or_null=True)] = ABSENT
    partition: Annotated[str | None, from_text(values.text, "a partition's name or null", or_null=True)] = ABSENT
    max_body_bytes: Annotated[int, size(1000, 9_999_999, ": Marketo refuses bodies of 10 MB")] = ABSENT
    flush_after: Annotated[timedelta, duration(timedelta())] = ABSENT
    unconfirmed_after: Annotated[timedelta, duration(timedelta(minutes=1))] = ABSENT
    clear_with: ClearWith = ABSENT
    mend: Mend = Field(default_factory=Mend)
    deleted_in_marketo: Literal["skip", "recreate"] = ABSENT
    rules: dict[Text, Annotated[FieldRule, BeforeValidator(_rule)]] = Field(default_factory=dict)
    poll: Poll = Field(default_factory=Poll)
    from_: Annotated[FromTable | None, BeforeValidator(_outbox_or_table)] = Field(default=None, alias="from")
    fields: dict[Text, Annotated[FieldFrom, BeforeValidator(_column_or_constant)]] = ABSENT
    guard: Guard | None = None
    hours: Annotated[Hours | None, from_text(values.hours, "hours and a time zone, or null", or_null=True)] = ABSENT


class Keep(Section):
    outcomes: Annotated[timedelta, duration(timedelta(days=7), 10 * YEAR)] = ABSENT
    payloads: Annotated[timedelta, duration(timedelta(days=1), 10 * YEAR)] = ABSENT


class Instance(Section):
    rest: Rest | None = None
    soap: Soap | None = None
    network: Network = Field(default_factory=Network)
    limits: Limits = Field(default_factory=Limits)
    history: Annotated[timedelta | None, duration(timedelta(days=1), 10 * YEAR, or_null=True)] = ABSENT
    census: Annotated[timedelta | None, duration(timedelta(days=1), or_null=True)] = ABSENT
    keep: Keep = Field(default_factory=Keep)
    pulls: dict[Name, Pull] = Field(default_factory=dict)
    pushes: dict[Name, Push] = Field(default_factory=dict)


class Http(Section):
    listen: Annotated[tuple[str, int], from_text(values.listen, "an address such as 127.0.0.1:9464")] = ABSENT
    token: Annotated[Secret | None, around(lambda given, around: None if given is None else secrets.secret(given, around))] = ABSENT


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = ABSENT
    format: Literal["json", "logfmt", "console"] = ABSENT
    metrics_every: Annotated[timedelta, duration(timedelta(seconds=1))] = ABSENT


class Defaults(Section):
    defaults: Instance | None = None


class Document(Defaults):
    """The whole YAML, each instance already laid over `defaults`."""

    database: Database
    instances: dict[InstanceName, Instance]
    http: Http | None = Field(default_factory=Http)
    logging: Logging = Field(default_factory=Logging)
