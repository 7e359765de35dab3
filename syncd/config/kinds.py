"""The kinds of values that the YAML's keys hold, each read from the text that was written, or refused with what is allowed."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationInfo

from syncd.config import secrets, values
from syncd.config.values import NotAllowed
from syncd.core.settings import Secret

YEAR = timedelta(days=365)


def from_text(read: Callable[[str], object], allowed: str = "a single value", *, or_null: bool = False) -> BeforeValidator:
    """What `read` makes of the text of a single value; `allowed` says which it may be."""

    def validate(given: object) -> object:
        if given is None and or_null:
            return None
        if not isinstance(given, str):
            raise NotAllowed(allowed)
        return read(given)

    return BeforeValidator(validate)


def around(read: Callable[[Any, secrets.Surroundings], object]) -> BeforeValidator:
    """What `read` makes of it, given the environment and the files around the YAML."""

    def validate(given: object, info: ValidationInfo) -> object:
        assert isinstance(info.context, secrets.Surroundings)
        return read(given, info.context)

    return BeforeValidator(validate)


def whole(low: int, high: int | None, why: str = "") -> BeforeValidator:
    """A whole number from `low` to `high`; `why` it is no more."""
    return from_text(lambda text: values.whole(text, low, high, why), "a whole number")


def duration(low: timedelta, high: timedelta = YEAR, why: str = "", *, or_null: bool = False) -> BeforeValidator:
    """A duration from `low` to `high`."""
    allowed = "a duration such as 90s, 5m or 30d"
    return from_text(lambda text: values.duration_between(text, low, high, why), allowed, or_null=or_null)


def size(low: int, high: int, why: str = "") -> BeforeValidator:
    """A size in bytes."""
    return from_text(lambda text: values.size_between(text, low, high, why), "a size such as 9900000 or 9.9MB")


def path(read: Callable[[str, secrets.Surroundings], Path]) -> BeforeValidator:
    """A path, or null."""

    def validate(given: object, around: secrets.Surroundings) -> Path | None:
        if given is None:
            return None
        if not isinstance(given, str):
            raise NotAllowed("a path")
        return read(given, around)

    return around(validate)


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


def _unwanted(given: object) -> object:
    """The values that `never` keeps back: one, or a list of some. That nothing is sent is said by only_set."""
    texts = given if isinstance(given, list) else [given]
    if not texts or any(text is None or text == "" for text in texts):
        raise ValueError("needs a value, or a list of some; that a field is never cleared is said by only_set")
    return texts


Name = Annotated[str, from_text(values.name)]
InstanceName = Annotated[str, from_text(values.instance_name)]
Text = Annotated[str, from_text(values.text, "a text")]
SecretText = Annotated[Secret, around(secrets.secret)]
# Settings hold the SOAP user as a text, so one in a file is read at load only.
TextOrFile = Annotated[str, around(lambda given, around: secrets.reveal(secrets.secret(given, around)))]
Url = Annotated[str, from_text(values.endpoint, "a URL")]
Wanted = Annotated[str, from_text(values.sendable, "a text"), BeforeValidator(lambda given: "" if given is None else given)]
WantedTexts = Annotated[tuple[Wanted, ...], BeforeValidator(_wanted), AfterValidator(_once)]
UnwantedTexts = Annotated[tuple[Wanted, ...], BeforeValidator(_unwanted)]
FieldNames = Annotated[tuple[str, ...] | dict[str, str], BeforeValidator(_fields)]
KeyTexts = Annotated[tuple[Annotated[str, BeforeValidator(_key)], ...] | None, BeforeValidator(_keys), AfterValidator(_once)]

_FIELDS = TypeAdapter(Annotated[tuple[Text, ...], AfterValidator(_distinct)])
_FIELDS_BY_COLUMN = TypeAdapter(dict[Annotated[str, from_text(values.column)], Text])
