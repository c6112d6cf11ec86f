"""LJ Speech 1.1: one woman reads from seven books of non-fiction, 13,100 clips, 23.9 hours.

Published by Keith Ito (keithito.com/LJ-Speech-Dataset) from recordings of LibriVox, in the public domain. It has no
splits of its own: they are by chapter here, as FastSpeech 2 has them (Ren et al. 2021), 523 clips of LJ001
and LJ002 for test, 349 of LJ003 for dev and 12,228 for train.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import read_file
from w2v2_jax.data.sources.layout import Lines

SPLITS = ("train", "dev", "test")
HELD_OUT = {"LJ001": "test", "LJ002": "test", "LJ003": "dev"}
SPEAKER = "LJ"


@dataclasses.dataclass(frozen=True)
class LJSpeech:
    """The copy in `folder`, which is `LJSpeech-1.1` and has `metadata.csv` and `wavs`.

    Texts are the normalised ones: numbers are spelled out, capitals and punctuation are as published.
    """

    folder: str
    name: str = "ljspeech"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The clips of train, dev and test."""
        clips = list(_clips(Path(self.folder)))
        return {split: [clip for clip in clips if _split(clip) == split] for split in SPLITS}


def _clips(folder: Path) -> Iterator[Utterance]:
    """Lines of `id|text|normalised text`; quotes in them are the text's own."""
    table = folder / "metadata.csv"
    if not table.is_file():
        raise CorpusError(f"there is no {table}; give the folder LJSpeech-1.1, which has metadata.csv and wavs")
    for number, line in enumerate(Lines(table), start=1):
        match line.strip("\r").split("|"):
            case [name, _, text] if name and text:
                file = folder / "wavs" / f"{name}.wav"
                yield Utterance(name, str(file), functools.partial(read_file, file), text, SPEAKER, "en")
            case _:
                raise CorpusError(f"{table}:{number}: {line[:60]!r} should be an id, a text and a normalised text")


def _split(clip: Utterance) -> str:
    """By the chapter that begins an id such as LJ001-0001."""
    return HELD_OUT.get(clip.id.partition("-")[0], "train")
