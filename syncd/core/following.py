"""What of the activity log concerns a pull (protocol 3.2), and when it happened by our clock."""

from datetime import datetime, timedelta

from syncd.core.mirror import Vocabulary
from syncd.core.settings import Pull

SCORE_CHANGE, MERGE = 22, 32
"""Activity types that are read for themselves: the lead changes carry 12 and 13 only."""

SECOND = timedelta(seconds=1)


def readable(pull: Pull, vocabulary: Vocabulary) -> list[str]:
    """The fields of a pull that REST can name, by its names, which are the mirror's, too."""
    return [name for name in vocabulary.owned(pull) or () if name in vocabulary.rest.names]


def watched(pull: Pull, vocabulary: Vocabulary) -> list[str]:
    """The fields whose changes concern a pull: its own, and the address, which comes with every lead."""
    fields = [name for name in readable(pull, vocabulary) if name != "id"]
    return fields if "email" in fields or "email" not in vocabulary.rest.names else [*fields, "email"]


def watches_scores(pull: Pull, vocabulary: Vocabulary) -> bool:
    """Whether the changes of scores concern a pull; they are activities of their own [seen]."""
    kinds = vocabulary.rest.kinds
    return not pull.fields or any(kinds.get(name) == "score" or name.lower().endswith("score") for name in readable(pull, vocabulary))


def gone_by(at: datetime, now: datetime, at_marketo: datetime) -> datetime:
    """The end of the second `at` of Marketo's clock by ours, when they show `at_marketo` and `now`; whatever is logged has happened."""
    return min(at + SECOND + (now - at_marketo), now)
