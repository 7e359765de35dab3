"""Urgent changes pass only what is earlier than they are."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql(Path(__file__).with_name("0007_places.sql"))
