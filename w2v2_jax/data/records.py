"""Where utterances come from: a prepared corpus, a part of one, or several together.

A record is a dict with at least `audio` (FLAC bytes), `num_samples`, `text` and `id`.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from w2v2_jax.data import corpora
from w2v2_jax.data.audio import SAMPLE_RATE


@runtime_checkable
class Records(Protocol):
    """Random access to records, by an integer from 0 to len - 1."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@runtime_checkable
class Indexed(Protocol):
    """Records of which everything but the sound is kept apart, where it is quickly read."""

    def without_audio(self) -> list[dict[str, Any]]:
        """All records but their sound; none where nothing was kept."""


@runtime_checkable
class RecordSource(Protocol):
    """Anything that can open its records; two calls give the same records in the same order."""

    def records(self) -> Records:
        """The records, opened but not read."""


@dataclass(frozen=True)
class Corpus:
    """One split of a corpus that was prepared under `data_dir`."""

    name: str
    split: str
    data_dir: str | Path = field(default_factory=corpora.default_data_dir)

    def records(self) -> Records:
        """Raises what `corpora.open_split` raises if the corpus or the split isn't there."""
        return corpora.open_split(self.name, self.split, self.data_dir)


@dataclass(frozen=True)
class Subset:
    """`minutes` of another source: whole utterances, drawn at random under `seed`, the same ones every time."""

    source: RecordSource
    minutes: int | float
    seed: int = 0

    def records(self) -> Records:
        """Raises ValueError if the source holds less than `minutes`; reads no more of it than it takes."""
        records = self.source.records()
        chosen, missing = [], self.minutes * 60 * SAMPLE_RATE
        for index in np.random.default_rng(self.seed).permutation(len(records)):
            chosen.append(index)
            missing -= int(records[int(index)]["num_samples"])
            if missing <= 0:
                return Selection(records, np.array(chosen))
        held = self.minutes - missing / 60 / SAMPLE_RATE
        raise ValueError(
            f"a subset of {self.minutes} minutes was asked of {self.source}, which holds {held:.1f}; ask for less"
        )


@dataclass(frozen=True)
class InLanguage:
    """The utterances of another source in one language, whose code is that of the records."""

    source: RecordSource
    language: str

    def records(self) -> Records:
        """Raises ValueError if there are none."""
        records = self.source.records()
        languages = np.array([record["language"] for record in without_audio(records)], dtype=object)
        if self.language not in languages:
            raise ValueError(
                f"{self.source} has nothing in {self.language!r} (it has: {', '.join(sorted(set(languages)))}); give "
                "one of these"
            )
        return Selection(records, np.flatnonzero(languages == self.language))


@dataclass(frozen=True)
class Mix:
    """Several sources one after the other: each utterance counts once, wherever it is from."""

    sources: tuple[RecordSource, ...]

    def records(self) -> Records:
        """Records of the first source, then those of the second, and so on."""
        return Concatenation(tuple(source.records() for source in self.sources))


class Selection:
    """The records at `indices`, in that order."""

    def __init__(self, records: Records, indices: Int[np.ndarray, " utterance"]):
        self._records, self._indices = records, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._records[int(self._indices[index])]

    def without_audio(self) -> list[dict[str, Any]]:
        """The records but their sound, where that is kept apart."""
        known = _kept_apart(self._records)
        return [known[index] for index in self._indices] if known else []


class Concatenation:
    """The records of each part in turn."""

    def __init__(self, parts: tuple[Records, ...]):
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[part][int(index - self._ends[part] + len(self._parts[part]))]

    def without_audio(self) -> list[dict[str, Any]]:
        """All records but their sound."""
        return [record for part in self._parts for record in without_audio(part)]


def without_audio(records: Records) -> list[dict[str, Any]]:
    """What is known of every utterance but its sound.

    Reads the whole source once, so its size sets the time, where that isn't kept apart as in a prepared corpus.
    """
    return _kept_apart(records) or _stripped(records)


def _kept_apart(records: Records) -> list[dict[str, Any]]:
    known = records.without_audio() if isinstance(records, Indexed) else []
    # A corpus that was prepared before there was such a thing has none of it.
    return known if len(known) == len(records) else []


def _stripped(records: Records) -> list[dict[str, Any]]:
    def strip(index: int) -> dict[str, Any]:
        return {name: value for name, value in records[index].items() if name != "audio"}

    with ThreadPoolExecutor() as threads:
        return list(threads.map(strip, range(len(records))))
