"""Error rates of transcripts: edit counts, corpus rates with bootstrap intervals, the worst utterances.

Text is compared as it is: nothing is folded or removed except surplus white space. Phone error rates are word error
rates of transcripts whose words are phone symbols.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jiwer
import numpy as np


class Counts(NamedTuple):
    """Edits of a cheapest alignment of a hypothesis with its reference; counts of many utterances add up."""

    substitutions: int
    deletions: int
    insertions: int
    reference_length: int

    @property
    def errors(self) -> int:
        """Number of edits, the numerator of an error rate."""
        return self.substitutions + self.deletions + self.insertions


class Score(NamedTuple):
    """An error rate as a share of the reference length (0.05 is 5 %, above 1 is possible) and its interval."""

    rate: float
    low: float
    high: float


class Utterance(NamedTuple):
    """A transcript and what was recognised in its place."""

    id: str
    reference: str
    hypothesis: str


def count_words(reference: str, hypothesis: str) -> Counts:
    """Edits between the words of two transcripts; either may be empty."""
    return _counts(jiwer.process_words(reference, hypothesis))


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Edits between the characters of two transcripts, one space between words counting as a character."""
    return _counts(jiwer.process_characters(" ".join(reference.split()), " ".join(hypothesis.split())))


def _counts(found: jiwer.WordOutput | jiwer.CharacterOutput) -> Counts:
    reference_length = found.hits + found.substitutions + found.deletions
    return Counts(found.substitutions, found.deletions, found.insertions, reference_length)


def total(counts: Sequence[Counts]) -> Counts:
    """Sums of the counts of several utterances, or of several hosts."""
    return Counts(*np.sum(counts, axis=0).tolist()) if counts else Counts(0, 0, 0, 0)


def score(counts: Sequence[Counts], seed: int = 0, num_resamples: int = 1000) -> Score:
    """Corpus error rate, all errors over all reference lengths, with a 95 % interval.

    The interval is the percentile bootstrap over utterances (Bisani & Ney 2004, "Bootstrap estimates for confidence
    intervals in ASR performance evaluation"); equal seeds give equal intervals. Raises ValueError if the references
    are empty altogether, for which no rate is defined.
    """
    corpus = total(counts)
    if corpus.reference_length == 0:
        raise ValueError(f"the references of all {len(counts)} utterances are empty; an error rate needs some text")
    errors = np.array([count.errors for count in counts])
    lengths = np.array([count.reference_length for count in counts])
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=num_resamples)
    # A draw may consist of empty references alone: its insertions then count against a length of one.
    rates = (draws @ errors) / np.maximum(draws @ lengths, 1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return Score(corpus.errors / corpus.reference_length, float(low), float(high))


def worst(utterances: Sequence[Utterance], n: int) -> list[tuple[Utterance, Counts]]:
    """The `n` utterances with most word errors, which weigh most on the corpus rate, the worst of them first."""
    counted = [(utterance, count_words(utterance.reference, utterance.hypothesis)) for utterance in utterances]
    return sorted(counted, key=lambda pair: pair[1].errors, reverse=True)[:n]
