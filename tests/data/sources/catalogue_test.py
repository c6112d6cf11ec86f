import io
import json
import pickle
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from google.protobuf import json_format
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core.features.feature import TensorInfo
from tensorflow_datasets.core.proto import dataset_info_pb2, feature_pb2

from w2v2_jax.data.audio import AudioError, decode_record
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.records import RecordSource, Subset
from w2v2_jax.data.sources.catalogue import Catalogue, CatalogueSplit

# What the builders of the catalogue have beside the recording, and the words in which features.json tells of that.
LIBRISPEECH = {
    "text": tfds.features.Text(),
    "speaker_id": np.int64,
    "chapter_id": np.int64,
    "id": np.str_,
}
LJSPEECH = {"id": np.str_, "text": tfds.features.Text(), "text_normalized": tfds.features.Text()}
COMMON_VOICE = {
    "client_id": tfds.features.Text(),
    "upvotes": tfds.features.Scalar(np.int32),
    "gender": tfds.features.ClassLabel(names=("male", "female", "other")),
    "sentence": tfds.features.Text(),
}
VCTK = {
    "id": np.str_,
    "text": tfds.features.Text(),
    "speaker": tfds.features.ClassLabel(names=["p225", "p226"]),
    "gender": tfds.features.ClassLabel(names=["F", "M"]),
}
FILE = TensorInfo(shape=(), dtype=np.object_)


def samples(count, seed=0):
    return np.random.default_rng(seed).normal(scale=3000, size=count).round().astype(np.int16)


def flac(count, rate=16_000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples(count), rate, "PCM_16", format="FLAC")
    return buffer.getvalue()


def audio_feature(dtype="int16", shape=(-1,), **fields):
    content = feature_pb2.AudioFeature(shape=feature_pb2.Shape(dimensions=shape), dtype=dtype, **fields)
    name = "tensorflow_datasets.core.features.audio_feature.Audio"
    return feature_pb2.Feature(python_class_name=name, audio=content)


def write(folder, name, others, key, audio, spec, splits, file_format="array_record"):
    """A corpus as TFDS writes it; `splits` have for each shard its examples."""
    folder.mkdir(parents=True, exist_ok=True)
    others = tfds.features.FeaturesDict(others)
    described = others.to_proto()
    described.features_dict.features[key].CopyFrom(audio)
    features = json.dumps(json_format.MessageToDict(described), indent=4, sort_keys=True)
    (folder / "features.json").write_text(features)
    others.save_metadata(folder)  # the names of classes
    serialise = example_serializer.ExampleSerializer({**others.get_serialized_info(), key: spec}).serialize_example
    info = dataset_info_pb2.DatasetInfo(name=name, version=folder.name, file_format=file_format)
    for split, shards in splits.items():
        info.splits.append(
            dataset_info_pb2.SplitInfo(
                name=split,
                shard_lengths=map(len, shards),
                num_bytes=1,
                filepath_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            )
        )
        for index, examples in enumerate(shards):
            file = folder / f"{name}-{split}.{file_format}-{index:05d}-of-{len(shards):05d}"
            writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
            for example in examples:
                recording = {key: example.pop(key)}
                writer.write(serialise({**others.encode_example(example), **recording}))
            writer.close()
    (folder / "dataset_info.json").write_text(json_format.MessageToJson(info, sort_keys=True))
    return str(folder)


def spoken(number, recording):
    example = {"text": f"TEXT {number}", "speaker_id": 84, "chapter_id": 121123, "id": f"84-121123-{number:04d}"}
    return {**example, "speech": recording}


@pytest.fixture
def lazy_decode(tmp_path):
    """librispeech/lazy_decode: the bytes of the published files."""
    shards = [[spoken(0, flac(800)), spoken(1, flac(801))], [spoken(2, flac(802))]]
    splits = {"train_clean100": shards, "dev_clean": [[spoken(3, flac(803))]]}
    audio = audio_feature(file_format="flac", sample_rate=16_000, encoding="none", lazy_decode=True)
    folder = tmp_path / "librispeech/lazy_decode/2.1.2"
    return write(folder, "librispeech", LIBRISPEECH, "speech", audio, FILE, splits)


def test_features_are_told_in_the_words_of_tfds(lazy_decode):
    """As in the features.json of librispeech/lazy_decode: numbers of 64 bits are texts in JSON."""
    nodes = json.loads(Path(lazy_decode, "features.json").read_text())["featuresDict"]["features"]
    assert nodes["speech"] == {
        "audio": {
            "dtype": "int16",
            "encoding": "none",
            "fileFormat": "flac",
            "lazyDecode": True,
            "sampleRate": "16000",
            "shape": {"dimensions": ["-1"]},
        },
        "pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio",
    }
    assert nodes["id"]["tensor"] == {"dtype": "string", "encoding": "none", "shape": {}}


def test_splits_are_those_of_tfds_in_the_order_of_their_shards(lazy_decode):
    splits = Catalogue(lazy_decode, "librispeech", "en").splits()
    assert list(splits) == ["train_clean100", "dev_clean"]
    train = splits["train_clean100"]
    assert [(each.id, each.text) for each in train] == [
        ("84-121123-0000", "TEXT 0"),
        ("84-121123-0001", "TEXT 1"),
        ("84-121123-0002", "TEXT 2"),
    ]
    assert {(each.speaker, each.language) for each in train} == {("84", "en")}
    assert [len(each.read(30.0).waveform) for each in train] == [800, 801, 802]


def test_nothing_needs_tensorflow(lazy_decode):
    [*_, last] = Catalogue(lazy_decode, "librispeech").splits()["dev_clean"]
    last.read(30.0)
    assert "tensorflow" not in sys.modules


def test_a_corpus_is_prepared_and_read_back(lazy_decode, tmp_path):
    report = prepare(Catalogue(lazy_decode, "librispeech", "en"), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"train_clean100": 3, "dev_clean": 1}
    record = open_split("librispeech", "dev_clean", tmp_path / "data")[0]
    assert (record["id"], record["text"], record["language"]) == ("84-121123-0003", "TEXT 3", "en")
    np.testing.assert_array_equal(decode_record(record) * 2**15, samples(803))


@pytest.mark.parametrize(
    ("audio", "spec", "store"),
    [
        (audio_feature(sample_rate=16_000), TensorInfo(shape=(None,), dtype=np.int16), np.array),
        (audio_feature("int64", sample_rate=16_000), TensorInfo(shape=(None,), dtype=np.int64), np.array),
        (audio_feature(sample_rate=16_000, encoding="bytes"), FILE, np.ndarray.tobytes),
        (audio_feature(sample_rate=16_000, encoding="zlib"), FILE, lambda array: zlib.compress(array.tobytes())),
        (
            audio_feature("float32", sample_rate=16_000),
            TensorInfo(shape=(None,), dtype=np.float32),
            lambda array: array / np.float32(2**15),
        ),
        (
            audio_feature(shape=(-1, 2), sample_rate=16_000),
            TensorInfo(shape=(None, 2), dtype=np.int16),
            lambda array: np.stack([array, array], axis=1),
        ),
    ],
)
def test_samples_are_read_however_they_are_stored(tmp_path, audio, spec, store):
    shards = [[spoken(0, store(samples(800)))]]
    folder = write(
        tmp_path / "librispeech/default/2.1.1",
        "librispeech",
        LIBRISPEECH,
        "speech",
        audio,
        spec,
        {"test_clean": shards},
    )
    [only] = Catalogue(folder, "librispeech").splits()["test_clean"]
    np.testing.assert_array_equal(only.read(30.0).waveform * 2**15, samples(800))


def test_the_normalised_text_is_taken_and_samples_are_resampled(tmp_path):
    example = {"id": "LJ001-0001", "text": "1 text", "text_normalized": "one text", "speech": samples(2205)}
    audio = audio_feature(sample_rate=22_050)
    spec = TensorInfo(shape=(None,), dtype=np.int16)
    folder = write(tmp_path / "1.1.1", "ljspeech", LJSPEECH, "speech", audio, spec, {"train": [[example]]})
    [only] = Catalogue(folder, "ljspeech").splits()["train"]
    assert (only.id, only.text, len(only.read(30.0).waveform)) == ("LJ001-0001", "one text", 1600)


def test_classes_are_told_by_their_names(tmp_path):
    example = {"id": "p226_001", "text": "Text.", "speaker": "p226", "gender": "M", "speech": samples(4800)}
    audio, spec = audio_feature(sample_rate=48_000), TensorInfo(shape=(None,), dtype=np.int16)
    folder = write(tmp_path / "1.0.0", "vctk", VCTK, "speech", audio, spec, {"train": [[example]]})
    assert Catalogue(folder, "vctk").splits()["train"][0].speaker == "p226"


@pytest.fixture
def common_voice(tmp_path):
    """Samples without a rate, under another key, of utterances without an id."""
    example = {"client_id": "ada", "upvotes": 2, "gender": "female", "sentence": "Bees hum.", "voice": samples(4800)}
    spec = TensorInfo(shape=(None,), dtype=np.int64)
    splits = {"train": [[example, {**example, "voice": np.array([2**20] * 4800)}]], "validation": []}
    return write(tmp_path / "2.0.0", "common_voice", COMMON_VOICE, "voice", audio_feature("int64"), spec, splits)


def test_utterances_without_ids_are_numbered_and_without_rates_need_one(common_voice):
    splits = Catalogue(common_voice, "common_voice", sample_rate=48_000).splits()
    first = splits["train"][0]
    assert (first.id, first.speaker, first.text) == ("00000000", "ada", "Bees hum.")
    assert len(first.read(30.0).waveform) == 1600 and len(splits["validation"]) == 0
    with pytest.raises(CorpusError, match="doesn't say the sample rate of 'voice'; give sample_rate"):
        Catalogue(common_voice, "common_voice").splits()


def test_samples_too_large_or_recordings_too_long_are_rejected(common_voice):
    first, second = Catalogue(common_voice, "common_voice", sample_rate=48_000).splits()["train"]
    with pytest.raises(AudioError, match="range: integers up to 1048576 are not samples of 16 bits"):
        second.read(30.0)
    with pytest.raises(AudioError, match=r"too long: 0\.1 s is over 0\.05 s"):
        first.read(0.05)


def test_a_split_of_flac_files_can_be_trained_from_as_it_is(lazy_decode):
    source = CatalogueSplit(lazy_decode, "train_clean100", "en")
    records = source.records()
    assert isinstance(source, RecordSource) and len(records) == 3
    assert {name: value for name, value in records[1].items() if name not in ("audio", "phones")} == {
        "num_samples": 801,
        "text": "TEXT 1",
        "speaker": "84",
        "language": "en",
        "id": "84-121123-0001",
    }
    piece = decode_record(records[1], 100, np.zeros(50, np.float32))
    np.testing.assert_array_equal(piece * 2**15, samples(801)[100:150])
    assert len(pickle.loads(pickle.dumps(records))) == 3
    assert len(Subset(source, 1000 / 16_000 / 60).records()) == 2


def test_other_recordings_have_to_be_prepared_first(common_voice, lazy_decode):
    with pytest.raises(CorpusError, match="aren't stored as 16 kHz FLAC; prepare it as a Catalogue"):
        CatalogueSplit(common_voice, "train").records()
    with pytest.raises(CorpusError, match="has no split 'train'; it has train_clean100, dev_clean"):
        CatalogueSplit(lazy_decode, "train").records()


def test_tfrecords_are_an_error_that_says_how_to_convert_them(tmp_path):
    audio, spec = audio_feature(sample_rate=16_000), TensorInfo(shape=(None,), dtype=np.int16)
    folder = write(tmp_path / "2.1.1", "librispeech", LIBRISPEECH, "speech", audio, spec, {}, "tfrecord")
    with pytest.raises(
        CorpusError, match=f"is stored as tfrecord, which needs Ten.*version_dir={folder} --out_file_fo"
    ):
        Catalogue(folder, "librispeech").splits()


def test_a_shard_that_is_not_there_is_an_error_that_names_it(lazy_decode, tmp_path):
    shard = "librispeech-train_clean100.array_record-00001-of-00002"
    (tmp_path / "librispeech/lazy_decode/2.1.2" / shard).unlink()
    with pytest.raises(CorpusError, match=f"there is no shard .*{shard}; copy the whole folder"):
        Catalogue(lazy_decode, "librispeech").splits()


def test_a_record_that_is_damaged_is_an_error_that_names_it(lazy_decode, tmp_path):
    [shard] = (tmp_path / "librispeech/lazy_decode/2.1.2").glob("*dev_clean.array_record*")
    whole = bytearray(shard.read_bytes())
    place = whole.index(b"TEXT 3")
    whole[place : place + 4] = b"text"
    shard.write_bytes(whole)
    with pytest.raises(CorpusError, match=r"record 0 of dev_clean in .* is damaged; copy its shard again"):
        Catalogue(lazy_decode, "librispeech").splits()["dev_clean"][0]


def test_a_folder_above_the_version_is_an_error_that_names_the_versions(lazy_decode, tmp_path):
    with pytest.raises(CorpusError, match=f"give the folder of one version, {lazy_decode}$"):
        Catalogue(str(tmp_path / "librispeech"), "librispeech").splits()


def test_a_corpus_without_recordings_is_an_error_that_lists_its_keys(tmp_path):
    folder = write(tmp_path / "1.0.0", "words", LJSPEECH, "audio", feature_pb2.Feature(), FILE, {})
    with pytest.raises(CorpusError, match="should have recordings under one key; it has audio, id, text, text_normali"):
        Catalogue(folder, "words").splits()
