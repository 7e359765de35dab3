"""All the flows of one instance: which ones its settings ask for, and what each is given."""

import random
from collections.abc import Sequence
from functools import partial

from syncd.core.clock import Clock
from syncd.core.settings import Instance
from syncd.flows.answer import Answer
from syncd.flows.census import CensusTaker
from syncd.flows.changes import Changes
from syncd.flows.deletions import Deletions
from syncd.flows.dictionary import Dictionaries
from syncd.flows.exporters import exporters_of
from syncd.flows.exporting import Reach
from syncd.flows.fetch import Fetcher
from syncd.flows.follow import Follower
from syncd.flows.forget import Forgetter
from syncd.flows.gauges import Beat
from syncd.flows.guard import Guard
from syncd.flows.keep import Keeper
from syncd.flows.loop import Flow
from syncd.flows.preflight import Checks
from syncd.flows.pull import streams_of
from syncd.flows.push import Packer, Submitter
from syncd.flows.resting import Resting
from syncd.flows.route import Router
from syncd.flows.settle import Settler
from syncd.flows.sweep import Sweep
from syncd.flows.sync import Syncer
from syncd.flows.usage import Usage
from syncd.flows.verify import Verifier
from syncd.marketo.deleting import LeadDeletion
from syncd.marketo.describe import describe
from syncd.marketo.wire import Wire
from syncd.ops.metrics import Metrics
from syncd.store import exports
from syncd.store.leases import Lease


def flows_of(instance: Instance, lease: Lease, wire: Wire, clock: Clock, metrics: Metrics, jitter: random.Random) -> Sequence[Flow]:
    """Built, and not begun."""
    rest = wire.rest
    dictionaries = Dictionaries(instance, (lambda: describe(rest)) if rest else None, lease, clock, metrics)
    flows: list[Flow] = [Sweep(instance, lease, clock), Keeper(instance, lease, clock), Answer(instance, wire, lease, clock)]
    flows.append(Beat(instance, lease, clock, metrics))
    flows += _inbound(instance, lease, wire, dictionaries, clock, metrics, jitter)
    flows += [Follower(instance, push, lease, clock) for push in instance.pushes if push.from_table is not None]
    flows.append(Forgetter(instance, LeadDeletion(rest) if rest else None, lease, clock, metrics, jitter))
    if rest is not None:
        flows.append(Resting(Usage(instance.name, instance.limits, rest, wire.limiter, lease, clock, metrics), "both", lease, clock))
    return [*flows, *_outbound(instance, lease, wire, dictionaries, clock, metrics, jitter)]


def _outbound(
    instance: Instance, lease: Lease, wire: Wire, dictionaries: Dictionaries, clock: Clock, metrics: Metrics, jitter: random.Random
) -> Sequence[Flow]:
    name, limits = instance.name, instance.limits
    checks = Checks(instance, dictionaries, lease, clock, metrics)
    flows: list[Flow] = []
    if wire.imports is not None:
        flows.append(Settler(name, instance.pushes, limits, wire.imports, lease, clock, metrics, jitter))
        if any(push.guard is not None for push in instance.pushes):
            flows.append(Guard(name, instance.pushes, lease, clock))
        if instance.pushes:
            flows += [
                Packer(name, instance.pushes, limits, lease, clock, metrics, checks),
                Submitter(name, instance.pushes, limits, wire.imports, lease, clock, metrics, jitter),
            ]
    if wire.sync is not None:
        flows.append(Syncer(name, instance.pushes, wire.sync, lease, clock, metrics, jitter, checks))
    return flows


def _inbound(
    instance: Instance, lease: Lease, wire: Wire, dictionaries: Dictionaries, clock: Clock, metrics: Metrics, jitter: random.Random
) -> Sequence[Flow]:
    if not instance.pulls:
        return []
    flows: list[Flow] = [Resting(dictionaries, "both", lease, clock)]
    for pull in instance.pulls:
        if pull.source == "soap" and wire.soap is not None:
            flows += streams_of(instance, pull, wire.soap, dictionaries.vocabulary, lease, clock, metrics, jitter)
    return [*flows, *_through_rest(instance, lease, wire, dictionaries, clock, metrics, jitter)]


def _through_rest(
    instance: Instance, lease: Lease, wire: Wire, dictionaries: Dictionaries, clock: Clock, metrics: Metrics, jitter: random.Random
) -> Sequence[Flow]:
    """What REST tells: of pulls through it all, of others what has gone and what is to be read by its id."""
    if wire.exports is None or wire.activities is None or wire.leads is None:
        return []
    vocabulary = dictionaries.vocabulary
    oldest_export = partial(exports.oldest_asked, lease.pool, instance.name)
    deletions = Deletions(instance, wire.activities, lease, clock, metrics, jitter, wire.now, oldest_export)
    flows: list[Flow] = [Resting(deletions, "in", lease, clock)]
    flows += [Fetcher(instance, pull, wire.leads, vocabulary, lease, clock, metrics, jitter) for pull in instance.pulls]
    router = Router(instance, wire, vocabulary, lease, clock, metrics, jitter)
    through_rest = [pull for pull in instance.pulls if pull.source != "soap"]
    for pull in through_rest:
        if pull.since is not None:
            flows.append(Changes(instance, pull, wire.activities, vocabulary, lease, clock, metrics, jitter, wire.now))
    may_fill = {pull.name: partial(router.may_fill, pull.name) for pull in through_rest}
    reach = Reach(wire.exports, lease, clock, metrics, jitter)
    taker = CensusTaker(instance, wire.leads, lease, clock, metrics, jitter, wire.now) if instance.census is not None else None
    flows += [Resting(taker, "in", lease, clock)] if taker is not None else []
    flows.append(Resting(Verifier(instance, wire.leads, dictionaries, lease, clock, metrics, jitter), "in", lease, clock))
    on_census = taker.found if taker is not None else None
    return [*flows, router, *exporters_of(instance, reach, vocabulary, wire.now, may_fill, router.no_updated_at, on_census)]
