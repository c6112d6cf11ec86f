"""VoxPopuli: 400,000 hours of the European Parliament in 23 languages, 1,800 of them in 16 with transcripts.

Wang et al. 2021, https://github.com/facebookresearch/voxpopuli, CC0; the user's own copy. Recordings of 2009 to 2020,
16 kHz Ogg Vorbis, which the authors' scripts cut:

    get_unlabelled_data   unlabelled_data/LANGUAGE/YEAR/EVENT_NUMBER.ogg, about 30 s each
    get_asr_data          transcribed_data/LANGUAGE/YEAR/ID.ogg, and asr_train.tsv, asr_dev.tsv, asr_test.tsv

2,700 to 4,600 hours a language without transcripts are in its first version, 8,100 to 24,100 in its second. With
transcripts there are 543 hours of en, 282 de, 211 fr, 166 es, 111 pl, 91 it, 89 ro, 63 hu, 62 cs, 53 nl, 43 hr, 35 sk,
27 fi, 10 sl, 3 et, 2 lt, and 29 of English with other accents, `en_accented`, to test on.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import read_file
from w2v2_jax.data.sources.layout import Chain, Lazy, Lines, rejected

LANGUAGES = (
    *("en", "de", "fr", "es", "pl", "it", "ro", "hu", "cs", "nl", "fi", "hr", "sk", "sl", "et", "lt"),
    *("pt", "bg", "el", "lv", "mt", "sv", "da"),
    "en_accented",
)
UNLABELLED = "unlabelled"
TRANSCRIBED = ("train", "dev", "test")
COLUMNS = ("id", "normalized_text", "speaker_id")
"""Those that are read of id, raw_text, normalized_text, speaker_id, split, gender, is_gold_transcript, accent."""


@dataclasses.dataclass(frozen=True)
class VoxPopuli:
    """`languages` of the copy in `folder`, which holds `unlabelled_data`, `transcribed_data` or both.

    A split has the utterances of all languages; one that is empty is left out. Texts are the normalised ones, in small
    letters with some punctuation. Some utterances are of minutes, some of those without transcripts a little over 30 s:
    `max_seconds` decides on them.
    """

    folder: str
    languages: tuple[str, ...]
    name: str = "voxpopuli"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of unlabelled, train, dev and test, language by language."""
        parts = [_read_language(Path(self.folder), language) for language in self.languages]
        splits = {split: Chain([part[split] for part in parts]) for split in (UNLABELLED, *TRANSCRIBED)}
        return {split: utterances for split, utterances in splits.items() if len(utterances)}


def _read_language(root: Path, language: str) -> dict[str, Sequence[Utterance]]:
    if language not in LANGUAGES:
        raise CorpusError(f"'{language}' is not a language of the corpus; give some of {', '.join(LANGUAGES)}")
    splits = {UNLABELLED: _unlabelled(root / "unlabelled_data" / language)}
    splits |= _transcribed(root / "transcribed_data" / language)
    if not any(map(len, splits.values())):
        raise CorpusError(
            f"{root} has neither unlabelled_data/{language}/YEAR/*.ogg nor transcribed_data/{language}/asr_*.tsv; give "
            "the root of voxpopuli.get_unlabelled_data or voxpopuli.get_asr_data once they are done"
        )
    return splits


def _unlabelled(folder: Path) -> Sequence[Utterance]:
    """All files of a language. Of millions, only the names are held in memory."""
    files = sorted(os.fsencode(file.relative_to(folder)) for file in folder.glob("*/*.ogg"))
    return Lazy(functools.partial(_unlabelled_utterance, folder), np.array(files, np.bytes_))


def _unlabelled_utterance(folder: Path, name: bytes) -> Utterance:
    file = folder / os.fsdecode(name)
    return Utterance(file.stem, str(file), functools.partial(read_file, file), language=_code(folder))


def _transcribed(folder: Path) -> dict[str, list[Utterance]]:
    """The utterances that the tables of a language list; then those that none does, in the first split there is."""
    tables = {split: folder / f"asr_{split}.tsv" for split in TRANSCRIBED}
    splits = {split: _read_table(table) if table.exists() else [] for split, table in tables.items()}
    listed = {utterance.path for utterances in splits.values() for utterance in utterances}
    unlisted = sorted(file for file in folder.glob("*/*.ogg") if str(file) not in listed)
    first = next((split for split, utterances in splits.items() if utterances), TRANSCRIBED[0])
    untold = rejected("no transcript: no asr_*.tsv lists it")
    splits[first] += [Utterance(file.stem, str(file), untold, language=_code(folder)) for file in unlisted]
    return splits


def _read_table(table: Path) -> list[Utterance]:
    """Rows under a header, separated by tabs; quotes are part of texts."""
    header, *rows = [line.split("\t") for line in Lines(table)] or [[]]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise CorpusError(f"{table}:1: no column {', '.join(missing)} among {', '.join(header)}")
    return [_row(table, number, header, row) for number, row in enumerate(rows, start=2)]


def _row(table: Path, number: int, header: list[str], row: list[str]) -> Utterance:
    if len(row) != len(header):
        reason = f"malformed: line {number} of {table.name} has {len(row)} values, the header {len(header)} names"
        return Utterance(row[0], f"{table}:{number}", rejected(reason), language=_code(table.parent))
    key, text, speaker = (row[header.index(column)].strip() for column in COLUMNS)
    file = table.parent / key[:4] / f"{key}.ogg"
    untold = rejected(f"no transcript: normalized_text is empty in line {number} of {table.name}")
    return Utterance(
        id=key,
        path=str(file),
        read=functools.partial(read_file, file) if text else untold,
        text=text,
        speaker=speaker,
        language=_code(table.parent),
    )


def _code(folder: Path) -> str:
    """ISO 639-1 of the folder of a language."""
    return folder.name.partition("_")[0]
