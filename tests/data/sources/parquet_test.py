import builtins
import io
import json
import pickle

import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources import parquet
from w2v2_jax.data.sources.parquet import Parquet

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet as arrow  # noqa: E402

AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
NUM_SAMPLES = 800


def flac(seed):
    buffer = io.BytesIO()
    waveform = 0.1 * np.random.default_rng(seed).normal(size=NUM_SAMPLES + seed)
    soundfile.write(buffer, waveform, 16_000, "PCM_16", format="FLAC")
    return buffer.getvalue()


def write(file, start, count, row_group_size=2, **columns):
    """A file as `datasets` writes it, rows named from `start` on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = range(start, start + count)
    audio = [{"bytes": flac(row), "path": f"374-180298-{row:04d}.flac"} for row in rows]
    table = pyarrow.table(
        {
            "file": [f"374-180298-{row:04d}.flac" for row in rows],
            "audio": pyarrow.array(audio, AUDIO),
            "text": [f"TEXT {row}" for row in rows],
            "speaker_id": [374 + row % 2 for row in rows],
            "chapter_id": [180298 for _ in rows],
            "id": [f"374-180298-{row:04d}" for row in rows],
            **columns,
        }
    )
    info = {"info": {"features": {"audio": {"sampling_rate": 16000, "_type": "Audio"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    arrow.write_table(table, file, row_group_size=row_group_size)


@pytest.fixture
def published(tmp_path):
    """What `push_to_hub` writes: train of two files, validation with a fingerprint in its name as it used to have."""
    folder = tmp_path / "repository"
    write(folder / "data/train-00000-of-00002.parquet", 0, 5)
    write(folder / "data/train-00001-of-00002.parquet", 5, 3)
    write(folder / "data/validation-00000-of-00001-2a1df75c6bce91ab.parquet", 8, 1)
    (folder / "README.md").write_text("---\n")
    write(folder / ".cache/huggingface/download/data/test-00000-of-00001.parquet", 9, 1)
    return folder


def test_splits_are_the_rows_of_their_files_in_order(published):
    splits = Parquet(str(published), "mine").splits()
    assert [each.id for each in splits["train"]] == [f"374-180298-{row:04d}" for row in range(8)]
    assert [each.id for each in splits["validation"]] == ["374-180298-0008"]
    assert set(splits) == {"train", "validation"}
    assert splits["train"][6].text == "TEXT 6" and splits["train"][6].speaker == "374"


def test_every_row_is_read_as_its_own_recording(published):
    train = Parquet(str(published), "mine").splits()["train"]
    assert [len(each.read(30.0).waveform) for each in train] == [NUM_SAMPLES + row for row in range(8)]


def test_rows_of_a_row_group_read_it_once(published):
    parquet._recordings.cache_clear()
    for each in Parquet(str(published), "mine").splits()["train"]:
        each.read(30.0)
    assert parquet._recordings.cache_info().misses == 3 + 2  # of two rows each but the last of a file
    assert parquet._recordings.cache_info().currsize <= 2


def test_an_utterance_can_be_read_in_another_process_and_holds_no_audio(published):
    sent = pickle.dumps(Parquet(str(published), "mine").splits()["train"][3])
    assert len(sent) < NUM_SAMPLES
    assert len(pickle.loads(sent).read(30.0).waveform) == NUM_SAMPLES + 3


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["en/train-00000-of-00001.parquet", "en/dev-00000-of-00001.parquet"], "en"),
        (["en/train/0000.parquet", "en/train/0001.parquet", "en/dev/0000.parquet"], "en"),
        (["train.parquet", "dev.parquet"], ""),
        (["en/train/0000.parquet", "en/dev/0000.parquet"], ""),
    ],
)
def test_splits_are_told_from_any_layout(tmp_path, files, folder):
    for number, file in enumerate(files):
        write(tmp_path / file, number, 1)
    splits = Parquet(str(tmp_path / folder), "mine").splits()
    assert set(splits) == {"train", "dev"}
    assert sum(map(len, splits.values())) == len(files)


def test_names_of_splits_with_dots_are_written_with_underscores(tmp_path):
    write(tmp_path / "clean/train.100/0000.parquet", 0, 1)
    assert set(Parquet(str(tmp_path / "clean"), "mine").splits()) == {"train_100"}


def test_the_normalised_text_is_taken_and_columns_can_be_named(tmp_path):
    columns = {"normalized_text": ["one"], "raw_text": ["1"], "locale": ["de"], "who": ["ada"]}
    write(tmp_path / "data/train-00000-of-00001.parquet", 0, 1, **columns)
    first = Parquet(str(tmp_path), "mine").splits()["train"][0]
    assert (first.text, first.language, first.speaker) == ("one", "de", "374")
    named = Parquet(str(tmp_path), "mine", text_columns=("raw_text",), speaker_columns=("who",)).splits()["train"][0]
    assert (named.text, named.speaker) == ("1", "ada")


@pytest.mark.parametrize("columns", [{"text_columns": ("words",)}, {"id_columns": ("chapter_id",)}])
def test_a_column_that_is_asked_for_and_is_not_there_is_an_error(published, columns):
    [name] = next(iter(columns.values()))
    with pytest.raises(CorpusError, match=f"has no column '{name}' that could be this; its columns are file .string.,"):
        Parquet(str(published), "mine", **columns).splits()


def test_what_no_column_says_is_told_by_the_source_or_is_empty(tmp_path):
    columns = {"id": [17], "text": [None], "language": [3]}  # numbers of examples and of classes
    write(tmp_path / "data/train-00000-of-00001.parquet", 0, 1, **columns)
    first = Parquet(str(tmp_path), "mine", language="fr").splits()["train"][0]
    assert (first.id, first.text, first.language) == ("train-00000-of-00001/0", "", "fr")


def test_a_published_dataset_is_prepared_and_read_back(published, tmp_path):
    report = prepare(Parquet(str(published), "mine", "en"), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"train": 8, "validation": 1}
    record = open_split("mine", "validation", tmp_path / "data")[0]
    assert (record["text"], record["num_samples"], record["language"]) == ("TEXT 8", NUM_SAMPLES + 8, "en")


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        ({"bytes": None, "path": "a.flac"}, "missing: the row has no bytes, only the path 'a.flac'"),
        (None, "missing: the row has no bytes, only the path None"),
        ({"bytes": b"no audio", "path": "a.flac"}, "unreadable: "),
    ],
)
def test_a_row_without_a_recording_is_rejected(tmp_path, audio, reason):
    write(tmp_path / "train.parquet", 0, 1, audio=pyarrow.array([audio], AUDIO))
    [first] = Parquet(str(tmp_path), "mine").splits()["train"]
    with pytest.raises(AudioError, match=reason):
        first.read(30.0)


def test_a_file_that_is_not_there_is_an_error_that_names_it(published):
    (published / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(CorpusError, match=r"train-00001-of-00002\.parquet is missing in .*data; download it too"):
        Parquet(str(published), "mine").splits()


def test_several_configurations_are_an_error_that_lists_them(tmp_path):
    for language in ("de", "en"):
        write(tmp_path / f"{language}/train-00000-of-00001.parquet", 0, 1)
    with pytest.raises(CorpusError, match=r"has 2 configurations; give the folder of one: .*/de, .*/en$"):
        Parquet(str(tmp_path), "mine").splits()


def test_a_file_without_recordings_is_an_error_that_lists_its_columns(tmp_path):
    write(tmp_path / "train.parquet", 0, 1, audio=[[0.1, 0.2]])
    with pytest.raises(CorpusError, match=r"no column of recordings: one of audio, speech should .* file, audio, text"):
        Parquet(str(tmp_path), "mine").splits()


def test_a_file_that_is_cut_off_and_a_folder_of_something_else_are_errors(tmp_path):
    with pytest.raises(CorpusError, match=r"has no \.parquet file at any depth"):
        Parquet(str(tmp_path), "mine").splits()
    write(tmp_path / "train.parquet", 0, 1)
    (tmp_path / "train.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:500])
    with pytest.raises(CorpusError, match=r"train\.parquet can't be read as Parquet"):
        Parquet(str(tmp_path), "mine").splits()


def test_without_pyarrow_the_error_says_what_to_install(published, monkeypatch):
    load = builtins.__import__

    def without_pyarrow(name, *args):
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return load(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(ImportError, match=r"pip install 'w2v2_jax\[parquet\]'"):
        Parquet(str(published), "mine").splits()
