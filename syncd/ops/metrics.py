"""What syncd counts, by Prometheus' naming rules; served at /metrics and written to the log every `metrics_every`."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

import syncd
from syncd.core.brake import BrakeKind
from syncd.core.faults import Fault
from syncd.core.observe import Service
from syncd.core.pack import Packing
from syncd.core.quota import Api
from syncd.core.verify import Cause
from syncd.ops.levels import Levels

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of its own for each counter is noise


class Metrics:
    """The counters of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.levels = Levels(self.registry)
        Info("syncd_build", "Which syncd this is", registry=self.registry).info({"version": syncd.__version__})
        by_pull, by_push = ("instance", "pull"), ("instance", "push")
        self._pages = Counter("syncd_pages", "Pages of leads written", by_pull, registry=self.registry)
        self._seen = Counter("syncd_leads_seen", "Leads that pages brought", by_pull, registry=self.registry)
        self._changed = Counter(
            "syncd_leads_changed", "Leads written to the mirror: created, or changed", (*by_pull, "kind"), registry=self.registry
        )
        self._dropped = Counter("syncd_leads_dropped", "Leads that a pull's where did not let in", by_pull, registry=self.registry)
        self._changes = Counter("syncd_changes", "Rows of changes by what became of them", (*by_push, "outcome"), registry=self.registry)
        self._calls = Counter("syncd_api_calls", "Exchanges with Marketo", ("instance", "api", "endpoint", "code"), registry=self.registry)
        self._seconds = Histogram(
            "syncd_api_call_seconds",
            "How long exchanges took",
            ("instance", "api", "endpoint"),
            registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
        )
        self._faults = Counter("syncd_faults", "Faults that a flow had to act on", ("instance", "nature", "code"), registry=self.registry)
        self._holder = Gauge("syncd_lease_held", "1 while this daemon works for the instance", ("instance",), registry=self.registry)
        self._brake = Gauge(
            "syncd_brake", "Share of the configured limit that Marketo leaves to us (1 = all)", ("instance", "kind"), registry=self.registry
        )
        self._paused = Gauge(
            "syncd_api_paused", "1 while an API waits for its daily quota to be reset", ("instance", "api"), registry=self.registry
        )
        self._skew = Gauge(
            "syncd_clock_skew_seconds", "How far Marketo's clock is ahead of this host's", ("instance",), registry=self.registry
        )
        self._subscription = Gauge(
            "syncd_subscription_calls_today",
            "REST calls of the quota day, ours and those of other integrations",
            ("instance", "owner"),
            registry=self.registry,
        )
        self._drift = Counter(
            "syncd_field_drift", "Fields that appeared, vanished or changed their type", ("instance", "kind"), registry=self.registry
        )
        self._awaited = Gauge(
            "syncd_fields_awaited", "Fields that describe does not list and changes wait for", ("instance",), registry=self.registry
        )
        self._exports = Gauge("syncd_exports", "Exports under way, by their state", ("instance", "state"), registry=self.registry)
        self._export_bytes = Gauge(
            "syncd_export_bytes_today", "Bytes of the exports that were completed in the quota day", ("instance",), registry=self.registry
        )
        self._export_limit = Gauge("syncd_export_bytes_limit", "limits.export_daily_bytes", ("instance",), registry=self.registry)
        self._ended = Counter("syncd_exports_ended", "Exports by what became of them", (*by_pull, "outcome"), registry=self.registry)
        self._loaded = Counter("syncd_export_rows_loaded", "Rows of extracts written or found unchanged", by_pull, registry=self.registry)
        self._nuls = Counter("syncd_export_nuls", "NUL bytes that were cut out of extracts", by_pull, registry=self.registry)
        self._due = Gauge(
            "syncd_due_seconds", "How long the lead that is due for longest has waited to be read", by_pull, registry=self.registry
        )
        self._drifted = Gauge(
            "syncd_drift",
            "Leads that the last census found missing from the mirror, or in it and no longer at Marketo's",
            ("instance", "kind"),
            registry=self.registry,
        )
        self._verified = Gauge(
            "syncd_verify_drift",
            "Fields of leads that the last verification found to differ, by cause",
            ("instance", "cause"),
            registry=self.registry,
        )
        self._gone = Counter("syncd_leads_gone", "Leads of the mirror that were deleted or merged", ("instance",), registry=self.registry)
        self._forgotten = Counter(
            "syncd_forgotten_refused",
            "Leads and changes of forgotten people that were kept out, by the way they came",
            ("instance", "way"),
            registry=self.registry,
        )
        self._progress = Counter("syncd_steps", "Steps taken", ("instance", "flow"), registry=self.registry)
        self._last_step = Gauge(
            "syncd_last_step_timestamp_seconds", "When a flow last took a step", ("instance", "flow"), registry=self.registry
        )
        self._waited = Histogram(
            "syncd_limiter_wait_seconds",
            "How long calls waited for the limits",
            ("instance", "api"),
            registry=self.registry,
            buckets=(0.01, 0.1, 0.5, 1, 5, 10, 20, 60),
        )
        self._polls = Counter("syncd_polls", "Looks at jobs in Marketo's queues", ("instance", "queue"), registry=self.registry)
        self._phases = Histogram(
            "syncd_import_job_seconds",
            "How long imports were queued, ran, and waited for their results to be written",
            ("instance", "phase"),
            registry=self.registry,
            buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600),
        )
        self._fill = Histogram(
            "syncd_chunk_fill_ratio",
            "How full the files were that Marketo took, of max_body_bytes",
            by_push,
            registry=self.registry,
            buckets=(0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 1),
        )
        self._reconnects = Counter(
            "syncd_database_reconnects", "Sessions with the database that followed a lost one", ("instance",), registry=self.registry
        )

    def page(self, instance: str, pull: str, seen: int, created: int, changed: int, dropped: int = 0) -> None:
        """A page was written."""
        self._pages.labels(instance, pull).inc()
        self._seen.labels(instance, pull).inc(seen)
        self._changed.labels(instance, pull, "created").inc(created)
        self._changed.labels(instance, pull, "changed").inc(changed)
        self._dropped.labels(instance, pull).inc(dropped)

    def exports(self, instance: str, counts: Mapping[str, int], spent: int, limit: int) -> None:
        """What is under way at Marketo, and what the day has cost."""
        for state in ("creating", "unconfirmed", "created", "queued", "processing", "completed"):
            self._exports.labels(instance, state).set(counts.get(state, 0))
        self._export_bytes.labels(instance).set(spent)
        self._export_limit.labels(instance).set(limit)

    def export_ended(self, instance: str, pull: str, outcome: str, count: int = 1) -> None:
        """Exports came to an end: loaded, failed, cancelled, expired."""
        self._ended.labels(instance, pull, outcome).inc(count)

    def extract(self, instance: str, pull: str, rows: int, nuls: int, created: int, changed: int, dropped: int) -> None:
        """A window of an extract was loaded."""
        self._loaded.labels(instance, pull).inc(rows)
        self._nuls.labels(instance, pull).inc(nuls)
        self._seen.labels(instance, pull).inc(rows)
        self._changed.labels(instance, pull, "created").inc(created)
        self._changed.labels(instance, pull, "changed").inc(changed)
        self._dropped.labels(instance, pull).inc(dropped)

    def claimed(self, instance: str, push: str, packing: Packing) -> None:
        """Changes ended, or were set aside, before they came into a chunk."""
        for _, state, _ in packing.ended:
            self._changes.labels(instance, push, state).inc()
        self._changes.labels(instance, push, "parked").inc(len(packing.parked) + len(packing.lacking))

    def awaited(self, instance: str, fields: int) -> None:
        """Parked changes wait for so many fields."""
        self._awaited.labels(instance).set(fields)

    def settled(self, instance: str, push: str, counts: Mapping[str, int]) -> None:
        """A job's rows got their ends."""
        for outcome, count in counts.items():
            self._changes.labels(instance, push, outcome).inc(count)

    def exchange(self, instance: str, service: Service, endpoint: str, code: str, seconds: float) -> None:
        """One exchange ended (core/observe.py)."""
        self._calls.labels(instance, service, endpoint, code).inc()
        self._seconds.labels(instance, service, endpoint).observe(seconds)

    def clock_skew(self, instance: str, seconds: float) -> None:
        """A reply told the server's time (core/observe.py)."""
        self._skew.labels(instance).set(seconds)

    def brake(self, instance: str, kind: BrakeKind, share: Callable[[], float]) -> None:
        """Where the brake's share is looked up at each scrape: it eases while nothing happens."""
        self._brake.labels(instance, kind).set_function(share)

    def paused(self, instance: str, api: Api, paused: Callable[[], bool]) -> None:
        """Where an API's pause is looked up at each scrape."""
        self._paused.labels(instance, api).set_function(paused)

    def subscription(self, instance: str, ours: int, others: int) -> None:
        """The usage of the quota day was learnt."""
        self._subscription.labels(instance, "ours").set(ours)
        self._subscription.labels(instance, "others").set(others)

    def field_drift(self, instance: str, appeared: int, vanished: int, retyped: int) -> None:
        """Describe was asked, and differs by so many fields from its last answer."""
        for kind, count in (("appeared", appeared), ("vanished", vanished), ("retyped", retyped)):
            self._drift.labels(instance, kind).inc(count)

    def due(self, instance: str, pull: str, waited: timedelta | None) -> None:
        """The lead that is due for longest has waited so long; None when none is due."""
        self._due.labels(instance, pull).set(0 if waited is None else max(0.0, waited.total_seconds()))

    def drift(self, instance: str, missing: int, surplus: int) -> None:
        """A census has ended."""
        self._drifted.labels(instance, "missing").set(missing)
        self._drifted.labels(instance, "surplus").set(surplus)

    def verified(self, instance: str, counts: Mapping[Cause, int]) -> None:
        """A verification has ended."""
        for cause, count in counts.items():
            self._verified.labels(instance, cause).set(count)

    def gone(self, instance: str, leads: int) -> None:
        """Leads of the mirror were found deleted or merged."""
        self._gone.labels(instance).inc(leads)

    def forgotten(self, instance: str, way: str, refused: int) -> None:
        """Rows of forgotten people were kept out."""
        if refused:
            self._forgotten.labels(instance, way).inc(refused)

    def fault(self, instance: str, fault: Fault) -> None:
        """A flow met a fault."""
        self._faults.labels(instance, fault.nature.value, fault.code).inc()

    def lease(self, instance: str, held: bool) -> None:
        """The lease was won or lost."""
        if not held:  # whoever works for it now tells; counters stay, for they say what was done here
            self.levels.forget(instance)
            for gauge in vars(self).values():
                if isinstance(gauge, Gauge):
                    _forget(gauge, instance)
        self._holder.labels(instance).set(held)

    def anew(self, instance: str, pulls: Collection[str]) -> None:
        """The flows begin anew, with these pulls: of others, and of the flows before, nothing is told any longer."""
        _forget(self._last_step, instance)
        _forget(self._due, instance, but=pulls)

    def left(self, instance: str) -> None:
        """The instance has left the configuration: that nobody here works for it is nobody's trouble."""
        self._holder.remove(instance)

    def progress(self, instance: str, flow: str, now: datetime) -> None:
        """A flow took a step."""
        self._progress.labels(instance, flow).inc()
        self._last_step.labels(instance, flow).set(now.timestamp())

    def waited(self, instance: str, api: Api, seconds: float) -> None:
        """A call has got its turn (core/observe.py)."""
        self._waited.labels(instance, api).observe(seconds)

    def polled(self, instance: str, queue: Literal["import", "export"]) -> None:
        """A job in one of Marketo's queues was looked at."""
        self._polls.labels(instance, queue).inc()

    def import_ended(self, instance: str, submitted: datetime, started: datetime | None, finished: datetime | None, now: datetime) -> None:
        """An import was settled; its phases as far as they were seen."""
        began = started or finished
        for phase, since, until in (("queued", submitted, began), ("importing", began, finished), ("settling", finished, now)):
            if since is not None and until is not None:
                self._phases.labels(instance, phase).observe(max(0.0, (until - since).total_seconds()))

    def accepted(self, instance: str, push: str, size: int, limit: int) -> None:
        """Marketo took a file of so many bytes."""
        self._fill.labels(instance, push).observe(size / limit)

    def reconnected(self, instance: str) -> None:
        """A session with the database was opened in place of a lost one."""
        self._reconnects.labels(instance).inc()

    def value(self, name: str, **labels: str) -> float | None:
        """What /metrics shows of a sample; None when there is none."""
        return self.registry.get_sample_value(name, labels)

    def samples(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Every sample as /metrics would show it."""
        for metric in self.registry.collect():
            for sample in metric.samples:
                yield sample.name, sample.labels, sample.value


def _forget(gauge: Gauge, instance: str, but: Collection[str] = ()) -> None:
    """Show its samples of the instance no longer, but those of these pulls."""
    for sample in [sample for family in gauge.collect() for sample in family.samples]:
        if sample.labels["instance"] == instance and sample.labels.get("pull") not in but:
            gauge.remove(*sample.labels.values())
