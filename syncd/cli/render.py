"""How what commands print looks: tables on a terminal, the same without colours or folding elsewhere."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from syncd.core.findings import Finding
from syncd.core.words import moment
from syncd.store.pauses import Choice, Pause

UNFOLDED = 10_000  # columns; whoever reads a pipe wants whole lines
NOTHING = "\N{EN DASH}"
ALIVE = 15.0  # seconds of silence after which a holder counts as gone (architecture.md)


def show(renderable: RenderableType) -> None:
    """Print to stdout."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(renderable)
        return
    console = Console(highlight=False, width=UNFOLDED)
    with console.capture() as captured:
        console.print(renderable)
    print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n", flush=True)  # noqa: T201 - this is the output


def findings_table(heading: str, findings: Sequence[Finding]) -> Table:
    """✓ or ✗, what was tried, what happened, and below it the remedy."""
    table = table_with("", "", "", title=heading, header=False)
    for finding in findings:
        table.add_row(Text("✓", "green") if finding.ok else Text("✗", "bold red"), plain(finding.what), plain(finding.detail))
        if finding.remedy and not finding.ok:
            table.add_row("", "", plain(f"→ {finding.remedy}", "bold"))
    return table


def table_with(*columns: str, title: str = "", header: bool = True) -> Table:
    """An empty one; its texts are folded, never cut."""
    table = Table(box=None, show_header=header, title=Text(title, "bold") if title else None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", header_style="dim")
    return table


def coloured(state: str) -> Text:
    """A state: those that ask for somebody's attention stand out."""
    return plain(state, "red" if state in ("blocked", "unconfirmed") else "yellow" if state in ("paused", "held") else "")


def pause_of(pause: Pause) -> str:
    """What is paused, until when."""
    until = f"until {moment(pause.until)}" if pause.until else "until it is resumed"
    return f"{choice_of(pause.choice)}, {until}"


def choice_of(choice: Choice) -> str:
    """What a pause is about."""
    if choice.name:
        return f"the {'pull' if choice.direction == 'in' else 'push'} {choice.name}"
    return {"both": "everything", "in": "all pulls", "out": "all pushes"}[choice.direction]


def plain(text: str, style: str = "") -> Text:
    """Text that is only text: Marketo's messages must not steer the terminal."""
    return Text(printable(text), style)


def printable(text: str) -> str:
    """`text` with a space for each character that could steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
