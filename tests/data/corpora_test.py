import os
import pickle
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from w2v2_jax.data import corpora
from w2v2_jax.data.audio import Phone, Recording, Utterance, decode_flac
from w2v2_jax.data.corpora import CorpusError, default_data_dir, list_corpora, open_split
from w2v2_jax.data.prepare import prepare


class Source:
    """Three utterances with everything known, and a split of which nothing can be read."""

    name = "small"

    def splits(self):
        utterances = [Utterance(f"u{i}", f"{i}.wav", partial(read, i), f"TEXT {i}", f"s{i}", "cs") for i in range(3)]
        return {"train": utterances, "broken": [utterances[0]._replace(read=partial(int, "x"))]}

    def __repr__(self):
        return "Source()"


def waveform(seed):
    return (np.random.default_rng(seed).integers(-9999, 9999, 1000 + seed) / 2**15).astype(np.float32)


def read(seed, max_seconds):
    return Recording(waveform(seed), tuple(Phone(f"p{i}", 10 * i, 10 * i + 10) for i in range(seed)))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(Source(), folder, progress=False)
    return folder


def test_every_record_comes_back_as_it_went_in(data_dir):
    split = open_split("small", "train", data_dir)
    assert len(split) == 3
    for seed, record in enumerate(split[i] for i in range(3)):
        np.testing.assert_array_equal(decode_flac(record["audio"]), waveform(seed))
        words = [record[key] for key in ("id", "text", "speaker", "language", "num_samples")]
        assert words == [f"u{seed}", f"TEXT {seed}", f"s{seed}", "cs", 1000 + seed]
        assert record["phones"]["symbol"] == [f"p{i}" for i in range(seed)]
        np.testing.assert_array_equal(record["phones"]["start"], np.arange(seed) * 10)
        np.testing.assert_array_equal(record["phones"]["end"], np.arange(seed) * 10 + 10)


def test_a_split_can_be_sent_to_a_worker(data_dir):
    split = pickle.loads(pickle.dumps(open_split("small", "train", data_dir)))
    assert split[2]["id"] == "u2"


def test_a_corpus_that_goes_away_or_is_another_ends_those_who_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "WATCH_SECONDS", 0.0)
    prepare(Source(), tmp_path, progress=False)
    report = corpora.corpus_dir("small", tmp_path) / corpora.REPORT
    os.utime(report, (1, 1))
    split = pickle.loads(pickle.dumps(open_split("small", "train", tmp_path)))
    assert split[0]["id"] == "u0"
    shutil.rmtree(report.parent)
    with pytest.raises(CorpusError, match="was prepared again or removed since it was opened; start again"):
        split[1]
    prepare(Source(), tmp_path, progress=False)
    with pytest.raises(CorpusError, match="was prepared again or removed"):
        split[1]
    assert open_split("small", "train", tmp_path)[1]["id"] == "u1"


def test_a_disk_that_does_not_answer_when_it_is_looked_after_ends_nothing(data_dir, monkeypatch, caplog):
    split = open_split("small", "train", data_dir)
    monkeypatch.setattr(type(split.watch), "_stamp", lambda watch: os.stat("n" * 999))
    split.watch.look_now_and_then()
    (told,) = caplog.messages
    assert told.startswith("no answer from ") and told.endswith("small/1.0.0: what reads from it waits")
    with pytest.raises(OSError):
        split.watch.look()


def test_a_shard_that_goes_away_is_told_from_damage(tmp_path):
    prepare(Source(), tmp_path, progress=False)
    split = open_split("small", "train", tmp_path)
    split.watch.look_now_and_then()  # and not again when the record is read
    shutil.rmtree(corpora.corpus_dir("small", tmp_path))
    with pytest.raises(CorpusError, match="was prepared again or removed"):
        split[1]


def test_a_record_damaged_on_disk_is_an_error_that_says_which(tmp_path):
    prepare(Source(), tmp_path, progress=False)
    (shard,) = tmp_path.glob("small/*/*train*array_record*")
    content = bytearray(shard.read_bytes())
    for position in range(len(content) // 4, 3 * len(content) // 4):
        content[position] ^= 0xFF
    shard.write_bytes(content)
    split = open_split("small", "train", tmp_path)
    with pytest.raises(CorpusError, match=r"record \d of small/train is damaged on disk; prepare the corpus again"):
        [split[i] for i in range(3)]


def test_an_unknown_corpus_lists_those_that_are_prepared(data_dir):
    with pytest.raises(CorpusError, match=r"no corpus 'big' under .* \(prepared there: small\); run `w2v2 prepare`"):
        open_split("big", "train", data_dir)


def test_an_empty_data_dir_has_no_corpora(tmp_path):
    assert list_corpora(tmp_path / "nowhere") == []
    with pytest.raises(CorpusError, match="prepared there: none"):
        open_split("small", "train", tmp_path / "nowhere")


def test_an_unknown_split_lists_the_splits(data_dir):
    with pytest.raises(CorpusError, match="no split 'valid'; it has train, broken"):
        open_split("small", "valid", data_dir)


def test_an_empty_split_says_where_the_reasons_are(data_dir):
    with pytest.raises(CorpusError, match=r"split 'broken' of corpus 'small' is empty; see .*rejects.tsv"):
        open_split("small", "broken", data_dir)


def test_the_data_dir_is_that_of_tfds(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/some/where")
    assert default_data_dir() == "/some/where"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert default_data_dir().endswith("tensorflow_datasets")


def test_neither_reading_nor_writing_imports_tensorflow(data_dir, tmp_path):
    code = (
        "import sys; from w2v2_jax.data.corpora import open_split; from w2v2_jax.data.prepare import prepare;"
        "from w2v2_jax.data.sources.folders import AudioFolder; import soundfile, numpy as np;"
        f"soundfile.write({str(tmp_path / 'a.wav')!r}, np.random.default_rng(0).normal(0, 0.1, 16000), 16000);"
        f"prepare(AudioFolder({str(tmp_path)!r}, 'mine'), {str(tmp_path / 'out')!r}, progress=False);"
        f"open_split('mine', 'train', {str(tmp_path / 'out')!r})[0];"
        f"open_split('small', 'train', {str(data_dir)!r})[0];"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
