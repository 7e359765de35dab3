"""Changes are checked against describe before they are sent."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("checks",):
        run_sql(Path(__file__).with_name(f"0005_{part}.sql"))
