"""Prometheus' rules for names, units and help texts, as promtool's linter has them, over all that syncd shows."""

import re

import pytest
from prometheus_client import Metric

import syncd
from syncd.ops.metrics import Metrics

FAMILIES = list(Metrics().registry.collect())
OTHER_UNITS = re.compile(r"_(milliseconds|ms|minutes|hours|days|weeks|kilobytes|kb|megabytes|mb|bits|percent|sec|s)(_|$)")
TYPES = re.compile(r"_(gauge|counter|histogram|summary|metric)(_|$)")
PERSONAL = {"email", "key", "name", "lead", "user", "user_id", "lead_id", "message", "reason"}
UNITS = {"seconds", "bytes", "ratio"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
class TestFamily:
    def test_its_name_is_ours_and_plain(self, family: Metric) -> None:
        assert re.fullmatch(r"syncd(_[a-z0-9]+)+", family.name)
        assert not OTHER_UNITS.search(family.name), "base units only"
        assert not TYPES.search(family.name)
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_total")), "suffixes that the client adds"

    def test_its_help_is_a_sentence(self, family: Metric) -> None:
        assert re.match(r"[A-Z0-9l]", family.documentation)
        assert not family.documentation.endswith(".")

    def test_what_it_measures_is_in_its_unit(self, family: Metric) -> None:
        if family.type == "histogram":
            assert family.name.rpartition("_")[2] in UNITS
        for unit in UNITS:
            if unit in family.name.split("_") and family.type != "counter":
                assert re.search(rf"_{unit}(_today|_limit)?$", family.name)
        if "timestamp" in family.name:
            assert family.name.endswith("_timestamp_seconds")


def labels_of(metrics: Metrics) -> dict[str, tuple[str, ...]]:
    collectors = metrics.registry._collector_to_names  # the registry tells label names of samples only, of which there are none yet
    return {names[0]: getattr(collector, "_labelnames", ()) for collector, names in collectors.items()}


def test_labels_are_few_and_none_is_about_a_person() -> None:
    labels = labels_of(Metrics())
    assert len(labels) > 30
    for name, given in labels.items():
        assert len(given) <= 4, name
        assert not PERSONAL & set(given), name
        assert given[:1] in ((), ("instance",)), name


def test_no_label_hides_a_field_of_the_log() -> None:
    assert not {label for given in labels_of(Metrics()).values() for label in given} & {"event", "time", "level", "name", "value"}


def test_the_build_is_told() -> None:
    (labels,) = [labels for name, labels, value in Metrics().samples() if name == "syncd_build_info" and value == 1]
    assert labels == {"version": syncd.__version__}
