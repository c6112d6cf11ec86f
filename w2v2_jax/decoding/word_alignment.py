"""Which word was taken for which: the alignment of two transcripts, and what is confused most often."""

import collections
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from w2v2_jax.decoding.scoring import Counts

DIAGONAL, DELETION, INSERTION = range(3)


class Pair(NamedTuple):
    """A word of the reference and the word in its place; "" where there is none."""

    reference: str
    hypothesis: str


Alignment = tuple[Pair, ...]
"""The words of two transcripts in their order, each word of either in one pair."""


def align_words(reference: str, hypothesis: str) -> Alignment:
    """An alignment with fewest edits, among those one whose words that replace each other are most alike.

    Several alignments often have fewest edits: "CAT" may replace either word of "THE CATS". Of these, replaced words
    here have the fewest letters that aren't common to both in the same order (the Indel distance). Words are whatever
    white space separates, so phones will do. 20 words take half a millisecond, 9000, an hour of speech, some seconds;
    memory is a byte for each word of one transcript and word of the other.
    """
    said, heard = reference.split(), hypothesis.split()
    steps = _cheapest_steps(said, heard)
    pairs = []
    i, j = len(said), len(heard)
    while i or j:
        step = steps[i, j]
        i, j = i - (step != INSERTION), j - (step != DELETION)
        pairs.append(Pair(said[i] if step != INSERTION else "", heard[j] if step != DELETION else ""))
    return tuple(reversed(pairs))


def _cheapest_steps(said: list[str], heard: list[str]) -> UInt8[np.ndarray, "said heard"]:
    """The last step of the best alignment of the first i words of one with the first j words of the other."""
    place = np.arange(len(heard) + 1)
    # One edit outweighs all letters that there are.
    edit = 1 + sum(map(len, said)) + sum(map(len, heard))
    steps = np.full((len(said) + 1, len(heard) + 1), INSERTION, np.uint8)
    costs = edit * place
    for i, word in enumerate(said, start=1):
        unlike = cdist([word], heard, scorer=Indel.distance, dtype=np.int64)[0]
        diagonal = np.append(edit * (len(said) + len(heard) + 1), costs[:-1] + unlike + edit * (unlike > 0))
        deletion = costs + edit
        # The best by any number of insertions after the other two: a running minimum.
        costs = np.minimum.accumulate(np.minimum(diagonal, deletion) - edit * place) + edit * place
        steps[i, costs == deletion] = DELETION
        steps[i, costs == diagonal] = DIAGONAL
    return steps


def count_pairs(alignment: Alignment) -> Counts:
    """The edits of an alignment."""
    insertions = sum(not pair.reference for pair in alignment)
    deletions = sum(not pair.hypothesis for pair in alignment)
    edits = sum(pair.reference != pair.hypothesis for pair in alignment)
    return Counts(edits - deletions - insertions, deletions, insertions, len(alignment) - insertions)


class Confusions(NamedTuple):
    """How often what happened: words taken for others, missed, and made up; and how often each word was said."""

    substitutions: collections.Counter[Pair]
    deletions: collections.Counter[str]
    insertions: collections.Counter[str]
    said: collections.Counter[str]


def confusions(alignments: Iterable[Alignment]) -> Confusions:
    """Counts the edits of all alignments; `most_common` gives those of equal counts in order of appearance."""
    pairs = [pair for alignment in alignments for pair in alignment]
    return Confusions(
        collections.Counter(pair for pair in pairs if "" not in pair and pair.reference != pair.hypothesis),
        collections.Counter(pair.reference for pair in pairs if not pair.hypothesis),
        collections.Counter(pair.hypothesis for pair in pairs if not pair.reference),
        collections.Counter(pair.reference for pair in pairs if pair.reference),
    )
