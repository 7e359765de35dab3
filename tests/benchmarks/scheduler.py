"""The scheduler beside fixed beats, in virtual time: Marketo's import queue as a model, driven by core/slots.py and core/polling.py.

`python -m tests.benchmarks.scheduler [--small]`. The figures depend on no machine: the same seeds give the same table.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from rich.console import Console
from rich.table import Table

from tests.benchmarks.queue_model import Marketo, Run
from tests.benchmarks.schedulers import Beat, Holder, Policy, Syncd, drive

MEDIAN_SECONDS, SIGMA = 60.0, 1.0
STRAGGLERS, PARETO_SHAPE = 0.03, 1.5
PARETO_TIMES = 10.0
"""A straggler takes ten median runs at least: further out than all but one in a hundred of the others."""

POLICIES: Mapping[str, Callable[[random.Random], Policy]] = {
    "syncd": Syncd,
    "each job every 5 s, 10 held": lambda _: Beat(5.0),
    "each job every 30 s, 10 held": lambda _: Beat(30.0),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A figure, and what it may be at most."""

    name: str
    of: Callable[[Run], float]
    most: float


FIGURES = (
    Wanted("server makespan / bound", lambda run: run.makespan / run.bound, 1.001),
    Wanted("last settled / bound", lambda run: run.last_settled / run.bound, 1.003),
    Wanted("polls a job", lambda run: run.polls_a_job, 3.5),
    Wanted("end to settled / mean job", lambda run: run.lag / run.mean_job, 0.25),
)


def durations(seed: int, jobs: int, stragglers: bool = False) -> list[float]:
    """What the jobs of a list take, in seconds."""
    chance = random.Random(seed)
    runs = [chance.lognormvariate(0.0, SIGMA) * MEDIAN_SECONDS for _ in range(jobs)]
    if stragglers:
        runs = [MEDIAN_SECONDS * PARETO_TIMES * chance.paretovariate(PARETO_SHAPE) if chance.random() < STRAGGLERS else run for run in runs]
    return runs


def run_all(policy: Callable[[random.Random], Policy], seeds: int, jobs: int, foreign: int = 0, stragglers: bool = False) -> list[Run]:
    """The policy on the job list of each seed."""
    runs = []
    for seed in range(seeds):
        marketo = Marketo(foreign, MEDIAN_SECONDS, SIGMA, random.Random(1_000 + seed))
        runs.append(drive(policy(random.Random(seed)), marketo, durations(seed, jobs, stragglers)))
    return runs


def figures(runs: Sequence[Run]) -> list[float]:
    """The mean of each figure over the seeds."""
    return [mean(map(figure.of, runs)) for figure in FIGURES]


def _alone(console: Console, seeds: int, jobs: int, stragglers: bool) -> None:
    title = f"alone, {seeds} seeds, {jobs} jobs, median {MEDIAN_SECONDS:.0f} s, lognormal sigma {SIGMA:.0f}"
    table = Table(title=title + (f", {STRAGGLERS:.0%} Pareto stragglers" if stragglers else ""), title_justify="left")
    table.add_column("")
    for figure in FIGURES:
        most = 5.0 if stragglers and figure.name == "polls a job" else figure.most
        table.add_column(f"{figure.name}\n≤ {most}", justify="right")
    table.add_column("most in flight", justify="right")
    for name, policy in POLICIES.items():
        runs = run_all(policy, seeds, jobs, stragglers=stragglers)
        table.add_row(name, *(f"{figure:.4f}" for figure in figures(runs)), f"{max(run.most_in_flight for run in runs)}")
    console.print(table)


def _beside(console: Console, seeds: int, jobs: int, foreign: int) -> None:
    table = Table(title=f"beside {foreign} foreign slots", title_justify="left")
    for heading in ("", "idle workers, share", "makespan / bound", "polls a job", "1016s of strangers", "1016s of ours", "in flight"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, policy in (*POLICIES.items(), ("holding ten always", lambda _: Holder())):
        runs = run_all(policy, seeds, jobs, foreign)
        table.add_row(
            name,
            f"{mean(run.idle_share for run in runs):.4f}",
            f"{mean(run.makespan / run.bound for run in runs):.3f}",
            f"{mean(run.polls_a_job for run in runs):.2f}",
            f"{mean(run.strangers_refused for run in runs):.1f}",
            f"{mean(run.ours_refused for run in runs):.1f}",
            f"{mean(run.mean_in_flight for run in runs):.2f}",
        )
    console.print(table)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few seeds and jobs: whether it runs, not how good it is")
    small = parser.parse_args().small
    seeds, jobs = (3, 20) if small else (100, 200)
    console = Console(width=140)
    for stragglers in (False, True):
        _alone(console, seeds, jobs, stragglers)
    for foreign in (0, 4, 8):
        _beside(console, seeds, jobs, foreign)


if __name__ == "__main__":
    main()
