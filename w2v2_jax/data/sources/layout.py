"""What sources of published corpora have in common: lists too long for memory, lines of text, and what is rejected."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2v2_jax.data.audio import AudioError, Recording, Utterance
from w2v2_jax.data.corpora import CorpusError


class Lazy(Sequence[Utterance]):
    """`make(key)` for each of `keys`, made when it is asked for; only the keys are held in memory."""

    def __init__(self, make: Callable[[Any], Utterance], keys: Sequence[Any] | np.ndarray):
        self._make, self._keys = make, keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Lazy(self._make, self._keys[index])
        return self._make(self._keys[index])

    def __iter__(self) -> Iterator[Utterance]:
        return map(self._make, self._keys)


class Chain(Sequence[Utterance]):
    """The utterances of several sequences, one sequence after the other."""

    def __init__(self, parts: Sequence[Sequence[Utterance]]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index):
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[each] for each in place]
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part][place - int(self._starts[part])]

    def __iter__(self) -> Iterator[Utterance]:
        return itertools.chain.from_iterable(self._parts)


class Lines(Sequence[str]):
    """The lines of a UTF-8 text file, read when they are asked for; raises `CorpusError` naming one that isn't UTF-8.

    A line ends with a line feed and with nothing else.
    """

    def __init__(self, path: Path):
        self._path = path
        self._ends = np.cumsum(np.fromiter((len(line.encode()) + 1 for line in self), np.int64), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index):
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[each] for each in place]
        with self._path.open("rb") as file:
            file.seek(int(self._ends[place - 1]) if place else 0)
            return file.readline().decode().removesuffix("\n")

    def __iter__(self) -> Iterator[str]:
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise CorpusError(f"{self._path} can't be read: {error.strerror}; the corpus should have it") from error
        with file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode().removesuffix("\n")
                except UnicodeDecodeError as error:
                    raise CorpusError(
                        f"{self._path}:{number}: not UTF-8 text ({error.reason}): {line[:60]!r}"
                    ) from error


def rejected(reason: str) -> Callable[[float], Recording]:
    """What reads an utterance that is known to be unfit: `reason` is `kind: detail`."""
    return functools.partial(_reject, reason)


def _reject(reason: str, max_seconds: float) -> Recording:
    raise AudioError(reason)


def unpacked(folder: str, archive: str) -> Path:
    """The folder `archive` in `folder`, or `folder` itself if it is the one that the archive unpacks to."""
    return Path(folder) / archive if (Path(folder) / archive).is_dir() else Path(folder)
