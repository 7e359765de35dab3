"""Gauges of what the database says. They are told whole at each beat: what is no longer told is no longer shown."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from syncd.core.gauges import SLOTS, Gauges
from syncd.core.settings import Limits
from syncd.core.states import CHANGE, PULL, PUSH, is_final

LIVE = tuple(state for state in CHANGE if not is_final(CHANGE, state))
OURS = ("submitting", "queued", "importing", "unconfirmed")


class Level:
    """One gauge, whose samples of an instance are replaced together."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, *labels: str) -> None:
        self._gauge = Gauge(name, text, ("instance", *labels), registry=registry)
        self._told: dict[str, set[tuple[str, ...]]] = {}

    def tell(self, instance: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Show these, by the labels after the instance, and no others."""
        for labels in self._told.get(instance, set()) - values.keys():
            self._gauge.remove(instance, *labels)
        for labels, value in values.items():
            self._gauge.labels(instance, *labels).set(value)
        self._told[instance] = set(values)


class Levels:
    """All of them, in the registry of the daemon's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pull_state = Level(registry, "syncd_pull_state", "1 for the state that the pull is in", "pull", "state")
        self._watermark = Level(
            registry, "syncd_pull_watermark_timestamp_seconds", "Up to when the mirror has what the pull asks for", "pull"
        )
        self._windows = Level(registry, "syncd_pull_windows", "Windows that are not walked yet", "pull", "state")
        self._push_state = Level(registry, "syncd_push_state", "1 for the state that the push is in", "push", "state")
        self._outside = Level(registry, "syncd_push_closed", "1 while the push may not import, by its `hours`", "push")
        self._outbox = Level(registry, "syncd_outbox_changes", "Live changes, by their state", "push", "state")
        self._oldest = Level(
            registry, "syncd_oldest_pending_timestamp_seconds", "Since when the change that is pending for longest has waited", "push"
        )
        self._failures = Level(registry, "syncd_failures", "Changes that ended so and that nobody has retried", "push", "state")
        self._lost = Level(
            registry, "syncd_attach_lost_changes", "Changes of attached tables that errors have lost since syncd attach", "push"
        )
        self._slots = Level(
            registry, "syncd_import_slots", "Marketo's import slots, as far as can be known, by who holds them", "owner", "state"
        )
        self._calls = Level(registry, "syncd_api_calls_today", "Our calls of the quota day, as charged ahead", "api")
        self._left = Level(registry, "syncd_api_calls_left", "What is left of limits.daily_calls")

    def show(self, instance: str, found: Gauges, limits: Limits, outside: Mapping[str, bool]) -> None:
        """The database was asked. `outside` says which pushes are outside their hours."""
        self._pull_state.tell(instance, {(pull, each): each == state for pull, state in found.pulls.items() for each in PULL})
        self._watermark.tell(instance, {(pull,): at.timestamp() for pull, at in found.watermarks.items()})
        self._windows.tell(instance, {(pull, state): count for (pull, state), count in found.windows.items()})
        self._push_state.tell(instance, {(push, each): each == state for push, state in found.pushes.items() for each in PUSH})
        self._outside.tell(instance, {(push,): value for push, value in outside.items()})
        pushes = {*found.pushes, *(push for push, _ in found.live)}
        self._outbox.tell(instance, {(push, state): found.live.get((push, state), 0) for push in pushes for state in LIVE})
        self._oldest.tell(instance, {(push,): at.timestamp() for push, at in found.oldest_pending.items()})
        failed = {*pushes, *(push for push, _ in found.failures)}
        ends = ("rejected", "unverified")
        self._failures.tell(instance, {(push, state): found.failures.get((push, state), 0) for push in failed for state in ends})
        self._lost.tell(instance, {(push,): count for push, count in found.lost.items()})
        self._slots.tell(instance, _slots(found))
        self._calls.tell(instance, {(api,): found.calls.get(api, 0) for api in ("rest", "soap")})
        self._left.tell(instance, {(): max(0, limits.daily_calls - sum(found.calls.values()))})

    def forget(self, instance: str) -> None:
        """Somebody else works for the instance now, and tells of it."""
        for level in vars(self).values():
            level.tell(instance, {})


def _slots(found: Gauges) -> dict[tuple[str, ...], float]:
    """All ten of them, by owner and state."""
    slots: dict[tuple[str, ...], float] = {("ours", state): found.slots.get(state, 0) for state in OURS}
    slots["others", "taken"] = found.strangers
    slots["nobody", "free"] = max(0, SLOTS - sum(slots.values()))
    return slots
