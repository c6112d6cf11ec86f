"""Utterances as rows of a batch: decoded, cropped or altered, normalised, and padded to the batch's shape."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from w2v2_jax.data import audio
from w2v2_jax.data.augmentation import Alter
from w2v2_jax.data.buckets import Bucket
from w2v2_jax.data.iterators import Row
from w2v2_jax.data.mixtures import Portion
from w2v2_jax.data.records import Records

# A row with a part of a record's waveform, given the part's first sample and the samples of the row.
Crop = Callable[[dict[str, Any], int, int], Row]


def crop_of(normalise: bool) -> Crop:
    """Of the waveform as it is, or once the whole utterance has mean 0 and variance 1."""
    return _normalised_crop if normalise else _plain_crop


def _plain_crop(record: dict[str, Any], start: int, num_samples: int) -> Row:
    row = np.zeros(num_samples, np.float32)
    return row, np.int32(len(audio.decode_record(record, start, row)))


def _normalised_crop(record: dict[str, Any], start: int, num_samples: int) -> Row:
    """Of the whole utterance normalised, which has to be decoded whole for it."""
    return padded(audio.normalise(audio.decode_record(record))[start : start + num_samples], num_samples)


def random_clip(crop: Crop, num_samples: int, record: dict[str, Any], rng: np.random.Generator) -> Row:
    """A row with `num_samples` of an utterance from anywhere in it."""
    last_start = max(int(record["num_samples"]) - num_samples, 0)
    return crop(record, int(rng.integers(last_start + 1)), num_samples)


def first_clip(crop: Crop, num_samples: int, record: dict[str, Any]) -> Row:
    """A row with the first `num_samples` of an utterance."""
    return crop(record, 0, num_samples)


def padded(values: Shaped[np.ndarray, " _"], length: int) -> Row:
    """`values` with zeros behind them, and how many there were."""
    row = np.zeros(length, values.dtype)
    row[: len(values)] = values
    return row, np.int32(len(values))


class Spoken(NamedTuple):
    """A whole utterance before it is normalised and padded."""

    waveform: audio.Waveform
    labels: Int[np.ndarray, " label"]


NOTHING = Spoken(np.zeros(0, np.float32), np.zeros(0, np.int32))


def altered(alterations: tuple[Alter, ...], spoken: Spoken, rng: np.random.Generator) -> Spoken:
    """With one alteration after the other of its waveform."""
    waveform = functools.reduce(lambda waveform, alter: alter(waveform, rng), alterations, spoken.waveform)
    return spoken._replace(waveform=waveform)


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
        return Spoken(audio.decode_record(self.records[place]), self.labels[place])


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
        waveform = audio.normalise(spoken.waveform) if self.normalise else spoken.waveform
        return self._padded(spoken._replace(waveform=waveform))

    def filler(self) -> Row:
        """A row of nothing."""
        return self._padded(NOTHING)

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
        return *padded(spoken.waveform, self.shape.max_samples), *padded(spoken.labels, self.shape.max_labels)
