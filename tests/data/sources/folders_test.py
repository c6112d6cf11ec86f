import numpy as np
import pytest
import soundfile

from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.folders import AudioFolder


def fill(folder, names):
    waveform = 0.1 * np.random.default_rng(0).normal(size=1000)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, waveform, 16_000, format="WAV")


def test_files_are_found_at_any_depth_and_named_by_their_place(tmp_path):
    fill(tmp_path, ["b.wav", "x/a.FLAC", "x/y/c.mp3"])
    (tmp_path / "x" / "notes.txt").write_text("not audio")
    train = AudioFolder(str(tmp_path), "mine", valid_percent=0.0).splits()["train"]
    assert [utterance.id for utterance in train] == ["b.wav", "x/a.FLAC", "x/y/c.mp3"]
    assert len(train[1].read(30.0).waveform) == 1000


def test_files_that_cannot_be_read_are_listed_to_be_rejected(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"")
    (tmp_path / "b.pcm").write_bytes(b"")
    assert len(AudioFolder(str(tmp_path), "mine", valid_percent=0.0).splits()["train"]) == 2


def test_every_file_is_in_one_split_and_stays_there_as_others_come(tmp_path):
    fill(tmp_path, [f"{i}.wav" for i in range(200)])
    source = AudioFolder(str(tmp_path), "mine", valid_percent=20.0)
    before = {split: {utterance.id for utterance in listed} for split, listed in source.splits().items()}
    fill(tmp_path, [f"{i}.wav" for i in range(200, 300)])
    after = {split: {utterance.id for utterance in listed} for split, listed in source.splits().items()}
    assert before["train"] | before["dev"] == {f"{i}.wav" for i in range(200)}
    assert not before["train"] & before["dev"]
    assert before["train"] <= after["train"] and before["dev"] <= after["dev"]
    assert len(after["dev"]) == pytest.approx(60, abs=20)


def test_a_folder_without_audio_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("not audio")
    with pytest.raises(CorpusError, match="has no audio file at any depth"):
        AudioFolder(str(tmp_path), "mine").splits()


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match="there is no folder"):
        AudioFolder(str(tmp_path / "nowhere"), "mine").splits()
