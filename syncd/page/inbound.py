"""The pulls of an instance: how far each is, its windows as a bar over time, and exports under way."""

from collections.abc import Sequence
from datetime import datetime

from syncd.core.words import megabytes, moment, span
from syncd.page.html import Html, element, joined, table
from syncd.page.words import ago, entry, number, standing
from syncd.store.board import InstanceBoard, Stretch
from syncd.store.pull_status import PullStatus
from syncd.store.status import ExportStatus

WIDTH = 1000.0  # of a bar, in its own units
THINNEST = 6.0
STATES = ("done", "open", "blocked")


def pulls_of(board: InstanceBoard, now: datetime) -> Html:
    """A card for each."""
    cards = [_pull(pull, board, now) for pull in board.status.pulls]
    exports = _exports(board.status.exports, now) if board.status.exports else None
    return joined(element("h3", "Pulls"), element("div", *cards, class_="cards"), exports)


def _pull(pull: PullStatus, board: InstanceBoard, now: datetime) -> Html:
    end = board.expected_ends.get(pull.name)
    behind = pull.open_windows or pull.leads_left or pull.leads_due
    facts = [
        entry("up to", moment(pull.watermark) if pull.watermark else None),
        entry("lag", span(now - pull.watermark) if pull.watermark else None),
        entry("windows to walk", number(pull.open_windows)),
        entry("windows walked", number(pull.done_windows)),
        entry("leads left", number(pull.leads_left)),
        entry("leads due", f"{pull.leads_due:,}, for {span(now - pull.due_since)}" if pull.due_since else number(pull.leads_due)),
        entry("expected end", moment(end) if end else "not known" if behind else "caught up"),
        entry("backfill", _backfill(pull)),
        entry("comes by", pull.route),
    ]
    message = element("p", pull.message, class_="warn") if pull.message else None
    bar = windows_bar(pull.name, board.windows.get(pull.name, ()))
    return element("article", element("h4", pull.name, " ", standing(pull)), bar, element("dl", *facts), message, class_="card")


def _backfill(pull: PullStatus) -> str | None:
    if pull.backfill is None:
        return None
    return f"{pull.backfill.done:,} of {pull.backfill.windows:,} windows" if pull.backfill.planned_at else "ordered"


def windows_bar(pull: str, stretches: Sequence[Stretch]) -> Html | None:
    """What has been walked of the time, and what has not; as words, too."""
    if not stretches:
        return None
    first, last = stretches[0].starts_at, max(each.ends_at for each in stretches)
    whole = max(1.0, (last - first).total_seconds())
    bars = []
    for each in stretches:
        x = (each.starts_at - first).total_seconds() / whole * WIDTH
        width = max(THINNEST, (each.ends_at - each.starts_at).total_seconds() / whole * WIDTH)
        bars.append(element("rect", x=f"{min(x, WIDTH - THINNEST):.1f}", y="0", width=f"{width:.1f}", height="10", class_=each.state))
    counts = {state: sum(each.windows for each in stretches if each.state == state) for state in STATES}
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    label = f"Windows of {pull} from {moment(first)} to {moment(last)}: {told}"
    drawn = element("svg", *bars, viewBox=f"0 0 {WIDTH:.0f} 10", preserveAspectRatio="none", role="img", aria_label=label)
    return joined(drawn, element("p", f"{first:%Y-%m-%d} to {last:%Y-%m-%d}: {told}", class_="soft"))


def _exports(exports: Sequence[ExportStatus], now: datetime) -> Html:
    rows: list[list[object]] = [
        [
            each.id,
            each.pull,
            each.state,
            f"{each.part + 1} of {each.parts}",
            number(each.records),
            megabytes(each.bytes) if each.bytes is not None else None,
            ago(each.begun_at, now),
            each.message,
        ]
        for each in exports
    ]
    headings = ["export", "pull", "state", "part", "leads", "size", "begun", "message"]
    return table("Exports under way", headings, rows, frozenset({0, 4, 5}))
