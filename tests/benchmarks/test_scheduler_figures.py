"""The scheduler's figures on a few seeds: virtual time, so that they depend on no machine. The benchmark prints those of a hundred."""

from statistics import mean

from tests.benchmarks.scheduler import figures, run_all
from tests.benchmarks.schedulers import Holder, Syncd


def test_the_workers_never_idle_for_long_and_looks_are_few() -> None:
    makespan, settled, polls, lag = figures(run_all(Syncd, 6, 200))
    assert makespan <= 1.003
    assert settled <= 1.006
    assert polls <= 3.8
    assert lag <= 0.25


def test_strangers_are_refused_far_less_than_by_whoever_holds_ten() -> None:
    ours, ten = (run_all(policy, 2, 100, foreign=8) for policy in (Syncd, lambda _: Holder()))
    assert mean(run.strangers_refused for run in ours) <= mean(run.strangers_refused for run in ten) / 5
    assert mean(run.idle_share for run in ours) <= 0.001
