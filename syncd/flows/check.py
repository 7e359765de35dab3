"""Tries every way to an instance that its configuration needs, and says what to do about each that fails.

By reads only, but for an export that is created and cancelled, never queued, to learn which filters there are (offers.py).
"""

import asyncio
import difflib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.findings import Finding
from syncd.core.mirror import Dictionary, Vocabulary
from syncd.core.route import ASK_FOR_ACTIVITIES, NoWay, Offers
from syncd.core.settings import Instance, Keys, Limits, Pull, Push, StaticList
from syncd.core.values import Field
from syncd.core.windows import floor_second
from syncd.flows.offers import may_read_activities, offers, way_of
from syncd.marketo.describe import describe
from syncd.marketo.imports import Imports
from syncd.marketo.rest import RestApi
from syncd.marketo.soap import SoapApi, as_it_came
from syncd.marketo.soap_request import StaticList as ListSelector
from syncd.marketo.token import Token
from syncd.marketo.usage import usage
from syncd.marketo.wire import Wire

NO_BATCH = 1  # any id will do: what is asked for is the right to ask
SPAN = timedelta(minutes=1)
LIST_NOT_FOUND = "20111"
UNDECIDED = {Nature.TRANSIENT, Nature.RATE, Nature.QUOTA, Nature.TOKEN}
TRY_AGAIN = "run syncd check again in a while; if it stays, ask Marketo's support"


async def probe(instance: Instance, wire: Wire, clock: Clock) -> list[Finding]:
    """What can be found out from here, in the order in which it should be mended. Calls are charged like any others."""
    path = f"instances.{instance.name}"
    files = (_key_file(pull, pull.select.file, path) for pull in instance.pulls if isinstance(pull.select, Keys) and pull.select.file)
    return await _together(_rest(instance, wire, clock, path), _soap(instance, wire, clock, path), *files)


async def _together(*parts: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    """All at once, as each call beside a daemon's own waits for its turn. The first error leaves as it is, not in a group:
    the loop knows the database's."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return [finding for findings in await asyncio.gather(*tasks) for finding in findings]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _rest(instance: Instance, wire: Wire, clock: Clock, path: str) -> list[Finding]:
    if wire.token is None or wire.rest is None or wire.imports is None:
        return []
    identity = await _identity(wire.token, path)
    if not identity.ok:
        return [identity]
    parts = _describe(instance, wire, clock, path), _import_status(instance, wire.imports, path), _usage(instance, wire.rest)
    return [identity, *await _together(*parts)]


async def _identity(token: Token, path: str) -> Finding:
    what = "REST identity"
    try:
        await token.current()
    except Fault as fault:
        if fault.code == "http_401":
            remedy = f"correct {path}.rest.client_id or client_secret: compare both with Admin > LaunchPoint, View Details"
            return Finding(what, False, "identity refuses the client id or the client secret; REST was not tried further", remedy)
        return Finding(what, False, f"{fault}; REST was not tried further", _remedy(fault, f"{path}.rest.endpoint (or identity)", path))
    return Finding(what, True, "a token was given")


async def _describe(instance: Instance, wire: Wire, clock: Clock, path: str) -> list[Finding]:
    what = "REST describe"
    assert wire.rest is not None, "only REST describes"
    try:
        fields = await describe(wire.rest)
    except Fault as fault:
        remedy = _remedy(fault, f"{path}.rest.endpoint", path, "to read leads")
        return [Finding(what, False, f"{fault}; names of fields were not tried", remedy)]
    return [
        Finding(what, True, f"{len(fields)} fields"),
        *(_lookup_field(push, fields, path) for push in instance.pushes),
        *(_clears(push) for push in instance.pushes),
        *(_rules(push, instance.pulls, fields, path) for push in instance.pushes if push.rules),
        *(_pulled_fields(pull, fields, path) for pull in instance.pulls if pull.fields),
        *await _ways(instance, wire, Dictionary.of_rest(fields), clock, path),
    ]


async def _ways(instance: Instance, wire: Wire, dictionary: Dictionary, clock: Clock, path: str) -> list[Finding]:
    """Which way each pull through REST will go; how many leads there are nobody knows here."""
    pulls = [pull for pull in instance.pulls if pull.source != "soap"]
    now = clock.now()
    if not pulls:
        return [await _deletions(wire, now)] if instance.pulls else []
    try:
        offered = await offers(wire, now)
    except Fault as fault:
        remedy = _remedy(fault, f"{path}.rest.endpoint", path, "to read leads and to make bulk extracts of them")
        return [Finding("REST bulk extract", False, str(fault), remedy)]
    return [_way(pull, offered, dictionary, now, instance.limits) for pull in pulls]


async def _deletions(wire: Wire, now: datetime) -> Finding:
    """Pulls by pages see none by themselves; whatever becomes of this, they go on."""
    what = "REST activities"
    try:
        if await may_read_activities(wire, now):
            return Finding(what, True, "deletions and merges are seen")
    except Fault as fault:
        return Finding(what, True, f"not known now, which stops nothing: {fault}")
    return Finding(what, True, f"the API user may not read the activity log: deletions and merges are not seen; {ASK_FOR_ACTIVITIES}")


def _way(pull: Pull, offered: Offers, dictionary: Dictionary, now: datetime, limits: Limits) -> Finding:
    what = f"pull {pull.name}: source"
    try:
        return Finding(what, True, f"{pull.source}: {way_of(pull, offered, dictionary, 0, now, limits).reason}")
    except NoWay as none:
        happened, _, remedy = str(none).partition(": ")
        return Finding(what, False, happened, remedy)


async def _import_status(instance: Instance, imports: Imports, path: str) -> list[Finding]:
    """Asks for a batch that can't be ours: nobody documents the answer [unknown], so any but a refusal of rights shows the right."""
    if not instance.pushes:
        return []
    what = "REST bulk import"
    try:
        await imports.status(NO_BATCH)
    except Fault as fault:
        if fault.nature is Nature.CONFIGURATION:
            return [Finding(what, False, str(fault), _remedy(fault, f"{path}.rest.endpoint", path, "to read and write leads"))]
        if fault.nature in UNDECIDED:
            return [Finding(what, False, str(fault), _remedy(fault, f"{path}.rest.endpoint", path))]
        return [Finding(what, True, f"asking for the status of an import is allowed (answered {fault.code})")]
    return [Finding(what, True, "asking for the status of an import is allowed")]


async def _usage(instance: Instance, rest: RestApi) -> list[Finding]:
    """Whatever becomes of it, nothing depends on it."""
    what = "REST usage"
    try:
        found = await usage(rest)
    except Fault as fault:
        if fault.nature is Nature.CONFIGURATION:
            note = "the API user has no right to read it: other integrations' share of the quota is not known, which stops nothing"
            return [Finding(what, True, f"{fault}; {note}")]
        return [Finding(what, True, f"not known now, which stops nothing: {fault}")]
    allowed = instance.limits.subscription_calls
    of = f" of {allowed:,}" if allowed is not None else ""
    return [Finding(what, True, f"{found.total:,}{of} REST calls today, by {len(found.users)} API users (US Central)")]


async def _soap(instance: Instance, wire: Wire, clock: Clock, path: str) -> list[Finding]:
    if wire.soap is None:
        return []
    signature = await _signature(wire.soap, clock, path)
    lists = [(pull, pull.select) for pull in instance.pulls if isinstance(pull.select, StaticList)]
    if not signature.ok and lists:
        return [replace(signature, detail=f"{signature.detail}; static lists were not tried")]
    return [signature, *await _together(*(_static_list(pull, select, wire.soap, path) for pull, select in lists))]


async def _signature(soap: SoapApi, clock: Clock, path: str) -> Finding:
    what = "SOAP signature"
    now = floor_second(clock.now())
    try:
        await soap.lead_page(oldest=now - SPAN, latest=now, position=None, batch_size=1, fields=())
    except Fault as fault:
        if fault.code == "20014":
            remedy = f"correct {path}.soap.user_id or encryption_key: compare both with Admin > Web Services > SOAP API"
            return Finding(what, False, str(fault), remedy)
        if fault.nature is Nature.SIGNATURE:
            return Finding(what, False, f"{fault}; {_skew(fault)}", "set this machine's clock by NTP (timedatectl set-ntp true)")
        return Finding(what, False, str(fault), _remedy(fault, f"{path}.soap.endpoint", path, "to call the SOAP API"))
    return Finding(what, True, "getMultipleLeads accepts it")


async def _static_list(pull: Pull, select: StaticList, soap: SoapApi, path: str) -> list[Finding]:
    """Asks for one member, with the fields left open: a misspelt one is another's to find."""
    what = f"pull {pull.name}: static list"
    try:
        page = await soap.page(ListSelector(select.list), None, 1, (), as_it_came)
    except Fault as fault:
        if fault.code != LIST_NOT_FOUND:
            return [Finding(what, False, str(fault), _remedy(fault, f"{path}.soap.endpoint", path, "to call the SOAP API"))]
        key, form = ("static_list_id", "its id") if isinstance(select.list, int) else ("static_list", "ProgramName.ListName")
        detail = f"Marketo finds no static list {select.list} ({fault.code})"
        return [Finding(what, False, detail, f"correct {path}.pulls.{pull.name}.select.{key}: {form}, as Marketo has it now")]
    members = len(page.leads) + page.remaining
    return [Finding(what, True, f"{select.list} has {members:,} member{'' if members == 1 else 's'}")]


async def _key_file(pull: Pull, file: Path, path: str) -> list[Finding]:
    """Without its keys this pull alone stands still, so nothing else tells before it blocks."""
    what = f"pull {pull.name}: keys"
    key = f"{path}.pulls.{pull.name}.select.keys.file"
    try:
        lines = (await asyncio.to_thread(file.read_text, "utf-8-sig")).splitlines()
    except OSError as error:
        remedy = f"put it there, readable for the user whom syncd runs as, or correct {key}"
        return [Finding(what, False, f"the file of keys can't be read: {error.strerror} ({file})", remedy)]
    except UnicodeDecodeError:
        return [Finding(what, False, f"the file of keys is not UTF-8 text ({file})", f"save it as UTF-8, one key a line, or correct {key}")]
    keys = {line.strip() for line in lines} - {""}
    if not keys:
        return [Finding(what, False, f"the file of keys has no key ({file})", f"write one key a line into it, or correct {key}")]
    return [Finding(what, True, f"{len(keys):,} key{'' if len(keys) == 1 else 's'} in {file}")]


def _skew(fault: Fault) -> str:
    if fault.clock_skew is None:
        return "the server does not tell its time"
    return f"this machine's clock is {abs(fault.clock_skew):.0f} s {'behind' if fault.clock_skew > 0 else 'ahead of'} the server's"


def _clears(push: Push) -> Finding:
    """How fields are emptied, and which can't be (protocol 4)."""
    what = f"push {push.name}: clears"
    if push.clear_with != "sync":
        return Finding(
            what, True, f"by a cell of the file, {push.clear_with}: as Marketo documents nothing of it, try it with one lead first"
        )
    if push.list_id is not None:
        return Finding(what, True, "a change that clears a field is parked: Sync Leads adds to no list, and clear_with names no cell")
    return Finding(
        what, True, "by Sync Leads; of a company's fields (company, website, industry, …) none can be cleared without clear_with"
    )


def _lookup_field(push: Push, fields: Sequence[Field], path: str) -> Finding:
    what = f"push {push.name}: lookup_field"
    names = [field.rest.name for field in fields if field.rest]
    if push.lookup_field in names:
        return Finding(what, True, f"{push.lookup_field} is a field")
    detail = f"Marketo has no field with the REST name {push.lookup_field}"
    return Finding(what, False, detail, f"correct {path}.pushes.{push.name}.lookup_field: {_nearest(push.lookup_field, names)}")


def _rules(push: Push, pulls: Sequence[Pull], fields: Sequence[Field], path: str) -> Finding:
    """A rule of a field that there is not rules nothing; and of one that no pull brings, nobody knows whether it has a value."""
    what, vocabulary = f"push {push.name}: rules", Vocabulary.of(fields)
    where = f"{path}.pushes.{push.name}.rules"
    unknown = [name for name in push.rules if name not in vocabulary.rest.names]
    if unknown:
        hints = "; ".join(f"{name}: {_nearest(name, vocabulary.rest.names)}" for name in unknown)
        return Finding(what, False, f"Marketo has no field with the REST name {', '.join(unknown)}", f"correct {where}: {hints}")
    pulled = {"email"}.union(*(vocabulary.owned(pull) or () for pull in pulls))
    unseen = [name for name, rule in push.rules.items() if rule.owner == "marketo" and name not in pulled]
    if unseen:
        detail = f"no pull brings {', '.join(unseen)}: whether a lead has a value that is Marketo's, nobody would know"
        return Finding(what, False, detail, f"add it to the fields of a pull, or take owner: marketo out of {where}")
    return Finding(what, True, f"{len(push.rules)} field{'' if len(push.rules) == 1 else 's'}, all there")


def _pulled_fields(pull: Pull, fields: Sequence[Field], path: str) -> Finding:
    """Either interface's name will do, for a field that the source knows."""
    what = f"pull {pull.name}: fields"
    vocabulary = Vocabulary.of(fields)
    own, other = (vocabulary.soap, vocabulary.rest) if pull.source == "soap" else (vocabulary.rest, vocabulary.soap)
    unknown = [name for name in pull.fields if own.on_the_wire(name) is None]
    if not unknown:
        return Finding(what, True, f"{len(pull.fields)} field{'' if len(pull.fields) == 1 else 's'}, all there")
    interfaces = ("SOAP", "REST") if pull.source == "soap" else ("REST", "SOAP")
    hints = [f"{name}: only {interfaces[1]} has it" if name in other.names else f"{name}: {_nearest(name, own.names)}" for name in unknown]
    detail = f"Marketo has no field with the {interfaces[0]} name {', '.join(unknown)}"
    return Finding(what, False, detail, f"correct {path}.pulls.{pull.name}.fields: {'; '.join(hints)}")


def _nearest(name: str, names: Iterable[str]) -> str:
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {by_lower[near[0]]}?" if near else "look up its name in Admin > Field Management"


def _remedy(fault: Fault, endpoint: str, path: str, right: str | None = None) -> str:
    """What to do about a fault that any exchange may meet. `right` is what the API user must be allowed to do for this one."""
    match fault.code:
        case "secret":
            return "make that file readable for the user whom syncd runs as"
        case "connect" | "url" | "redirect" | "http_404" | "garbled":
            return f"correct {endpoint}; it must be the instance's own address, reachable from here"
        case "timeout" | "connection":
            return f"check {endpoint}, the firewall and {path}.network"
        case "proxy":
            return f"correct {path}.network.proxy"
        case "certificate":
            return f"correct {path}.network.ca_file or {endpoint}"
        case "urgent_reserve" | "subscription_calls":
            return f"wait for the reset, or correct {path}.limits.subscription_calls or urgent_reserve"
        case "daily_calls":
            return f"wait for the reset, or raise {path}.limits.daily_calls"
    match fault.nature:
        case Nature.QUOTA:
            return "wait until midnight US Central, when Marketo's quota resets"
        case Nature.RATE:
            return f"run syncd check again; if it stays, lower {path}.limits: other integrations use the same allowance"
        case Nature.CONFIGURATION if right:
            return f"allow the API user {right}: Admin > Users & Roles, the role of that user"
    return TRY_AGAIN
