"""All the flows of an instance's extracts, built together: they share its queue at Marketo and the bytes of its day."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from syncd.core.mirror import Vocabulary
from syncd.core.settings import Instance
from syncd.flows.export import ExportStarter, OnNoUpdatedAt
from syncd.flows.export_load import ExportLoader, OnCensus
from syncd.flows.export_poll import ExportPoller
from syncd.flows.exporting import Exporting, Reach
from syncd.flows.loop import Flow
from syncd.flows.plan import Planner

LOADERS = 2
"""Files that are loaded at a time (decisions.md, extract load); each takes a connection for the download, and one for the fence."""

MayFill = Callable[[], Awaitable[bool]]


def exporters_of(
    instance: Instance,
    reach: Reach,
    vocabulary: Callable[[], Awaitable[Vocabulary]],
    marketo_now: Callable[[], datetime],
    may_fill: Mapping[str, MayFill] | None = None,
    on_no_updated_at: OnNoUpdatedAt | None = None,
    on_census: OnCensus | None = None,
) -> Sequence[Flow]:
    """A starter for each pull that is filled by extracts, and one for the census where it has a hook; one poller; two loaders.

    `may_fill` tells of a pull, by its name, whether what follows its fill is ready to miss nothing meanwhile.
    """
    shared = Exporting(instance.limits)
    flows: list[Flow] = []
    for pull in instance.pulls:
        if pull.source in ("bulk_extract", "auto"):
            ready = (may_fill or {}).get(pull.name)
            hooks = () if ready is None else (ready,)
            planner = Planner(instance, pull, reach.lease, reach.clock, marketo_now, *hooks)
            flows.append(ExportStarter(instance, pull, shared, planner, vocabulary, reach, on_no_updated_at))
    if on_census is not None:
        flows.append(ExportStarter(instance, None, shared, None, vocabulary, reach))
    flows.append(ExportPoller(instance.name, shared, reach))
    flows += [ExportLoader(instance, number, shared, vocabulary, reach, on_census) for number in range(LOADERS)]
    return flows
