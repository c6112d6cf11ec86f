"""Corpora that the builders of TFDS's own catalogue prepared elsewhere with TensorFlow, read without it.

Of a folder such as `librispeech/lazy_decode/2.1.2`, `features.json` says what a record has, and `dataset_info.json`
which splits and shards there are. TFDS's class of recordings needs TensorFlow, what it writes doesn't: with
`lazy_decode` the bytes of the published file, else samples.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from w2v2_jax.data.audio import (
    SAMPLE_RATE,
    AudioError,
    Recording,
    Utterance,
    Waveform,
    check_duration,
    check_waveform,
    read_audio,
    resample,
)
from w2v2_jax.data.corpora import CorpusError, Path
from w2v2_jax.data.records import Records
from w2v2_jax.data.sources.layout import Lazy

AUDIO = "tensorflow_datasets.core.features.audio_feature.Audio"
TEXT_KEYS = ("text_normalized", "text", "transcription", "transcript", "sentence")
SPEAKER_KEYS = ("speaker_id", "speaker", "client_id")
LANGUAGE_KEYS = ("language", "locale")
ID_KEYS = ("id",)
STRING = "string"
FORMAT = "array_record"
FULL_SCALE = 2**15
"""Of samples that are integers, whatever their type: the recordings are of 16 bits."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The corpus in `folder`, which is called by its version and holds `features.json` and shards in array_record.

    Splits are TFDS's. Of texts the normalised one is taken where there are two. An utterance without an id is called by
    its number. `language` is of utterances that don't say theirs, `sample_rate` of samples that `features.json` says no
    rate of: 48,000 for `common_voice`.
    """

    folder: str
    name: str
    language: str = ""
    sample_rate: int = 0

    def splits(self) -> dict[str, Sequence[Utterance]]:
        """The utterances of each split, in the order of the shards."""
        corpus = _describe(self.folder)
        if not (corpus.is_file or corpus.sample_rate or self.sample_rate):
            raise CorpusError(f"{self.folder} doesn't say the sample rate of '{corpus.audio}'; give sample_rate")
        counts = {split: sum(shards.values()) for split, shards in corpus.splits.items()}
        return {split: Lazy(functools.partial(self._utterance, split), range(counts[split])) for split in counts}

    def _utterance(self, split: str, index: int) -> Utterance:
        corpus = _describe(self.folder)
        read = functools.partial(_read, self.folder, split, index, corpus.sample_rate or self.sample_rate)
        known = _known(self.folder, split, index, self.language)
        return Utterance(path=f"{self.folder}:{split}[{index}]", read=read, **known)


@dataclasses.dataclass(frozen=True)
class CatalogueSplit:
    """A split of such a corpus to train from as it is, if its recordings are 16 kHz FLAC: `librispeech/lazy_decode`."""

    folder: str
    split: str
    language: str = ""

    def records(self) -> Records:
        """Raises `CorpusError` if the recordings are stored otherwise."""
        corpus = _describe(self.folder)
        if (corpus.is_file, corpus.file_format, corpus.sample_rate) != (True, "flac", SAMPLE_RATE):
            raise CorpusError(
                f"the recordings in {self.folder} aren't stored as 16 kHz FLAC; prepare it as a Catalogue"
            )
        if self.split not in corpus.splits:
            raise CorpusError(f"{self.folder} has no split '{self.split}'; it has {', '.join(corpus.splits)}")
        return _FlacRecords(self)


class _FlacRecords:
    """Records as those of prepared corpora; their number of samples is in the header of the recording."""

    def __init__(self, source: CatalogueSplit):
        self._source = source

    def __len__(self) -> int:
        return sum(_describe(self._source.folder).splits[self._source.split].values())

    def __getitem__(self, index: int) -> dict[str, Any]:
        folder, split, language = dataclasses.astuple(self._source)
        known = _known(folder, split, index, language)
        audio = _example(folder, split, index, _describe(folder).recording)[_describe(folder).audio]
        header = soundfile.info(io.BytesIO(audio))
        if (header.channels, header.samplerate) != (1, SAMPLE_RATE):
            raise CorpusError(f"record {index} of {split} in {folder} isn't mono 16 kHz; prepare it as a Catalogue")
        phones = {"symbol": [], "start": np.zeros(0, np.int64), "end": np.zeros(0, np.int64)}
        return {**known, "audio": audio, "num_samples": header.frames, "phones": phones}


class _Corpus(NamedTuple):
    """What the two files say of a corpus.

    `audio` is the key of recordings, which `recording` decodes, to a file or to samples; `known` decodes what else is
    wanted, under `keys`. Splits have for each shard its number of records.
    """

    audio: str
    is_file: bool
    file_format: str
    sample_rate: int
    recording: tfds.features.FeaturesDict
    known: tfds.features.FeaturesDict
    keys: dict[str, str]
    splits: dict[str, dict[Path, int]]


@functools.lru_cache
def _describe(folder: str) -> _Corpus:
    features, info = (_read_json(Path(folder), name) for name in ("features.json", "dataset_info.json"))
    nodes = features.get("featuresDict", {}).get("features", {})
    recordings = [key for key, node in nodes.items() if node.get("pythonClassName") == AUDIO]
    if len(recordings) != 1:
        raise CorpusError(f"{folder} should have recordings under one key; it has {', '.join(nodes) or 'none'}")
    [audio] = recordings
    content = nodes[audio]["audio"]
    texts = [key for key, node in nodes.items() if "text" in node or node.get("tensor", {}).get("dtype") == STRING]
    keys = {
        "text": _first(TEXT_KEYS, texts),
        "speaker": _first(SPEAKER_KEYS, nodes),
        "language": _first(LANGUAGE_KEYS, nodes),
        "id": _first(ID_KEYS, texts),
    }
    wanted = {key: tfds.features.FeatureConnector.from_json(nodes[key]) for key in keys.values() if key}
    known = tfds.features.FeaturesDict(wanted)
    known.load_metadata(folder)
    return _Corpus(
        audio=audio,
        is_file=content.get("lazyDecode", False),
        file_format=content.get("fileFormat", ""),
        sample_rate=int(content.get("sampleRate", 0)),
        recording=tfds.features.FeaturesDict({audio: _stored(content)}),
        known=known,
        keys=keys,
        splits=_splits(Path(folder), info),
    )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        there = sorted(str(file.parent) for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/{name}"))
        raise CorpusError(f"there is no {folder / name}; give the folder of one version, {', '.join(there) or 'whole'}")
    return json.loads((folder / name).read_text())


def _first(keys: Sequence[str], there: Sequence[str] | Mapping[str, Any]) -> str:
    return next((key for key in keys if key in there), "")


def _stored(content: Mapping[str, Any]) -> tfds.features.FeatureConnector:
    """What a recording is on disk."""
    if content.get("lazyDecode"):
        return tfds.features.Scalar(np.bytes_)
    sizes = (int(size) for size in content["shape"]["dimensions"])
    shape = tuple(None if size < 0 else size for size in sizes)
    dtype = np.dtype(content["dtype"]).type
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=content.get("encoding") or "none")


def _splits(folder: Path, info: Mapping[str, Any]) -> dict[str, dict[Path, int]]:
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", ())]
    if FORMAT not in formats:
        raise CorpusError(
            f"{folder} is stored as {formats[0]}, which needs TensorFlow; where that is, run `tfds convert_format "
            f"--dataset_version_dir={folder} --out_file_format={FORMAT}`"
        )
    splits = {split["name"]: _shards(folder, info["name"], split) for split in info.get("splits", ())}
    missing = [shard for shards in splits.values() for shard in shards if not shard.exists()]
    if missing:
        raise CorpusError(f"there is no shard {missing[0]}; copy the whole folder")
    return splits


def _shards(folder: Path, name: str, split: Mapping[str, Any]) -> dict[Path, int]:
    lengths = [int(length) for length in split.get("shardLengths", ())]
    template = split.get("filepathTemplate", "")  # TFDS's own if it isn't said
    files = tfds.core.ShardedFileTemplate(folder, template, name, split["name"], FORMAT)
    return dict(zip(files.sharded_filepaths(len(lengths)), lengths, strict=True))


@functools.lru_cache
def _open(folder: str, split: str) -> ArrayRecordDataSource:
    shards = _describe(folder).splits[split]
    records = ArrayRecordDataSource([str(shard) for shard in shards])
    if len(records) != sum(shards.values()):
        raise CorpusError(f"{folder} should have {sum(shards.values())} records of {split}, not {len(records)}")
    return records


def _example(folder: str, split: str, index: int, features: tfds.features.FeaturesDict) -> dict[str, Any]:
    """What `features` decode of a record."""
    try:
        return features.deserialize_example_np(_open(folder, split)[index])
    except RuntimeError as error:  # of array_record, for bytes that its checksums don't vouch for
        raise CorpusError(f"record {index} of {split} in {folder} is damaged; copy its shard again") from error


def _known(folder: str, split: str, index: int, language: str) -> dict[str, str]:
    """Text, speaker, language and id; where the corpus doesn't say, empty, `language` and a number."""
    corpus = _describe(folder)
    example = _example(folder, split, index, corpus.known)
    known = {name: _told(corpus.known[key], example[key]) if key else "" for name, key in corpus.keys.items()}
    return {**known, "language": known["language"] or language, "id": known["id"] or f"{index:08d}"}


def _told(feature: tfds.features.FeatureConnector, value: Any) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(value) if value >= 0 else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _read(folder: str, split: str, index: int, rate: int, max_seconds: float) -> Recording:
    corpus = _describe(folder)
    stored = _example(folder, split, index, corpus.recording)[corpus.audio]
    if corpus.is_file:
        return Recording(read_audio(io.BytesIO(stored), max_seconds))
    check_duration(len(stored) / rate, max_seconds)
    return Recording(check_waveform(resample(_waveform(stored), rate), max_seconds))


def _waveform(samples: np.ndarray) -> Waveform:
    """Samples of one channel or more, integers or not, as those of one in [-1, 1]."""
    scale = FULL_SCALE if np.issubdtype(samples.dtype, np.integer) else 1
    channels = samples.reshape(len(samples), -1).astype(np.float32) / np.float32(scale)
    if scale == FULL_SCALE and np.abs(channels).max(initial=0) > 1:
        raise AudioError(f"range: integers up to {np.abs(channels).max() * scale:.0f} are not samples of 16 bits")
    return channels.mean(axis=1)
