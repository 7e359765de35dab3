"""Push at full strength: operators' brakes, failures and their retries; of the leads that are due, news before fills."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("due", "operators", "failures"):
        run_sql(Path(__file__).with_name(f"0004_{part}.sql"))
