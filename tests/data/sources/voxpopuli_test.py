import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.voxpopuli import VoxPopuli

HEADER = ["id", "raw_text", "normalized_text", "speaker_id", "split", "gender", "is_gold_transcript", "accent"]
FIRST_HEADER = HEADER[:6]
HR = "20180206-0900-PLENARY-15-hr_20180206-16:10:06_{}"


def write_audio(path, num_samples=3_200):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(num_samples).normal(scale=0.1, size=num_samples)
    soundfile.write(path, noise, 16_000, "VORBIS", format="OGG")


def write_table(folder, split, rows, header=HEADER):
    """asr_SPLIT.tsv and the audio that it lists, as voxpopuli.get_asr_data writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [header]
    for key, text, speaker in rows:
        write_audio(folder / key[:4] / f"{key}.ogg")
        values = (key, f'"{text.upper()},', text, speaker, split, "female", "True", "None")
        lines.append(values[: len(header)])
    (folder / f"asr_{split}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def published(tmp_path):
    """Croatian with and without transcripts, Portuguese without, and accented English, which is for tests alone."""
    for name in ("20160118-0900-PLENARY-10_hr_0", "20160118-0900-PLENARY-10_hr_1", "20090114-0900-PLENARY-9_hr_0"):
        write_audio(tmp_path / "unlabelled_data/hr" / name[:4] / f"{name}.ogg")
    write_audio(tmp_path / "unlabelled_data/pt/2020/20200710-0900-PLENARY_pt_12.ogg")
    (tmp_path / "unlabelled_data/unlabelled_v2.tsv.gz").touch()
    hr = tmp_path / "transcribed_data/hr"
    write_table(hr, "train", [(HR.format(5), "jedna od manifestacija.", "119431"), (HR.format(6), "u europi", "28219")])
    write_table(hr, "dev", [(HR.format(7), "tek je", "124")])
    write_table(hr, "test", [(HR.format(8), "šteta", "125")])
    (hr / "asr_hr.tsv.gz").touch()
    write_audio(hr / "de/2018/20180206-0900-PLENARY-15-hr_20180206-16:10:06_5.ogg")  # interpreted into German
    accented = tmp_path / "transcribed_data/en_accented"
    for split in ("train", "dev"):
        write_table(accented, split, [])
    write_table(accented, "test", [("20130207-0900-PLENARY-7-en_20130207-10:52:43_3", "thank you", "97058")])
    write_audio(tmp_path / "raw_audios/original/2018/20180206-0900-PLENARY-15_original.ogg")
    return tmp_path


def test_transcribed_splits_are_those_of_the_tables(published):
    splits = VoxPopuli(str(published), ("hr",)).splits()
    assert {split: len(utterances) for split, utterances in splits.items()} == {
        **{"unlabelled": 3, "train": 2, "dev": 1, "test": 1}
    }
    assert [(each.id, each.text, each.speaker, each.language) for each in splits["train"]] == [
        (HR.format(5), "jedna od manifestacija.", "119431", "hr"),
        (HR.format(6), "u europi", "28219", "hr"),
    ]
    assert splits["test"][0].text == "šteta" and len(splits["test"][0].read(30.0).waveform) == 3_200


def test_unlabelled_segments_are_all_files_of_a_language_by_year(published):
    unlabelled = VoxPopuli(str(published), ("hr", "pt")).splits()["unlabelled"]
    assert [(each.id, each.language, each.text, each.speaker) for each in unlabelled] == [
        ("20090114-0900-PLENARY-9_hr_0", "hr", "", ""),
        ("20160118-0900-PLENARY-10_hr_0", "hr", "", ""),
        ("20160118-0900-PLENARY-10_hr_1", "hr", "", ""),
        ("20200710-0900-PLENARY_pt_12", "pt", "", ""),
    ]
    assert len(unlabelled[3].read(30.0).waveform) == 3_200


def test_a_language_without_transcripts_has_no_such_splits(published):
    assert set(VoxPopuli(str(published), ("pt",)).splits()) == {"unlabelled"}


def test_accented_english_is_english_to_test_on(published):
    splits = VoxPopuli(str(published), ("en_accented",)).splits()
    assert set(splits) == {"test"}
    assert (splits["test"][0].language, splits["test"][0].text) == ("en", "thank you")


def test_tables_of_the_first_version_have_fewer_columns(tmp_path):
    write_table(tmp_path / "transcribed_data/et", "dev", [("20110407-x_1", "tere", "7")], FIRST_HEADER)
    (utterance,) = VoxPopuli(str(tmp_path), ("et",)).splits()["dev"]
    assert (utterance.id, utterance.text, utterance.speaker) == ("20110407-x_1", "tere", "7")


def test_what_has_lost_its_other_half_is_rejected_with_a_reason(published, tmp_path):
    hr = published / "transcribed_data/hr"
    write_table(hr, "train", [(HR.format(1), "", "1"), (HR.format(2), "moje", "1"), (HR.format(3), "tvoje", "1")])
    (hr / "2018" / f"{HR.format(2)}.ogg").unlink()
    with (hr / "asr_train.tsv").open("a") as table:
        table.write("20180206-x\tonly two\n")
    report = prepare(VoxPopuli(str(published), ("hr",)), tmp_path / "data", progress=False)
    reasons = {reject.id: reject.reason for reject in report.rejects}
    assert report.splits["train"][:2] == (1, 5)
    assert reasons[HR.format(1)] == "no transcript: normalized_text is empty in line 2 of asr_train.tsv"
    assert reasons[HR.format(2)].startswith("missing: there is no file")
    assert reasons["20180206-x"] == "malformed: line 5 of asr_train.tsv has 2 values, the header 8 names"
    assert reasons[HR.format(5)] == reasons[HR.format(6)] == "no transcript: no asr_*.tsv lists it"


def test_audio_that_is_in_no_table_at_all_is_told(tmp_path):
    write_audio(tmp_path / "transcribed_data/lt/2011/20110407-x_1.ogg")
    (utterance,) = VoxPopuli(str(tmp_path), ("lt",)).splits()["train"]
    with pytest.raises(AudioError, match=r"no asr_.*tsv lists it"):
        utterance.read(30.0)


@pytest.mark.parametrize("content", ["", "id\tnormalized_text\n20110407-x_1\ttere\n"])
def test_a_table_without_a_column_is_named(tmp_path, content):
    (tmp_path / "transcribed_data/et").mkdir(parents=True)
    (tmp_path / "transcribed_data/et/asr_test.tsv").write_text(content)
    with pytest.raises(CorpusError, match=r"asr_test\.tsv:1: no column .*speaker_id among"):
        VoxPopuli(str(tmp_path), ("et",)).splits()


def test_a_language_that_is_not_there_is_an_error(published):
    with pytest.raises(CorpusError, match=r"neither unlabelled_data/de/YEAR/\*\.ogg nor transcribed_data/de/asr_\*"):
        VoxPopuli(str(published), ("hr", "de")).splits()


def test_a_language_that_was_never_published_is_an_error(published):
    with pytest.raises(CorpusError, match="'no' is not a language of the corpus; give some of en, de, fr"):
        VoxPopuli(str(published), ("no",)).splits()


def test_a_published_copy_is_prepared_and_read_back(published, tmp_path):
    report = prepare(VoxPopuli(str(published), ("hr", "pt")), tmp_path / "data", progress=False)
    assert not report.rejects
    record = open_split("voxpopuli", "train", tmp_path / "data")[1]
    assert (record["text"], record["language"], record["num_samples"]) == ("u europi", "hr", 3_200)
