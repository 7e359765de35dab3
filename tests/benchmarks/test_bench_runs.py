"""The benchmarks run to their end. How fast things are depends on the machine, and is for people to read."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_bench_pull_prints_its_tables() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.pull", "--small"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for part in ("cores, ", "PostgreSQL 1", "COPY, 2 connections", "parse against zeep", "share of the bound"):
        assert part in done.stdout


def test_bench_extract_prints_its_table() -> None:
    run = [sys.executable, "-m", "tests.benchmarks.extract", "--small"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for part in ("ours new", "csv unchanged", "by CPU", "peak of the process"):
        assert part in done.stdout


def test_bench_push_prints_its_table() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.push", "--small"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for part in ("claim, 60,000 pending", "psql \\copy + split -C", "by CPU", "within one row of it: True"):
        assert part in done.stdout


def test_bench_scheduler_prints_its_tables() -> None:
    run = [sys.executable, "-m", "tests.benchmarks.scheduler", "--small"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for part in ("Pareto stragglers", "each job every 30 s", "holding ten always", "beside 8 foreign slots", "1016s of strangers"):
        assert part in done.stdout
