import hashlib
import importlib.util

import numpy as np
import pytest

from w2v2_jax.data.audio import decode_flac
from w2v2_jax.data.corpora import open_split
from w2v2_jax.data.prepare import Processes, prepare
from w2v2_jax.data.sources.sentences import share
from w2v2_jax.data.sources.synthetic import VARIANTS, ESpeak
from w2v2_jax.data.text import LETTERS

SMALL = ESpeak("small", train_minutes=0.5, labelled_minutes=0.2, dev_minutes=0.1, test_minutes=0.2)
SPLITS = ("train", "labelled", "dev", "test")


def all_records(data_dir, split):
    records = open_split("small", split, data_dir)
    return [records[i] for i in range(len(records))]


def digest(records):
    """Of the audio samples and of everything else, not of the files, whose bytes may differ between versions."""
    told = hashlib.sha256()
    for record in records:
        told.update(decode_flac(record["audio"]).tobytes())
        told.update(repr([record[key] for key in ("id", "text", "speaker", "num_samples")]).encode())
        told.update(repr([np.asarray(value).tolist() for value in record["phones"].values()]).encode())
    return told.hexdigest()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    report = prepare(SMALL, folder, progress=False)
    assert not report.rejects
    return folder


def test_the_same_seed_speaks_the_same_records(data_dir, tmp_path):
    from w2v2_jax.data.sources.synthetic import _speak

    _speak.cache_clear()
    prepare(SMALL, tmp_path, progress=False, runner=Processes(1))
    for split in SPLITS:
        assert digest(all_records(data_dir, split)) == digest(all_records(tmp_path, split))


def test_another_seed_says_other_sentences():
    assert not {line.text for line in ESpeak(seed=1).lines()["test"]} & {line.text for line in ESpeak().lines()["test"]}


@pytest.mark.parametrize("seed", range(3))
def test_sentences_of_dev_and_test_are_in_no_other_split(seed):
    texts = {split: {line.text for line in lines} for split, lines in ESpeak(seed=seed).lines().items()}
    assert all(len(texts[split]) > 50 for split in SPLITS)
    for held_out in ("dev", "test"):
        assert not any(texts[held_out] & texts[split] for split in SPLITS if split != held_out)


def test_no_seed_gives_one_split_the_sentences_of_another():
    """What is held out depends on the letters of the sentence alone, so corpora of two seeds can be mixed."""
    first, second = ESpeak(seed=1).lines(), ESpeak(seed=2).lines()
    assert not {line.text for line in first["train"]} & {line.text for line in second["test"]}
    assert {share(line.text) for line in first["test"]} == {0}


@pytest.mark.parametrize("seed", range(3))
def test_speakers_of_dev_and_test_and_even_their_voices_are_in_no_other_split(seed):
    lines = ESpeak(seed=seed).lines()
    voices = {split: {line.speaker.voice.split("+")[1] for line in lines[split]} for split in SPLITS}
    assert voices["labelled"] <= voices["train"]
    assert not voices["test"] & (voices["train"] | voices["dev"])
    assert not voices["dev"] & voices["train"]
    assert len(voices["test"]) == 6


def test_most_words_of_test_occur_in_train():
    lines = ESpeak().lines()
    train, test = ({word for line in lines[split] for word in line.text.split()} for split in ("train", "test"))
    assert len(train) > 300
    assert len(test & train) / len(test) > 0.98


def test_a_corpus_is_about_as_long_as_asked_for(data_dir):
    seconds = sum(record["num_samples"] for record in all_records(data_dir, "train")) / 16_000
    assert seconds == pytest.approx(30, rel=0.25)


def test_every_transcript_can_be_spelled_in_letters(data_dir):
    for record in all_records(data_dir, "train"):
        assert LETTERS.decode(LETTERS.encode(record["text"])) == record["text"]


def test_phones_cover_the_utterance_in_order_and_without_gaps(data_dir):
    for record in all_records(data_dir, "test"):
        start, end = record["phones"]["start"], record["phones"]["end"]
        np.testing.assert_array_equal(start[1:], end[:-1])
        assert (end > start).all()
        assert end[-1] == record["num_samples"]
        assert not any(symbol[0] in "',%=" for symbol in record["phones"]["symbol"])


def test_speech_is_loud_in_vowels_and_silent_in_pauses(data_dir):
    """The times of the phones agree with the samples."""
    loud, quiet = [], []
    for record in all_records(data_dir, "train"):
        waveform = decode_flac(record["audio"])
        for symbol, start, end in zip(*(record["phones"][key] for key in ("symbol", "start", "end")), strict=True):
            (quiet if symbol == "_" else loud if symbol in ("i:", "V", "a", "E", "I") else []).append(
                waveform[start:end].std()
            )
    assert np.median(quiet) < 0.01 * np.median(loud)


def test_every_voice_is_one_that_the_engine_has():
    import pathlib

    import espeakng_loader

    assert set(VARIANTS) <= {path.name for path in pathlib.Path(espeakng_loader.get_data_path(), "voices/!v").iterdir()}


def test_without_the_engine_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[demo\]'"):
        SMALL.splits()
