"""An experiment's data with every sound exchanged for the number of its utterance.

What a process gets at a step is then found by the pipeline itself, at a small part of the cost of decoding.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from w2v2_jax.batches import AudioBatch, LabeledBatch
from w2v2_jax.data.audio import encode_flac
from w2v2_jax.data.augmentation import Alter, Augmentation, Lengths
from w2v2_jax.data.corpora import Column
from w2v2_jax.data.mixtures import Portion, portions
from w2v2_jax.data.pipeline import Clips, Transcribed
from w2v2_jax.data.records import RecordSource

FILLER = -1
DIGITS = 2
"""Samples that a number takes, of `BASE` values each: enough for a billion utterances."""
BASE = 2**15

Data = Clips | Transcribed


class Known(NamedTuple):
    """What pipelines go by: a column of each field of the records of a source."""

    id: Column
    text: Column
    num_samples: Column


@functools.singledispatch
def soundless(data: Data, known: Known) -> Data:
    """`data` that knows of its utterances what is `known`, in whose batches each row tells its utterance."""
    return dataclasses.replace(data, source=_Source(data.source, known), normalise=False, num_workers=0)


@soundless.register
def _(data: Transcribed, known: Known) -> Data:
    unaltered = tuple(map(_Unaltered, data.augment))
    return dataclasses.replace(
        data, source=_Source(data.source, known), normalise=False, num_workers=0, augment=unaltered
    )


def utterances_of(batch: AudioBatch | LabeledBatch) -> Int[np.ndarray, " batch"]:
    """The utterance of each row of soundless data, or `FILLER`."""
    digits = batch.samples[:, :DIGITS].astype(np.int64)
    return np.where(batch.num_samples > 0, digits @ BASE ** np.arange(DIGITS), FILLER)


@dataclasses.dataclass(frozen=True)
class _Unaltered:
    """Room for an augmentation, which has what it takes but alters nothing."""

    augmentation: Augmentation

    def lengths(self, num_samples: Lengths) -> tuple[Lengths, Lengths]:
        return self.augmentation.lengths(num_samples)

    def open(self) -> Alter:
        self.augmentation.open()
        return lambda waveform, rng: waveform


class _Source:
    def __init__(self, source: RecordSource, known: Known):
        self._source, self._known = source, known

    def records(self) -> "_Records":
        return _Records(self._source, self._known)

    def __repr__(self) -> str:
        return repr(self._source)


class _Records:
    """The records of a source with other sound, drawn as often as its own."""

    def __init__(self, source: RecordSource, known: Known):
        self._source, self._known = source, known

    def __len__(self) -> int:
        return len(self._known.id)

    def __getitem__(self, index: int) -> dict[str, Any]:
        digits = index // BASE ** np.arange(DIGITS) % BASE
        return {"num_samples": DIGITS, "audio": encode_flac((digits / BASE).astype(np.float32))}

    def columns(self, *names: str) -> tuple[Column, ...]:
        """With the lengths of the sound that isn't there."""
        return tuple(getattr(self._known, name) for name in names)

    def portions(self) -> tuple[Portion, ...]:
        return portions(self._source.records(), str(self._source))
