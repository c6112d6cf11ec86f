"""Waveforms altered as they are trained on: another speed, noise, rooms; each time otherwise.

    Transcribed(..., augment=(Speed((0.9, 1.0, 1.1)), Sometimes(Reverberation(ROOMS), 0.3), Noise(NOISES, (5, 20))))

They are applied in their order, before waveforms are normalised, and never in evaluation. Recordings of noise and of
rooms are prepared corpora like any other.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import soxr
from jaxtyping import Float32, Int

from w2v2_jax.data.audio import MIN_RMS, SAMPLE_RATE, AudioError, Waveform, decode_record
from w2v2_jax.data.records import Records, RecordSource

Lengths = Int[np.ndarray, " utterance"]
Altered = Float32[np.ndarray, " altered"]
Alter = Callable[[Waveform, np.random.Generator], Altered]
"""Another waveform in place of one, by draws from the generator."""

FACTORS = (0.5, 2.0)
"""Beyond these what is heard is no speech."""
ATTEMPTS = 10
"""Pieces of noise to draw before giving up on finding one that isn't silent."""


@runtime_checkable
class Augmentation(Protocol):
    """Settings of a way to alter waveforms."""

    def lengths(self, num_samples: Lengths) -> tuple[Lengths, Lengths]:
        """The fewest and the most samples that waveforms of so many may come to have."""

    def open(self) -> Alter:
        """What alters a waveform. Raises ValueError where what it takes, such as noise, isn't there."""


class _KeepsLengths:
    def lengths(self, num_samples: Lengths) -> tuple[Lengths, Lengths]:
        """Those it had."""
        return num_samples, num_samples


@dataclass(frozen=True)
class Speed:
    """Speech at one of `factors` of its speed, each as likely: 0.9 is slower and lower, 1.1 faster and higher.

    Ko et al. 2015, "Audio Augmentation for Speech Recognition". What is slower is longer: batches have room for the
    slowest of each utterance.
    """

    factors: tuple[int | float, ...] = (0.9, 1.0, 1.1)

    def __post_init__(self):
        low, high = FACTORS
        if not self.factors or not all(low <= factor <= high for factor in self.factors):
            raise ValueError(f"factors={self.factors}: give factors from {low} to {high}, 1 for the speed as it is")

    def lengths(self, num_samples: Lengths) -> tuple[Lengths, Lengths]:
        """Those at the highest and at the lowest factor."""
        return _at_speed(max(self.factors), num_samples), _at_speed(min(self.factors), num_samples)

    def open(self) -> Alter:
        """Resamples, by soxr."""
        return functools.partial(_change_speed, self.factors)


@dataclass(frozen=True)
class Noise(_KeepsLengths):
    """Noise of a recording of `source` on top, from anywhere in it, and again from there where it is too short.

    The ratio of the powers of speech and noise is between the two of `snr` in dB, each as likely.
    """

    source: RecordSource
    snr: tuple[int | float, int | float]

    def __post_init__(self):
        lowest, highest = self.snr
        if not -math.inf < lowest <= highest < math.inf:
            raise ValueError(f"snr={self.snr}: give the lowest and the highest ratio in dB, such as (5, 20)")

    def open(self) -> Alter:
        """Adds noise; an `AudioError` where it finds only silence."""
        return functools.partial(_add_noise, _opened(self.source), self.snr)


@dataclass(frozen=True)
class Reverberation(_KeepsLengths):
    """Speech in the room of one of the impulse responses of `source`, each as likely.

    The direct sound, which is the strongest sample of the response, stays where it was, so that speech keeps its place
    in time, and the energy what it was.
    """

    source: RecordSource

    def open(self) -> Alter:
        """Convolves; an `AudioError` for a response of silence."""
        return functools.partial(_reverberate, _opened(self.source))


@dataclass(frozen=True)
class Sometimes:
    """Another augmentation, for a share of utterances of `probability` and not for the others."""

    augmentation: Augmentation
    probability: int | float

    def __post_init__(self):
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability}: give a number from 0 to 1")

    def lengths(self, num_samples: Lengths) -> tuple[Lengths, Lengths]:
        """Those it had among them."""
        fewest, most = self.augmentation.lengths(num_samples)
        return np.minimum(fewest, num_samples), np.maximum(most, num_samples)

    def open(self) -> Alter:
        """Alters, or doesn't."""
        return functools.partial(_alter_sometimes, self.augmentation.open(), self.probability)


def lengths_after(augment: tuple[Augmentation, ...], num_samples: Lengths) -> tuple[Lengths, Lengths]:
    """The fewest and the most samples that waveforms may have after all of `augment`."""
    fewest = most = num_samples
    for augmentation in augment:
        fewest, most = augmentation.lengths(fewest)[0], augmentation.lengths(most)[1]
    return fewest, most


def _opened(source: RecordSource) -> Records:
    records = source.records()
    if not len(records):
        raise ValueError(f"{source} has no recordings to augment with; give another source")
    return records


def _drawn(records: Records, rng: np.random.Generator) -> dict[str, Any]:
    return records[int(rng.integers(len(records)))]


def _at_speed(factor: int | float, num_samples: Lengths) -> Lengths:
    """As soxr rounds."""
    return np.floor(num_samples / factor + 0.5).astype(np.int64)


def _change_speed(factors: tuple[int | float, ...], waveform: Waveform, rng: np.random.Generator) -> Altered:
    factor = factors[int(rng.integers(len(factors)))]
    # Taken for a recording at another rate, it is played at ours.
    return soxr.resample(waveform, factor * SAMPLE_RATE, SAMPLE_RATE)


def _add_noise(
    records: Records, snr: tuple[int | float, int | float], waveform: Waveform, rng: np.random.Generator
) -> Waveform:
    ratio = 10 ** (rng.uniform(*snr) / 10)
    noise = _noise(records, len(waveform), rng)
    return waveform + noise * np.float32(math.sqrt(_power(waveform) / _power(noise) / ratio))


def _noise(records: Records, num_samples: int, rng: np.random.Generator) -> Waveform:
    """A piece that isn't silent, as a recording may be in places."""
    for _ in range(ATTEMPTS):
        record = _drawn(records, rng)
        recorded = int(record["num_samples"])
        start = int(rng.integers(max(recorded - num_samples, 0) + 1))
        piece = decode_record(record, start, np.empty(min(num_samples, recorded), np.float32))
        if _power(piece) >= MIN_RMS**2:
            return np.resize(piece, num_samples)
    raise AudioError(
        f"silent: {ATTEMPTS} pieces of noise in a row were, the last from {record['id']!r}; take recordings that are "
        "silent, or mostly so, out of the corpus"
    )


def _reverberate(records: Records, waveform: Waveform, rng: np.random.Generator) -> Altered:
    import scipy.signal  # takes a second to import, in each process that reads data

    record = _drawn(records, rng)
    response = decode_record(record)
    direct = int(np.abs(response).argmax())
    if not response[direct]:
        raise AudioError(f"silent: there is no impulse in the response {record['id']!r}; take it out of the corpus")
    heard = scipy.signal.fftconvolve(waveform, response)[direct : direct + len(waveform)]
    # Silence stays silent.
    power = max(_power(heard), np.finfo(np.float32).tiny)
    return heard * np.float32(math.sqrt(_power(waveform) / power))


def _alter_sometimes(alter: Alter, probability: int | float, waveform: Waveform, rng: np.random.Generator) -> Altered:
    return alter(waveform, rng) if rng.random() < probability else waveform


def _power(waveform: Waveform) -> float:
    """The mean of the squares."""
    return float(np.square(waveform, dtype=np.float64).mean())
