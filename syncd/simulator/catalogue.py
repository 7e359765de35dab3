"""The fields that one simulated instance has just now. They come and go at any time (protocol section 3.3)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from syncd.simulator.fields import CATALOGUE, Field


class Catalogue:
    """Fields in the order of describe, and by each of their names. One per world, so that one rehearsal never changes another's."""

    def __init__(self, fields: Iterable[Field] = CATALOGUE) -> None:
        self.version = 0
        """Rises with every change, for whoever keeps something made of the fields."""
        self._set(list(fields))

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields)

    def add(self, field: Field) -> None:
        """Put a field at the end. Raises ValueError when its id or one of its names is taken."""
        names = {field.key} | {name for name in (field.rest, field.soap) if name is not None}
        if names & {*self.by_key, *self.by_rest, *self.by_soap} or any(each.id == field.id for each in self._fields):
            raise ValueError(f"the id or a name of field '{field.key}' is taken")
        self._set([*self._fields, field])

    def remove(self, key: str) -> None:
        """Take a field out, by its REST name (SOAP name where there is no other). Raises KeyError for an unknown one."""
        gone = self.by_key[key]
        self._set([each for each in self._fields if each is not gone])

    def retype(self, key: str, data_type: str) -> None:
        """Give a field another dataType, in its place. Raises KeyError for an unknown one."""
        old = self.by_key[key]
        self._set([replace(each, data_type=data_type) if each is old else each for each in self._fields])

    def _set(self, fields: list[Field]) -> None:
        self._fields = fields
        self.by_key: dict[str, Field] = {each.key: each for each in fields}
        self.by_rest: dict[str, Field] = {each.rest: each for each in fields if each.rest}
        self.by_soap: dict[str, Field] = {each.soap: each for each in fields if each.soap}
        self.version += 1
