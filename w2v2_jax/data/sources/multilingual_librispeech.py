"""Multilingual LibriSpeech (OpenSLR 94): 50,000 hours of audiobooks of LibriVox in eight languages, with transcripts.

Pratap et al. 2020, https://www.openslr.org/94, CC BY 4.0; the user's own copy, FLAC as published first or Opus as
published beside it. Utterances are of 10 to 20 s; texts are in small letters without punctuation.

    hours         en       de       nl       fr      es      it      pt      pl
    train     44,659.7  1,966.5  1,554.2  1,076.6  917.7   247.4   161.0   103.6
    dev           15.8     14.3     12.8     10.1   10.0     5.2     3.6     2.1
    test          15.6     14.3     12.8     10.1   10.0     5.3     3.7     2.1
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import read_file
from w2v2_jax.data.sources.layout import Chain, Lazy, Lines, rejected

LANGUAGES = {
    "en": "english",
    "de": "german",
    "nl": "dutch",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "pl": "polish",
}
RELEASES = {"": ".flac", "_opus": ".opus"}
"""What the folder of a language ends with, and what its recordings do."""
SPLITS = ("train", "dev", "test")
LIMITED = {"train_10min": "1hr/0", "train_1h": "1hr/*", "train_9h": "9hr"}
"""Parts of train for limited supervision, and the folders of their lists."""
HANDLE = np.dtype("S32")
"""Such as 4800_10003_000000: speaker, book and number."""


class Folder(NamedTuple):
    """A split of a language as it was unpacked: transcripts.txt, and audio/SPEAKER/BOOK/HANDLE with a suffix."""

    path: Path
    suffix: str
    language: str


@dataclasses.dataclass(frozen=True)
class MultilingualLibriSpeech:
    """The languages (ISO 639-1) of the copy in `folder`, which holds `mls_german` or `mls_german_opus` and so on.

    A split has the utterances of all `languages`; a corpus for each is a source with one. train_10min, train_1h and
    train_9h are parts of train, written once more; the ten hours of the paper are a `Mix` of the last two.
    """

    folder: str
    languages: tuple[str, ...]
    name: str = "mls"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of every split, language by language, in the order of the transcripts."""
        releases = [_release(Path(self.folder), language) for language in self.languages]
        parts = [_read_release(release) for release in releases]
        return {split: Chain([part[split] for part in parts]) for split in (*SPLITS, *LIMITED)}


def _release(folder: Path, language: str) -> Folder:
    """The folder of a language; of two releases the one without loss."""
    if language not in LANGUAGES:
        raise CorpusError(f"'{language}' is not a language of the corpus; give some of {', '.join(LANGUAGES)}")
    releases = {folder / f"mls_{LANGUAGES[language]}{kind}": suffix for kind, suffix in RELEASES.items()}
    for path, suffix in releases.items():
        if path.is_dir():
            return Folder(path, suffix, language)
    raise CorpusError(f"{folder} holds no {' or '.join(path.name for path in releases)}; give the folder that does")


def _read_release(release: Folder) -> dict[str, Sequence[Utterance]]:
    """All splits of a language."""
    splits = {}
    for split in SPLITS:
        folder = release._replace(path=release.path / split)
        lines = Lines(folder.path / "transcripts.txt")
        handles = _handles(line.partition("\t")[0] for line in lines)
        recorded = _handles(file.stem for file in folder.path.glob(f"audio/*/*/*{folder.suffix}"))
        untold = np.setdiff1d(recorded, handles)
        splits[split] = _utterances(folder, lines, untold)
        if split == "train":
            splits |= {name: _limited(folder, name, lines, handles) for name in LIMITED}
    return splits


def _limited(folder: Folder, split: str, lines: Lines, handles: np.ndarray) -> Sequence[Utterance]:
    """The utterances of train that the lists of `split` name, one to be rejected for a name that isn't there."""
    lists = sorted(folder.path.glob(f"limited_supervision/{LIMITED[split]}/handles.txt"))
    if not lists:
        raise CorpusError(
            f"{folder.path} has no limited_supervision/{LIMITED[split]}/handles.txt; unpack the archive again"
        )
    wanted = _handles(line.strip() for file in lists for line in Lines(file) if line.strip())
    told = [lines[int(place)] for place in np.flatnonzero(np.isin(handles, wanted))]
    return _utterances(folder, told, np.setdiff1d(wanted, handles))


def _utterances(folder: Folder, lines: Sequence[str], untold: np.ndarray) -> Sequence[Utterance]:
    """Those of lines of the transcripts, then those that only their handle is known of."""
    return Chain([Lazy(functools.partial(make, folder), keys) for make, keys in ((_told, lines), (_untold, untold))])


def _handles(handles: Iterable[str]) -> np.ndarray:
    """As bytes: for the ten million of English, lists of texts would be gigabytes."""
    return np.fromiter((handle.encode() for handle in handles), HANDLE)


def _told(folder: Folder, line: str) -> Utterance:
    """The utterance of a line of the transcripts: handle, tab, text."""
    handle, _, text = line.partition("\t")
    return _utterance(folder, handle, text.strip())


def _untold(folder: Folder, handle: bytes) -> Utterance:
    return _utterance(folder, handle.decode(), "")


def _utterance(folder: Folder, handle: str, text: str) -> Utterance:
    speaker, _, book = handle.rpartition("_")[0].partition("_")
    recording = folder.path / "audio" / speaker / book / f"{handle}{folder.suffix}"
    untold = rejected(f"no transcript: transcripts.txt has no text, after a tab, for {handle!r}")
    return Utterance(
        id=handle,
        path=str(recording),
        read=functools.partial(read_file, recording) if text else untold,
        text=text,
        speaker=speaker,
        language=folder.language,
    )
