"""Pull at full strength: history, list membership, backfills, the dictionary and its typed view, strangers' calls."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("pulls", "fields", "usage"):
        run_sql(Path(__file__).with_name(f"0002_{part}.sql"))
