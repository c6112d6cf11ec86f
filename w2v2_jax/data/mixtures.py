"""Sources together, each of which gives its share of what is trained on, however much of it there is.

    Mixture((german, french), FixedShares((3, 1)))                  # three of four utterances are German
    ByLanguage(Mix((mls, common_voice)), AlphaShares(0.5))          # as XLSR-53 was pretrained
    Mixture(tuple(ByLanguage(corpus, AlphaShares(0.5)) for corpus in corpora), AlphaShares(0.5))    # as XLS-R was

What has less than its share by size comes again sooner than the rest, in another order and with other crops. Only
training is a matter of shares: an evaluation takes every utterance once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.data.corpora import Column
from w2v2_jax.data.records import Concatenation, Records, RecordSource, columns

# From the hours of audio of each part to its share of the utterances that are drawn, in proportion.
Shares = Callable[[Float[np.ndarray, " part"]], Float[np.ndarray, " part"]]


@dataclass(frozen=True)
class FixedShares:
    """Shares in proportion to `weights`, one for each part."""

    weights: tuple[int | float, ...]

    def __post_init__(self):
        if not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights={self.weights}: give numbers above 0, and leave out what is not to be drawn")

    def __call__(self, hours: Float[np.ndarray, " part"]) -> Float[np.ndarray, " part"]:
        """The weights, adding up to 1. Raises ValueError for another number of parts."""
        if len(hours) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights were given for {len(hours)} parts; give one for each")
        return np.array(self.weights) / sum(self.weights)


@dataclass(frozen=True)
class AlphaShares:
    """Shares in proportion to (hours / hours of all) ** alpha: by size for 1, equal for 0, low resources gain between.

    Conneau et al. 2020, "Unsupervised Cross-lingual Representation Learning for Speech Recognition", section 3.2; a
    temperature in other work, of 1 / alpha.
    """

    alpha: int | float

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: give a number from 0 (equal shares) to 1 (shares by hours)")

    def __call__(self, hours: Float[np.ndarray, " part"]) -> Float[np.ndarray, " part"]:
        """Shares that add up to 1."""
        powers = (hours / hours.sum()) ** self.alpha
        return powers / powers.sum()


class Portion(NamedTuple):
    """Utterances of a source that are drawn equally often, by their places, and together `share` of all drawn."""

    name: str
    places: Int[np.ndarray, " utterance"]
    share: float


@runtime_checkable
class Portioned(Protocol):
    """Records of which some are drawn more often than others."""

    def portions(self) -> tuple[Portion, ...]:
        """Every record in one portion, shares adding up to 1."""


def portions(records: Records, name: str) -> tuple[Portion, ...]:
    """What is drawn how often of the records of the source `name`: all of them alike, unless they say otherwise."""
    if isinstance(records, Portioned):
        return records.portions()
    return (Portion(name, np.arange(len(records)), 1.0),)


@dataclass(frozen=True)
class Mixture:
    """Several sources, each with its share of the utterances that are drawn in training.

    A source that is a mixture itself divides what it gets. `Mix` takes every utterance equally often instead.
    """

    sources: tuple[RecordSource, ...]
    shares: Shares

    def __post_init__(self):
        if not self.sources:
            raise ValueError("a mixture of no sources; give one at least")

    def records(self) -> Records:
        """Records of the first source, then those of the second, and so on."""
        return _Mixed(self.sources, tuple(source.records() for source in self.sources), self.shares)


@dataclass(frozen=True)
class ByLanguage:
    """A source whose languages, in the order of their codes, each have their share of what is drawn in training."""

    source: RecordSource
    shares: Shares

    def records(self) -> Records:
        """The records of the source, in its order."""
        return _Languages(str(self.source), self.source.records(), self.shares)


class _Mixed(Concatenation):
    def __init__(self, sources: tuple[RecordSource, ...], parts: tuple[Records, ...], shares: Shares):
        super().__init__(parts)
        self._sources, self._shares = sources, shares

    def portions(self) -> tuple[Portion, ...]:
        starts = np.cumsum([0, *map(len, self._parts)])[:-1]
        names = [str(source) for source in self._sources]
        shares = _checked(self._shares, names, [columns(part, "num_samples")[0] for part in self._parts])
        return tuple(
            Portion(portion.name, start + portion.places, float(share) * portion.share)
            for start, share, part, name in zip(starts, shares, self._parts, names, strict=True)
            for portion in portions(part, name)
        )


class _Languages:
    def __init__(self, name: str, records: Records, shares: Shares):
        self._name, self._records, self._shares = name, records, shares

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._records[index]

    def columns(self, *names: str) -> tuple[Column, ...]:
        return columns(self._records, *names)

    def portions(self) -> tuple[Portion, ...]:
        spoken, num_samples = columns(self._records, "language", "num_samples")
        for place in np.flatnonzero(spoken == ""):
            raise ValueError(
                f"utterance {self._records[int(place)]['id']!r} of {self._name} has no language; prepare the corpus "
                "with one, or give a share to the whole corpus"
            )
        languages = sorted(set(spoken))
        places = [np.flatnonzero(spoken == language) for language in languages]
        names = [f"{language} of {self._name}" for language in languages]
        shares = _checked(self._shares, names, [num_samples[each] for each in places])
        return tuple(Portion(*each) for each in zip(names, places, map(float, shares), strict=True))


def _checked(shares: Shares, names: Sequence[str], num_samples: Sequence[Column]) -> Float[np.ndarray, " part"]:
    """The share of each part, once it is sure that all have something to give."""
    hours = np.array([each.sum() for each in num_samples]) / SAMPLE_RATE / 3600
    for name, part_hours in zip(names, hours, strict=True):
        if not part_hours:
            raise ValueError(f"{name} has no utterances; leave it out of the mixture")
    return shares(hours)
