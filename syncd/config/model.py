"""The YAML's keys and what each may hold. Values arrive as the texts that were written; defaults are `core/settings.py`'s."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationInfo

from syncd.config import secrets, values
from syncd.config.values import NotAllowed
from syncd.core.settings import ClearWith, Format, Hours, KeyType, Secret, Source

# Which default an absent key has is said once, in core/settings.py: only the keys that were given are handed on.
ABSENT: Any = Field(default=None)

_YEAR = timedelta(days=365)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """The keys that the YAML has, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _from_text(read: Callable[[str], object], allowed: str = "a single value", *, or_null: bool = False) -> BeforeValidator:
    def validate(given: object) -> object:
        if given is None and or_null:
            return None
        if not isinstance(given, str):
            raise NotAllowed(allowed)
        return read(given)

    return BeforeValidator(validate)


def _around(read: Callable[[Any, secrets.Surroundings], object]) -> BeforeValidator:
    def validate(given: object, info: ValidationInfo) -> object:
        assert isinstance(info.context, secrets.Surroundings)
        return read(given, info.context)

    return BeforeValidator(validate)


def _whole(low: int, high: int | None, why: str = "") -> BeforeValidator:
    return _from_text(lambda text: values.whole(text, low, high, why), "a whole number")


def _duration(low: timedelta, high: timedelta = _YEAR, why: str = "", *, or_null: bool = False) -> BeforeValidator:
    allowed = "a duration such as 90s, 5m or 30d"
    return _from_text(lambda text: values.duration_between(text, low, high, why), allowed, or_null=or_null)


def _size(low: int, high: int, why: str = "") -> BeforeValidator:
    return _from_text(lambda text: values.size_between(text, low, high, why), "a size such as 9900000 or 9.9MB")


def _distinct(fields: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(fields)) < len(fields):
        raise ValueError("names a field more than once")
    return fields


def _fields(given: object) -> object:
    if isinstance(given, dict):
        return _FIELDS_BY_COLUMN.validate_python(given)
    if isinstance(given, list):
        return _FIELDS.validate_python(given)
    raise ValueError("needs a list such as [FirstName, LastName], or a mapping such as {first_name: FirstName}")


def _key(given: object) -> str:
    if not isinstance(given, str):
        raise NotAllowed("a text")
    return values.text(given).strip()


def _keys(given: object) -> object:
    """A list that has keys; null is none, as if it were absent."""
    if given is None:
        return None
    if not isinstance(given, list):
        raise ValueError("needs a list of keys")  # not told which text, for it may be somebody's address
    if not given:
        raise ValueError("needs at least one key")
    return given


def _once(texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return texts and tuple(dict.fromkeys(texts))


def _wanted(given: object) -> object:
    """The values that `where` wants of a field: one, or a list of some."""
    if given is None or isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise NotAllowed("a text or a list of texts")
    if not given:
        raise ValueError("needs at least one value; '' stands for none")
    return given


def _rule(given: object) -> object:
    """`only_set` for short."""
    if isinstance(given, str) and given != "only_set":
        raise NotAllowed("only_set, or a mapping such as {never: false}")
    return {"only_set": "true"} if given == "only_set" else given


def _unwanted(given: object) -> object:
    """The values that `never` keeps back: one, or a list of some. That nothing is sent is said by only_set."""
    texts = given if isinstance(given, list) else [given]
    if not texts or any(text is None or text == "" for text in texts):
        raise ValueError("needs a value, or a list of some; that a field is never cleared is said by only_set")
    return texts


def _path(read: Callable[[str, secrets.Surroundings], Path]) -> BeforeValidator:
    def validate(given: object, around: secrets.Surroundings) -> Path | None:
        if given is None:
            return None
        if not isinstance(given, str):
            raise NotAllowed("a path")
        return read(given, around)

    return _around(validate)


Name = Annotated[str, _from_text(values.name)]
InstanceName = Annotated[str, _from_text(values.instance_name)]
Text = Annotated[str, _from_text(values.text, "a text")]
SecretText = Annotated[Secret, _around(secrets.secret)]
# Settings hold the SOAP user as a text, so one in a file is read at load only.
TextOrFile = Annotated[str, _around(lambda given, around: secrets.reveal(secrets.secret(given, around)))]
Url = Annotated[str, _from_text(values.endpoint, "a URL")]
Wanted = Annotated[str, _from_text(values.sendable, "a text"), BeforeValidator(lambda given: "" if given is None else given)]

_FIELDS = TypeAdapter(Annotated[tuple[Text, ...], AfterValidator(_distinct)])
_FIELDS_BY_COLUMN = TypeAdapter(dict[Annotated[str, _from_text(values.column)], Text])


class Database(Section):
    dsn: Annotated[Secret | None, _around(lambda given, around: None if given is None else secrets.dsn(given, around))] = ABSENT
    embedded: Annotated[Path | None, _path(secrets.folder)] = ABSENT


class Rest(Section):
    endpoint: Annotated[str, _from_text(values.rest_endpoint, "a URL")]
    identity: Annotated[str | None, _from_text(values.endpoint, "a URL or null", or_null=True)] = ABSENT
    client_id: SecretText
    client_secret: SecretText


class Soap(Section):
    endpoint: Url
    user_id: TextOrFile
    encryption_key: SecretText


class Network(Section):
    proxy: Annotated[str | None, _from_text(values.proxy, "a URL or null", or_null=True)] = ABSENT
    ca_file: Annotated[Path | None, _path(secrets.readable_file)] = ABSENT
    timeout: Annotated[timedelta, _duration(timedelta(seconds=1), timedelta(minutes=10))] = ABSENT


class Limits(Section):
    calls_per_20s: Annotated[int, _whole(6, 100, ": Marketo allows 100 to all integrations together")] = ABSENT
    concurrency: Annotated[int, _from_text(values.concurrency, "a whole number")] = ABSENT
    daily_calls: Annotated[int, _whole(100, None)] = ABSENT
    subscription_calls: Annotated[int | None, _from_text(values.subscription_calls, "a whole number or null", or_null=True)] = ABSENT
    urgent_reserve: Annotated[int, _from_text(values.urgent_reserve, "a whole number")] = ABSENT
    import_slots: Annotated[int, _whole(1, 10, ": Marketo has 10 for all integrations together")] = ABSENT
    import_running: Annotated[int, _whole(1, 2, ": Marketo runs 2 imports at a time")] = ABSENT
    export_slots: Annotated[int, _whole(1, 10, ": Marketo has 10 for all integrations together")] = ABSENT
    export_running: Annotated[int, _whole(1, 2, ": Marketo runs 2 exports at a time")] = ABSENT
    export_daily_bytes: Annotated[int, _size(1_000_000, 1_000_000_000_000)] = ABSENT


class Keys(Section):
    type: KeyType
    values: Annotated[tuple[Annotated[str, BeforeValidator(_key)], ...] | None, BeforeValidator(_keys), AfterValidator(_once)] = ABSENT
    file: Annotated[Path | None, _path(secrets.later_file)] = ABSENT


class Select(Section):
    """One kind of leads; the others are absent or null, as rules.py sees to."""

    updated_since: Annotated[datetime | None, _from_text(values.since, "a time such as 2016-01-01T00:00:00Z", or_null=True)] = ABSENT
    static_list: Annotated[str | None, _from_text(values.list_name, "a list's name", or_null=True)] = ABSENT
    static_list_id: Annotated[int | None, _from_text(lambda text: values.whole(text, 1, None), "a list's id", or_null=True)] = ABSENT
    smart_list: Annotated[str | None, _from_text(values.text, "a list's name", or_null=True)] = ABSENT
    smart_list_id: Annotated[int | None, _from_text(lambda text: values.whole(text, 1, None), "a list's id", or_null=True)] = ABSENT
    keys: Keys | None = None


class Pull(Section):
    source: Source
    select: Select
    fields: Annotated[tuple[str, ...] | dict[str, str], BeforeValidator(_fields)] = ABSENT
    where: dict[Text, Annotated[tuple[Wanted, ...], BeforeValidator(_wanted), AfterValidator(_once)]] | None = None
    every: Annotated[timedelta, _duration(timedelta(seconds=1))] = ABSENT
    batch_size: Annotated[int, _whole(1, 1000, ": Marketo returns no more; it recommends 300 at most")] = ABSENT
    streams: Annotated[int, _from_text(values.streams, "a whole number")] = ABSENT
    window: Annotated[timedelta, _duration(timedelta(minutes=1), timedelta(days=30), ": Marketo refuses a time range of over 30 days")] = (
        ABSENT
    )
    overlap: Annotated[timedelta, _duration(timedelta())] = ABSENT
    margin: Annotated[timedelta, _duration(timedelta())] = ABSENT


class Poll(Section):
    min: Annotated[timedelta, _duration(timedelta(seconds=1), timedelta(minutes=10))] = ABSENT
    max: Annotated[timedelta, _duration(timedelta(seconds=1), timedelta(minutes=10))] = ABSENT


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
    where: Annotated[str | None, _from_text(values.text, "an SQL condition or null", or_null=True)] = None
    every: Annotated[timedelta, _duration(timedelta(seconds=10))] = ABSENT
    on_delete: dict[Text, Annotated[str | None, _from_text(values.text, "a text or null", or_null=True)]] = ABSENT


class FieldFrom(Section):
    """One of the two, as rules.py sees to."""

    column: Annotated[str | None, _from_text(values.text, "a column's name", or_null=True)] = None
    const: Annotated[str | None, _from_text(values.text, "a text", or_null=True)] = None


class Guard(Section):
    canary: Annotated[int, _whole(1, 10_000)] = ABSENT
    canary_max_failures: Annotated[Decimal, _from_text(values.share, "a share such as 2%")] = ABSENT
    hold_above: Annotated[int | None, _from_text(values.per_hour, "a rate such as 20000/h, or null", or_null=True)] = ABSENT
    max_created: Annotated[int | None, _from_text(values.per_day, "a rate such as 5000/d, or null", or_null=True)] = ABSENT


class FieldRule(Section):
    only_set: Annotated[bool, _from_text(values.truth, "true or false")] = ABSENT
    never: Annotated[tuple[Wanted, ...], BeforeValidator(_unwanted)] = ABSENT
    owner: Literal["us", "marketo"] = ABSENT


class Push(Section):
    lookup_field: Text = ABSENT
    mode: Literal["upsert", "update_only"] = ABSENT
    format: Format = ABSENT
    list_id: Annotated[int | None, _from_text(lambda text: values.whole(text, 1, None), "a list's id or null", or_null=True)] = ABSENT
    partition: Annotated[str | None, _from_text(values.text, "a partition's name or null", or_null=True)] = ABSENT
    max_body_bytes: Annotated[int, _size(1000, 9_999_999, ": Marketo refuses bodies of 10 MB")] = ABSENT
    flush_after: Annotated[timedelta, _duration(timedelta())] = ABSENT
    unconfirmed_after: Annotated[timedelta, _duration(timedelta(minutes=1))] = ABSENT
    clear_with: ClearWith = ABSENT
    mend: Mend = Field(default_factory=Mend)
    deleted_in_marketo: Literal["skip", "recreate"] = ABSENT
    rules: dict[Text, Annotated[FieldRule, BeforeValidator(_rule)]] = Field(default_factory=dict)
    poll: Poll = Field(default_factory=Poll)
    from_: Annotated[FromTable | None, BeforeValidator(_outbox_or_table)] = Field(default=None, alias="from")
    fields: dict[Text, Annotated[FieldFrom, BeforeValidator(_column_or_constant)]] = ABSENT
    guard: Guard | None = None
    hours: Annotated[Hours | None, _from_text(values.hours, "hours and a time zone, or null", or_null=True)] = ABSENT


class Keep(Section):
    outcomes: Annotated[timedelta, _duration(timedelta(days=7), 10 * _YEAR)] = ABSENT
    payloads: Annotated[timedelta, _duration(timedelta(days=1), 10 * _YEAR)] = ABSENT


class Instance(Section):
    rest: Rest | None = None
    soap: Soap | None = None
    network: Network = Field(default_factory=Network)
    limits: Limits = Field(default_factory=Limits)
    history: Annotated[timedelta | None, _duration(timedelta(days=1), 10 * _YEAR, or_null=True)] = ABSENT
    census: Annotated[timedelta | None, _duration(timedelta(days=1), or_null=True)] = ABSENT
    keep: Keep = Field(default_factory=Keep)
    pulls: dict[Name, Pull] = Field(default_factory=dict)
    pushes: dict[Name, Push] = Field(default_factory=dict)


class Http(Section):
    listen: Annotated[tuple[str, int], _from_text(values.listen, "an address such as 127.0.0.1:9464")] = ABSENT
    token: Annotated[Secret | None, _around(lambda given, around: None if given is None else secrets.secret(given, around))] = ABSENT


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = ABSENT
    format: Literal["json", "logfmt", "console"] = ABSENT
    metrics_every: Annotated[timedelta, _duration(timedelta(seconds=1))] = ABSENT


class Defaults(Section):
    defaults: Instance | None = None


class Document(Defaults):
    """The whole YAML, each instance already laid over `defaults`."""

    database: Database
    instances: dict[InstanceName, Instance]
    http: Http | None = Field(default_factory=Http)
    logging: Logging = Field(default_factory=Logging)
