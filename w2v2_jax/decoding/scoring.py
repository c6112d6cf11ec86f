"""Error rates of transcripts: edit counts, corpus rates with bootstrap intervals, the worst utterances.

Text is compared as it is: nothing is folded or removed except surplus white space. Phone error rates are word error
rates of transcripts whose words are phone symbols.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jiwer
import numpy as np
from jaxtyping import Int


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
    """A transcript and what was recognised in its place; who said it and for how long, where that is known."""

    id: str
    reference: str
    hypothesis: str
    speaker: str = ""
    seconds: float = 0.0


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


def by_speaker(utterances: Sequence[Utterance], counts: Sequence[Counts]) -> dict[str, Counts]:
    """Sums of the counts of each speaker's utterances, the speakers in order of appearance.

    Utterances of one speaker resemble each other. Intervals that shall hold for other speakers therefore resample
    speakers, not utterances: `score([*by_speaker(utterances, counts).values()])`. They need two speakers at least, so
    fewer raise ValueError, as does an utterance whose speaker is unknown.
    """
    grouped: dict[str, list[Counts]] = {}
    for utterance, count in zip(utterances, counts, strict=True):
        grouped.setdefault(utterance.speaker, []).append(count)
    if "" in grouped:
        unknown = next(utterance.id for utterance in utterances if not utterance.speaker)
        raise ValueError(f"nobody knows who speaks in utterance {unknown!r}; name its speaker or resample utterances")
    if len(grouped) < 2:
        raise ValueError(
            f"a spread between speakers needs two of them, found {[*grouped]}; resample utterances instead"
        )
    return {speaker: total(each) for speaker, each in grouped.items()}


def score(counts: Sequence[Counts], seed: int = 0, num_resamples: int = 1000) -> Score:
    """Corpus error rate, all errors over all reference lengths, with a 95 % interval.

    The interval is the percentile bootstrap over what `counts` are of, utterances or speakers (Bisani & Ney 2004,
    "Bootstrap estimates for confidence intervals in ASR performance evaluation"); equal seeds give equal intervals.
    Raises ValueError if the references are empty altogether, for which no rate is defined.
    """
    corpus = total(counts)
    if corpus.reference_length == 0:
        raise ValueError(f"the references of all {len(counts)} utterances are empty; an error rate needs some text")
    errors, lengths = resampled_sums(
        np.array([(count.errors, count.reference_length) for count in counts]), seed, num_resamples
    ).T
    # A draw may consist of empty references alone: its insertions then count against a length of one.
    low, high = np.percentile(errors / np.maximum(lengths, 1), (2.5, 97.5))
    return Score(corpus.errors / corpus.reference_length, float(low), float(high))


def resampled_sums(
    values: Int[np.ndarray, "unit value"], seed: int, num_resamples: int
) -> Int[np.ndarray, "resample value"]:
    """Sums over as many units as there are, drawn with replacement: what the corpus might have been."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(values), size=len(values)) for _ in range(num_resamples))
    return np.stack([values[draw].sum(axis=0) for draw in draws])


def worst(utterances: Sequence[Utterance], n: int) -> list[tuple[Utterance, Counts]]:
    """The `n` utterances with most word errors, which weigh most on the corpus rate, the worst of them first."""
    counted = [(utterance, count_words(utterance.reference, utterance.hypothesis)) for utterance in utterances]
    return sorted(counted, key=lambda pair: pair[1].errors, reverse=True)[:n]
