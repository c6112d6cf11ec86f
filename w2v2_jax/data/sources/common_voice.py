"""Common Voice, Mozilla's corpus of sentences that volunteers read: the archives as downloaded, in any language.

A release (commonvoice.mozilla.org and datacollective.mozillafoundation.org, CC0) unpacks to
`cv-corpus-17.0-2024-03-15/en`, which has `clips` of .mp3 files and tables of them: `train`, `dev` and `test`, of
other speakers each and one clip a sentence; `validated`, which the three are drawn from; `invalidated`, voted down;
and `other`, without enough votes yet. Release 24.0 (December 2025) has 38,932 hours in 289 languages, 25,886 of
them validated. Releases draw `train`, `dev` and `test` anew: results of two releases can't be compared.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import read_file
from w2v2_jax.data.sources.layout import Chain, Lazy, Lines, rejected

PARTS = ("train", "dev", "test", "validated", "invalidated", "other")
COLUMNS = ("client_id", "path", "sentence")
"""Those of a table that are read; what others there are, and in which order, differs between releases."""


@dataclasses.dataclass(frozen=True)
class CommonVoice:
    """The release in `folder`, which holds a folder a language; all of them unless `languages` says which.

    `parts` are the tables to take, each of which becomes a split; the languages of a split follow each other. Texts
    are as published, with capitals and punctuation; a speaker is a `client_id`.
    """

    folder: str
    languages: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("train", "dev", "test")
    name: str = "common_voice"

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of each part, language by language, in the order of the tables."""
        unknown = sorted(set(self.parts).difference(PARTS))
        if unknown:
            raise CorpusError(f"Common Voice has no part '{unknown[0]}'; give some of {', '.join(PARTS)}")
        languages = [Path(self.folder, language) for language in self.languages] or _languages(Path(self.folder))
        return {part: Chain([_utterances(language, part) for language in languages]) for part in self.parts}


def _languages(folder: Path) -> list[Path]:
    found = sorted(clips.parent for clips in folder.glob("*/clips"))
    if not found:
        raise CorpusError(
            f"{folder} holds no LANGUAGE/clips; give the folder that an archive unpacks to, such as "
            "cv-corpus-17.0-2024-03-15"
        )
    return found


def _utterances(folder: Path, part: str) -> Sequence[Utterance]:
    """The clips of one language that a table lists."""
    table = folder / f"{part}.tsv"
    if not table.is_file():
        there = ", ".join(each for each in PARTS if (folder / f"{each}.tsv").is_file()) or "none"
        raise CorpusError(f"there is no table {table}; of the tables there are: {there}")
    lines = Lines(table)
    columns = tuple(_fields(lines[0])) if len(lines) else ()
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise CorpusError(f"{table}:1: no column {', '.join(missing)} among {', '.join(columns) or 'none'}")
    return Lazy(functools.partial(_utterance, table, lines, columns), range(1, len(lines)))


def _fields(line: str) -> list[str]:
    """The values of a row: quotes are part of them, a backslash is written twice."""
    return [field.replace(r"\\", "\\") for field in line.rstrip("\r").split("\t")]


def _utterance(table: Path, lines: Sequence[str], columns: tuple[str, ...], index: int) -> Utterance:
    values = _fields(lines[index])
    language = table.parent.name
    if len(values) != len(columns):
        reason = f"malformed: the line has {len(values)} values, the header {len(columns)} names"
        place = f"{table}:{index + 1}"
        return Utterance(f"{language}/{table.name}:{index + 1}", place, rejected(reason), language=language)
    row = dict(zip(columns, values, strict=True))
    clip = table.parent / "clips" / row["path"]
    file = clip if clip.suffix else clip.with_suffix(".mp3")  # the first release leaves it out
    return Utterance(
        id=f"{language}/{file.stem}",
        path=str(file),
        read=functools.partial(read_file, file) if row["sentence"] else rejected("no transcript: sentence is empty"),
        text=row["sentence"],
        speaker=row["client_id"],
        language=row.get("locale") or language,
    )
