"""From records to batches, with Grain: `Clips` for pretraining, `Transcribed` for fine-tuning and evaluation.

Everything random is drawn for the global stream of utterances, before a process takes its share. So a run sees the
same global batches on any number of processes (process 0 holds the first rows, the last process the last), and where
it stands is one integer that a run on another number of processes can continue from.

A source may be a `Mixture`, or `ByLanguage`: then training takes its parts as often as their shares say.
"""

import functools
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from w2v2_jax.batches import AudioBatch, LabeledBatch, Levels
from w2v2_jax.data import audio
from w2v2_jax.data.augmentation import Augmentation, lengths_after
from w2v2_jax.data.buckets import Bucketing, fits
from w2v2_jax.data.corpora import Column
from w2v2_jax.data.iterators import (
    BatchIterator,
    Host,
    Row,
    filled_up,
    in_order,
    in_turn,
    read_ahead,
    share,
    shuffled,
    this_host,
)
from w2v2_jax.data.mixtures import Portion, portions
from w2v2_jax.data.records import Records, RecordSource, Selection, columns
from w2v2_jax.data.rows import BucketRows, altered, crop_of, filler_clip, first_clip, random_clip

log = logging.getLogger(__name__)


@runtime_checkable
class LabelEncoder(Protocol):
    """Spells texts in labels."""

    def encode(self, text: str) -> Int[np.ndarray, " label"]:
        """The ids of the labels of `text`, or a ValueError if it can't be spelled."""


@dataclass(frozen=True)
class Clips:
    """Clips of `num_samples` samples, cropped at random from utterances, `batch_size` of them over all processes.

    The shape is always the same: an utterance shorter than `num_samples` is zero-padded on the right, where fairseq
    crops every clip to the shortest of its batch. Utterances under `min_samples` are left out, and counted in the log.
    With `normalise` an utterance gets mean 0 and variance 1 before it is cropped, as in fairseq. An utterance that
    comes again in a later epoch gets another crop. `num_workers` processes read ahead; 0 means threads alone.
    """

    source: RecordSource
    batch_size: int
    num_samples: int
    normalise: bool
    min_samples: int = 32_000
    num_workers: int = 0

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: give at least 1")
        for name in ("num_samples", "min_samples"):
            if getattr(self, name) < audio.MIN_SAMPLES:
                raise ValueError(
                    f"{name}={getattr(self, name)} allows clips shorter than the receptive field of a frame, which is "
                    f"{audio.MIN_SAMPLES} samples; raise {name} to that at least"
                )

    def batches(self, seed: int) -> BatchIterator:
        """Endless `AudioBatch`es of this process' rows, in an order and with crops that `seed` (0 or more) decides."""
        return self.batches_on(this_host(), seed)

    def batches_on(self, host: Host, seed: int) -> BatchIterator:
        """`batches` as the process `host` gets them."""
        parts = [(Selection(self._records, portion.places), portion.share) for portion in self._portions]
        clips = shuffled(parts, seed).random_map(
            functools.partial(random_clip, crop_of(self.normalise), self.num_samples)
        )
        return BatchIterator(share(clips, self.batch_size, host).map(_audio_batch), self.num_workers)

    def epoch(self) -> Iterator[AudioBatch]:
        """Every utterance once, in the source's order, its first `num_samples` samples; filler rows come last."""
        return self.epoch_on(this_host())

    def epoch_on(self, host: Host) -> Iterator[AudioBatch]:
        """`epoch` as the process `host` gets it."""
        in_source_order = np.sort(np.concatenate([portion.places for portion in self._portions]))
        clips = grain.MapDataset.source(Selection(self._records, in_source_order)).map(
            functools.partial(first_clip, crop_of(self.normalise), self.num_samples)
        )
        clips = filled_up(clips, self.batch_size, filler_clip(self.num_samples))
        return read_ahead(share(clips, self.batch_size, host).map(_audio_batch), self.num_workers)

    def shapes(self) -> tuple[AudioBatch, ...]:
        """The one shape of the global batches."""
        return (_shapes(AudioBatch, self.batch_size, self.num_samples),)

    def summary(self) -> dict[str, Any]:
        """How many utterances of which lengths there are, in which shares, and the shape of a batch."""
        long_enough = self._num_samples[self._num_samples >= self.min_samples]
        return {**_summary(long_enough, self._portions), "batches": [[self.batch_size, self.num_samples]]}

    @functools.cached_property
    def _records(self) -> Records:
        return self.source.records()

    @functools.cached_property
    def _num_samples(self) -> Int[np.ndarray, " utterance"]:
        """Of all utterances."""
        return columns(self._records, "num_samples")[0]

    @functools.cached_property
    def _portions(self) -> tuple[Portion, ...]:
        """Of the utterances that are long enough."""
        num_samples, everything = self._num_samples, portions(self._records, str(self.source))
        long_enough = num_samples >= self.min_samples
        for name, places, _ in everything:
            if not long_enough[places].any():
                raise ValueError(
                    f"none of the {len(places)} utterances of {name} has min_samples={self.min_samples} samples (the "
                    f"longest has {num_samples[places].max(initial=0)}); lower min_samples or give another source"
                )
        if left_out := np.count_nonzero(~long_enough):
            log.warning("left out %d of %d utterances: under %d samples", left_out, len(num_samples), self.min_samples)
        return tuple(portion._replace(places=portion.places[long_enough[portion.places]]) for portion in everything)


@dataclass(frozen=True)
class Transcribed:
    """Whole utterances with their transcripts, batched by length: one shape for each of a handful of buckets.

    `buckets` turns the lengths of the corpus into shapes: a `PercentileBuckets`, say. At every step all processes get a
    batch of the same bucket. An utterance is never cut: one that fits in no bucket, or is shorter than the receptive
    field of a frame, or whose text `vocabulary` can't spell, is an error (a ValueError that names it) when the source
    is first read.

    `augment` alters waveforms in `batches`, each time otherwise, and never in `epoch`. An utterance is in the bucket
    that holds the longest that may become of it.
    """

    source: RecordSource
    vocabulary: LabelEncoder
    buckets: Bucketing
    normalise: bool
    num_workers: int = 0
    augment: tuple[Augmentation, ...] = ()

    def batches(self, seed: int) -> BatchIterator:
        """Endless `LabeledBatch`es of this process' rows; `seed` (0 or more) decides their order and all that is drawn.

        Every utterance comes once an epoch, or as often as its share in a mixture says; what doesn't fill a batch of
        its bucket is carried into the next epoch.
        """
        return self.batches_on(this_host(), seed)

    def batches_on(self, host: Host, seed: int) -> BatchIterator:
        """`batches` as the process `host` gets them."""
        augment = functools.partial(altered, tuple(augmentation.open() for augmentation in self.augment))
        buckets = [(rows, rows.parts(self._portions)) for rows in self._rows]
        streams = [
            shuffled(parts, seed, number).random_map(augment).map(rows.row)
            for number, (rows, parts) in enumerate(buckets)
        ]
        rows_per_epoch = [sum(weight for _, weight in parts) for _, parts in buckets]
        batches = in_turn(streams, rows_per_epoch, self._batch_sizes, host, seed)
        return BatchIterator(batches.map(_labeled_batch), self.num_workers)

    def epoch(self) -> Iterator[LabeledBatch]:
        """Every utterance once, bucket by bucket; the last batch of each bucket is completed with filler rows."""
        return self.epoch_on(this_host())

    def epoch_on(self, host: Host) -> Iterator[LabeledBatch]:
        """`epoch` as the process `host` gets it."""
        batches = in_order(self._rows, self._batch_sizes, host, [rows.filler() for rows in self._rows])
        return read_ahead(batches.map(_labeled_batch), self.num_workers)

    def shapes(self) -> tuple[LabeledBatch, ...]:
        """The global batches to expect: a shape for each bucket that holds at least one utterance."""
        return tuple(
            _shapes(LabeledBatch, shape.batch_size, shape.max_samples, shape.max_labels)
            for shape in (rows.shape for rows in self._rows)
        )

    def summary(self) -> dict[str, Any]:
        """How many utterances of which lengths there are, in which shares, and the buckets."""
        _, _, num_samples = self._known
        return {
            **_summary(num_samples, self._portions),
            "labels": _checksum(np.array([len(labels) for labels in self._labels])),
            "batches": [list(rows.shape) for rows in self._rows],
        }

    @property
    def _batch_sizes(self) -> list[int]:
        return [rows.shape.batch_size for rows in self._rows]

    @functools.cached_property
    def _records(self) -> Records:
        return self.source.records()

    @functools.cached_property
    def _known(self) -> tuple[Column, ...]:
        return columns(self._records, "id", "text", "num_samples")

    @functools.cached_property
    def _portions(self) -> tuple[Portion, ...]:
        return portions(self._records, str(self.source))

    @functools.cached_property
    def _labels(self) -> list[Int[np.ndarray, " _"]]:
        ids, texts, _ = self._known
        return [_encode(self.vocabulary, name, text) for name, text in zip(ids, texts, strict=True)]

    @functools.cached_property
    def _rows(self) -> tuple[BucketRows, ...]:
        ids, _, num_samples = self._known
        if not len(num_samples):
            raise ValueError(f"{self.source} has no utterances; give another source")
        num_labels = np.array([len(labels) for labels in self._labels])
        fewest, most = lengths_after(self.augment, num_samples)
        buckets = tuple(sorted(self.buckets(most, num_labels)))
        fitting = fits(buckets, most, num_labels)
        for place in np.flatnonzero((fewest < audio.MIN_SAMPLES) | ~fitting.any(axis=1)):
            augmented = f" ({fewest[place]} to {most[place]} augmented)" if self.augment else ""
            raise ValueError(
                f"utterance {ids[place]!r} has {num_samples[place]} samples{augmented} and "
                f"{num_labels[place]} labels; it needs at least {audio.MIN_SAMPLES} samples and to fit in one of "
                f"{buckets}: leave it out or add a larger bucket"
            )
        smallest = fitting.argmax(axis=1)
        return tuple(
            BucketRows(self._records, self._labels, smallest == bucket, shape, self.normalise)
            for bucket, shape in enumerate(buckets)
            if (smallest == bucket).any()
        )


def _shapes(kind: type, batch_size: int, *lengths: int) -> Any:
    """A batch of rows [length], each followed by its own length: the first of samples, others of ids."""
    kinds = (jnp.int16, jnp.int32)
    pairs = (
        (jax.ShapeDtypeStruct((batch_size, length), kind), jax.ShapeDtypeStruct((batch_size,), jnp.int32))
        for length, kind in zip(lengths, kinds, strict=False)
    )
    levels = Levels(*[jax.ShapeDtypeStruct((batch_size,), jnp.float32)] * 2)
    return kind(*(shape for pair in pairs for shape in pair), levels)


def _summary(num_samples: Int[np.ndarray, " _"], drawn: tuple[Portion, ...]) -> dict[str, Any]:
    return {
        "utterances": len(num_samples),
        "samples": int(num_samples.sum()),
        "lengths": _checksum(num_samples),
        "shares": [portion.share for portion in drawn],
    }


def _checksum(numbers: Int[np.ndarray, " _"]) -> int:
    return zlib.crc32(numbers.astype(np.int64).tobytes())


def _encode(vocabulary: LabelEncoder, name: str, text: str) -> Int[np.ndarray, " label"]:
    try:
        return vocabulary.encode(text).astype(np.int32)
    except ValueError as error:
        raise ValueError(f"utterance {name!r}: {error}") from error


def _audio_batch(columns: Row) -> AudioBatch:
    return AudioBatch(*columns)


def _labeled_batch(columns: Row) -> LabeledBatch:
    return LabeledBatch(*columns)
