"""Utterances as rows of a batch: decoded, cropped or altered, padded to the batch's shape, and with their levels."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from w2v2_jax.batches import Levels
from w2v2_jax.data import audio
from w2v2_jax.data.augmentation import Alter
from w2v2_jax.data.buckets import Bucket
from w2v2_jax.data.iterators import Row
from w2v2_jax.data.mixtures import Portion
from w2v2_jax.data.records import Records

# A row with a part of a record's sound, given the part's first sample and the samples of the row.
Crop = Callable[[dict[str, Any], int, int], Row]

STEP = 2.0**-15
"""Of a recording of 16 bits, whose full scale is 1."""
NO_LEVELS = Levels(np.float32(0), np.float32(0))


def levels_of(samples: audio.Samples, step: float, normalise: bool) -> Levels:
    """Of a whole utterance whose samples count steps of its waveform; normalised it has mean 0 and variance 1.

    That is `audio.normalise` of the waveform.
    """
    if not normalise:
        return Levels(np.float32(0), np.float32(step))
    counts = samples.astype(np.float32)
    return Levels(counts.mean(), 1 / np.sqrt(counts.var() + np.float32(audio.EPSILON / step**2)))


def crop_of(normalise: bool) -> Crop:
    """Of the waveform as it is, or once the whole utterance has mean 0 and variance 1."""
    return _normalised_crop if normalise else _plain_crop


def _plain_crop(record: dict[str, Any], start: int, num_samples: int) -> Row:
    row = np.zeros(num_samples, np.int16)
    decoded = audio.decode_record(record, start, row)
    return row, np.int32(len(decoded)), levels_of(decoded, STEP, normalise=False)


def _normalised_crop(record: dict[str, Any], start: int, num_samples: int) -> Row:
    """Of the whole utterance normalised, which has to be decoded whole for it."""
    whole = _whole(record)
    return *padded(whole[start : start + num_samples], num_samples), levels_of(whole, STEP, normalise=True)


def _whole(record: dict[str, Any]) -> audio.Samples:
    return audio.decode_record(record, 0, np.empty(record["num_samples"], np.int16))


def random_clip(crop: Crop, num_samples: int, record: dict[str, Any], rng: np.random.Generator) -> Row:
    """A row with `num_samples` of an utterance from anywhere in it."""
    last_start = max(int(record["num_samples"]) - num_samples, 0)
    return crop(record, int(rng.integers(last_start + 1)), num_samples)


def first_clip(crop: Crop, num_samples: int, record: dict[str, Any]) -> Row:
    """A row with the first `num_samples` of an utterance."""
    return crop(record, 0, num_samples)


def filler_clip(num_samples: int) -> Row:
    """A row of nothing."""
    return *padded(NOTHING.samples, num_samples), NO_LEVELS


def padded(values: Shaped[np.ndarray, " _"], length: int) -> tuple[Shaped[np.ndarray, " length"], np.int32]:
    """`values` with zeros behind them, and how many there were."""
    row = np.zeros(length, values.dtype)
    row[: len(values)] = values
    return row, np.int32(len(values))


class Spoken(NamedTuple):
    """A whole utterance before it is normalised and padded: `samples` count steps of its waveform."""

    samples: audio.Samples
    labels: Int[np.ndarray, " label"]
    step: float = STEP


NOTHING = Spoken(np.zeros(0, np.int16), np.zeros(0, np.int32))


def altered(alterations: tuple[Alter, ...], spoken: Spoken, rng: np.random.Generator) -> Spoken:
    """With one alteration after the other of its waveform, to 16 bits of the loudest sample."""
    recorded = spoken.samples * np.float32(spoken.step)
    waveform = functools.reduce(lambda waveform, alter: alter(waveform, rng), alterations, recorded)
    if waveform is recorded:
        return spoken
    step = float(np.abs(waveform).max(initial=STEP)) / (2**15 - 1)
    return spoken._replace(samples=np.rint(waveform / step).astype(np.int16), step=step)


# Grain writes what it is given, once a batch: a text of all labels would take longer than the batch.
@dataclass(frozen=True, repr=False)
class Utterances:
    """The utterances at `places` of a source whose utterances have `labels`, decoded when they are asked for."""

    records: Records
    labels: list[Int[np.ndarray, " _"]]
    places: Int[np.ndarray, " utterance"]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Spoken:
        place = int(self.places[index])
        return Spoken(_whole(self.records[place]), self.labels[place])


@dataclass(frozen=True, repr=False)
class BucketRows:
    """The rows of a bucket, in the order of the source; `is_held` says which utterances of the source are in it."""

    records: Records
    labels: list[Int[np.ndarray, " _"]]
    is_held: Bool[np.ndarray, " _"]
    shape: Bucket
    normalise: bool

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> Row:
        return self.row(self._at(self._held)[index])

    def row(self, spoken: Spoken) -> Row:
        """An utterance as a row."""
        return *self._padded(spoken), levels_of(spoken.samples, spoken.step, self.normalise)

    def filler(self) -> Row:
        """A row of nothing."""
        return *self._padded(NOTHING), NO_LEVELS

    def parts(self, portions: tuple[Portion, ...]) -> list[tuple[Utterances, float]]:
        """Utterances of each portion that has some here, and how many go by in an epoch, which is as long as all."""
        of_portions = [portion.places[self.is_held[portion.places]] for portion in portions]
        times = [portion.share * len(self.is_held) / len(portion.places) for portion in portions]
        parts = zip(of_portions, times, strict=True)
        return [(self._at(places), each_goes_by * len(places)) for places, each_goes_by in parts if len(places)]

    @functools.cached_property
    def _held(self) -> Int[np.ndarray, " utterance"]:
        return np.flatnonzero(self.is_held)

    def _at(self, places: Int[np.ndarray, " _"]) -> Utterances:
        return Utterances(self.records, self.labels, places)

    def _padded(self, spoken: Spoken) -> Row:
        return *padded(spoken.samples, self.shape.max_samples), *padded(spoken.labels, self.shape.max_labels)
