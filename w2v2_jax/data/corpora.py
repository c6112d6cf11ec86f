"""Prepared corpora on disk: TFDS datasets whose audio is 16 kHz FLAC, written and read without TensorFlow."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

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

Shard = Callable[[], Iterator[tuple[str, dict[str, Any]]]]


class CorpusError(ValueError):
    """A corpus that is missing, empty or not what was asked for; the message says what to do."""


@runtime_checkable
class Source(Protocol):
    """Where a corpus comes from: a frozen dataclass whose repr tells two sources apart."""

    name: str

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of every split, not read yet."""


class SpeechCorpus(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes shards of records under `data_dir/name/VERSION`.

    `finish` is called with the folder once the shards are written, before it gets its final name: what it writes
    there appears together with the data or not at all.
    """

    VERSION = tfds.core.Version(VERSION)
    url_infos: ClassVar = {}  # nothing is downloaded; TFDS would look for checksums beside this file

    def __init__(self, name: str, data_dir: str, shards: Mapping[str, Sequence[Shard]], finish: Callable[[Path], None]):
        self.name = name
        self.shards = shards
        self.finish = finish
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _shard_iterators_per_split(self, dl_manager) -> Mapping[str, Sequence[Shard]]:
        return self.shards

    def _download_and_prepare(self, dl_manager, download_config=None):
        super()._download_and_prepare(dl_manager, download_config)
        self.finish(self.data_path)

    def _log_download_bytes(self):
        """Silences TFDS, which would announce a download of unknown size."""

    def _log_download_done(self):
        """Silences TFDS: the report says more."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Random access to the records of one split; picklable, so that workers can read it.

    A record is a dict of audio (FLAC bytes), num_samples, text, speaker, language, id, and phones as
    {"symbol": list of str, "start": int64 array, "end": int64 array} in samples.
    """

    name: str
    records: Sequence[Any]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self.records[index]
        except RuntimeError as error:  # of array_record, for bytes that its checksums don't vouch for
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
    return sorted(path.parent.parent.name for path in Path(data_dir).glob(f"*/{VERSION}/features.json"))


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
    return Split(f"{name}/{split}", builder.as_data_source(split))
