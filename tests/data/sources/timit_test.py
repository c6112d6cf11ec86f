import shutil

import numpy as np
import pytest

from w2v2_jax.data.audio import Phone, decode_record
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.timit import CORE_TEST, DEV, Timit

# The header of a file as the Linguistic Data Consortium publishes it: no coding is named, it is little-endian PCM.
SPHERE = """NIST_1A
   1024
database_id -s5 TIMIT
database_version -s3 1.0
utterance_id -s8 cjf0_sa1
channel_count -i 1
sample_count -i {0}
sample_rate -i 16000
sample_min -i -9000
sample_max -i 9000
sample_n_bytes -i 2
sample_byte_format -s2 01
sample_sig_bits -i 16
end_head
"""
NUM_SAMPLES = 8_000
WAVEFORM = np.round(9000 * np.sin(0.05 * np.arange(NUM_SAMPLES))).astype("<i2")
AUDIO = SPHERE.format(NUM_SAMPLES).encode().ljust(1024) + WAVEFORM.tobytes()
PHONES = "0 1000 h#\n1000 1500 q\n1500 4000 ao\n4000 4800 tcl\n4800 5200 t\n5200 8000 h#\n"


def write(folder, name, audio=".WAV", phones=PHONES):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(audio).write_bytes(AUDIO)
    file.with_suffix(".PHN" if audio.isupper() else ".phn").write_text(phones)


@pytest.fixture
def published(tmp_path_factory):
    """A copy with a sentence of each speaker of TEST that counts, one that doesn't count, and two of TRAIN."""
    root = tmp_path_factory.mktemp("published")
    folder = root / "LDC93S1" / "TIMIT"
    for speaker in sorted(DEV | CORE_TEST):
        write(folder, f"TEST/DR1/{speaker.upper()}/SX1")
        write(folder, f"TEST/DR1/{speaker.upper()}/SA1")
    write(folder, "TEST/DR8/MOTHER0/SI9")
    write(folder, "TRAIN/DR2/FAEM0/SI762")
    write(folder, "TRAIN/DR2/FAEM0/SX42")
    write(folder, "TRAIN/DR2/FAEM0/SA2")
    return root


def test_halberstadts_speakers_are_50_and_24_and_none_is_in_both():
    """Two men and a woman of each of the eight dialects make the core test set."""
    assert len(DEV) == 50 and len(CORE_TEST) == 24 and not DEV & CORE_TEST
    assert sum(speaker.startswith("f") for speaker in CORE_TEST) == 8


def test_splits_are_by_speaker_without_the_sentences_that_all_read(published):
    splits = Timit(str(published)).splits()
    assert [utterance.id for utterance in splits["train"]] == ["train/dr2/faem0/si762", "train/dr2/faem0/sx42"]
    assert {utterance.speaker for utterance in splits["dev"]} == DEV
    assert {utterance.speaker for utterance in splits["test"]} == CORE_TEST
    assert len(splits["dev"]) == 50 and len(splits["test"]) == 24


@pytest.mark.parametrize(
    ("num_phones", "text"),
    [(39, "sil aa sil t sil"), (48, "sil ao cl t sil"), (61, "h# q ao tcl t h#")],
)
def test_texts_are_folded_and_phones_kept_as_transcribed(published, num_phones, text):
    utterance = Timit(str(published), num_phones=num_phones).splits()["train"][0]
    assert utterance.text == text
    phones = utterance.read(30.0).phones
    assert phones[1] == Phone("q", 1000, 1500) and len(phones) == 6


def test_a_published_copy_is_prepared_and_read_back(published, tmp_path):
    report = prepare(Timit(str(published)), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"train": 2, "dev": 50, "test": 24}
    record = open_split("timit", "dev", tmp_path / "data")[0]
    assert record["text"] == "sil aa sil t sil"
    np.testing.assert_array_equal(decode_record(record) * 2**15, WAVEFORM)
    assert record["phones"]["symbol"] == ["h#", "q", "ao", "tcl", "t", "h#"]


def test_a_copy_in_small_letters_with_files_renamed_is_the_same(published, tmp_path):
    copy = tmp_path / "other"
    for number, speaker in enumerate(sorted(DEV | CORE_TEST)):
        write(copy, f"data/test/dr1/{speaker}/sx1", ".wav.wav" if number % 2 else ".wav")
    write(copy, "data/train/dr2/faem0/si762", ".flac")
    ours, theirs = (Timit(str(folder)).splits() for folder in (copy, published))
    del theirs["train"][1]
    for split in theirs:
        assert [(each.id, each.text) for each in ours[split]] == [(each.id, each.text) for each in theirs[split]]
        for utterance in ours[split]:
            assert len(utterance.read(30.0).waveform) == NUM_SAMPLES


def test_a_recording_that_is_not_there_is_rejected_with_its_reason(published, tmp_path):
    next(published.rglob("SI762.WAV")).unlink()
    report = prepare(Timit(str(published)), tmp_path / "data", progress=False)
    [reject] = report.rejects
    assert reject.id == "train/dr2/faem0/si762"
    assert reject.reason == "missing: there is a transcript, but no SI762.WAV beside it"


def test_a_copy_that_lacks_speakers_of_the_test_sets_is_an_error_that_names_them(published):
    shutil.rmtree(published / "LDC93S1/TIMIT/TEST/DR1/FELC0")
    with pytest.raises(CorpusError, match=r"2 \.PHN files under TRAIN, 74 under TEST, missing speakers .* felc0;"):
        Timit(str(published)).splits()


def test_a_folder_of_something_else_is_an_error(tmp_path):
    (tmp_path / "a.PHN").touch()
    with pytest.raises(CorpusError, match=r"0 \.PHN files under TRAIN, 0 under TEST, .*: fadg0, faks0, fcal1, \.\.\.;"):
        Timit(str(tmp_path)).splits()


def test_a_line_that_is_no_phone_is_an_error_that_names_it(published):
    write(published / "LDC93S1/TIMIT", "TRAIN/DR2/FAEM0/SI762", phones="0 1000 h#\n1000 sil\n")
    with pytest.raises(CorpusError, match=r"SI762\.PHN:2: '1000 sil' should be two places in samples and a phone"):
        Timit(str(published)).splits()


def test_a_number_of_phones_that_is_no_set_is_an_error(published):
    with pytest.raises(CorpusError, match="can't be folded to 40; give one of 61, 48, 39"):
        Timit(str(published), num_phones=40).splits()
