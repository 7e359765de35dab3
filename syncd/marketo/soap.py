"""SOAP getMultipleLeads against one endpoint (protocol 1)."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TypeVar

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.settings import Soap
from syncd.core.values import LeadPage, LeadRecord
from syncd.marketo.errors import http_fault
from syncd.marketo.session import Call, Message, Reply, Session
from syncd.marketo.soap_reply import OnPosition, ReplyParser
from syncd.marketo.soap_request import SOAP_ACTION, LastUpdated, Selector, get_multiple_leads

T = TypeVar("T")
ENDPOINT = "getMultipleLeads"
MAX_REPLY = 64 * 1024 * 1024


class SoapApi:
    """Pages of leads. Each attempt is signed anew, at its sending; every failure is a Fault."""

    def __init__(self, session: Session, soap: Soap, clock: Clock) -> None:
        self._session = session
        self._soap = soap
        self._clock = clock
        self._key: str | None = None

    def now(self) -> datetime:
        """The time, by Marketo's clock where that is known to be behind ours."""
        return self._session.marketo_now()

    async def lead_page(
        self,
        *,
        oldest: datetime,
        latest: datetime,
        position: str | None,
        batch_size: int,
        fields: Sequence[str],
        on_position: OnPosition | None = None,
    ) -> LeadPage[LeadRecord]:
        """One page of the leads updated from `oldest` to `latest`; `position` None asks for the first.

        `on_position` is told the next position (None at the end) and the remaining count as soon as they have been read, before
        the leads: the page may still fail. An end of stream (20123) is an empty last page. Raises Fault.
        """
        return await self.page(LastUpdated(oldest, latest), position, batch_size, fields, as_it_came, on_position)

    async def page(
        self,
        selector: Selector,
        position: str | None,
        batch_size: int,
        fields: Sequence[str],
        form: Callable[[LeadRecord], T],
        on_position: OnPosition | None = None,
    ) -> LeadPage[T]:
        """One page of whatever `selector` names, each lead in the `form` that is wanted of it, else like `lead_page`."""
        asked_at = self._clock.now()

        def compose() -> Message:
            nonlocal asked_at
            asked_at = self._clock.now()
            body = get_multiple_leads(
                user_id=self._soap.user_id,
                encryption_key=self._encryption_key(),
                now=asked_at,
                selector=selector,
                position=position,
                batch_size=batch_size,
                fields=fields,
            )
            return Message({"Content-Type": "text/xml; charset=utf-8", "SOAPAction": SOAP_ACTION}, (body,))

        async def read(reply: Reply) -> LeadPage[T]:
            leads, remaining, next_position = await _read(reply, form, on_position)
            return LeadPage(leads, remaining, next_position, asked_at)

        try:
            return await self._session.send(Call("soap", ENDPOINT, "POST", self._soap.endpoint, compose), read)
        except Fault as fault:
            if fault.nature is Nature.CONFIGURATION:
                self._key = None  # it may have been rotated: read again at the next attempt
            if fault.nature is not Nature.EMPTY:
                raise
        if on_position is not None:
            on_position(None, 0)
        return LeadPage((), 0, None, asked_at)

    def _encryption_key(self) -> str:
        try:
            self._key = self._key or self._soap.encryption_key.reveal()
        except OSError as error:
            message = f"the SOAP encryption key can't be read: {error.strerror} ({error.filename})"
            raise Fault(Nature.CONFIGURATION, "secret", message, ENDPOINT, executed=False) from error
        return self._key


def as_it_came(lead: LeadRecord) -> LeadRecord:
    """The form of who wants no other."""
    return lead


async def _read(reply: Reply, form: Callable[[LeadRecord], T], on_position: OnPosition | None) -> tuple[Sequence[T], int, str | None]:
    if reply.status not in (200, 500):
        raise http_fault(reply.status, f"answered HTTP {reply.status}", ENDPOINT)
    parser = ReplyParser(ENDPOINT, on_position if reply.status == 200 else None, form)
    try:
        async with aclosing(reply.pieces(MAX_REPLY)) as pieces:
            async for piece in pieces:
                parser.feed(piece)
                await asyncio.sleep(0)  # a large page must not hold up the rest of the daemon
        page = parser.finish()
    except Fault as fault:
        if reply.status == 500 and fault.code == "garbled":  # no fault of Marketo's: a gateway's page
            raise http_fault(500, "answered HTTP 500 without a SOAP fault", ENDPOINT) from None
        raise
    if reply.status == 500:
        raise http_fault(500, "answered HTTP 500 with a page of leads", ENDPOINT)
    return page
