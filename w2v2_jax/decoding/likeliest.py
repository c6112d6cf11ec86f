"""The likeliest transcripts of recordings by their frames alone, without a language model."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.beam import check_n_best
from w2v2_jax.decoding.greedy import Candidate, Decoded
from w2v2_jax.decoding.prefix_beam import prefix_beam_search
from w2v2_jax.decoding.searched import MIN_FRAMES, WINDOW, place, power_of_two

Found = list[tuple[np.ndarray, float]]
"""Labels and their log probabilities."""


@dataclasses.dataclass(frozen=True)
class Likeliest:
    """The transcripts that are likeliest by all their paths together, as `prefix_beam_search` finds them.

    Scores are log probabilities in nats, at most 0. Labels that differ in nothing written are one transcript.
    """

    beam: int = 100
    n_best: int = 1

    def __post_init__(self):
        check_n_best(self.n_best, self.beam)

    def __call__(self, emissions: Iterable[np.ndarray], vocabulary: Vocabulary) -> Iterator[Decoded]:
        """What was said in one recording after the other."""
        pending = iter(emissions)
        while window := list(itertools.islice(pending, WINDOW)):
            for log_probs, found in zip(window, self._searched(window, vocabulary), strict=True):
                yield self._decoded(log_probs, found, vocabulary)

    def _decoded(self, log_probs: np.ndarray, found: Found, vocabulary: Vocabulary) -> Decoded:
        """Texts in the place of labels."""
        totals: dict[str, float] = {}
        spelled: dict[str, np.ndarray] = {}
        for labels, log_prob in found:
            text = vocabulary.decode(labels)
            spelled.setdefault(text, labels)
            totals[text] = np.logaddexp(totals.get(text, -np.inf), log_prob).item()
        ranking = sorted(totals, key=totals.__getitem__, reverse=True)
        candidates = tuple(Candidate(text, totals[text]) for text in ranking[: self.n_best])
        placed = place(log_probs, spelled[ranking[0]], vocabulary.blank_id)
        return placed._replace(score=candidates[0].score, candidates=candidates)

    def _searched(self, window: Sequence[np.ndarray], vocabulary: Vocabulary) -> list[Found]:
        """Labels and log probabilities of what is found in each; recordings of about equal length go together."""
        unwritten = [number for number, symbol in enumerate(vocabulary.symbols) if symbol in vocabulary.specials]
        unwritten.remove(vocabulary.blank_id)
        places_of = collections.defaultdict(list)
        for place_in_window, log_probs in enumerate(window):
            places_of[max(power_of_two(len(log_probs)), MIN_FRAMES)].append(place_in_window)
        found: list[Found] = [[]] * len(window)
        for length, places in places_of.items():
            padded = np.zeros((power_of_two(len(places)), length, len(vocabulary)), np.float32)
            num_frames = np.zeros(len(padded), np.int32)
            for row, each in enumerate(places):
                padded[row, : len(window[each])], num_frames[row] = window[each], len(window[each])
            padded[:, :, unwritten] = -np.inf
            n_best = jax.device_get(prefix_beam_search(padded, num_frames, self.beam, vocabulary.blank_id))
            for row, each in enumerate(places):
                rows = zip(n_best.labels[row], n_best.num_labels[row], n_best.log_probs[row].tolist(), strict=True)
                found[each] = [(labels[:count], log_prob) for labels, count, log_prob in rows if log_prob > -np.inf]
        return found
