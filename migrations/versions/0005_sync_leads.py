"""Push at full strength, second part: what is kept, sync batches, clears and urgent changes, checks against describe."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("keep", "batches", "checks"):
        run_sql(Path(__file__).with_name(f"0005_{part}.sql"))
