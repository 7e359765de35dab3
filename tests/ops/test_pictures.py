"""Alerts and dashboard ask for metrics and labels that there are, and each alert has its runbook and its test."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncd.ops.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "syncd.rules.yaml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
TESTS: dict[str, Any] = yaml.safe_load((PROMETHEUS / "syncd.rules.test.yaml").read_text("utf-8"))
BOARD: dict[str, Any] = json.loads((ROOT / "config" / "grafana" / "syncd.json").read_text("utf-8"))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")

COMING: dict[str, set[str]] = {
    "syncd_pull_watermark_timestamp_seconds": {"instance", "pull"},
    "syncd_pull_state": {"instance", "pull", "state"},
    "syncd_pull_windows": {"instance", "pull", "state"},
    "syncd_push_state": {"instance", "push", "state"},
    "syncd_push_closed": {"instance", "push"},
    "syncd_outbox_changes": {"instance", "push", "state"},
    "syncd_oldest_pending_timestamp_seconds": {"instance", "push"},
    "syncd_failures": {"instance", "push", "state"},
    "syncd_import_slots": {"instance", "owner", "state"},
    "syncd_api_calls_today": {"instance", "api"},
    "syncd_api_calls_left": {"instance"},
    "syncd_import_job_seconds_bucket": {"instance", "phase", "le"},
    "syncd_chunk_fill_ratio_sum": {"instance", "push"},
    "syncd_chunk_fill_ratio_count": {"instance", "push"},
    "syncd_limiter_wait_seconds_sum": {"instance", "api"},
    "syncd_limiter_wait_seconds_count": {"instance", "api"},
}
"""Metrics that may not be there yet; no others."""
LANGUAGE = {
    *("abs", "absent", "and", "by", "delta", "histogram_quantile", "increase", "max", "min", "on", "or", "rate", "sum", "time", "unless"),
    *("group_left", "group_right", "max_over_time"),
}
SCRAPED = {"up": {"job", "instance"}}  # Prometheus' own
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}


def samples() -> dict[str, set[str]]:
    """The samples that syncd shows, with their labels. The registry tells labels of samples alone, of which there are none yet."""
    found: dict[str, set[str]] = {}
    registry = Metrics().registry
    labels = {names[0]: set(getattr(collector, "_labelnames", ())) for collector, names in registry._collector_to_names.items()}
    for family in registry.collect():
        for suffix in SUFFIXES[family.type]:
            found[family.name + suffix] = labels[family.name] | ({"le"} if suffix == "_bucket" else set())
    return found


KNOWN = COMING | samples() | SCRAPED


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of an expression, with the labels that are chosen by; everything else must be words of the language."""
    bare = re.sub(r"\[[^\]]*\]|\b(?:by|on)\s*\([^)]*\)", " ", re.sub(r'"[^"]*"', "", expression))
    for name, matchers in re.findall(r"\b([a-z_:][a-z0-9_:]*)\s*(?:\{([^}]*)\})?", bare):
        if name not in LANGUAGE:
            yield name, set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))


def assert_can_be_asked(expression: str) -> None:
    for name, labels in asked(expression):
        assert name in KNOWN, f"no metric {name}"
        assert labels <= KNOWN[name], f"{name} has no labels {labels - KNOWN[name]}"
    grouped = {label.strip() for labels in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression) for label in labels.split(",")}
    assert grouped <= set().union(*(KNOWN[name] for name, _ in asked(expression)))
    assert expression.count("(") == expression.count(")")


def test_what_is_not_there_is_found() -> None:
    by_a_label = ('syncd_lease_held{colour="red"}', "sum by (colour) (syncd_lease_held)")
    for wrong in ("rate(syncd_pages[5m])", "syncd_nothing", "summ(up)", *by_a_label):
        with pytest.raises(AssertionError):
            assert_can_be_asked(wrong)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
class TestAlert:
    def test_it_asks_for_what_there_is(self, rule: dict[str, Any]) -> None:
        assert_can_be_asked(rule["expr"])

    def test_its_texts_name_labels_that_it_has(self, rule: dict[str, Any]) -> None:
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert named <= set().union(*(KNOWN[name] for name, _ in asked(rule["expr"])))

    def test_its_runbook_has_a_section_of_its_own(self, rule: dict[str, Any]) -> None:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert re.search(rf"^### {rule['alert']}$", OPERATIONS, re.MULTILINE)

    def test_it_is_tried_where_it_must_come(self, rule: dict[str, Any]) -> None:
        tries = [case for test in TESTS["tests"] for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
        come = [alert for case in tries for alert in case.get("exp_alerts", ())]
        assert come, "no test lets it come"
        assert all(alert["exp_labels"].items() >= rule["labels"].items() for alert in come)
        assert all(alert["exp_annotations"]["runbook"] == rule["annotations"]["runbook"] for alert in come)


def test_few_alerts_wake_somebody() -> None:
    severities = [rule["labels"]["severity"] for rule in RULES]
    assert set(severities) == {"page", "ticket"}
    assert severities.count("page") <= 3


def test_each_alert_is_there_once_and_so_is_each_runbook() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert re.findall(r"^### (Syncd\w+)$", OPERATIONS, re.MULTILINE) == names


def test_the_series_of_the_tests_are_ours() -> None:
    for test in TESTS["tests"]:
        for series in test["input_series"]:
            name, labels = re.fullmatch(r"(\w+)\{(.*)\}", series["series"]).groups()  # type: ignore[union-attr]
            assert set(re.findall(r"(\w+)=", labels)) <= KNOWN[name] | {"job"}


QUERIES = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_the_dashboard_asks_for_what_there_is(title: str, expression: str) -> None:
    assert_can_be_asked(expression)
    assert "$instance" in expression


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in BOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(BOARD)))
    assert used == variables
