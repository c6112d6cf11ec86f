"""Beam searches as decoders of recordings: what was found, and when it was said."""

import abc
import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float32, Int

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.alignment import align
from w2v2_jax.decoding.beam import BeamSearch, Search
from w2v2_jax.decoding.fusion import NextWord, decode_fused
from w2v2_jax.decoding.greedy import Candidate, Decoded
from w2v2_jax.decoding.hypotheses import Hypothesis, Weights
from w2v2_jax.decoding.rescoring import SentenceModel, ranked, rescored
from w2v2_jax.decoding.workers import decode_all

MIN_FRAMES, MIN_LABELS = 64, 16
WINDOW = 64
"""Recordings whose hypotheses a Transformer reads together."""


@dataclasses.dataclass(frozen=True)
class Searched:
    """The best words by `search`, placed where they fit the frames best; `num_workers` processes search."""

    search: Search
    num_workers: int = 1

    def __call__(self, emissions: Iterable[np.ndarray], vocabulary: Vocabulary) -> Iterator[Decoded]:
        """What was said in one recording after the other."""
        waiting: collections.deque[np.ndarray] = collections.deque()

        def kept():
            for log_probs in emissions:
                waiting.append(log_probs)
                yield log_probs

        for found in decode_all(self.search, kept(), self.num_workers):
            yield _placed(waiting.popleft(), found, self.search.weights, vocabulary)


class _ByTransformer(abc.ABC):
    """The best words by a language model that reads many sentences together."""

    weights: Weights

    def __call__(self, emissions: Iterable[np.ndarray], vocabulary: Vocabulary) -> Iterator[Decoded]:
        """What was said in one recording after the other."""
        pending = iter(emissions)
        while window := list(itertools.islice(pending, WINDOW)):
            for log_probs, found in zip(window, self._ranked(window), strict=True):
                yield _placed(log_probs, found, self.weights, vocabulary)

    @abc.abstractmethod
    def _ranked(self, emissions: Sequence[np.ndarray]) -> Sequence[Sequence[Hypothesis]]: ...


@dataclasses.dataclass(frozen=True)
class Rescored(_ByTransformer):
    """The best `n_best` of the `search.n_best` hypotheses of a search, as `model` and `weights` rank them."""

    search: Search
    model: SentenceModel
    weights: Weights
    num_workers: int = 1
    n_best: int = 1

    def _ranked(self, emissions: Sequence[np.ndarray]) -> Sequence[Sequence[Hypothesis]]:
        found = rescored(list(decode_all(self.search, emissions, self.num_workers)), self.model)
        return [best[: self.n_best] for best in ranked(found, self.weights)]


@dataclasses.dataclass(frozen=True)
class Fused(_ByTransformer):
    """What a search finds that asks `next_word` for every word, by its own weights."""

    search: BeamSearch
    next_word: NextWord

    @property
    def weights(self) -> Weights:
        """Those of the search."""
        return self.search.weights

    def _ranked(self, emissions: Sequence[np.ndarray]) -> Sequence[Sequence[Hypothesis]]:
        return decode_fused(self.search, emissions, self.next_word)


def _placed(log_probs: np.ndarray, found: Sequence[Hypothesis], weights: Weights, vocabulary: Vocabulary) -> Decoded:
    placed = place(log_probs, vocabulary.encode(found[0].text), vocabulary.blank_id)
    candidates = tuple(Candidate(each.text, weights.score(each)) for each in found)
    return placed._replace(score=candidates[0].score, candidates=candidates)


def place(log_probs: Float32[np.ndarray, "frame symbol"], labels: Int[np.ndarray, " label"], blank: int) -> Decoded:
    """The labels where they fit the frames best, and the log probability of that path; all at frame 0 if none fits."""
    shape = max(power_of_two(len(log_probs)), MIN_FRAMES), max(power_of_two(len(labels)), MIN_LABELS)
    padded = np.zeros((1, shape[0], log_probs.shape[1]), np.float32)
    padded[0, : len(log_probs)] = log_probs
    padded_labels = np.zeros((1, shape[1]), np.int32)
    padded_labels[0, : len(labels)] = labels
    num_frames, num_labels = (np.array([len(each)], np.int32) for each in (log_probs, labels))
    found = jax.device_get(align(padded, num_frames, padded_labels, num_labels, blank=blank))
    starts, stops, scores = (each[0, : len(labels)] for each in found[:3])
    return Decoded(labels, starts, np.maximum(stops, starts + 1), scores, float(found.log_probs[0]))


def power_of_two(number: int) -> int:
    """The smallest power of two that is no less; 1 of 0."""
    return 1 << (number - 1).bit_length() if number else 1
