import numpy as np
import pytest
import soundfile

from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.ljspeech import LJSpeech

METADATA = """LJ001-0001|Printing, in the only sense|Printing, in the only sense
LJ001-0007|the earliest book printed, of about 1455,|the earliest book printed, of about fourteen fifty-five,
LJ002-0001|"Newgate down to 1818."|"Newgate down to eighteen eighteen."
LJ003-0001|Chapter 4.|Chapter four.
LJ004-0001|Buxton's reply: "No,|Buxton's reply: "No,
LJ050-0278|the recommendations — of the Fürst|the recommendations — of the Fürst
"""
IDS = [line[:10] for line in METADATA.splitlines()]


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "LJSpeech-1.1"
    (folder / "wavs").mkdir(parents=True)
    (folder / "README").write_text("The LJ Speech Dataset\n")
    (folder / "metadata.csv").write_text(METADATA, encoding="utf-8")
    for name in IDS:
        waveform = 0.1 * np.random.default_rng(0).normal(size=2205)
        soundfile.write(folder / f"wavs/{name}.wav", waveform, 22_050, "PCM_16")
    return folder


def test_splits_are_by_chapter(published):
    splits = LJSpeech(str(published)).splits()
    assert {split: [each.id for each in clips] for split, clips in splits.items()} == {
        "train": ["LJ004-0001", "LJ050-0278"],
        "dev": ["LJ003-0001"],
        "test": ["LJ001-0001", "LJ001-0007", "LJ002-0001"],
    }


def test_texts_are_the_normalised_ones_with_their_quotes(published):
    splits = LJSpeech(str(published)).splits()
    assert [each.text for each in splits["test"]] == [
        "Printing, in the only sense",
        "the earliest book printed, of about fourteen fifty-five,",
        '"Newgate down to eighteen eighteen."',
    ]
    assert [each.text for each in splits["train"]] == [
        "Buxton's reply: \"No,",
        "the recommendations — of the Fürst",
    ]


def test_a_published_copy_is_prepared_and_read_back(published, tmp_path):
    report = prepare(LJSpeech(str(published)), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"train": 2, "dev": 1, "test": 3}
    record = open_split("ljspeech", "dev", tmp_path / "data")[0]
    assert (record["id"], record["text"], record["language"]) == ("LJ003-0001", "Chapter four.", "en")
    assert record["speaker"] == "LJ"
    assert record["num_samples"] == 1600  # 2,205 at 22,050 Hz


def test_a_recording_that_is_not_there_is_rejected_with_its_reason(published, tmp_path):
    (published / "wavs/LJ004-0001.wav").unlink()
    [reject] = prepare(LJSpeech(str(published)), tmp_path / "data", progress=False).rejects
    assert reject.id == "LJ004-0001" and reject.reason.startswith("missing: there is no file")


@pytest.mark.parametrize("line", ["LJ003-0002|Only one text", "LJ003-0002|a|b|c", "LJ003-0002|a|"])
def test_a_line_of_other_than_three_values_is_an_error_that_names_it(published, line):
    with (published / "metadata.csv").open("a") as table:
        table.write(f"{line}\n")
    with pytest.raises(CorpusError, match=r"metadata\.csv:7: 'LJ003-0002.*' should be an id, a text and"):
        LJSpeech(str(published)).splits()


def test_a_folder_of_something_else_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match=r"give the folder LJSpeech-1\.1"):
        LJSpeech(str(tmp_path)).splits()
