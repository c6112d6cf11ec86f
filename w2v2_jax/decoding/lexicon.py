"""Words and how they are spelled in the labels of a CTC head: what a beam search may recognise."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.language_models import MARKS, MIN_COVERAGE

Spelling = tuple[str, ...]
"""Symbols of a vocabulary; the last is the mark that ends a word."""


class LexiconError(ValueError):
    """A lexicon that cannot be read, or words that the vocabulary cannot write."""


class Lexicon(NamedTuple):
    """Each word with its spellings."""

    spellings: Mapping[str, tuple[Spelling, ...]]

    @property
    def words(self) -> tuple[str, ...]:
        """The words in their order."""
        return tuple(self.spellings)

    def with_words(self, words: Iterable[str], vocabulary: Vocabulary) -> "Lexicon":
        """This lexicon with those of `words` that it lacks, spelled by their letters.

        Raises `LexiconError` for a word with a letter outside the vocabulary.
        """
        _check_marks(vocabulary)
        added = {word: (_spell(word, vocabulary),) for word in words if word not in self.spellings}
        for word in added:
            if not _writable(word, vocabulary):
                raise LexiconError(f"{word!r} cannot be written in the letters {''.join(vocabulary.ids)}; respell it")
        return Lexicon({**self.spellings, **added})

    def write(self, path: str | Path) -> None:
        """Writes flashlight's format, a spelling a line: the word, a tab, its symbols with spaces between them."""
        lines = [
            f"{word}\t{' '.join(spelling)}\n" for word, spellings in self.spellings.items() for spelling in spellings
        ]
        Path(path).write_text("".join(lines), encoding="utf-8")


def lexicon_of_words(words: Iterable[str], vocabulary: Vocabulary, min_coverage: float = MIN_COVERAGE) -> Lexicon:
    """The lexicon of those of `words` that `vocabulary` can write by letters, such as the words of a language model.

    `<s>`, `</s>` and `<unk>` are no words. Raises `LexiconError` if fewer than `min_coverage` of them, a share, can be
    written: then they are most likely of another case or alphabet than the labels.
    """
    _check_marks(vocabulary)
    given = [word for word in dict.fromkeys(words) if word not in MARKS]
    written = [word for word in given if _writable(word, vocabulary)]
    if not given or len(written) < min_coverage * len(given):
        raise LexiconError(_says_what_is_missing(given, written, vocabulary))
    return Lexicon({word: (_spell(word, vocabulary),) for word in written})


def read_lexicon(path: str | Path, vocabulary: Vocabulary) -> Lexicon:
    """The lexicon in a file: a line has a word, a tab or spaces, and its symbols with spaces between them.

    A word with several spellings has several lines. Lines of `<s>`, `</s>` and `<unk>` are passed over, so a lexicon
    may have them or not.

    Raises:
        LexiconError: for a file without words, or naming the line whose spelling has a symbol outside the vocabulary
            or no mark at its end, by which a search tells words apart.
    """
    _check_marks(vocabulary)
    spellings: dict[str, tuple[Spelling, ...]] = {}
    for number, line in enumerate(_lines(path), start=1):
        word, *spelling = line.split() or [""]
        if not word or word in MARKS:
            continue
        where = f"line {number} of {path}, {line.strip()[:80]!r}"
        if unknown := [symbol for symbol in spelling if symbol not in vocabulary.ids]:
            raise LexiconError(f"{where}: {unknown[0]!r} is not a label ({' '.join(vocabulary.ids)}); respell the word")
        *letters, last = spelling or [""]
        if last != vocabulary.word_end or last in letters or not letters:
            raise LexiconError(f"{where}: a spelling has letters and then, once, {vocabulary.word_end!r}; add it")
        spellings[word] = tuple(dict.fromkeys((*spellings.get(word, ()), tuple(spelling))))
    if not spellings:
        raise LexiconError(f"the lexicon {path} has no words; make one of the language model's words")
    return Lexicon(spellings)


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LexiconError(f"the lexicon {path} cannot be read as UTF-8 text: {error}") from error


def _check_marks(vocabulary: Vocabulary) -> None:
    if vocabulary.word_end not in vocabulary.ids:
        raise LexiconError(
            f"the vocabulary has no {vocabulary.word_end!r} to end its words; search without a lexicon instead"
        )


def _writable(word: str, vocabulary: Vocabulary) -> bool:
    return word != "" and all(letter in vocabulary.ids and letter != vocabulary.word_end for letter in word)


def _spell(word: str, vocabulary: Vocabulary) -> Spelling:
    return (*word, vocabulary.word_end)


def _says_what_is_missing(given: list[str], written: list[str], vocabulary: Vocabulary) -> str:
    if not given:
        return "a lexicon needs words and none were given; is this the right language model?"
    missing = next(word for word in given if not _writable(word, vocabulary))
    cures = {"capitals": str.upper, "small letters": str.lower}
    cure = [name for name, change in cures.items() if _writable(change(missing), vocabulary)]
    advice = f"train the model on text in {cure[0]}" if cure else "give a model of the labels' alphabet"
    return (
        f"only {len(written)} of {len(given)} words can be written in the letters {''.join(vocabulary.ids)}, "
        f"{missing!r} for one cannot; {advice}"
    )
