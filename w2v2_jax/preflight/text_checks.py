"""Checks of transcripts: whether they are there, what they are written with, and if their sound is long enough."""

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from w2v2_jax.data.pipeline import LabelEncoder
from w2v2_jax.data.text import WORD_END, Vocabulary
from w2v2_jax.frames import PAPER_CONV_LAYERS, num_frames
from w2v2_jax.preflight.checks import Check, Verdict, search
from w2v2_jax.preflight.scan import Scanned


class AnyCharacters:
    """Spells any text as fairseq does: its characters, and a mark behind each word."""

    def encode(self, text: str) -> Int[np.ndarray, " label"]:
        """The code points of what is spelled."""
        return np.array([ord(character) for word in text.split() for character in word + WORD_END], np.int32)


class Labels(NamedTuple):
    """What a network is taught: the labels of a text, and how many frames it gives for so many samples."""

    encoder: LabelEncoder
    num_frames: Callable[[int], int]


PAPER = Labels(AnyCharacters(), functools.partial(num_frames, layers=PAPER_CONV_LAYERS))
"""Letters at a frame every 20 ms."""


class Symbol(NamedTuple):
    """Something that texts are written with: how often, and where first."""

    text: str
    count: int
    first: str


def transcript_checks(scanned: Sequence[Scanned]) -> list[Check]:
    """Empty transcripts in splits that have some, and the characters that texts are written with, rarest first."""
    readable = [each for each in scanned if not each.unreadable]
    transcribed = {each.split for each in readable if each.text.strip()}
    untold = {each.split for each in readable} - transcribed
    empty = (each.name for each in readable if each.split in transcribed and not each.text.strip())
    characters = sorted(_symbols(readable, "".join), key=lambda each: each.count)
    return [
        search("no transcripts", Verdict.INFO, sorted(untold), "splits"),
        search("empty transcripts", Verdict.ERROR, empty),
        Check("alphabet, rarest first", Verdict.INFO, len(characters), "characters", tuple(map(_told, characters))),
    ]


def vocabulary_check(scanned: Sequence[Scanned], encoder: LabelEncoder) -> Check:
    """Every character, or phone where a separator stands between them, that the vocabulary doesn't have."""
    with_spaces = isinstance(encoder, Vocabulary) and encoder.separator
    symbols = _symbols(scanned, (lambda words: words) if with_spaces else "".join)
    outside = sorted((each for each in symbols if not _spells(encoder, each.text)), key=lambda each: -each.count)
    unit = "phones" if with_spaces else "characters"
    return search("outside the vocabulary", Verdict.ERROR, map(_told, outside), unit)


def length_check(scanned: Sequence[Scanned], labels: Labels) -> Check:
    """Transcripts that no alignment can spell: CTC takes a frame a label, and a blank between two that are equal."""
    return search("texts too long", Verdict.ERROR, filter(None, (_excess(each, labels) for each in scanned)))


def _excess(each: Scanned, labels: Labels) -> str:
    if not _spells(labels.encoder, each.text):
        return ""
    spelled = labels.encoder.encode(each.text)
    needed = len(spelled) + int(np.count_nonzero(spelled[1:] == spelled[:-1]))
    frames = labels.num_frames(each.num_samples)
    return f"{each.name}: {needed} frames needed, {frames} there" if needed > frames else ""


def _symbols(scanned: Iterable[Scanned], split: Callable[[list[str]], Iterable[str]]) -> list[Symbol]:
    """All symbols of the texts; `split` gives those of a text's words."""
    counts, first = collections.Counter[str](), {}
    for each in scanned:
        found = collections.Counter(split(each.text.split()))
        counts.update(found)
        for symbol in found.keys() - first.keys():
            first[symbol] = each.name
    return [Symbol(symbol, count, first[symbol]) for symbol, count in sorted(counts.items())]


def _spells(encoder: LabelEncoder, text: str) -> bool:
    try:
        encoder.encode(text)
    except ValueError:
        return False
    return True


def _told(symbol: Symbol) -> str:
    point = f" (U+{ord(symbol.text):04X})" if len(symbol.text) == 1 else ""
    return f"{symbol.text!r}{point} {symbol.count:,} times, first in {symbol.first}"
