"""From the user's tables, with brakes."""

from pathlib import Path

from syncd.store.migrate import run_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in (
        "rules",  # first: its index takes as long as the mirror is large, and the others keep whoever enqueues waiting
        "plans",
        "claims",
        "forget",
        "attach",
        "guard",
        "verify",
        "revert",
        "views",
    ):  # fmt: skip
        run_sql(Path(__file__).with_name(f"0006_{part}.sql"))
