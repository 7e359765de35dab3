"""Everything that speaks to one instance, built together and closed together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from syncd.core.clock import Clock
from syncd.core.observe import Observe
from syncd.core.quota import CallLedger
from syncd.core.settings import Instance
from syncd.marketo.activities import Activities
from syncd.marketo.exports import Exports
from syncd.marketo.imports import Imports
from syncd.marketo.leads import Leads
from syncd.marketo.limiter import Limiter
from syncd.marketo.rest import RestApi
from syncd.marketo.session import Session
from syncd.marketo.soap import SoapApi
from syncd.marketo.sync import SyncLeads
from syncd.marketo.token import Token


@dataclass(frozen=True, slots=True)
class Wire:
    """The interfaces of an instance that its configuration gives access to."""

    token: Token | None
    rest: RestApi | None
    imports: Imports | None
    exports: Exports | None
    activities: Activities | None
    leads: Leads | None
    sync: SyncLeads | None
    soap: SoapApi | None
    limiter: Limiter
    now: Callable[[], datetime]
    """The time, by Marketo's clock where that is known to be behind ours."""


@asynccontextmanager
async def open_wire(
    instance: Instance, clock: Clock, ledger: CallLedger, observe: Observe, may_call: Callable[[], bool]
) -> AsyncIterator[Wire]:
    """Open the session to `instance` behind one limiter; give back to the ledger what was reserved and not used.

    `may_call` is asked as the last thing before each call goes out, however long that had to wait for its turn.
    """
    kept = instance.limits.urgent_calls if instance.pushes else 0  # without pushes nothing is urgent
    limiter = Limiter(instance.name, instance.limits, clock, ledger, observe, kept)
    try:
        async with Session(instance.name, instance.network, limiter, clock, observe, may_call) as session:
            soap = SoapApi(session, instance.soap, clock) if instance.soap else None
            if instance.rest is None:
                yield Wire(None, None, None, None, None, None, None, soap, limiter, session.marketo_now)
            else:
                token = Token(session, instance.rest, clock)
                rest = RestApi(session, instance.rest, token)
                imports, exports, activities, leads = Imports(rest), Exports(rest), Activities(rest), Leads(rest, clock)
                yield Wire(token, rest, imports, exports, activities, leads, SyncLeads(rest), soap, limiter, session.marketo_now)
    finally:
        await limiter.aclose()
