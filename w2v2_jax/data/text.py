"""Transcripts to label ids and back: letters with a mark after each word, as fairseq's .ltr files write them."""

import collections
import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq's, in its order; the first is the CTC blank
WORD_END = "|"
ENGLISH = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


# Written by code point where the character looks like another: quotes, the ellipsis and the dashes.
APOSTROPHES = "[\u2018\u2019`]"
PUNCTUATION = r'[.,;:!?"()\-\u201c\u201d\u2013\u2014\u2026]'


class TextError(ValueError):
    """A transcript that the vocabulary cannot write."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols that a CTC head tells apart; a symbol's id is its place.

    `specials` stand for nothing that is written, the `blank` of CTC is one of them. `word_end` stands after each word;
    a vocabulary of phones does without. `separator` is written between two symbols of a word.
    """

    symbols: tuple[str, ...]
    specials: tuple[str, ...] = SPECIALS
    blank: str = SPECIALS[0]
    word_end: str = WORD_END
    separator: str = ""

    def __post_init__(self):
        if self.blank not in self.symbols:
            raise ValueError(f"the blank {self.blank!r} is not among the {len(self.symbols)} symbols")

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> "Vocabulary":
        """The vocabulary of all characters in `texts`, most frequent first."""
        counts = collections.Counter(character for text in texts for character in "".join(text.split()))
        if WORD_END in counts:
            raise TextError(
                f"'{WORD_END}' marks the end of a word and cannot be a letter; replace it in the transcripts"
            )
        return cls((*SPECIALS, WORD_END, *sorted(counts, key=lambda character: (-counts[character], character))))

    def __len__(self) -> int:
        return len(self.symbols)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of every symbol that a transcript may contain."""
        return {symbol: number for number, symbol in enumerate(self.symbols) if symbol not in self.specials}

    @property
    def blank_id(self) -> int:
        """The id of the blank."""
        return self.symbols.index(self.blank)

    @property
    def has_words(self) -> bool:
        """Whether there is a mark that ends words: phones do without."""
        return self.word_end in self.ids

    @property
    def word_end_id(self) -> int:
        """The id of the mark that ends a word; -1, which no label has, in a vocabulary without one."""
        return self.ids.get(self.word_end, -1)

    def encode(self, text: str) -> Int[np.ndarray, " label"]:
        """The ids of `text`: the letters of every word, then the mark that ends it; none for an empty text.

        Where a `separator` stands between symbols, as between phones, they are what it separates, without marks.

        Raises `TextError` for a character, or a phone, outside the vocabulary.
        """
        symbols = text.replace(self.separator, " ").split() if self.separator else self._spelled(text)
        for symbol in symbols:
            if symbol not in self.ids:
                known = self.separator.join(self.ids)
                raise TextError(f"{symbol!r} in {text!r} is not in the vocabulary ({known}); clean the transcript")
        return np.array([self.ids[symbol] for symbol in symbols], np.int32)

    def _spelled(self, text: str) -> str:
        """The letters of `text`, with the mark behind each word."""
        for position, character in enumerate(text):
            if character == self.word_end or not (character.isspace() or character in self.ids):
                raise TextError(
                    f"character {character!r} at position {position} of {text!r} is not in the vocabulary "
                    f"({''.join(self.ids)}); clean the transcript or build the vocabulary with Vocabulary.of_texts"
                )
        word_end = self.word_end if self.has_words else ""
        return "".join(word + word_end for word in text.split())

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of `ids` from which CTC's repeats are gone already; blanks and other specials are dropped."""
        symbols = [self.symbols[number] for number in ids]
        written = [" " if symbol == self.word_end else symbol for symbol in symbols if symbol not in self.specials]
        return " ".join(self.separator.join(written).split())


def spelled(text: str) -> str:
    """The labels of `text` with spaces between them: `A CAT` is `A | C A T |`, as in fairseq's .ltr files."""
    return " ".join(f"{' '.join(word)} {WORD_END}" for word in text.split())


LETTERS = Vocabulary((*SPECIALS, WORD_END, *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"))
"""fairseq's letters of LibriSpeech, the most frequent first."""


def clean_transcript(text: str) -> str:
    """English `text` in the letters of `LETTERS`: capitals, single spaces, no punctuation.

    Raises `TextError` where that would lose something spoken: digits, signs and letters with accents.
    """
    plain = re.sub(PUNCTUATION, " ", re.sub(APOSTROPHES, "'", text.upper()))
    words = [word.strip("'") for word in plain.split()]
    cleaned = " ".join(filter(None, words))
    for position, character in enumerate(cleaned):
        if character not in ENGLISH:
            raise TextError(
                f"{character!r} at position {position} of {cleaned!r} is not an English letter; spell it out"
            )
    return cleaned
