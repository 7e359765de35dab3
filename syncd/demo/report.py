"""The closing table of a rehearsal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from syncd.demo.proof import Proof

REASONS_SHOWN = 12


def show(proof: Proof, console: Console, seconds: float, cpu_seconds: float) -> None:
    """Print both sides, what became of the changes, why rows failed, and each check; `seconds` are real ones of the run."""
    console.print(_sides(proof))
    console.print(_outcomes(proof, seconds))
    if proof.reasons:
        console.print(_reasons(proof))
    if proof.report.faults_injected:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(proof.report.faults_injected.items()))
        console.print(f"faults injected: {faults}", style="dim", highlight=False)
    console.print(_checks(proof))
    verdict = Text("✓ everything agrees", "bold green") if proof.holds else Text("✗ not everything agrees", "bold red")
    console.print(verdict, Text(f"in {seconds:.1f} s ({cpu_seconds:.1f} s of processor time in this process)", "dim"))


def _sides(proof: Proof) -> Table:
    table = _table("Record by record", "", "leads", "digest over all fields", "agree")
    sides = proof.comparison
    for name, side in (("Marketo", sides.marketo), ("Postgres", sides.mirror)):
        table.add_row(name, f"{side.records:,}", side.digest[:24], _mark(sides.agrees))
    return table


def _outcomes(proof: Proof, seconds: float) -> Table:
    table = _table("Changes by outcome", "outcome", "changes")
    for state, changes in proof.outcomes.items():
        table.add_row(state, f"{changes:,}")
    total = sum(proof.outcomes.values())
    table.add_row("in all", f"{total:,}  ({total / seconds:,.0f}/s)", style="bold")
    return table


def _reasons(proof: Proof) -> Table:
    table = _table("Not simply applied", "state", "changes", "reason")
    for state, reason, changes in proof.reasons[:REASONS_SHOWN]:
        table.add_row(state, f"{changes:,}", reason)
    if len(proof.reasons) > REASONS_SHOWN:
        rest = proof.reasons[REASONS_SHOWN:]
        table.add_row("…", f"{sum(changes for _, _, changes in rest):,}", f"{len(rest)} more reasons")
    return table


def _checks(proof: Proof) -> Table:
    table = _table("Checks", "", "check", "figures")
    for check in proof.checks:
        table.add_row(_mark(check.holds), check.name, check.detail)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("leads", "changes") else "left")
    return table


def _mark(good: bool) -> Text:
    return Text("✓", "green") if good else Text("✗", "bold red")
