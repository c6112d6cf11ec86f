"""From records to batches, with Grain: `Clips` for pretraining, `Transcribed` for fine-tuning and evaluation.

Everything random is drawn for the global stream of utterances, before a process takes its share. So a run sees the
same global batches on any number of processes (process 0 holds the first rows, the last process the last), and where
it stands is one integer that a run on another number of processes can continue from.
"""

import functools
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from w2v2_jax.batches import AudioBatch, LabeledBatch
from w2v2_jax.data import audio
from w2v2_jax.data.buckets import Bucket, Bucketing, fits
from w2v2_jax.data.iterators import (
    BatchIterator,
    Host,
    Row,
    filled_up,
    in_order,
    read_ahead,
    scheduled,
    seed_from,
    share,
    this_host,
)
from w2v2_jax.data.records import Records, RecordSource, Selection, without_audio

log = logging.getLogger(__name__)

# A crop of a record's waveform, given its first sample and its greatest length.
Crop = Callable[[dict[str, Any], int, int], Float[np.ndarray, " sample"]]


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
        clips = grain.MapDataset.source(self._utterances).seed(seed_from(seed)).shuffle().repeat()
        clips = clips.random_map(functools.partial(_random_clip, _crop(self.normalise), self.num_samples))
        return BatchIterator(share(clips, self.batch_size, host).map(_audio_batch), self.num_workers)

    def epoch(self) -> Iterator[AudioBatch]:
        """Every utterance once, in the source's order, its first `num_samples` samples; filler rows come last."""
        return self.epoch_on(this_host())

    def epoch_on(self, host: Host) -> Iterator[AudioBatch]:
        """`epoch` as the process `host` gets it."""
        clips = grain.MapDataset.source(self._utterances).map(
            functools.partial(_first_clip, _crop(self.normalise), self.num_samples)
        )
        clips = filled_up(clips, self.batch_size, _padded(np.zeros(0, np.float32), self.num_samples))
        return read_ahead(share(clips, self.batch_size, host).map(_audio_batch), self.num_workers)

    def shapes(self) -> tuple[AudioBatch, ...]:
        """The one shape of the global batches."""
        return (_shapes(AudioBatch, self.batch_size, self.num_samples),)

    def summary(self) -> dict[str, Any]:
        """How many utterances of which lengths there are, and the shape of a batch."""
        return {**_summary(self._num_samples[self._long_enough]), "batches": [[self.batch_size, self.num_samples]]}

    @functools.cached_property
    def _records(self) -> Records:
        return self.source.records()

    @functools.cached_property
    def _num_samples(self) -> Int[np.ndarray, " utterance"]:
        return _lengths(without_audio(self._records))

    @functools.cached_property
    def _long_enough(self) -> Int[np.ndarray, " clip"]:
        num_samples = self._num_samples
        long_enough = np.flatnonzero(num_samples >= self.min_samples)
        if not len(long_enough):
            raise ValueError(
                f"none of the {len(num_samples)} utterances of {self.source} has min_samples={self.min_samples} "
                f"samples (the longest has {num_samples.max(initial=0)}); lower min_samples or give another source"
            )
        if left_out := len(num_samples) - len(long_enough):
            log.warning("left out %d of %d utterances: under %d samples", left_out, len(num_samples), self.min_samples)
        return long_enough

    @property
    def _utterances(self) -> Records:
        return Selection(self._records, self._long_enough)


@dataclass(frozen=True)
class Transcribed:
    """Whole utterances with their transcripts, batched by length: one shape for each of a handful of buckets.

    `buckets` turns the lengths of the corpus into shapes: a `PercentileBuckets`, say. At every step all processes get a
    batch of the same bucket. An utterance is never cut: one that fits in no bucket, or is shorter than the receptive
    field of a frame, or whose text `vocabulary` can't spell, is an error (a ValueError that names it) when the source
    is first read.
    """

    source: RecordSource
    vocabulary: LabelEncoder
    buckets: Bucketing
    normalise: bool
    num_workers: int = 0

    def batches(self, seed: int) -> BatchIterator:
        """Endless `LabeledBatch`es of this process' rows; `seed` (0 or more) decides their order.

        Every utterance comes once an epoch; what doesn't fill a batch of its bucket is carried into the next epoch.
        """
        return self.batches_on(this_host(), seed)

    def batches_on(self, host: Host, seed: int) -> BatchIterator:
        """`batches` as the process `host` gets them."""
        batches = scheduled(self._rows, self._batch_sizes, host, seed)
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
        """How many utterances of which lengths there are, and the buckets."""
        num_labels = [len(labels) for rows in self._rows for labels in rows.labels]
        return {
            **_summary(_lengths(self._known)),
            "labels": _checksum(np.array(num_labels)),
            "batches": [list(rows.shape) for rows in self._rows],
        }

    @property
    def _batch_sizes(self) -> list[int]:
        return [rows.shape.batch_size for rows in self._rows]

    @functools.cached_property
    def _known(self) -> list[dict[str, Any]]:
        return without_audio(self.source.records())

    @functools.cached_property
    def _rows(self) -> tuple["_BucketRows", ...]:
        num_samples = _lengths(self._known)
        if not len(num_samples):
            raise ValueError(f"{self.source} has no utterances; give another source")
        labels = [_encode(self.vocabulary, record) for record in self._known]
        num_labels = np.array([len(each) for each in labels])
        buckets = tuple(sorted(self.buckets(num_samples, num_labels)))
        fitting = fits(buckets, num_samples, num_labels)
        for index in np.flatnonzero((num_samples < audio.MIN_SAMPLES) | ~fitting.any(axis=1)):
            raise ValueError(
                f"utterance {self._known[index]['id']!r} has {num_samples[index]} samples and {num_labels[index]} "
                f"labels; it needs at least {audio.MIN_SAMPLES} samples and to fit in one of {buckets}: leave it out "
                "or add a larger bucket"
            )
        smallest = fitting.argmax(axis=1)
        records, crop = self.source.records(), _crop(self.normalise)
        return tuple(
            _BucketRows(records, labels, np.flatnonzero(smallest == bucket), shape, crop)
            for bucket, shape in enumerate(buckets)
            if (smallest == bucket).any()
        )


@dataclass(frozen=True)
class _BucketRows:
    """The utterances of one bucket, decoded and padded to its shape when they are asked for."""

    records: Records
    labels: list[Int[np.ndarray, " _"]]
    indices: Int[np.ndarray, " utterance"]
    shape: Bucket
    crop: Crop

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Row:
        index = int(self.indices[place])
        record = self.records[index]
        waveform = self.crop(record, 0, int(record["num_samples"]))
        return self._pad(waveform, self.labels[index])

    def filler(self) -> Row:
        return self._pad(np.zeros(0, np.float32), np.zeros(0, np.int32))

    def _pad(self, waveform: Float[np.ndarray, " sample"], labels: Int[np.ndarray, " label"]) -> Row:
        return *_padded(waveform, self.shape.max_samples), *_padded(labels, self.shape.max_labels)


def _crop(normalise: bool) -> Crop:
    return _normalised_crop if normalise else _plain_crop


def _plain_crop(record: dict[str, Any], start: int, num_samples: int) -> Float[np.ndarray, " sample"]:
    return audio.decode_record(record, start, min(num_samples, int(record["num_samples"]) - start))


def _normalised_crop(record: dict[str, Any], start: int, num_samples: int) -> Float[np.ndarray, " sample"]:
    """Of the whole utterance normalised, which has to be decoded whole for it."""
    return audio.normalise(audio.decode_record(record, 0, int(record["num_samples"])))[start : start + num_samples]


def _random_clip(crop: Crop, num_samples: int, record: dict[str, Any], rng: np.random.Generator) -> Row:
    last_start = max(int(record["num_samples"]) - num_samples, 0)
    return _padded(crop(record, int(rng.integers(last_start + 1)), num_samples), num_samples)


def _first_clip(crop: Crop, num_samples: int, record: dict[str, Any]) -> Row:
    return _padded(crop(record, 0, num_samples), num_samples)


def _padded(values: np.ndarray, length: int) -> Row:
    padded = np.zeros(length, values.dtype)
    padded[: len(values)] = values
    return padded, np.int32(len(values))


def _shapes(kind: type, batch_size: int, *lengths: int) -> Any:
    """A batch of rows [length], each followed by its own length: the first of floats, others of ids."""
    kinds = (jnp.float32, jnp.int32)
    pairs = (
        (jax.ShapeDtypeStruct((batch_size, length), kind), jax.ShapeDtypeStruct((batch_size,), jnp.int32))
        for length, kind in zip(lengths, kinds, strict=False)
    )
    return kind(*(shape for pair in pairs for shape in pair))


def _summary(num_samples: Int[np.ndarray, " _"]) -> dict[str, int]:
    return {
        "utterances": len(num_samples),
        "samples": int(num_samples.sum()),
        "lengths": _checksum(num_samples),
    }


def _checksum(numbers: Int[np.ndarray, " _"]) -> int:
    return zlib.crc32(numbers.astype(np.int64).tobytes())


def _lengths(records: list[dict[str, Any]]) -> Int[np.ndarray, " utterance"]:
    return np.array([record["num_samples"] for record in records], dtype=np.int64)


def _encode(vocabulary: LabelEncoder, record: dict[str, Any]) -> Int[np.ndarray, " label"]:
    try:
        return vocabulary.encode(record["text"]).astype(np.int32)
    except ValueError as error:
        raise ValueError(f"utterance {record['id']!r}: {error}") from error


def _audio_batch(columns: Row) -> AudioBatch:
    return AudioBatch(*columns)


def _labeled_batch(columns: Row) -> LabeledBatch:
    return LabeledBatch(*columns)
