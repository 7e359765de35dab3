"""What `make bench-pull` prints: the costs of every side, and the ratios that the figures are about."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tests.benchmarks.cost import MEGABYTE, Cost, Costs, median, ratio
from tests.benchmarks.latency import Share

MANY = 100_000
PACE = 750  # leads/s, the most that Marketo's own limits let through (50 calls of 300 leads in 20 s)
SIDES = (
    ("parse", "parse alone"),
    ("zeep parse", "  zeep"),
    ("xmltodict parse", "  xmltodict"),
    ("mirror", "mirror_row alone"),
    ("path new", "syncd, whole path: new"),
    ("path changed", "  changed"),
    ("path unchanged", "  unchanged"),
    ("zeep new", "zeep + psycopg executemany: new"),
    ("zeep changed", "  changed"),
    ("zeep unchanged", "  unchanged"),
    ("write 1 new", "write alone, 1 connection: new"),
    ("write 1 changed", "  changed"),
    ("write 1 unchanged", "  unchanged"),
    ("write 2 new", "write alone, 2 connections: new"),
    ("write 2 changed", "  changed"),
    ("write 2 unchanged", "  unchanged"),
    ("copy 1", "COPY, 1 connection"),
    ("copy 2", "COPY, 2 connections"),
    ("copy paged", "COPY, 1 connection, a page at a time"),
)


def print_costs(console: Console, costs: Costs, wal: Mapping[str, Sequence[float]], title: str) -> None:
    """Leads/s, CPU, memory and WAL of each side."""
    table = Table(title=title, title_justify="left")
    for heading in ("", "leads/s", "CPU s per 100,000", "with PostgreSQL's", "peak MB over base", "WAL bytes a lead"):
        table.add_column(heading, justify="right" if heading else "left")
    for side, name in SIDES:
        figures = costs[side]
        server = f"{median(figures, lambda cost: cost.all_cpu_per_lead) * MANY:.2f}" if any(cost.server_cpu for cost in figures) else ""
        table.add_row(
            name,
            f"{median(figures, lambda cost: cost.rate):,.0f}",
            f"{median(figures, lambda cost: cost.cpu_per_lead) * MANY:.2f}",
            server,
            f"{max(cost.memory for cost in figures) / MEGABYTE:.0f}",
            f"{min(wal[side]):,.1f}" if side in wal else "",
        )
    console.print(table)


def print_ratios(console: Console, costs: Costs, stalls: Sequence[tuple[float, float]], wal: Mapping[str, Sequence[float]]) -> None:
    """Medians of the rounds' ratios; by CPU time where other work on the machine is not to count."""
    table = Table(title="ratios", title_justify="left")
    for heading in ("", "wanted", "by wall", "by CPU"):
        table.add_column(heading, justify="right" if heading else "left")

    def compare(name: str, wanted: str, one: str, other: str) -> None:
        def less_cpu(cost: Cost) -> float:
            return 1 / cost.all_cpu_per_lead

        table.add_row(name, wanted, f"{ratio(costs, one, other):.2f}", f"{ratio(costs, one, other, less_cpu):.2f}")

    for kind in ("new", "changed", "unchanged"):
        compare(f"whole path against zeep + psycopg, {kind}", "≥ 10", f"path {kind}", f"zeep {kind}")
    compare("parse against zeep", "≥ 15", "parse", "zeep parse")
    compare("parse against xmltodict", "≥ 5", "parse", "xmltodict parse")
    walls, cpus = zip(*stalls, strict=True)
    table.add_row("longest stall while parsing, ms", "≤ 5", f"{max(walls) * 1000:.1f}", f"{max(cpus) * 1000:.1f}")
    compare("write new against COPY, 1 connection", "≥ 0.6", "write 1 new", "copy 1")
    compare("write new against COPY a page at a time", "", "write 1 new", "copy paged")
    compare("write new, 2 connections, against COPY on 1", "≥ 1.0", "write 2 new", "copy 1")
    compare("write new, 2 connections, against COPY on 2", "", "write 2 new", "copy 2")
    compare("write changed against new", "", "write 1 changed", "write 1 new")
    compare("write unchanged against new", "≥ 1.5", "write 1 unchanged", "write 1 new")
    table.add_row("WAL bytes a lead, write unchanged", "0", f"{min(wal['write 1 unchanged']):.1f}", "")
    share = median(costs["path new"], lambda cost: cost.cpu_per_lead) * PACE
    table.add_row(f"share of a core at {PACE} leads/s, new, without HTTP", "≤ 0.15", "", f"{share:.2f}")
    console.print(table)


def print_latency(console: Console, shares: Mapping[int, Sequence[Share]]) -> None:
    """The share of what the latency allows, of each round; the simulator's own work counts against us."""
    table = Table(title="over HTTP, the server's latency 0.5 s, pages of 1,000 leads", title_justify="left")
    for heading in ("streams", "wanted", "share of the bound", "leads/s", "share of a core at 750 leads/s", "peak MB over base"):
        table.add_column(heading, justify="right")
    for streams, wanted in ((1, "≥ 0.90"), (4, "≥ 0.85")):
        rounds = shares[streams]
        costs = [each.cost for each in rounds]
        table.add_row(
            str(streams),
            wanted,
            " ".join(f"{each.share:.2f}" for each in rounds),
            f"{median(costs, lambda cost: cost.rate):,.0f}",
            f"{median(costs, lambda cost: cost.cpu_per_lead) * PACE:.2f}",
            f"{max(cost.memory for cost in costs) / MEGABYTE:.0f}",
        )
    console.print(table)
