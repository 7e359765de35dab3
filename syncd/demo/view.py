"""What a rehearsal looks like while it runs: a live board on a terminal, else a plain line every few seconds."""

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from structlog.typing import EventDict, WrappedLogger

from syncd.simulator import ExportView, Slot

RATE_OVER = 5.0  # real seconds that a rate looks back
EVENTS_KEPT = 40
SETTLED = ("applied", "warned", "rejected", "unverified", "superseded", "noop", "cancelled")
_COLOURS = {
    "pending": "yellow",
    "in_chunk": "blue",
    "parked": "magenta",
    "applied": "green",
    "warned": "dark_orange",
    "rejected": "red",
    "unverified": "bold red",
    "superseded": "cyan",
}
_EXPORT_STATES = {"Processing": "running", "Queued": "queued", "Completed": "complete"}
_UNTOLD = frozenset({"event", "level", "time", "instance", "logger", "request_id", "sha256"})


@dataclass(frozen=True)
class Glance:
    """The state of a rehearsal at one moment. Leads and changes are counts; `at` is monotonic, real seconds."""

    at: float
    leads: int
    leads_in_marketo: int
    changes: Mapping[str, int]
    """By state, live and settled."""
    enqueued: int
    to_enqueue: int
    slots: Sequence[Slot]
    calls_last_20s: int
    calls_limit: int
    exports: Sequence[ExportView] = ()
    due: int = 0
    """Leads that are to be read by their ids."""

    @property
    def extracts(self) -> str:
        """How Marketo's export queue stands, in words."""
        told = [job for job in self.exports if job.state in _EXPORT_STATES]
        return _counted(f"{'foreign ' * (job.owner != 'ours')}{_EXPORT_STATES[job.state]}" for job in told) or "none"

    @property
    def waits_for_extracts(self) -> bool:
        return any(job.owner == "ours" and job.state in ("Queued", "Processing") for job in self.exports)

    @property
    def settled(self) -> int:
        return sum(self.changes.get(state, 0) for state in SETTLED)


class Rate:
    """How fast a figure grows, per real second, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, at: float, figure: int) -> float:
        self._seen.append((at, figure))
        while len(self._seen) > 2 and self._seen[0][0] < at - RATE_OVER:
            self._seen.popleft()
        (first, low), (last, high) = self._seen[0], self._seen[-1]
        return (high - low) / (last - first) if last > first else 0.0


class Events:
    """The daemon's last events in short; a structlog processor that hands on what it sees."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=EVENTS_KEPT)

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if event["event"] != "metrics":
            details = " ".join(f"{name}={value}" for name, value in event.items() if name not in _UNTOLD and value not in (None, 0))
            self.lines.append(f"{str(event.get('time', ''))[11:19]} {event['event'].replace('_', ' ')} {details}")
        return event


@dataclass
class Board:
    """Draws glances. `speed` is that of the rehearsal's clock."""

    speed: float
    events: Events
    started: float = field(default_factory=time.monotonic)
    _leads: Rate = field(default_factory=Rate)
    _changes: Rate = field(default_factory=Rate)

    def draw(self, now: Glance) -> RenderableType:
        """The whole screen: fixed parts that fit 80x24, and as many events as there is room for."""
        layout = Layout()
        layout.split_column(
            Layout(self._title(now), size=1),
            Layout(_panel("Marketo → Postgres", self._pull(now)), size=4),
            Layout(_panel("Postgres → Marketo", self._outbox(now)), size=5),
            Layout(_panel("Marketo's import slots", _slots(now.slots)), size=5),
            Layout(_panel("calls in the last 20 s", _calls(now)), size=3),
            Layout(_panel("last events", _Tail(self.events.lines)), minimum_size=4),
        )
        return layout

    def line(self, now: Glance) -> str:
        """The same in one plain line."""
        slots = _counted(f"{slot.owner or ''} {slot.state}".strip() for slot in now.slots)
        states = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in sorted(now.changes.items()))
        leads, changes = self._rates(now)
        return (
            f"{self._elapsed(now)}  in: {now.leads:,} of {now.leads_in_marketo:,} leads, {leads:,.0f}/s, {_left(now, leads)}"
            f" | out: {now.settled:,} of {now.enqueued:,} settled, {changes:,.0f}/s ({states or 'nothing yet'})"
            f" | slots: {slots} | extracts: {now.extracts}; {now.due:,} due by id"
            f" | calls: {now.calls_last_20s}/{now.calls_limit} in 20 s"
        )

    def _rates(self, now: Glance) -> tuple[float, float]:
        return self._leads.note(now.at, now.leads), self._changes.note(now.at, now.settled)

    def _elapsed(self, now: Glance) -> str:
        return f"{int(now.at - self.started) // 60:02}:{int(now.at - self.started) % 60:02}"

    def _title(self, now: Glance) -> RenderableType:
        title = Table.grid(expand=True)
        title.add_column()
        title.add_column(justify="right")
        title.add_row(Text(" syncd rehearsal", "bold"), Text(f"clock x{self.speed:g}   {self._elapsed(now)}   Ctrl-C stops ", "dim"))
        return title

    def _pull(self, now: Glance) -> RenderableType:
        rate = self._leads.note(now.at, now.leads)
        words = f"{now.leads:,} of {now.leads_in_marketo:,} leads  {rate:,.0f}/s  {_left(now, rate)}"
        ways = Text(f"{now.due:,} due by id; extracts: {now.extracts}", "dim", no_wrap=True, overflow="ellipsis")
        return Group(_bar([(now.leads, "green")], now.leads_in_marketo, words), ways)

    def _outbox(self, now: Glance) -> RenderableType:
        rate = self._changes.note(now.at, now.settled)
        order = (*SETTLED, "parked", "in_chunk", "pending")
        parts = [(now.changes.get(state, 0), _COLOURS.get(state, "white")) for state in order]
        words = f"{now.settled:,} of {now.enqueued:,} settled  {rate:,.0f}/s"
        legend = [
            Text.assemble(("■ ", _COLOURS.get(state, "white")), f"{state.replace('_', ' ')} {now.changes[state]:,}")
            for state in reversed(order)
            if now.changes.get(state)
        ]
        return Group(_bar(parts, now.to_enqueue, words), _Flow(legend))


@dataclass(frozen=True)
class _Flow:
    """Words side by side, on as many lines as they take; none is broken."""

    words: Iterable[Text]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for word in self.words:
            if line and len(line) + len(word) + 2 > options.max_width:
                yield line
                line = Text()
            line.append("  " if line else "").append_text(word)
        yield line


@dataclass(frozen=True)
class _Tail:
    """As many of the last lines as there is room for."""

    lines: Iterable[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = list(self.lines)[-(options.height or EVENTS_KEPT) :]
        yield Text("\n".join(shown), no_wrap=True, overflow="ellipsis")


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style="dim", padding=(0, 1))


def _bar(parts: Sequence[tuple[int, str]], total: int, words: str) -> RenderableType:
    """Coloured parts of a whole, with words to the right of it."""
    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    row.add_row(_Stacked(parts, max(total, sum(count for count, _ in parts), 1)), words)
    return row


@dataclass(frozen=True)
class _Stacked:
    parts: Sequence[tuple[int, str]]
    total: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar, done, drawn = Text(no_wrap=True), 0, 0
        for count, colour in self.parts:
            done += count
            upto = done * options.max_width // self.total
            bar.append("━" * (upto - drawn), colour)
            drawn = upto
        yield bar.append("━" * (options.max_width - drawn), "grey30")


def _slots(slots: Sequence[Slot]) -> RenderableType:
    board = Table.grid(expand=True)
    for _ in slots:
        board.add_column(ratio=1, justify="center", no_wrap=True)
    board.add_row(*[Text(str(place), "dim") for place in range(1, len(slots) + 1)])
    board.add_row(*[Text(slot.owner or "free", _slot_style(slot)) for slot in slots])
    board.add_row(*[Text(_slot_word(slot), _slot_style(slot)) for slot in slots])
    return board


def _slot_style(slot: Slot) -> str:
    if slot.owner is None:
        return "grey42"
    colour = "green" if slot.owner == "ours" else "magenta"
    return f"bold {colour}" if slot.state == "running" else colour


def _slot_word(slot: Slot) -> str:
    match slot.state:
        case "running":
            return f"▶ {slot.progress:.0%}"
        case "queued":
            return "queued"
        case _:
            return "·"


def _calls(now: Glance) -> RenderableType:
    colour = "green" if now.calls_last_20s <= now.calls_limit else "red"
    return _bar([(now.calls_last_20s, colour)], now.calls_limit, f"{now.calls_last_20s} of at most {now.calls_limit}")


def _left(now: Glance, rate: float) -> str:
    missing = now.leads_in_marketo - now.leads
    if missing <= 0:
        return "caught up"
    if rate <= 0:
        return "waiting for extracts" if now.waits_for_extracts else "time left unknown"
    return f"{missing / rate:,.0f} s left"


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(Counter(words).items()))
