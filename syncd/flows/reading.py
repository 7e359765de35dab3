"""What a pull asks Marketo for, and its replies in the mirror's form."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.batch import BatchSize
from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.mirror import Dictionary, MirrorRow, Vocabulary, mirror_row
from syncd.core.settings import Keys, Pull, SmartList, StaticList, UpdatedSince
from syncd.core.values import LeadRecord
from syncd.core.where import keeps
from syncd.flows.pages import OnPosition, Pages
from syncd.marketo import soap_request
from syncd.marketo.soap import SoapApi
from syncd.marketo.soap_request import LastUpdated, LeadKeys, Selector
from syncd.store.cursors import OpenWindow

SLICE = 50  # leads
TOO_MUCH = frozenset({"timeout", "10001", "20011", "http_500", "http_504", "reply_too_large"})
"""Faults that a smaller batch may be spared."""


@dataclass(frozen=True, slots=True)
class MirroredPage:
    """A reply in the mirror's form. `kept` says of each row whether the pull's `where` lets it in, where there is one."""

    rows: Sequence[MirrorRow]
    kept: Sequence[bool] | None
    vocabulary: Vocabulary
    remaining: int
    position: str | None
    asked_at: datetime


class Reader:
    """Reads for all streams of a pull, which share what one of them learns of the batch size."""

    def __init__(self, pull: Pull, soap: SoapApi, vocabulary: Callable[[], Awaitable[Vocabulary]], clock: Clock) -> None:
        self._pull = pull
        self._soap = soap
        self._vocabulary = vocabulary
        self._clock = clock
        self.batch = BatchSize(pull.batch_size)

    async def pages(self, window: OpenWindow) -> Pages[MirroredPage]:
        """The pages of a window from its position on, the first of them asked for. Raises Fault."""
        selector, fields = self._selector(window), asked_fields(self._pull, (await self._vocabulary()).soap)

        async def fetch(position: str | None, known: OnPosition) -> MirroredPage:
            asked, vocabulary = self.batch.size, await self._vocabulary()
            where = where_on_the_wire(self._pull, vocabulary.soap)

            def form(lead: LeadRecord) -> tuple[MirrorRow, bool]:
                return mirror_row(lead, vocabulary.soap), not where or keeps(lead, where)

            try:
                page = await self._soap.page(selector, position, asked, fields, form, known)
            except Fault as fault:
                if fault.code in TOO_MUCH:
                    self.batch = self.batch.failed(asked)
                raise
            self.batch = self.batch.answered(asked, len(page.leads), self._clock.now() - page.asked_at)
            kept = [kept for _, kept in page.leads] if where else None
            return MirroredPage([row for row, _ in page.leads], kept, vocabulary, page.remaining, page.position, page.asked_at)

        return Pages(fetch, window.position)

    def _selector(self, window: OpenWindow) -> Selector:
        match self._pull.select:
            case UpdatedSince():
                assert window.window is not None
                return LastUpdated(*window.window.asked())
            case StaticList(name):
                return soap_request.StaticList(name)
            case Keys(key_type):
                assert window.keys is not None
                return LeadKeys(key_type, window.keys)
            case SmartList():
                raise AssertionError("SOAP knows no smart lists; the configuration is refused")


def asked_fields(pull: Pull, dictionary: Dictionary) -> tuple[str, ...]:
    """The fields of the pull that there are: one that has vanished from describe must not make Marketo refuse all.

    Raises Fault(CONFIGURATION) when none is left, or when `where` goes by one that there is not.
    """
    fields, names = pull.fields, dictionary.names
    unknown = [name for name in pull.where if names and dictionary.on_the_wire(name) is None and name.lower() not in ("id", "email")]
    if unknown:
        message = f"Marketo has no field {', '.join(unknown)}, by which pulls.{pull.name}.where would keep out every lead"
        raise Fault(Nature.CONFIGURATION, "where", message, "describe")
    asked = dictionary.asked(fields) if names else fields
    if fields and not asked:
        message = f"Marketo has none of the fields that are asked for any more; correct pulls.{pull.name}.fields"
        raise Fault(Nature.CONFIGURATION, "fields", message, "describe")
    return asked


def where_on_the_wire(pull: Pull, dictionary: Dictionary) -> Mapping[str, tuple[str, ...]]:
    """The pull's `where` by the names that its replies use."""
    return {dictionary.on_the_wire(name) or name: allowed for name, allowed in pull.where.items()}
