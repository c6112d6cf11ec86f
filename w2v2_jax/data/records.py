"""Where utterances come from: a prepared corpus, a part of one, or several together.

A record is a dict with at least `audio` (FLAC bytes), `num_samples`, `text` and `id`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from w2v2_jax.data import corpora
from w2v2_jax.data.audio import SAMPLE_RATE
from w2v2_jax.data.corpora import Column, column


@runtime_checkable
class Records(Protocol):
    """Random access to records, by an integer from 0 to len - 1."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@runtime_checkable
class Indexed(Protocol):
    """Records of which everything but the sound is kept apart, where it is quickly read."""

    def columns(self, *names: str) -> tuple[Column, ...] | None:
        """The fields `names` of all records; None where they are not kept apart."""


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
        (languages,) = columns(records, "language")
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

    def columns(self, *names: str) -> tuple[Column, ...] | None:
        """The fields `names` of the chosen records, where they are kept apart."""
        found = _kept_apart(self._records, names)
        return found and tuple(column[self._indices] for column in found)


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

    def columns(self, *names: str) -> tuple[Column, ...]:
        """The fields `names` of all records, part after part."""
        of_parts = [columns(part, *names) for part in self._parts]
        return tuple(np.concatenate(column) for column in zip(*of_parts, strict=True))


def columns(records: Records, *names: str) -> tuple[Column, ...]:
    """The fields `names`, such as num_samples, text, speaker, language or id, of every record.

    Reads the whole source once, so its size sets the time, where they aren't kept apart as in a prepared corpus.
    """
    return _kept_apart(records, names) or _read(records, names)


def _kept_apart(records: Records, names: Sequence[str]) -> tuple[Column, ...] | None:
    found = records.columns(*names) if isinstance(records, Indexed) else None
    # A corpus that was prepared before there was such a thing has none of it.
    return found if found and len(found[0]) == len(records) else None


def _read(records: Records, names: Sequence[str]) -> tuple[Column, ...]:
    with ThreadPoolExecutor() as threads:
        rows = [*threads.map(lambda index: [records[index][name] for name in names], range(len(records)))]
    return tuple(column(name, [row[number] for row in rows]) for number, name in enumerate(names))
