"""What a piece of work costs: wall time, CPU of this process and of PostgreSQL, memory above what there was before, WAL."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MEGABYTE = 1024 * 1024


@dataclass(slots=True)
class Cost:
    """Of `leads` leads: seconds, bytes."""

    leads: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    server_cpu: float = 0.0
    memory: int = 0

    @property
    def rate(self) -> float:
        """Leads in a second."""
        return self.leads / self.wall

    @property
    def cpu_per_lead(self) -> float:
        """CPU seconds of this process for one lead."""
        return self.cpu / self.leads

    @property
    def all_cpu_per_lead(self) -> float:
        """The same with PostgreSQL's."""
        return (self.cpu + self.server_cpu) / self.leads


@contextmanager
def measured(leads: int, server_pid: int | None = None) -> Iterator[Cost]:
    """The cost of the body, known when it has ended. Peak memory and the server's CPU are 0 where there is no /proc."""
    cost = Cost(leads)
    with own_heap():
        base, server, cpu, wall = _reset_peak(), _server_cpu(server_pid), time.process_time(), time.perf_counter()
        yield cost
        cost.wall, cost.cpu = time.perf_counter() - wall, time.process_time() - cpu
        cost.server_cpu, cost.memory = _server_cpu(server_pid) - server, max(0, _memory("VmHWM") - base)


@contextmanager
def own_heap() -> Iterator[None]:
    """Keep what the benchmark holds in memory out of the garbage collector's way: no daemon holds that."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


Costs = Mapping[str, Sequence[Cost]]
"""Side → its cost in each round."""


def ratio(costs: Costs, one: str, other: str, figure: Callable[[Cost], float] = lambda cost: cost.rate) -> float:
    """The median over the rounds of `one`'s figure over `other`'s: what slows the machine down for a while slows both."""
    return statistics.median(figure(a) / figure(b) for a, b in zip(costs[one], costs[other], strict=True))


def median(costs: Sequence[Cost], figure: Callable[[Cost], float]) -> float:
    return statistics.median(map(figure, costs))


def _reset_peak() -> int:
    try:
        (PROC / "self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _memory("VmRSS")


def _memory(name: str) -> int:
    status = PROC / "self/status"
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _server_cpu(postmaster: int | None) -> float:
    """CPU seconds of the server's processes, those that have ended included: the postmaster waits for each."""
    ticks = 0
    for stat in PROC.glob("[0-9]*/stat") if postmaster else ():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
        elif stat.parent.name == str(postmaster):
            ticks += int(fields[13]) + int(fields[14])
    return ticks / os.sysconf("SC_CLK_TCK")
