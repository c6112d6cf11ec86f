"""Phone error rates: `score` of what is counted here, over TIMIT's phones folded to 39."""

from w2v2_jax.data.phone_sets import SILENCE, fold_to_39
from w2v2_jax.decoding.scoring import Counts, Utterance, count_words


def without_silence(phones: str) -> str:
    """`phones` of the 39 without their silences: 38 are left."""
    return " ".join(phone for phone in phones.split() if phone != SILENCE)


def count_phones(reference: str, hypothesis: str) -> Counts:
    """Edits between the 39 phones of two transcripts, silence counting as a phone; each may be in any of the sets."""
    return count_words(fold_to_39(reference), fold_to_39(hypothesis))


def count_spoken_phones(reference: str, hypothesis: str) -> Counts:
    """Edits between the 38 phones that are spoken: silences are dropped from both transcripts."""
    return count_words(without_silence(fold_to_39(reference)), without_silence(fold_to_39(hypothesis)))


def folded(utterance: Utterance) -> Utterance:
    """The utterance with reference and hypothesis in the 39 phones, for alignments and reports."""
    return utterance._replace(reference=fold_to_39(utterance.reference), hypothesis=fold_to_39(utterance.hypothesis))
