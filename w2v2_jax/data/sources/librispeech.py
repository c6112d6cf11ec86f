"""LibriSpeech (OpenSLR 12): 960 hours of English audiobooks of LibriVox with transcripts, the user's own copy.

Panayotov et al. 2015, https://www.openslr.org/12, CC BY 4.0. 16 kHz FLAC; texts in capitals and apostrophes.

    split            folder            hours   utterances
    train_clean100   train-clean-100   100.6       28,539
    train_clean360   train-clean-360   363.6      104,014
    train_other500   train-other-500   496.7      148,688
    dev_clean        dev-clean           5.4        2,703
    dev_other        dev-other           5.3        2,864
    test_clean       test-clean          5.4        2,620
    test_other       test-other          5.1        2,939

A few utterances of dev and test are longer than 30 s, up to 35 s: prepare with `max_seconds=40` to score them all.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import read_file
from w2v2_jax.data.sources.layout import Lines, rejected, unpacked

FOLDERS = {
    "train_clean100": "train-clean-100",
    "train_clean360": "train-clean-360",
    "train_other500": "train-other-500",
    "dev_clean": "dev-clean",
    "dev_other": "dev-other",
    "test_clean": "test-clean",
    "test_other": "test-other",
}
"""The names of splits in the catalogue of TFDS, and of folders in the archives."""


@dataclasses.dataclass(frozen=True)
class LibriSpeech:
    """The copy in `folder`, where the archives were unpacked: it holds `LibriSpeech/train-clean-100` and so on.

    Splits that the copy hasn't are left out. Training sets of 460 and 960 hours are a `Mix` of splits.
    """

    folder: str
    name: str = "librispeech"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of the splits that are there, by speaker and chapter."""
        root = unpacked(self.folder, "LibriSpeech")
        found = {split: root / folder for split, folder in FOLDERS.items() if (root / folder).is_dir()}
        if not found:
            raise CorpusError(
                f"{root} holds none of {', '.join(FOLDERS.values())}; give the folder where archives of LibriSpeech "
                "were unpacked"
            )
        return {split: list(read_chapters(folder)) for split, folder in found.items()}


def read_chapters(folder: Path) -> Iterator[Utterance]:
    """The utterances of SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac, with texts of SPEAKER-CHAPTER.trans.txt beside.

    A line without its recording and a recording without its line are among them, to be rejected when read.
    """
    for chapter in sorted(folder.glob("*/*/")):
        transcripts = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        lines = [line.partition(" ") for line in Lines(transcripts)] if transcripts.exists() else []
        recordings = {file.stem for file in chapter.glob("*.flac")}
        for key, _, text in lines:
            yield _utterance(chapter, key, text.strip(), transcripts)
        for key in sorted(recordings - {key for key, _, _ in lines}):
            yield _utterance(chapter, key, "", transcripts)


def _utterance(chapter: Path, key: str, text: str, transcripts: Path) -> Utterance:
    recording = chapter / f"{key}.flac"
    untold = rejected(f"no transcript: {transcripts.name} has no text for {key!r}")
    return Utterance(
        id=key,
        path=str(recording),
        read=functools.partial(read_file, recording) if text else untold,
        text=text,
        speaker=chapter.parent.name,
        language="en",
    )
