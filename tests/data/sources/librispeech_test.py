import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError, decode_record
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.librispeech import FOLDERS, LibriSpeech


def write_audio(path, num_samples=4_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = np.round(2**13 * np.sin(0.05 * np.arange(num_samples))) / 2**15
    soundfile.write(path, waveform, 16_000, "PCM_16")


def write_chapter(folder, speaker, chapter, texts):
    """SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac, and SPEAKER-CHAPTER.trans.txt with a line for each."""
    lines = []
    for number, text in enumerate(texts):
        key = f"{speaker}-{chapter}-{number:04}"
        write_audio(folder / speaker / chapter / f"{key}.flac", 4_000 + 100 * number)
        lines.append(f"{key} {text}\n")
    (folder / speaker / chapter / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))


@pytest.fixture
def published(tmp_path_factory):
    """All archives unpacked in one place, with the lists that come with them."""
    root = tmp_path_factory.mktemp("openslr12")
    for number, folder in enumerate(FOLDERS.values()):
        write_chapter(root / "LibriSpeech" / folder, f"{10 + number}", "134686", ["CHAPTER ONE"])
    for name in ("BOOKS.TXT", "CHAPTERS.TXT", "LICENSE.TXT", "README.TXT", "SPEAKERS.TXT"):
        (root / "LibriSpeech" / name).write_text("; a comment\n")
    write_chapter(root / "LibriSpeech/dev-other", "116", "288045", ["AS I APPROACHED", "IT'S THE CITY"])
    write_chapter(root / "LibriSpeech/dev-other", "116", "288046", ["I SEE A CROWD"])
    return root


def test_splits_have_the_names_of_the_catalogue_and_share_nothing(published):
    splits = LibriSpeech(str(published)).splits()
    assert set(splits) == {
        *("train_clean100", "train_clean360", "train_other500"),
        *("dev_clean", "dev_other", "test_clean", "test_other"),
    }
    speakers = [speaker for split in splits.values() for speaker in {utterance.speaker for utterance in split}]
    assert len(speakers) == len(set(speakers)) == 8


def test_utterances_are_those_of_the_transcripts_by_speaker_and_chapter(published):
    utterances = LibriSpeech(str(published)).splits()["dev_other"]
    assert [(each.id, each.text, each.speaker, each.language) for each in utterances] == [
        ("116-288045-0000", "AS I APPROACHED", "116", "en"),
        ("116-288045-0001", "IT'S THE CITY", "116", "en"),
        ("116-288046-0000", "I SEE A CROWD", "116", "en"),
        ("14-134686-0000", "CHAPTER ONE", "14", "en"),
    ]
    assert [len(each.read(30.0).waveform) for each in utterances] == [4_000, 4_100, 4_000, 4_000]


def test_the_folder_of_the_corpus_itself_will_do(published):
    inside = LibriSpeech(str(published / "LibriSpeech")).splits()
    assert {split: len(utterances) for split, utterances in inside.items()} == {
        split: len(utterances) for split, utterances in LibriSpeech(str(published)).splits().items()
    }


def test_splits_that_the_copy_lacks_are_left_out(tmp_path):
    write_chapter(tmp_path / "LibriSpeech/test-clean", "61", "70968", ["HE BEGAN A CONFUSED COMPLAINT"])
    assert set(LibriSpeech(str(tmp_path)).splits()) == {"test_clean"}


def test_a_folder_of_something_else_is_an_error(tmp_path):
    with pytest.raises(CorpusError, match=r"holds none of train-clean-100, train-clean-360, .*; give the folder"):
        LibriSpeech(str(tmp_path)).splits()


def test_what_has_lost_its_other_half_is_rejected_with_a_reason(tmp_path):
    folder = tmp_path / "LibriSpeech/dev-clean"
    write_chapter(folder, "84", "121123", ["GO", "DO YOU HEAR", ""])
    write_audio(folder / "84/121123/84-121123-0007.flac")
    write_audio(folder / "84/121550/84-121550-0000.flac")
    (folder / "84/121123/84-121123-0001.flac").unlink()
    report = prepare(LibriSpeech(str(tmp_path)), tmp_path / "data", progress=False)
    assert report.splits["dev_clean"][:2] == (1, 4)
    reasons = {reject.id: reject.reason for reject in report.rejects}
    assert reasons["84-121123-0001"].startswith("missing: there is no file")
    assert reasons["84-121123-0002"] == "no transcript: 84-121123.trans.txt has no text for '84-121123-0002'"
    assert reasons["84-121123-0007"] == "no transcript: 84-121123.trans.txt has no text for '84-121123-0007'"
    assert reasons["84-121550-0000"] == "no transcript: 84-121550.trans.txt has no text for '84-121550-0000'"


def test_a_damaged_recording_is_rejected(tmp_path):
    folder = tmp_path / "LibriSpeech/dev-clean"
    write_chapter(folder, "84", "121123", ["GO"])
    recording = folder / "84/121123/84-121123-0000.flac"
    recording.write_bytes(recording.read_bytes()[:100])
    (utterance,) = LibriSpeech(str(tmp_path)).splits()["dev_clean"]
    with pytest.raises(AudioError, match=r"unreadable|cut short"):
        utterance.read(30.0)


def test_a_published_copy_is_prepared_and_read_back(published, tmp_path):
    report = prepare(LibriSpeech(str(published)), tmp_path, progress=False)
    assert not report.rejects
    records = open_split("librispeech", "dev_other", tmp_path)
    assert [records[number]["text"] for number in range(2)] == ["AS I APPROACHED", "IT'S THE CITY"]
    expected = soundfile.read(published / "LibriSpeech/dev-other/116/288045/116-288045-0001.flac", dtype="float32")[0]
    np.testing.assert_array_equal(decode_record(records[1]), expected)
