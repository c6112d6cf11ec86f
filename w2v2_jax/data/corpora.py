"""Prepared corpora on disk: TFDS datasets whose audio is 16 kHz FLAC, written and read without TensorFlow."""

import dataclasses
import functools
import gzip
import json
import logging
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped

from w2v2_jax.data.audio import Utterance
from w2v2_jax.data.remote import is_remote, naming_bucket

log = logging.getLogger(__name__)

Path = tfds.core.Path  # local or gs://
VERSION = "1.0.0"
FEATURES = {
    "audio": tfds.features.Scalar(np.bytes_),
    "num_samples": tfds.features.Scalar(np.int64),
    "text": tfds.features.Text(),
    "speaker": tfds.features.Text(),
    "language": tfds.features.Text(),
    "id": tfds.features.Text(),
    "phones": {
        "symbol": tfds.features.Sequence(tfds.features.Text()),
        "start": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        "end": tfds.features.Tensor(shape=(None,), dtype=np.int64),
    },
}

REPORT = "report.json"
"""Written last: a corpus is there when this is."""
INDEX = "index"
"""The folder of what is known of the utterances beside their sound, a file a shard: see `packed`."""
INDEXED = ("num_samples", "text", "speaker", "language", "id")
"""What is known of them there."""
WATCH_SECONDS = 5.0
"""Between looks at whether a corpus is still the one that was opened: in a bucket each is a request."""


@functools.cache
def features() -> tfds.features.FeaturesDict:
    """What is in a record."""
    return tfds.features.FeaturesDict(FEATURES)


Column = Shaped[np.ndarray, " _"]
"""One field of many records: int64 for `num_samples`, str objects for others."""


def column(name: str, values: Sequence[Any]) -> Column:
    """The values of a field."""
    return np.array(values, np.int64 if name == "num_samples" else object)


def packed(records: Sequence[Mapping[str, Any]]) -> bytes:
    """What is known of records: a line for the names of the fields, then one for the values of each, in JSON, gzipped.

    So a field of millions of records is read without the others, and without an object for each record.
    """
    lines = [INDEXED, *([record[name] for record in records] for name in INDEXED)]
    # Without a time in it, so that the same utterances give the same bytes.
    return gzip.compress(b"\n".join(json.dumps(line, ensure_ascii=False).encode() for line in lines), mtime=0)


def unpacked(data: bytes, names: Sequence[str]) -> list[Column]:
    """The fields `names` of what `packed` gave."""
    first, *lines = gzip.decompress(data).split(b"\n")
    line_of = dict(zip(json.loads(first), lines, strict=True))
    return [column(name, json.loads(line_of[name])) for name in names]


class CorpusError(ValueError):
    """A corpus that is missing, empty or not what was asked for; the message says what to do."""


@runtime_checkable
class Source(Protocol):
    """Where a corpus comes from: a frozen dataclass whose repr tells two sources apart."""

    name: str

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of every split, not read yet."""


class Watch:
    """Ends the use of a corpus that was prepared again, or removed, since it was opened."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._opened = self._stamp()
        self._looked = -WATCH_SECONDS

    def look_now_and_then(self) -> None:
        """As `look`, where the last look is `WATCH_SECONDS` ago; what doesn't answer now may do so the next time."""
        if time.monotonic() - self._looked >= WATCH_SECONDS:
            try:
                self.look()
            except OSError:
                log.warning("no answer from %s: what reads from it waits", self._directory)

    def look(self) -> None:
        """Raises `CorpusError` if the corpus isn't the one that was opened, OSError if nobody can tell."""
        self._looked = time.monotonic()
        with naming_bucket(self._directory):
            stamp = self._stamp()
        if stamp != self._opened:
            raise CorpusError(
                f"the corpus in {self._directory} was prepared again or removed since it was opened; start again, with "
                "a run of its own if the utterances are others"
            )

    def _stamp(self) -> tuple[int, int] | None:
        try:
            stat = (self._directory / REPORT).stat()
        except FileNotFoundError:
            return None
        return stat.length, stat.mtime


@dataclasses.dataclass(frozen=True)
class Split:
    """Random access to the records of one split; picklable, so that workers can read it.

    A record is a dict of audio (FLAC bytes), num_samples, text, speaker, language, id, and phones as
    {"symbol": list of str, "start": int64 array, "end": int64 array} in samples.
    """

    name: str
    records: Sequence[Any]
    watch: Watch
    index: tuple[Path, ...] = ()

    def columns(self, *names: str) -> tuple[Column, ...] | None:
        """The fields `names` of all records, from the files beside the sound; None if there are no such files."""

        def read(file: Path) -> list[Column]:
            with naming_bucket(file.parent):
                return unpacked(file.read_bytes(), names)

        with ThreadPoolExecutor() as threads:
            shards = [*threads.map(read, self.index)]
        return tuple(np.concatenate(parts) for parts in zip(*shards, strict=True)) if shards else None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises `CorpusError` for a record that is damaged on disk, and for a corpus that has changed."""
        self.watch.look_now_and_then()
        try:
            record = self.records[index]
        except RuntimeError as error:  # of array_record, for bytes that its checksums don't vouch for, or no file
            self.watch.look()
            raise CorpusError(f"record {index} of {self.name} is damaged on disk; prepare the corpus again") from error
        words = {key: record[key].decode() for key in ("text", "speaker", "language", "id")}
        phones = {
            "symbol": [symbol.decode() for symbol in record["phones"]["symbol"]],
            "start": np.array(record["phones"]["start"], np.int64),
            "end": np.array(record["phones"]["end"], np.int64),
        }
        return {**record, **words, "num_samples": int(record["num_samples"]), "phones": phones}

    def __repr__(self) -> str:
        return f"Split({self.name}, {len(self)} records)"


def default_data_dir() -> str:
    """Where TFDS keeps its datasets: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return os.environ.get("TFDS_DATA_DIR", os.path.expanduser("~/tensorflow_datasets"))


def corpus_dir(name: str, data_dir: str | pathlib.PurePath) -> Path:
    """The folder of the prepared corpus `name`, which may not be there; may be a gs:// path."""
    return Path(data_dir) / name / VERSION


def list_corpora(data_dir: str | pathlib.PurePath) -> list[str]:
    """Names of the corpora that are prepared under `data_dir`."""
    return sorted(path.parent.parent.name for path in Path(data_dir).glob(f"*/{VERSION}/{REPORT}"))


def open_split(name: str, split: str, data_dir: str | pathlib.PurePath) -> Split:
    """The records of a split of a prepared corpus.

    Raises:
        CorpusError: where it isn't there, which lists what there is instead, is damaged, or in a bucket that isn't
            Google's: its shards can be read from a disk only.
        UnreachableError: for a bucket that doesn't answer.
    """
    with naming_bucket(data_dir):
        return _open_split(name, split, data_dir)


def check_readable(data_dir: str | pathlib.PurePath) -> None:
    """Raises `CorpusError` for a bucket that records can only be written to."""
    if is_remote(data_dir) and not os.fspath(data_dir).startswith("gs://"):
        raise CorpusError(f"records can't be read from {data_dir}, only from gs:// and disks; mount it, or copy it")


def _open_split(name: str, split: str, data_dir: str | pathlib.PurePath) -> Split:
    check_readable(data_dir)
    if name not in list_corpora(data_dir):
        present = ", ".join(list_corpora(data_dir)) or "none"
        raise CorpusError(
            f"no corpus '{name}' under {data_dir} (prepared there: {present}); run `w2v2 prepare` first or give "
            f"another data_dir"
        )
    builder = tfds.builder_from_directory(os.fspath(corpus_dir(name, data_dir)))
    splits = {key: info.num_examples for key, info in builder.info.splits.items()}
    if split not in splits:
        raise CorpusError(f"corpus '{name}' has no split '{split}'; it has {', '.join(splits)}")
    if splits[split] == 0:
        raise CorpusError(f"split '{split}' of corpus '{name}' is empty; see {corpus_dir(name, data_dir)}/rejects.tsv")
    check_shards(corpus_dir(name, data_dir), split)
    watch, index = Watch(corpus_dir(name, data_dir)), index_files(corpus_dir(name, data_dir), split)
    return Split(f"{name}/{split}", builder.as_data_source(split), watch, index)


def index_files(directory: Path, split: str) -> tuple[Path, ...]:
    """What is known beside the sound, in the order of the shards; none for a corpus that was prepared without."""
    return tuple(sorted((directory / INDEX).glob(f"{split}-?????-of-?????.json.gz")))


def check_shards(directory: Path, split: str) -> None:
    """Raises `CorpusError` for a shard that isn't there or has lost its end; a look at each file's size is enough."""
    shards = json.loads((directory / REPORT).read_text()).get("shards", {})
    for file, expected in shards.get(split, {}).items():
        if not (directory / file).exists():
            raise CorpusError(f"shard {file} is missing in {directory}; bring it back, or prepare the corpus again")
        if (size := (directory / file).stat().length) != expected["num_bytes"]:
            raise CorpusError(
                f"shard {file} in {directory} has {size} bytes, not {expected['num_bytes']}: it was cut off or "
                "replaced; bring it back, or prepare the corpus again"
            )
