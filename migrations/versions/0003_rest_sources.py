"""The REST sources: extracts, activities, deletions and merges."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("routes", "exports", "activities"):
        run_sql(Path(__file__).with_name(f"0003_{part}.sql"))
