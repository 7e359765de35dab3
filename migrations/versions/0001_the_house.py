"""The house: leases, the mirror, windows, the outbox, chunks, import jobs. The SQL is beside this file."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql(Path(__file__).with_suffix(".sql"))
