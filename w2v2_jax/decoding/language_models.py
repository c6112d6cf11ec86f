"""What a beam search asks how likely the next word is: an n-gram model in a file, none, or either with hot words."""

import contextlib
import dataclasses
import gzip
import importlib
import os
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

MARKS = ("<s>", "</s>", "<unk>")
"""What n-gram files list beside their words."""
MIN_COVERAGE = 0.5
"""A lexicon and a language model are taken for a mistake if the one lacks more than this share of the other's words."""
_BINARY = b"mmap lm http://kheafield.com/code"


class LanguageModelError(ValueError):
    """A language model that cannot be read, or one for other words than those to be recognised."""


def optional(module: str) -> ModuleType:
    """A module of the extra `decode`; ImportError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"beam search needs {name}: pip install 'w2v2_jax[decode]'") from error


@runtime_checkable
class LanguageModel(Protocol):
    """Anything with flashlight's interface to language models behind it."""

    def load(self, words: Sequence[str]) -> Any:
        """A `flashlight.lib.text.decoder.LM` in which a word's number is its place in `words`."""
        ...


@dataclasses.dataclass(frozen=True)
class NoModel:
    """Every word is as likely as any other: the frames and the lexicon decide."""

    def load(self, words: Sequence[str]) -> Any:
        """Flashlight's model that scores everything 0."""
        return optional("flashlight.lib.text.decoder").ZeroLM()


@dataclasses.dataclass(frozen=True)
class NGramFile:
    """An n-gram model that KenLM reads: ARPA, the same gzipped, or KenLM's binary, which loads in no time."""

    path: str | Path

    def load(self, words: Sequence[str]) -> Any:
        """The model; words that it lacks count as its `<unk>`.

        Raises:
            LanguageModelError: for a damaged file, or where most of `words` are unknown to it.
        """
        share = num_known(self.path, words) / max(len(words), 1)
        if share < MIN_COVERAGE:
            raise LanguageModelError(
                f"{self.path} knows {share:.1%} of the {len(words)} words to be recognised, such as {words[-1]!r}; "
                f"less than {MIN_COVERAGE:.0%} says they are not of one language, alphabet and case: "
                f"make the lexicon of the model's own words"
            )
        kenlm = optional("flashlight.lib.text.decoder.kenlm")
        dictionary = optional("flashlight.lib.text.dictionary").Dictionary(list(words))
        try:
            with _silent():
                return kenlm.KenLM(str(self.path), dictionary)
        except RuntimeError as error:
            raise _damaged(self.path, str(error).splitlines()[-1]) from error


@dataclasses.dataclass(frozen=True)
class HotWords:
    """`model` with the probability of each of `words` times 10^`score`, such as names that are expected in a call.

    A search weights `score` like the model's own log10 probabilities.
    """

    model: LanguageModel
    words: tuple[str, ...]
    score: float = 1.0

    def load(self, words: Sequence[str]) -> Any:
        """The model; raises `LanguageModelError` for a hot word that is not among `words`."""
        numbers = {word: number for number, word in enumerate(words)}
        if missing := [word for word in self.words if word not in numbers]:
            raise LanguageModelError(
                f"hot word {missing[0]!r} is not in the lexicon; add it with Lexicon.with_words, each word by itself"
            )
        return _boosted(self.model.load(words), {numbers[word]: self.score for word in self.words})


def _boosted(model: Any, scores: dict[int, float]) -> Any:
    decoder = optional("flashlight.lib.text.decoder")

    class Boosted(decoder.LM):
        def start(self, start_with_nothing):
            return model.start(start_with_nothing)

        def score(self, state, word):
            state, score = model.score(state, word)
            return state, score + scores.get(word, 0.0)

        def finish(self, state):
            return model.finish(state)

    return Boosted()


def num_known(path: str | Path, words: Iterable[str]) -> int:
    """How many of `words` the n-gram model in a file knows."""
    known = _known_words(path)
    return sum(word in known for word in words)


def _known_words(path: str | Path) -> Container[str]:
    if not _is_binary(path):
        return frozenset(arpa_words(path))
    kenlm = optional("kenlm")
    try:
        return kenlm.Model(str(path))
    except OSError as error:
        raise _damaged(path, str(error)) from error


def arpa_words(path: str | Path) -> Iterator[str]:
    """The words of an ARPA file, which may be gzipped, in its order and without `MARKS`.

    Reads no further than the unigrams. Raises `LanguageModelError` for a file of another kind or a line amiss.
    """
    if _is_binary(path):
        raise LanguageModelError(
            f"{path}: a binary file does not list its words; make a lexicon of those of the ARPA file it was built from"
        )
    with _opened(path) as file:
        yield from _unigrams(path, file)


def _is_binary(path: str | Path) -> bool:
    with _opened(path) as file:
        return file.read(len(_BINARY)) == _BINARY


def _unigrams(path: str | Path, file: Any) -> Iterator[str]:
    section = ""
    for number, raw in enumerate(file, start=1):
        line = raw.decode("utf-8", "replace").strip()
        if line.startswith("\\") or not section:
            section = line
            if section not in ("", "\\data\\", "\\1-grams:"):
                break
        elif line and section == "\\1-grams:":
            fields = line.split()
            if len(fields) not in (2, 3):
                raise _damaged(path, f"line {number} is no unigram: {line[:80]!r}")
            if fields[1] not in MARKS:
                yield fields[1]
    if section not in ("\\2-grams:", "\\end\\"):
        raise _damaged(path, f"no end of its 1-grams where {section[:80]!r} stands")


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The bytes of a file, gunzipped if need be."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if packed else open)(path, "rb") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError) as error:
        raise LanguageModelError(f"there is no language model file {path}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: str | Path, reason: str) -> LanguageModelError:
    return LanguageModelError(f"{path} is neither ARPA nor KenLM's binary, or damaged: {reason}; write it anew")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Holds back what C++ writes to standard error, here KenLM's bar of asterisks."""
    standard_error = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
