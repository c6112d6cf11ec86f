"""The words that a language model tells apart, by falling frequency, and sentences as their numbers."""

import collections
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int

END, UNKNOWN = "</s>", "<unk>"
END_ID, UNKNOWN_ID = 0, 1
MARKS = (END, UNKNOWN)
"""The first of every list: the end of a sentence (and what is before it), and all words that the list doesn't have."""


class WordListError(ValueError):
    """Words that are no list for a language model; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class WordList:
    """Words by falling frequency behind the two marks; a word's id is its place."""

    words: tuple[str, ...]

    def __post_init__(self):
        if self.words[:2] != MARKS:
            raise WordListError(f"a word list begins with {END} and {UNKNOWN}; this one begins with {self.words[:2]}")
        for word, count in collections.Counter(self.words).items():
            if count > 1:
                raise WordListError(f"{word!r} is in the word list {count} times; make the list anew from its text")

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], max_words: int, min_count: int = 1) -> "WordList":
        """The most frequent words, at most `max_words` with the marks, each seen `min_count` times or more.

        Equally frequent ones are in the order of their letters.
        """
        for mark in ("<s>", END):
            if mark in counts:
                raise WordListError(f"{mark} is a mark of a language model and no word; remove it from the text")
        seen = [word for word, count in counts.items() if count >= min_count and word != UNKNOWN]
        if max_words <= len(MARKS) or not seen:
            raise WordListError(
                f"max_words={max_words} and min_count={min_count} leave no word of {len(counts)}; "
                f"give a max_words above {len(MARKS)} and a lower min_count"
            )
        seen.sort(key=lambda word: (-counts[word], word))
        return cls((*MARKS, *seen[: max_words - len(MARKS)]))

    @classmethod
    def read(cls, path: str | Path) -> "WordList":
        """The list in a file of one word a line."""
        return cls(tuple(Path(path).read_text(encoding="utf-8").split("\n")[:-1]))

    def write(self, path: str | Path) -> None:
        """Writes one word a line."""
        Path(path).write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.words)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of every word."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> Int[np.ndarray, " word"]:
        """The ids of the words of a sentence, then that of its end."""
        return np.array([*(self.ids.get(word, UNKNOWN_ID) for word in text.split()), END_ID], np.int32)
