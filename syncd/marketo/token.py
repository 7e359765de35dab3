"""The REST access token: OAuth client credentials (protocol 2)."""

import asyncio
from datetime import datetime, timedelta
from urllib.parse import urlencode

import orjson

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.settings import Rest
from syncd.marketo.errors import garbled, http_fault
from syncd.marketo.session import Call, Message, Reply, Session

ENDPOINT = "identity"
EARLY = timedelta(seconds=30)
MAX_REPLY = 64 * 1024


class Token:
    """The token in use, asked for when there is none and shortly before it ends; never asked for twice at a time.

    Every Fault says `executed=False`: the call that the token was wanted for has not been sent.
    """

    def __init__(self, session: Session, rest: Rest, clock: Clock) -> None:
        self._session = session
        self._rest = rest
        self._clock = clock
        self._asking = asyncio.Lock()
        self._value: str | None = None
        self._usable_until: datetime | None = None

    async def current(self) -> str:
        """A token that is valid for a while yet. Raises Fault, CONFIGURATION when client id or secret is refused."""
        async with self._asking:
            if self._value is None or self._usable_until is None or self._clock.now() >= self._usable_until:
                await self._ask()
            assert self._value is not None
            return self._value

    async def renew(self, refused: str) -> str:
        """The token after `refused` was answered with 601 or 602; callers refused at the same time share one renewal."""
        async with self._asking:
            if self._value is None or self._value == refused:
                await self._ask()
            assert self._value is not None
            return self._value

    async def _ask(self) -> None:
        self._value = None
        asked_at = self._clock.now()
        url = f"{self._rest.identity.rstrip('/')}/oauth/token"
        try:
            self._value, life = await self._session.send(Call("identity", ENDPOINT, "POST", url, self._form), _read)
        except Fault as fault:
            fault.executed = False
            raise
        # Asked again early, identity returns the same token with its remaining life: half of a short one is left to be used.
        self._usable_until = asked_at + max(life - EARLY, life / 2)

    def _form(self) -> Message:
        # Revealed at each asking: a secret that was rotated on disk is in use after the first refusal.
        try:
            credentials = {"client_id": self._rest.client_id.reveal(), "client_secret": self._rest.client_secret.reveal()}
        except OSError as error:
            message = f"client id or secret can't be read: {error.strerror} ({error.filename})"
            raise Fault(Nature.CONFIGURATION, "secret", message, ENDPOINT) from error
        form = urlencode({"grant_type": "client_credentials", **credentials}).encode()
        return Message({"Content-Type": "application/x-www-form-urlencoded"}, (form,))


async def _read(reply: Reply) -> tuple[str, timedelta]:
    body = await reply.body(MAX_REPLY)
    if reply.status == 401:
        message = "client id or client secret is wrong: compare both with Admin > LaunchPoint"
        raise Fault(Nature.CONFIGURATION, "http_401", message, ENDPOINT)
    if reply.status != 200:
        raise http_fault(reply.status, f"identity answered HTTP {reply.status}", ENDPOINT)
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise garbled("identity's reply is not JSON", ENDPOINT) from None
    match answer:
        case {"access_token": str(value), "expires_in": int(seconds)} if _usable(value) and 0 < seconds < 10**9:
            return value, timedelta(seconds=seconds)
    raise garbled("identity's reply has no token", ENDPOINT)


def _usable(value: str) -> bool:
    """Whether it can stand in a header: a line break in it would be a header of its own."""
    return value.isascii() and value.isprintable() and value.strip() == value != ""
