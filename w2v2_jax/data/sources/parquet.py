"""Parquet files as the `datasets` library of Hugging Face writes and its hub serves them.

The recording is a column of `{bytes, path}`, other columns have what is known of it. Layouts in use:

    data/train-00000-of-00002.parquet        one configuration
    en/train-00000-of-00002.parquet          a folder a configuration
    en/train/0000.parquet                    the same, converted by the hub
"""

import dataclasses
import functools
import io
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from w2v2_jax.data.audio import AudioError, Recording, Utterance, read_audio
from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.layout import Chain, Lazy

SHARD = re.compile(r"(?P<split>.+?)-(?P<index>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")
"""A file's name; a fingerprint may follow."""
ROW_GROUPS = 2
"""That are in memory at a time: while one is being finished, the next is begun."""
LOCK = threading.Lock()
"""Of threads that want the same row group, one reads it."""


class Columns(NamedTuple):
    """Where a file has what; nowhere if empty."""

    audio: str
    text: str
    speaker: str
    language: str
    id: str


@dataclasses.dataclass(frozen=True)
class Parquet:
    """The files of one configuration, at any depth in `folder`; what they call a split is one.

    Of each tuple of columns the first that a file has is taken; a column that is alone in it has to be there. Without
    one of ids that are texts, an utterance is called by its file and row. Texts are as they stand. `language` is of
    rows that don't say theirs.
    """

    folder: str
    name: str
    language: str = ""
    audio_columns: tuple[str, ...] = ("audio", "speech")
    text_columns: tuple[str, ...] = ("normalized_text", "text", "sentence", "transcription", "transcript")
    speaker_columns: tuple[str, ...] = ("speaker_id", "client_id", "speaker")
    language_columns: tuple[str, ...] = ("language", "locale", "lang")
    id_columns: tuple[str, ...] = ("id", "segment_id", "audio_id", "path")

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The rows of each split, file by file."""
        files = _files_by_split(Path(self.folder))
        return {split: Chain([self._utterances(file) for file in files[split]]) for split in files}

    def _utterances(self, file: Path) -> Sequence[Utterance]:
        parquet = _open(file)
        rows = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        ends = np.cumsum([0, *rows], dtype=np.int64)
        columns = self._columns(file, parquet.schema_arrow)
        return Lazy(functools.partial(_utterance, file, columns, self.language, ends), range(int(ends[-1])))

    def _columns(self, file: Path, schema: Any) -> Columns:
        from pyarrow import types

        first = functools.partial(_first, file, schema)
        texts = types.is_string, types.is_large_string
        audio = first(self.audio_columns, lambda kind: types.is_struct(kind) and _has_bytes(kind))
        if not audio:
            raise CorpusError(
                f"{file} has no column of recordings: one of {', '.join(self.audio_columns)} should be a struct of "
                f"bytes and path; its columns are {', '.join(schema.names)}"
            )
        return Columns(
            audio=audio,
            text=first(self.text_columns, *texts),
            speaker=first(self.speaker_columns, *texts, types.is_integer),
            language=first(self.language_columns, *texts),
            id=first(self.id_columns, *texts),
        )


def _first(file: Path, schema: Any, names: Sequence[str], *kinds: Callable[[Any], bool]) -> str:
    """The first of `names` that is a column of one of `kinds`, or nothing if none of several is."""
    there = (name for name in names if name in schema.names)
    found = next((name for name in there if any(kind(schema.field(name).type) for kind in kinds)), "")
    if not found and len(names) == 1:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise CorpusError(f"{file} has no column '{names[0]}' that could be this; its columns are {columns}")
    return found


def _has_bytes(struct: Any) -> bool:
    return "bytes" in (struct.field(index).name for index in range(struct.num_fields))


def _files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The files of each split in their order; `CorpusError` if some are missing or are of several configurations."""
    files = sorted(file for file in folder.rglob("*.parquet") if not _is_hidden(file.relative_to(folder)))
    if not files:
        raise CorpusError(f"{folder} has no .parquet file at any depth; give a folder that has")
    configurations = sorted({_split(file)[1] for file in files})
    if len(configurations) > 1:
        named = ", ".join(map(str, configurations[:5]))
        raise CorpusError(f"{folder} has {len(configurations)} configurations; give the folder of one: {named}")
    splits = {}
    for file in files:
        splits.setdefault(re.sub(r"\W+", "_", _split(file)[0]), []).append(file)
    for found in splits.values():
        _check_complete(found)
    return splits


def _is_hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _split(file: Path) -> tuple[str, Path]:
    """The split that a file is of, and the folder of its configuration."""
    shard = SHARD.fullmatch(file.stem)
    if shard:
        return shard["split"], file.parent
    if file.stem.isdigit():
        return file.parent.name, file.parent.parent
    return file.stem, file.parent


def _check_complete(files: Sequence[Path]):
    shards = [shard for shard in (SHARD.fullmatch(file.stem) for file in files) if shard]
    missing = set(range(int(shards[0]["count"]))).difference(int(shard["index"]) for shard in shards) if shards else ()
    if missing:
        name = f"{shards[0]['split']}-{min(missing):05d}-of-{shards[0]['count']}.parquet"
        raise CorpusError(f"{name} is missing in {files[0].parent}; download it too")


def _utterance(file: Path, columns: Columns, language: str, ends: Int64[np.ndarray, " end"], index: int) -> Utterance:
    group = int(np.searchsorted(ends, index, side="right")) - 1
    row = index - int(ends[group])
    known = _told(file, group, tuple(sorted({*columns} - {columns.audio, ""})))

    def value(column: str) -> str:
        told = known[column][row] if column else None
        return "" if told is None else str(told)

    return Utterance(
        id=value(columns.id) or f"{file.stem}/{index}",
        path=f"{file}:{index}",
        read=functools.partial(_read, file, columns.audio, group, row),
        text=value(columns.text),
        speaker=value(columns.speaker),
        language=value(columns.language) or language,
    )


def _read(file: Path, column: str, group: int, row: int, max_seconds: float) -> Recording:
    with LOCK:
        recording = _recordings(file, column, group)[row].as_py() or {}
    if not recording.get("bytes"):
        raise AudioError(f"missing: the row has no bytes, only the path {recording.get('path')!r}")
    return Recording(read_audio(io.BytesIO(recording["bytes"]), max_seconds))


@functools.lru_cache(maxsize=ROW_GROUPS)
def _recordings(file: Path, column: str, group: int) -> Any:
    """The recordings of a row group as they are stored."""
    return _open(file).read_row_group(group, columns=[column]).column(column)


@functools.lru_cache(maxsize=ROW_GROUPS)
def _told(file: Path, group: int, columns: tuple[str, ...]) -> dict[str, list[Any]]:
    """What a row group has in the other columns."""
    return _open(file).read_row_group(group, columns=list(columns)).to_pydict()


def _open(file: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ImportError("Parquet files are read with pyarrow: pip install 'w2v2_jax[parquet]'") from error
    try:
        return parquet.ParquetFile(file)
    except (ArrowInvalid, OSError) as error:
        raise CorpusError(f"{file} can't be read as Parquet ({str(error).splitlines()[0]}); fetch it again") from error
