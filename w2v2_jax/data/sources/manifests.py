"""Corpora listed in files: fairseq's .tsv with .wrd or .ltr beside it, JSON lines, and CSV with a header."""

import csv
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import read_file
from w2v2_jax.data.text import WORD_END

PATH_KEYS = ("audio", "audio_filepath", "path", "file")
TEXT_KEYS = ("text", "transcript", "sentence")
LANGUAGE_KEYS = ("language", "lang")


@dataclasses.dataclass(frozen=True)
class Manifests:
    """One file for each split: `Manifests("mine", (("train", "lists/train.tsv"), ("dev", "lists/dev.jsonl")))`.

    The suffix tells the format. Relative paths start at the manifest's own folder, in a .tsv at the root that its
    first line names. Texts are taken as they stand.
    """

    name: str
    files: tuple[tuple[str, str], ...]

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of every manifest, in its order."""
        return {split: read_manifest(Path(file)) for split, file in self.files}


def read_manifest(path: Path) -> list[Utterance]:
    """The utterances that a manifest lists; raises `CorpusError` naming the line that is not as it should be."""
    if path.suffix not in READERS:
        raise CorpusError(f"{path} is not a manifest: its suffix should be one of {', '.join(READERS)}")
    if not path.is_file():
        raise CorpusError(f"there is no manifest {path}")
    return list(READERS[path.suffix](path))


def _read_fairseq(path: Path) -> Iterator[Utterance]:
    """The root on the first line, then `relative path <tab> number of samples`; texts line by line in another file."""
    root, *lines = path.read_text().splitlines() or [""]
    texts = _sibling_texts(path, len(lines))
    for number, (line, text) in enumerate(zip(lines, texts, strict=True), start=2):
        name, tab, _ = line.partition("\t")
        if not tab:
            raise CorpusError(f"{path}:{number}: {line!r} should be a path, a tab and the number of samples")
        file = path.parent / root / name
        yield Utterance(name, str(file), functools.partial(read_file, file), text)


def _sibling_texts(path: Path, count: int) -> list[str]:
    """The texts of a .wrd or .ltr file of the same name, or empty ones if there is neither."""
    words, letters = path.with_suffix(".wrd"), path.with_suffix(".ltr")
    if words.exists():
        texts = words.read_text().splitlines()
    elif letters.exists():
        lines = letters.read_text().splitlines()
        texts = [" ".join("".join(line.split()).replace(WORD_END, " ").split()) for line in lines]
    else:
        return [""] * count
    if len(texts) != count:
        raise CorpusError(f"{path} lists {count} files but its transcripts have {len(texts)} lines; make them agree")
    return texts


def _read_json_lines(path: Path) -> Iterator[Utterance]:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}:{number}: not a line of JSON ({error.msg}): {line[:60]!r}") from error
        if not isinstance(row, dict):
            raise CorpusError(f'{path}:{number}: {line[:60]!r} should be an object such as {{"audio": "a.wav"}}')
        yield _utterance(row, path, number)


def _read_csv(path: Path) -> Iterator[Utterance]:
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if None in row:
                raise CorpusError(f"{path}:{number}: more values than the header has names; quote texts with commas")
            yield _utterance(row, path, number)


def _utterance(row: Mapping[str, Any], path: Path, number: int) -> Utterance:
    """The utterance of one row; what a row says of durations is not needed."""
    audio = _first(row, PATH_KEYS)
    if not audio:
        raise CorpusError(f"{path}:{number}: no path; one of {', '.join(PATH_KEYS)} is expected among {', '.join(row)}")
    if _offset(row, path, number) > 0:
        raise CorpusError(f"{path}:{number}: offset into a longer file; cut the segments into files of their own first")
    file = path.parent / audio
    return Utterance(
        id=str(row.get("id") or audio),
        path=str(file),
        read=functools.partial(read_file, file),
        text=_first(row, TEXT_KEYS),
        speaker=str(row.get("speaker") or ""),
        language=_first(row, LANGUAGE_KEYS),
    )


def _offset(row: Mapping[str, Any], path: Path, number: int) -> float:
    try:
        return float(row.get("offset") or 0)
    except (TypeError, ValueError) as error:
        raise CorpusError(f"{path}:{number}: offset {row['offset']!r} should be a number of seconds") from error


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The value of the first of `keys` that a row has, or an empty text."""
    return next((str(row[key]) for key in keys if row.get(key)), "")


READERS = {".tsv": _read_fairseq, ".jsonl": _read_json_lines, ".csv": _read_csv}
