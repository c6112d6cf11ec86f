"""Is one system better than another, or was it luck? A paired bootstrap of two systems on the same utterances."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from w2v2_jax.decoding.scoring import Counts, Utterance, resampled_sums, total


class Comparison(NamedTuple):
    """Two error rates and their difference as shares, candidate minus baseline: below 0 the candidate is better.

    `low` and `high` bound the difference in 95 % of the resamples. `probability_of_improvement` is the share of
    resamples in which the candidate makes fewer errors; a tie counts half, so 0.5 is a draw.
    """

    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    probability_of_improvement: float


def compare(
    baseline: Sequence[Counts], candidate: Sequence[Counts], seed: int = 0, num_resamples: int = 10_000
) -> Comparison:
    """Compares the counts of two systems for the same utterances, or speakers, in the same order.

    Both systems are scored on every resample, so that what makes an utterance hard for either cancels: the difference
    is known far better than the rates (Bisani & Ney 2004). Equal seeds give equal results.

    Raises:
        ValueError: where the counts are of different numbers of utterances or of other references, or all
            references are empty.
    """
    references = [[count.reference_length for count in system] for system in (baseline, candidate)]
    if references[0] != references[1]:
        raise ValueError(
            f"a paired comparison needs the same references, got {len(baseline)} with {sum(references[0])} words and "
            f"{len(candidate)} with {sum(references[1])}, or in another order; evaluate both systems on one corpus"
        )
    length = total(baseline).reference_length
    if length == 0:
        raise ValueError(f"the references of all {len(baseline)} utterances are empty; a comparison needs some text")
    values = [(one.errors, other.errors, one.reference_length) for one, other in zip(baseline, candidate, strict=True)]
    before, after, lengths = resampled_sums(np.array(values), seed, num_resamples).T
    low, high = np.percentile((after - before) / np.maximum(lengths, 1), (2.5, 97.5))
    rates = total(baseline).errors / length, total(candidate).errors / length
    improved = np.mean(after < before) + np.mean(after == before) / 2
    return Comparison(*rates, rates[1] - rates[0], float(low), float(high), float(improved))


def paired(baseline: Sequence[Utterance], candidate: Sequence[Utterance]) -> list[Utterance]:
    """The candidate's utterances in the order of the baseline's.

    Raises ValueError where an utterance is missing from either or there twice, or was scored against different
    transcripts.
    """
    references, found = _by_id(baseline), _by_id(candidate)
    if one_sided := sorted(references.keys() ^ found.keys()):
        raise ValueError(
            f"{len(one_sided)} utterances were recognised by one system only, such as {one_sided[0]!r}; "
            "evaluate both on one corpus"
        )
    for name, utterance in references.items():
        if utterance.reference.split() != found[name].reference.split():
            raise ValueError(
                f"the transcripts of utterance {name!r} differ: {utterance.reference!r} and "
                f"{found[name].reference!r}; evaluate both systems on one corpus"
            )
    return [found[name] for name in references]


def _by_id(utterances: Sequence[Utterance]) -> dict[str, Utterance]:
    found = {utterance.id: utterance for utterance in utterances}
    if len(found) < len(utterances):
        name, _ = collections.Counter(utterance.id for utterance in utterances).most_common(1)[0]
        raise ValueError(f"utterance {name!r} occurs more than once, so it cannot be paired; give each its own id")
    return found
