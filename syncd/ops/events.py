"""Every event of the log: what it means, and what a person does about it where it is a warning or an error.

docs/events.md is made of this and of the calls that log them (`python -m tests.ops.events`).
"""

from typing import Final

NOTHING: Final = "nothing: syncd goes on by itself"
AGAIN: Final = "nothing: its window is asked for again"
CHECK: Final = "if it stays, syncd check"
ANEW: Final = "syncd check tells what is refused; it is tried again by itself, and at once after a restart"

EVENTS: Final[dict[str, tuple[str, str]]] = {
    # the daemon
    "started": ("The daemon is up", ""),
    "stopped": ("It has ended in order", ""),
    "standby": ("Another daemon works for the instance, or has the embedded database", ""),
    "lease_taken": ("This daemon works for the instance now", ""),
    "lease_lost": ("Another daemon works for it now", "look whether two daemons run, and after the database: this one stands by"),
    "listening": ("The page can be had at last", ""),
    "not_listening": (
        "The port of http.listen is another daemon's",
        "nothing, where that one is ours; else choose another http.listen",
    ),
    "metrics": ("A sample of /metrics", ""),
    "library": ("A library has something to say", "if it stays, tell the developers"),
    "database_fault": ("The database is away, or refuses", "look after the database; syncd goes on once it is back"),
    "database_cut_off": (
        "Its sessions were ended, as the stop had waited for long",
        "look for a lock or a disk that holds up the database",
    ),
    "database_full": ("The disk of the database is full", "free space on it; nothing is lost, and all goes on by itself"),
    "reloaded": ("The YAML was read again, and is taken up", ""),
    "reload_refused": ("The YAML can't be used", "mend the file and reload; until then all goes on as before"),
    "reload_incomplete": ("Part of it waits for a restart", "restart syncd"),
    "secret_exposed": ("Every user of the machine can read a file of secrets", "chmod o-r"),
    "write_failed": ("A last write was lost", "look after the database; what was not written counts as unconfirmed"),
    "check_answered": ("syncd check was answered by the daemon", ""),
    "pause_ended": ("A pause was over by its time", ""),
    "outcomes_busy": ("Old changes stay for now, as somebody reads the history", ""),
    "outcomes_dropped": ("Changes of a day were dropped, by keep.outcomes", ""),
    "history_busy": ("Old lines of lead_history stay for now, as somebody reads it", ""),
    "history_dropped": ("Days of lead_history were dropped, by history", ""),
    # calls
    "brake": (
        "Marketo asked to slow down",
        "nothing: calls get faster again; if it stays, lower limits.calls_per_20s or limits.concurrency",
    ),
    "api_paused": (
        "A quota of the day is spent",
        "nothing: calls go on after the reset; for more of them raise limits.daily_calls, or ask who spends them (syncd status)",
    ),
    "api_resumed": ("Calls go on", ""),
    "usage_unknown": ("What all integrations spend can't be learnt", "syncd check; until then nothing is known of what others spend"),
    # fields
    "field_appeared": ("Marketo has a new field", ""),
    "field_vanished": ("A field is gone", "take it out of the pulls' fields, or bring it back in Marketo"),
    "field_retyped": ("A field has another type", "syncd view rebuild"),
    "dictionary_of_before": ("Describe failed; the last answer serves", CHECK),
    "view_kept": ("The view was made, or got columns", ""),
    "view_not_kept": ("The view could not be kept", "give the role syncd what the error names"),
    "view_busy": ("The view waits, as somebody reads it for long", ""),
    "view_behind": ("Fields have other types or names than their columns", "syncd view rebuild"),
    "view_not_whole": ("There are more fields than columns", "name the fields that are wanted: a view has 1600 columns at most"),
    # pulls
    "pull_fault": ("A call of a pull failed; it is repeated", CHECK),
    "pull_blocked": ("A pull stands still: Marketo refuses it", ANEW),
    "pull_asks_anew": ("The configuration asks for something else", ""),
    "source_switched": ("The pull goes on through another source", ""),
    "pull_rerouted": ("Extracts refused what was asked for; another way is chosen", NOTHING),
    "route_chosen": ("Which way the leads come, and why", ""),
    "route_fault": ("What is needed to choose a way can't be had", CHECK),
    "route_lost": ("The activity log no longer reaches back far enough", "nothing: another way is chosen"),
    "clock_stepped_back": ("Windows were planned into what is the future now", "look after the host's clock (NTP)"),
    "windows_planned": ("Windows are to be walked", ""),
    "window_walked": ("One was", ""),
    "window_split": ("It holds many leads: several streams share it", ""),
    "window_restarted": ("Its position was lost; it is walked from its start", NOTHING),
    "list_walked": ("A list or keys were walked to the end", ""),
    "key_refused": ("Marketo refuses a key", "take the key out of the pull's keys"),
    "keys_passed_over": ("Keys that can't be sent", "take keys with control characters out of the pull's keys"),
    "closing_planned": ("What moved while extracts ran is walked", ""),
    "catching_up": ("The log does not reach back: extracts fill the gap", ""),
    "backfill_planned": ("A backfill begins", ""),
    "backfill_finished": ("A backfill has ended", ""),
    "changes_noted": ("The activity log named leads", ""),
    "leads_missing": ("Leads that were due don't exist", ""),
    "leads_gone": ("Leads were deleted or merged", ""),
    "deletions_unknown": ("The activity log can't be read for deletions", "syncd check"),
    "token_refused": ("A paging token is too old", "nothing: the log is read once more from then on"),
    "census_started": ("All ids are compared with Marketo's", ""),
    "census": ("They were; with differences it is a warning", "look whether it finds some time and again: what may the API user not see?"),
    "census_fault": ("A call of the census failed", CHECK),
    "census_given_up": ("The census came to nothing", "nothing: it begins anew tomorrow"),
    "verified": ("A verification has ended; with differences it is a warning", "syncd status, and syncd verify for more of it"),
    "verify_fault": ("A call of a verification failed; it is repeated", CHECK),
    # people
    "person_forgotten": ("Nothing of a person is left, but hashes", ""),
    "person_erased": ("All is erased but what Marketo may be about to have", ""),
    "person_deleted_in_marketo": (
        "Marketo has deleted a person's leads; where it refused some it is a warning",
        "delete those in Marketo, by what its code (refused) means",
    ),
    "person_not_deleted": ("Marketo did not delete them; it is tried again", "if it stays, delete them in Marketo"),
    # extracts
    "export_queued": ("An extract is asked for", ""),
    "export_status": ("Marketo has moved it on", ""),
    "export_completed": ("Its file can be had", ""),
    "export_loaded": ("Its leads are in the mirror", ""),
    "export_dropped": ("It is no longer wanted", ""),
    "export_misread": ("Its file is read once more, less strictly", ""),
    "export_looked_for": ("One whose answer was lost is looked for at Marketo's", ""),
    "export_queue_full": ("Others have the export slots", ""),
    "export_waits_for_bytes": ("The day has no bytes left for it", ""),
    "export_quota_spent": (
        "Marketo says that the day's bytes are spent",
        "nothing: exports go on after the reset; for more raise limits.export_daily_bytes, if Marketo grants it",
    ),
    "export_fault": ("A call for it failed; it is repeated", CHECK),
    "export_look_failed": ("A look at it failed; it is repeated", CHECK),
    "export_failed": ("Marketo could not make it", "nothing: its window is asked for again, in halves if need be"),
    "export_cancelled": ("Somebody has cancelled it", "ask who cancels exports in Marketo; it is asked for again"),
    "export_gone": ("Marketo no longer knows it", AGAIN),
    "export_expired": ("Its file is gone", AGAIN),
    "export_spoilt": ("Its file is not what was asked for", AGAIN),
    "export_not_loaded": (
        "Its file could not be loaded; it is tried again",
        "if it stays, look after the database's disk and the connection",
    ),
    "export_queued_again": ("Marketo has forgotten that it was queued", NOTHING),
    "export_unconfirmed": ("No answer told whether it exists", "nothing: it is looked for at Marketo's"),
    "download_resumed": ("Its download went on where it had broken off", ""),
    "stagings_dropped": ("What a daemon before had half loaded is gone", ""),
    # pushes
    "packing_held": ("Describe has never answered, and changes wait for it", "syncd check"),
    "changes_parked": ("A field has vanished, and changes wait for it", "syncd discard, or bring the field back in Marketo"),
    "changes_unparked": ("The field is back", ""),
    "chunk_dissolved": ("A file is not to be sent as it was sealed", "nothing: its changes are packed anew"),
    "import_submitted": ("Marketo has taken a file", ""),
    "import_settled": ("Each of its changes has its end", ""),
    "import_refused": ("Marketo did not take it; it goes again", ""),
    "import_taken_back": ("Nothing was sent, as the database did not confirm", NOTHING),
    "import_unconfirmed": (
        "No answer told whether Marketo has it",
        "nothing: it is sent again once it is sure never to have arrived (unconfirmed_after)",
    ),
    "import_absent": ("It never arrived", "nothing: its chunk is sent again"),
    "import_not_written": (
        "What Marketo said could not be written",
        "nothing: it counts as unconfirmed, and is settled once that is known",
    ),
    "import_lost": (
        "Its results are past their seven days",
        "compare its changes with the leads: syncd failures list --state unverified, then syncd failures retry",
    ),
    "look_failed": ("A look at an import failed; it is repeated", "if it stays for days, syncd check: results are to be had for seven"),
    "queue_full": ("Others have the import slots", ""),
    "push_blocked": ("A push stands still: Marketo refuses it", ANEW),
    "push_tried_again": ("A blocked push is tried again", ""),
    "view_compared": ("A view had changed; its changes are in the outbox", ""),
    "view_not_compared": ("A view can't be read; no change was made", "see to the view, by the error's code; it is tried again when due"),
    "table_not_followed": ("Changes of a table do not reach the outbox, or not all", "syncd check; as a rule, syncd attach"),
    "canary_begun": ("A guarded push sends its oldest changes ahead", ""),
    "canary_ended": (
        "All of them have ended; with too many failures it is a warning",
        "syncd failures list; then syncd release, or syncd discard",
    ),
    "push_held": (
        "A bad canary has stopped a push",
        "syncd failures list, then syncd release lets all go, syncd discard cancels it",
    ),
    "surge_begun": ("More changes came within an hour than hold_above", "syncd status; they are being held"),
    "surge_held": ("All of them are held", "syncd release lets them go, syncd discard --held cancels them"),
    "creations_held": (
        "Changes would create more leads than max_created",
        "syncd release lets them go, syncd discard --held cancels them",
    ),
    "batch_settled": ("A call of Sync Leads was answered, and written", ""),
    "batch_refused": ("It was not taken; it goes again", ""),
    "batch_taken_back": ("Nothing was sent, as the database did not confirm", NOTHING),
    "batch_given_up": ("It is not to be sent as it was packed", "nothing: its changes are packed anew"),
    "batch_unconfirmed": ("No answer told what became of it", "nothing: its changes are sent again after ten minutes"),
    "batch_absent": ("Nobody told what became of it", "nothing: its changes are sent again"),
    "batch_not_written": ("What Marketo said could not be written", "nothing: it counts as unconfirmed, and goes again after ten minutes"),
}


def remedy_of(event: str) -> str:
    """One sentence."""
    return EVENTS.get(event, ("", ""))[1] or "if it stays, look it up in docs/events.md"
