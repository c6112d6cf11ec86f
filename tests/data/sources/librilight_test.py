import json
import pickle

import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError, decode_record
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.librilight import LibriLight, LibriLightLimited, cut_by_voice

SECOND = 16_000
SEA_FAIRIES = "100/sea_fairies_0812_librivox_64kb_mp3"
VOICE = [[0.1, 0.4], [0.5, 0.9], [1.0, 1.4], [1.5, 3.0]]


def write_recording(part, name, voice, seconds=3):
    """A recording of LibriVox and its metadata, as Libri-Light has them."""
    file = part / f"{name}.flac"
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(name)).integers(-9_000, 9_000, seconds * SECOND, np.int16)
    soundfile.write(file, noise, SECOND)
    metadata = {
        "speaker": "100",
        "book_meta": {"id": "2484", "title": "The Sea Fairies", "genre": ["Children's Fiction"], "language": "English"},
        "snr": 9.4165,
        "voice_activity": voice,
    }
    file.with_suffix(".json").write_text(json.dumps(metadata))
    return file


@pytest.fixture
def published(tmp_path):
    """Two of the archives; a recording of three seconds of which most is voice."""
    write_recording(tmp_path / "unlab/small", f"{SEA_FAIRIES}/01_baum_sea_fairies_64kb", VOICE)
    write_recording(tmp_path / "unlab/small", f"{SEA_FAIRIES}/02_baum_sea_fairies_64kb", [[0.0, 0.5]])
    write_recording(tmp_path / "unlab/medium", "3681/celebrated_crimes_1_1001_librivox_64kb_mp3/cc_1-25", [[1, 2]])
    return tmp_path / "unlab"


def by_the_authors_rule(chunks, limit):
    """The published rule, in words: a chunk that would make what was gathered too long begins anew."""
    gathered, length = [[]], 0
    for first, last in chunks:
        if length + last - first > limit and length > 0:
            gathered, length = [*gathered, []], 0
        gathered[-1].append((first, last))
        length += last - first
    return [tuple(segment) for segment in gathered]


@pytest.mark.parametrize("seed", range(5))
def test_chunks_that_are_short_enough_are_joined_as_the_authors_do(seed):
    edges = np.cumsum(np.random.default_rng(seed).integers(1, 50, 400)).tolist()
    chunks = list(zip(edges[::2], edges[1::2], strict=True))
    assert cut_by_voice(chunks, 100) == by_the_authors_rule(chunks, 100)


def test_a_chunk_over_the_limit_is_cut_into_equal_pieces():
    assert cut_by_voice([(0, 60), (100, 425), (500, 510)], 100) == [
        *(((0, 60),), ((100, 181),), ((181, 262),), ((262, 343),)),
        ((343, 425), (500, 510)),
    ]


@pytest.mark.parametrize("limit", [7, 100])
def test_segments_have_all_the_voice_once_and_are_never_too_long(limit):
    edges = np.cumsum(np.random.default_rng(0).integers(0, 300, 200)).tolist()
    chunks = list(zip(edges[::2], edges[1::2], strict=True))
    segments = cut_by_voice(chunks, limit)
    voiced = [sample for first, last in chunks for sample in range(first, last)]
    assert [sample for segment in segments for chunk in segment for sample in range(*chunk)] == voiced
    assert max(sum(last - first for first, last in segment) for segment in segments) <= limit


def test_each_archive_that_was_unpacked_is_a_split(published):
    splits = LibriLight(str(published), segment_seconds=1.0).splits()
    assert {split: len(utterances) for split, utterances in splits.items()} == {"small": 5, "medium": 1}


def test_segments_are_named_as_the_authors_files(published):
    small = LibriLight(str(published), segment_seconds=1.0).splits()["small"]
    assert [(each.id.rpartition("/")[2], each.speaker, each.language, each.text) for each in small] == [
        ("01_baum_sea_fairies_64kb_0000", "100", "en", ""),
        ("01_baum_sea_fairies_64kb_0001", "100", "en", ""),
        ("01_baum_sea_fairies_64kb_0002", "100", "en", ""),
        ("01_baum_sea_fairies_64kb_0003", "100", "en", ""),
        ("02_baum_sea_fairies_64kb_0000", "100", "en", ""),
    ]
    assert small[0].id == f"{SEA_FAIRIES}/01_baum_sea_fairies_64kb_0000"


def test_a_segment_is_the_voice_of_the_whole_recording_joined(published):
    small = LibriLight(str(published), segment_seconds=1.0).splits()["small"]
    whole = soundfile.read(small[0].path, dtype="float32")[0]
    # 0.3 and 0.4 s leave no room for the next 0.4 s, nor these for half of the last 1.5 s.
    expected = [
        np.concatenate([whole[1_600:6_400], whole[8_000:14_400]]),
        *(whole[16_000:22_400], whole[24_000:36_000], whole[36_000:48_000]),
    ]
    for utterance, segment in zip(small[:4], expected, strict=True):
        np.testing.assert_array_equal(utterance.read(1.0).waveform, segment)


def test_voice_that_ends_after_the_recording_ends_with_it(tmp_path):
    write_recording(tmp_path / "large", "7/book/chapter", [[2.5, 3.01]])
    (utterance,) = LibriLight(str(tmp_path)).splits()["large"]
    assert len(utterance.read(30.0).waveform) == SECOND // 2


def test_of_a_recording_that_is_not_as_published_the_reason_is_told(tmp_path):
    part = tmp_path / "duplicate"
    write_recording(part, "7/book/damaged", [[0, 1]]).with_suffix(".json").write_text('{"speaker": "7", "voice_ac')
    write_recording(part, "7/book/infinite", [[0, float("inf")]])
    write_recording(part, "7/book/lonely", [[0, 1]]).with_suffix(".json").unlink()
    write_recording(part, "7/book/null", None)
    write_recording(part, "7/book/reversed", [[2, 1]])
    write_recording(part, "7/book/silent", [])
    write_recording(part, "7/book/soundless", [[0, 1]]).unlink()
    soundfile.write(write_recording(part, "7/book/telephone", [[0, 1]]), np.zeros(8_000), 8_000)
    whole = write_recording(part, "7/book/cut", [[0, 1], [2, 3]])
    whole.write_bytes(whole.read_bytes()[:20_000])
    write_recording(part, "7/book/good", [[0, 1]])
    report = prepare(LibriLight(str(tmp_path), segment_seconds=1.0), tmp_path / "data", progress=False)
    assert report.splits["duplicate"][:2] == (1, 10)
    assert {reject.id: reject.reason.partition(":")[0] for reject in report.rejects} == {
        "7/book/cut_0000": "unreadable",
        "7/book/cut_0001": "unreadable",
        "7/book/damaged": "metadata",
        "7/book/infinite": "metadata",
        "7/book/lonely": "no metadata",
        "7/book/null": "metadata",
        "7/book/reversed": "metadata",
        "7/book/silent": "no voice",
        "7/book/soundless_0000": "missing",
        "7/book/telephone_0000": "format",
    }


def test_segments_can_be_given_to_other_processes(published):
    small = LibriLight(str(published), segment_seconds=1.0).splits()["small"]
    copy = pickle.loads(pickle.dumps(small))
    np.testing.assert_array_equal(copy[1].read(1.0).waveform, small[1].read(1.0).waveform)
    assert pickle.loads(pickle.dumps(small[2])).id == small[2].id


def test_a_folder_without_any_part_is_an_error(published):
    with pytest.raises(CorpusError, match="holds none of small, medium, large, duplicate; give the folder where"):
        LibriLight(str(published / "small")).splits()


def test_segments_of_no_length_are_an_error(published):
    with pytest.raises(CorpusError, match=r"segments of 0\.0 s would hold no frame; give more segment_seconds"):
        LibriLight(str(published), segment_seconds=0.0).splits()


def test_a_published_copy_is_prepared_and_read_back(published, tmp_path):
    report = prepare(LibriLight(str(published)), tmp_path / "data", progress=False)
    assert not report.rejects and {split: size.kept for split, size in report.splits.items()} == {
        "small": 2,
        "medium": 1,
    }
    record = open_split("librilight_unlab", "small", tmp_path / "data")[0]
    assert record["num_samples"] == sum(round((end - start) * SECOND) for start, end in VOICE)
    assert record["speaker"] == "100" and len(decode_record(record)) == record["num_samples"]


@pytest.fixture
def finetuning(tmp_path):
    """librispeech_finetuning.tgz: one utterance in each of its folders, two in 9h/clean, one of a chapter in 1h too."""
    root = tmp_path / "librispeech_finetuning"
    folders = [
        root / part / kind for part in (*(f"1h/{fold}" for fold in range(6)), "9h") for kind in ("clean", "other")
    ]
    for number, folder in enumerate(folders):
        write_chapter(folder, f"{100 + number}", "175658", {0: f"UTTERANCE {number}"})
    write_chapter(root / "9h/clean", "100", "175658", {1: "THE SAME CHAPTER"})
    for name in ("10h_phones.txt", "10min_phones.txt", "1h_phones.txt", "dev-clean.txt"):
        (root / "phones").mkdir(exist_ok=True)
        (root / "phones" / name).write_text("100-175658-0000 17 17 17 4 4 30\n")
    return tmp_path


def write_chapter(folder, speaker, chapter, texts):
    chapter_dir = folder / speaker / chapter
    chapter_dir.mkdir(parents=True)
    for number in texts:
        noise = np.random.default_rng(number).integers(-9_000, 9_000, 2_000, np.int16)
        soundfile.write(chapter_dir / f"{speaker}-{chapter}-{number:04}.flac", noise, SECOND)
    lines = [f"{speaker}-{chapter}-{number:04} {text}\n" for number, text in texts.items()]
    (chapter_dir / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))


def test_ten_minutes_are_of_the_hour_and_the_hour_is_of_the_ten_hours(finetuning):
    splits = LibriLightLimited(str(finetuning)).splits()
    ids = {split: [utterance.id for utterance in utterances] for split, utterances in splits.items()}
    assert ids["train_10min"] == ids["train_10min_0"] == ["100-175658-0000", "101-175658-0000"]
    assert ids["train_1h"] == [key for fold in range(6) for key in ids[f"train_10min_{fold}"]]
    assert ids["train_10h"][:12] == ids["train_1h"]
    assert set(ids["train_10h"][12:]) == {"100-175658-0001", "112-175658-0000", "113-175658-0000"}
    assert {split: len(set(each)) for split, each in ids.items()} == {
        **{"train_10min": 2, "train_1h": 12, "train_10h": 15},
        **{f"train_10min_{fold}": 2 for fold in range(6)},
    }


def test_limited_texts_and_speakers_are_those_of_librispeech(finetuning):
    utterance = LibriLightLimited(str(finetuning / "librispeech_finetuning")).splits()["train_10min_5"][1]
    assert (utterance.id, utterance.text, utterance.speaker, utterance.language) == (
        *("111-175658-0000", "UTTERANCE 11", "111", "en"),
    )


def test_the_limited_sets_are_prepared_and_read_back(finetuning, tmp_path):
    report = prepare(LibriLightLimited(str(finetuning)), tmp_path / "data", progress=False)
    assert not report.rejects
    records = open_split("librilight", "train_10min", tmp_path / "data")
    assert [records[number]["text"] for number in range(len(records))] == ["UTTERANCE 0", "UTTERANCE 1"]


def test_limited_sets_without_one_of_their_folders_are_an_error(finetuning):
    (finetuning / "librispeech_finetuning/1h/3/other").rename(finetuning / "elsewhere")
    with pytest.raises(CorpusError, match=r"lacks 1h/3/other; give the folder where librispeech_finetuning\.tgz"):
        LibriLightLimited(str(finetuning)).splits()


def test_a_folder_of_something_else_has_no_limited_sets(tmp_path):
    with pytest.raises(CorpusError, match=r"lacks 1h/0/clean, 1h/0/other, 1h/1/clean \.\.\.; give the folder"):
        LibriLightLimited(str(tmp_path)).splits()


def test_a_limit_of_a_segment_is_never_over_that_of_prepare(tmp_path):
    """Of ends in seconds that no binary fraction is, a sample too many would have the segment rejected."""
    write_recording(tmp_path / "small", "7/book/chapter", [[0.1, 0.4], [0.7, 0.9], [1.3, 1.8]])
    (utterance,) = LibriLight(str(tmp_path), segment_seconds=1.0).splits()["small"]
    with pytest.raises(AudioError, match="too long"):
        utterance.read(0.99)
    assert len(utterance.read(1.0).waveform) <= SECOND
