"""Who asks: what a pull may write to the mirror, whichever interface its answer came through."""

from syncd.core.mirror import Vocabulary
from syncd.core.settings import Instance, Pull
from syncd.store.leads import Asker


def asker_of(instance: Instance, pull: Pull, vocabulary: Vocabulary) -> Asker:
    """The pull as the mirror knows it, beside the other pulls of its instance."""
    return Asker(
        pull.name,
        vocabulary.spoken_by(pull.source).question(pull.fields),
        vocabulary.owned(pull),
        {other.name: vocabulary.owned(other) for other in instance.pulls if other.name != pull.name},
        instance.history is not None,
    )
