"""What a job says of itself: its status, and the files of failed and warned rows (protocol section 4)."""

import csv
import io
from typing import Any, Literal

from syncd.simulator.imports import ImportJob

REASON = {"failures": "Import Failure Reason", "warnings": "Import Warning Reason"}


def status_entry(job: ImportJob, now: float) -> dict[str, Any]:
    """The result of the status call; counts are partial while Importing, and the failed rows are not among the processed."""
    assert job.file is not None
    if job.status in ("Queued", "Importing"):
        done = job.file.rows[: int(job.rows * job.progress(now))]
        failed = sum(1 for row in done if row.failure)
        processed, warned = len(done) - failed, sum(1 for row in done if row.warning and not row.failure)
    else:
        processed, failed, warned = job.outcome.imported, len(job.outcome.failed), len(job.outcome.warned)
    return {
        "batchId": job.batch_id,
        "status": job.status,
        "numOfLeadsProcessed": processed,
        "numOfRowsFailed": failed,
        "numOfRowsWithWarning": warned,
        "message": _message(job.status, processed, failed),
    }


def _message(status: str, processed: int, failed: int) -> str:
    if status != "Complete":
        return {"Queued": "Import queued", "Importing": "Import in progress", "Failed": "Import failed: internal error"}[status]
    imported = f"{processed} records imported ({processed} members)"
    return f"Import completed with errors, {imported}, {failed} failed" if failed else f"Import succeeded, {imported}"


def results_file(job: ImportJob, kind: Literal["failures", "warnings"], oddities: frozenset[str]) -> str:
    """The rows concerned in the format of the import, with a last column for the reason.

    `oddities` may hold 'results_without_empty_column' (columns empty in all these rows are missing) and
    'results_short_row' (a row whose last cell is empty comes back a cell short).
    """
    assert job.file is not None
    rows = job.outcome.failed if kind == "failures" else job.outcome.warned
    header = job.file.header
    table = [[*cells, *[""] * (len(header) - len(cells))] for cells, _ in rows]
    kept = list(range(len(header)))
    if rows and "results_without_empty_column" in oddities:
        kept = [column for column in kept if any(cells[column] for cells in table)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=job.file.delimiter, lineterminator="\n")
    writer.writerow([*(header[column] for column in kept), REASON[kind]])
    for cells, (_, reason) in zip(table, rows, strict=True):
        shown = [cells[column] for column in kept]
        if "results_short_row" in oddities and shown and not shown[-1]:
            shown.pop()
        writer.writerow([*shown, reason])
    return out.getvalue()
