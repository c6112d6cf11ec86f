"""Prepared corpora on disk: TFDS datasets whose audio is 16 kHz FLAC, written and read without TensorFlow."""

import dataclasses
import functools
import gzip
import json
import os
import pathlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds

from w2v2_jax.data.audio import Utterance

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
"""The folder of what is known of the utterances beside their sound, a file a shard."""
WATCH_SECONDS = 5.0
"""Between looks at whether a corpus is still the one that was opened: in a bucket each is a request."""


@functools.cache
def features() -> tfds.features.FeaturesDict:
    """What is in a record."""
    return tfds.features.FeaturesDict(FEATURES)


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
        """As `look`, where the last look is `WATCH_SECONDS` ago."""
        if time.monotonic() - self._looked >= WATCH_SECONDS:
            self.look()

    def look(self) -> None:
        """Raises `CorpusError` if the corpus isn't the one that was opened."""
        self._looked = time.monotonic()
        try:
            stamp = self._stamp()
        except OSError:  # of a bucket that doesn't answer now: that the corpus has changed is not said by it
            return
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

    def without_audio(self) -> list[dict[str, Any]]:
        """All records but their sound, which are kept in files of their own beside it."""

        def read(file: Path) -> list[dict[str, Any]]:
            return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]

        with ThreadPoolExecutor() as threads:
            return [record for part in threads.map(read, self.index) for record in part]

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
    """The records of a split of a prepared corpus, or a `CorpusError` that lists what there is instead."""
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
    index = tuple(sorted((corpus_dir(name, data_dir) / INDEX).glob(f"{split}-*.jsonl.gz")))
    return Split(f"{name}/{split}", builder.as_data_source(split), Watch(corpus_dir(name, data_dir)), index)


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
