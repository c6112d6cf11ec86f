import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.multilingual_librispeech import LANGUAGES, MultilingualLibriSpeech

METAINFO = """ SPEAKER   |   GENDER   | PARTITION  |  MINUTES   |  BOOK ID   |             TITLE              |  CHAPTER
  2422     |     M      |   train    |   17.148   |   2440     |            Maerchen            | Dornroeschen
"""
FORMATS = {".flac": ("FLAC", "PCM_16"), ".opus": ("OGG", "OPUS")}


def write_language(folder, texts, suffix=".flac"):
    """mls_german: `texts` by split and handle; of train the first two are of one hour, the others of nine."""
    for split, told in texts.items():
        for number, handle in enumerate(told):
            speaker, book, _ = handle.split("_")
            file = folder / split / "audio" / speaker / book / f"{handle}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).normal(scale=0.1, size=3_200 + 160 * number)
            container, subtype = FORMATS[suffix]
            soundfile.write(file, noise, 16_000, subtype, format=container)
        write_lines(folder / split / "transcripts.txt", [f"{handle}\t{text}" for handle, text in told.items()])
        url = "http://www.archive.org/download/a_librivox/a_01_64kb.mp3"
        write_lines(folder / split / "segments.txt", [f"{handle}\t{url}\t401.76\t417.57" for handle in told])
    handles = [*texts["train"]]
    for fold in range(6):
        write_lines(folder / f"train/limited_supervision/1hr/{fold}/handles.txt", handles[fold : fold + 1] * (fold < 2))
    write_lines(folder / "train/limited_supervision/9hr/handles.txt", handles[3:1:-1])
    (folder / "metainfo.txt").write_text(METAINFO)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


GERMAN = {
    "train": {
        "2422_2440_000000": "es war einmal",
        "2422_2440_000001": "eine süße dirne",
        "1054_1599_000000": "die hatte jedermann lieb",
        "1054_1599_000001": "der sie nur ansah",
        "1054_1599_000002": "am allerliebsten aber",
    },
    "dev": {"4536_5640_000000": "ihre großmutter"},
    "test": {"3330_4231_000000": "die wußte gar nicht", "3330_4231_000001": "was sie"},
}
POLISH = {
    "train": {f"8758_8338_00000{number}": f"łabędź {number}" for number in range(4)},
    "dev": {"8758_8339_000000": "zaczynają"},
    "test": {"8758_8340_000000": "powłokę"},
}


@pytest.fixture
def published(tmp_path):
    write_language(tmp_path / "mls_german", GERMAN)
    write_language(tmp_path / "mls_polish_opus", POLISH, ".opus")
    return tmp_path


def facts(utterances):
    return [(each.id, each.text, each.speaker, each.language) for each in utterances]


def test_splits_are_those_published_in_the_order_of_the_transcripts(published):
    splits = MultilingualLibriSpeech(str(published), ("de",)).splits()
    for split, texts in GERMAN.items():
        expected = [(handle, text, handle.split("_")[0], "de") for handle, text in texts.items()]
        assert facts(splits[split]) == expected
        assert [splits[split][place].id for place in range(len(splits[split]))] == [*texts]
    assert [len(each.read(30.0).waveform) for each in splits["test"]] == [3_200, 3_360]


def test_limited_supervision_is_a_part_of_train(published):
    splits = MultilingualLibriSpeech(str(published), ("de",)).splits()
    train = facts(splits["train"])
    assert facts(splits["train_10min"]) == train[:1]
    assert facts(splits["train_1h"]) == train[:2]
    assert facts(splits["train_9h"]) == train[2:4]


def test_languages_follow_each_other_and_opus_is_read_where_flac_is_not(published):
    splits = MultilingualLibriSpeech(str(published), ("pl", "de")).splits()
    assert [each.language for each in splits["train"]] == 4 * ["pl"] + 5 * ["de"]
    assert facts(splits["dev"])[0] == ("8758_8339_000000", "zaczynają", "8758", "pl")
    assert splits["train"][1].path == str(published / "mls_polish_opus/train/audio/8758/8338/8758_8338_000001.opus")
    assert len(splits["train"][1].read(30.0).waveform) == pytest.approx(3_360, abs=1)


def test_of_two_releases_the_one_without_loss_is_read(published):
    write_language(published / "mls_polish", POLISH)
    assert MultilingualLibriSpeech(str(published), ("pl",)).splits()["dev"][0].path.endswith(".flac")


def test_what_has_lost_its_other_half_is_rejected_with_a_reason(published, tmp_path):
    dev = published / "mls_german/dev"
    write_lines(dev / "transcripts.txt", ["4536_5640_000001\tgroßmutter", "4536_5640_000002 ohne tab", ""])
    report = prepare(MultilingualLibriSpeech(str(published), ("de",)), tmp_path / "data", progress=False)
    reasons = {reject.id: reject.reason for reject in report.rejects}
    assert report.splits["dev"][:2] == (0, 4) and len(report.rejects) == 4
    assert reasons["4536_5640_000001"].startswith("missing: there is no file")
    assert reasons["4536_5640_000002 ohne tab"].startswith("no transcript: transcripts.txt has no text, after a tab")
    assert reasons["4536_5640_000000"].endswith("for '4536_5640_000000'")
    assert reasons[""].endswith("for ''")


def test_a_list_that_names_what_no_transcript_has_is_told(published):
    write_lines(published / "mls_german/train/limited_supervision/9hr/handles.txt", ["1054_1599_000009"])
    (utterance,) = MultilingualLibriSpeech(str(published), ("de",)).splits()["train_9h"]
    assert utterance.id == "1054_1599_000009"
    with pytest.raises(AudioError, match=r"no transcript: .* for '1054_1599_000009'"):
        utterance.read(30.0)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("test/transcripts.txt", r"test/transcripts\.txt can't be read: No such file or directory"),
        ("train/limited_supervision/9hr/handles.txt", r"has no limited_supervision/9hr/handles\.txt"),
    ],
)
def test_a_list_that_is_missing_is_an_error(published, lost, reason):
    (published / "mls_german" / lost).unlink()
    with pytest.raises(CorpusError, match=reason):
        MultilingualLibriSpeech(str(published), ("de",)).splits()


def test_a_language_that_is_not_there_is_an_error(published):
    with pytest.raises(CorpusError, match="holds no mls_dutch or mls_dutch_opus; give the folder that does"):
        MultilingualLibriSpeech(str(published), ("de", "nl")).splits()


def test_a_language_that_was_never_published_is_an_error(published):
    with pytest.raises(CorpusError, match="'german' is not a language of the corpus; give some of en, de, nl, fr"):
        MultilingualLibriSpeech(str(published), ("german",)).splits()


def test_there_are_eight_languages():
    assert len(LANGUAGES) == 8 and all(len(code) == 2 for code in LANGUAGES)


def test_a_published_copy_is_prepared_and_read_back(published, tmp_path):
    report = prepare(MultilingualLibriSpeech(str(published), ("de", "pl")), tmp_path / "data", progress=False)
    assert not report.rejects
    assert {split: size.kept for split, size in report.splits.items()} == {
        **{"train": 9, "dev": 2, "test": 3, "train_10min": 2, "train_1h": 4, "train_9h": 4}
    }
    record = open_split("mls", "dev", tmp_path / "data")[1]
    assert (record["id"], record["text"], record["language"]) == ("8758_8339_000000", "zaczynają", "pl")
