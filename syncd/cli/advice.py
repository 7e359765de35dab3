"""What a person can do about a change, by its state and by the reason that Marketo or we gave."""

from typing import Final

MEND: Final = "syncd failures export, mend the file, syncd enqueue it"
STATES: Final = {
    "pending": "nothing: it waits to be packed, or for an earlier import of its key; if it stays so, see syncd status",
    "in_chunk": "nothing: it is in a file that fills, waits for a slot, or is being imported",
    "in_batch": "nothing: it is being sent",
    "held": "look why, and at what else is held with it (syncd status): syncd release lets it go, syncd discard cancels it",
    "parked": "nothing yet: it goes when what its reason names is there again",
    "applied": "nothing: Marketo has taken it",
    "warned": "Marketo has taken it, with that warning: look at the lead, and enqueue a better value if need be",
    "superseded": "nothing: later changes carry its values",
    "noop": "nothing: there was nothing to send",
    "cancelled": "nothing: somebody has discarded it",
    "unverified": "it may have been applied or not: compare with the lead after the next pull (syncd lead show); where Marketo lacks it,"
    " syncd failures retry sends it once more, which does no harm to one that has it but may trigger campaigns twice",
}
# Parts of reasons, in lower case; ours first, then those that Marketo is known to give.
REASONS: Final = (
    ("the key is empty", f"give it its key: {MEND}"),
    ("differs from its key", "enqueue it anew, with one address in both places"),
    ("is no text, number or boolean", f"give that field one value: {MEND}"),
    ("nested deeper", "enqueue it anew, with one value for each field"),
    ("it sets no field", "enqueue it anew, with a field to set"),
    ("more than a file may hold", f"shorten its values: {MEND}"),
    ("whole numbers only", f"give the field a value of its type: {MEND}; or let mend.decimals round it"),
    ("is no ", f"give the field a value of its type: {MEND}"),
    ("characters: marketo takes", f"shorten the value: {MEND}; or let mend.length cut it"),
    ("basic multilingual plane", f"leave such characters out: {MEND}; or let mend.astral strip them"),
    ("read-only", "leave that field out, as Marketo sets it itself: enqueue it anew"),
    ("describe spells", f"spell the field as Marketo does: {MEND}; or let mend.spelling mend it"),
    ("describe does not know", f"name a field that Marketo has: {MEND}; once it has that one, syncd failures retry"),
    ("than a call of sync leads may hold", f"shorten its values: {MEND}"),
    ("ascii", f"write the address in ASCII letters, its domain as xn--…: {MEND}"),
    ("not found", f"look whether the lead still exists, and whether the key is right: {MEND}; or retry once the lead is there"),
    ("invalid", f"give the field a value of its type: {MEND}"),
    ("email", f"correct the address: {MEND}"),
)
OTHERWISE: Final = (
    f"correct what the reason names: {MEND}. Where it was Marketo's to correct (a right, a field, a rule): syncd failures retry"
)


def advice(state: str, reason: str | None) -> str:
    """One sentence."""
    if state in STATES:
        return STATES[state]
    told = (reason or "").lower()
    return next((what for part, what in REASONS if part in told), OTHERWISE)
