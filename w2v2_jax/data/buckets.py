"""Length buckets: a handful of fixed batch shapes that hold every utterance of a corpus with little padding."""

import functools
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Bucket(NamedTuple):
    """One batch shape: `batch_size` utterances of at most `max_samples` samples and `max_labels` labels each."""

    max_samples: int
    batch_size: int
    max_labels: int


# From every utterance's number of samples and number of labels to buckets that hold them.
Bucketing = Callable[[Int[np.ndarray, " utterance"], Int[np.ndarray, " utterance"]], tuple[Bucket, ...]]


@dataclass(frozen=True)
class FixedBuckets:
    """The same buckets for any corpus; an utterance that fits in none of them is an error."""

    buckets: tuple[Bucket, ...]

    def __call__(
        self, num_samples: Int[np.ndarray, " utterance"], num_labels: Int[np.ndarray, " utterance"]
    ) -> tuple[Bucket, ...]:
        """The buckets, whatever the lengths are."""
        return self.buckets


@dataclass(frozen=True)
class PercentileBuckets:
    """Buckets of about equally many utterances each, cut at percentiles of the corpus' lengths.

    A batch holds `samples_per_batch` samples or a little less, padding included, so that memory and time are about
    equal in every bucket; its number of utterances is a multiple of `batch_multiple`, which the number of devices has
    to divide. A corpus that hasn't `num_buckets` batches has a bucket for each batch it has, and no batch holds more
    utterances than its bucket, unless that has fewer than `batch_multiple`.
    """

    samples_per_batch: int
    num_buckets: int = 5
    batch_multiple: int = 8
    round_samples_to: int = 4_000
    round_labels_to: int = 16

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}={value}: give at least 1")

    def __call__(
        self, num_samples: Int[np.ndarray, " utterance"], num_labels: Int[np.ndarray, " utterance"]
    ) -> tuple[Bucket, ...]:
        """At most `num_buckets` buckets, from short to long, that together hold every utterance.

        Raises ValueError if `batch_multiple` utterances of the longest bucket exceed `samples_per_batch`.
        """
        num_batches = max(int(num_samples.sum()) // self.samples_per_batch, 1)
        percentiles = np.linspace(0, 100, min(self.num_buckets, num_batches) + 1)[1:]
        edges = np.unique(round_up(np.percentile(num_samples, percentiles, method="higher"), self.round_samples_to))
        smallest = int(edges[-1]) * self.batch_multiple
        if smallest > self.samples_per_batch:
            raise ValueError(
                f"samples_per_batch={self.samples_per_batch} can't hold batch_multiple={self.batch_multiple} "
                f"utterances of {edges[-1]} samples; raise samples_per_batch to {smallest} or lower batch_multiple"
            )
        bucket_of = np.searchsorted(edges, num_samples)
        return tuple(self._bucket(int(edge), num_labels[bucket_of == bucket]) for bucket, edge in enumerate(edges))

    def _bucket(self, max_samples: int, num_labels: Int[np.ndarray, " utterance"]) -> Bucket:
        affordable = self.samples_per_batch // max_samples // self.batch_multiple * self.batch_multiple
        held = max(len(num_labels) // self.batch_multiple, 1) * self.batch_multiple
        return Bucket(max_samples, min(affordable, held), round_up(max(int(num_labels.max()), 1), self.round_labels_to))


def round_up(number, multiple: int):
    """The next multiple of `multiple` for an integer or an array of them."""
    return -(-number // multiple) * multiple


def fits(
    buckets: tuple[Bucket, ...], num_samples: Int[np.ndarray, " utterance"], num_labels: Int[np.ndarray, " utterance"]
) -> Bool[np.ndarray, "utterance bucket"]:
    """Which utterance fits in which bucket."""
    max_samples, _, max_labels = np.array(buckets).T
    return (num_samples[:, None] <= max_samples) & (num_labels[:, None] <= max_labels)


@dataclass(frozen=True)
class Schedule:
    """Which bucket gives the batch of a step, and which of its batches: random access, the same for every process.

    Each bucket is an endless stream of its utterances, epoch after epoch, cut into full batches. An epoch has the
    batches that end in it, in random order, so what doesn't fill a batch is carried into the next epoch: no utterance
    is dropped and no batch is partly filler. `num_utterances` of an epoch may be fractions, of which a mixture is made.
    """

    num_utterances: tuple[int | float, ...]
    batch_sizes: tuple[int, ...]
    seed: int

    def __getitem__(self, step: int) -> tuple[int, int]:
        """(bucket, position in the bucket's stream of batches) of a step."""
        # An epoch has at least 1 / max(batch_sizes) batches, which bounds the epoch that a step can be in.
        bound = (step + len(self.batch_sizes) + 1) * max(self.batch_sizes)
        epoch = bisect_right(range(bound), step, key=self.first_step) - 1
        buckets, positions = _epoch_order(self, epoch)
        place = step - self.first_step(epoch)
        return int(buckets[place]), int(positions[place])

    def first_step(self, epoch: int) -> int:
        """The number of batches that all earlier epochs have."""
        return sum(self.first_batches(epoch))

    def first_batches(self, epoch: int) -> list[int]:
        """For each bucket, the number of batches that all earlier epochs have."""
        return [int(epoch * n // size) for n, size in zip(self.num_utterances, self.batch_sizes, strict=True)]


@functools.lru_cache(maxsize=4)
def _epoch_order(schedule: Schedule, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    first, last = schedule.first_batches(epoch), schedule.first_batches(epoch + 1)
    counts = np.subtract(last, first)
    buckets = np.repeat(np.arange(len(counts)), counts)
    positions = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    order = np.random.default_rng((schedule.seed, epoch)).permutation(len(buckets))
    return buckets[order], positions[order]
