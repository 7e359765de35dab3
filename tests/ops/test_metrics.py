"""What is no longer told once a lease is lost, or a pull has gone."""

from datetime import UTC, datetime, timedelta

from syncd.ops.metrics import Metrics

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def told() -> Metrics:
    metrics = Metrics()
    for instance in ("acme", "beta"):
        metrics.lease(instance, held=True)
        metrics.clock_skew(instance, 90.0)
        metrics.due(instance, "people", timedelta(hours=1))
        metrics.due(instance, "guests", timedelta(hours=1))
        metrics.exports(instance, {"queued": 1}, 5, 10)
        metrics.subscription(instance, 1, 2)
        metrics.awaited(instance, 3)
        metrics.drift(instance, 1, 2)
        metrics.verified(instance, {"mirror_behind": 1})
        metrics.progress(instance, "pull people", NOW)
        metrics.brake(instance, "pace", lambda: 0.5)
        metrics.paused(instance, "rest", lambda: True)
        metrics.page(instance, "people", 300, 1, 2)
    return metrics


def gauges(metrics: Metrics, instance: str) -> set[str]:
    families = [family for family in metrics.registry.collect() if family.type == "gauge"]
    return {sample.name for family in families for sample in family.samples if sample.labels["instance"] == instance}


def test_who_has_lost_the_lease_tells_of_nothing_but_that_and_what_was_counted() -> None:
    metrics = told()
    metrics.lease("acme", held=False)
    assert gauges(metrics, "acme") == {"syncd_lease_held"}
    assert metrics.value("syncd_lease_held", instance="acme") == 0
    assert metrics.value("syncd_leads_seen_total", instance="acme", pull="people") == 300
    assert len(gauges(metrics, "beta")) > 10, "of others it goes on to tell"


def test_flows_that_begin_anew_tell_no_longer_of_pulls_and_flows_that_are_gone() -> None:
    metrics = told()
    metrics.anew("acme", ["guests"])
    assert metrics.value("syncd_due_seconds", instance="acme", pull="people") is None
    assert metrics.value("syncd_due_seconds", instance="acme", pull="guests") == 3600
    assert metrics.value("syncd_last_step_timestamp_seconds", instance="acme", flow="pull people") is None
    assert metrics.value("syncd_due_seconds", instance="beta", pull="people") == 3600
    assert metrics.value("syncd_drift", instance="acme", kind="missing") == 1, "it holds until the next census"
