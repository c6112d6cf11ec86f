import json
import pickle

import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources import gigaspeech
from w2v2_jax.data.sources.gigaspeech import GigaSpeech

RATE = 16_000
SECONDS = 4


def segment(aid, number, begin, end, text, *subsets):
    return {
        "sid": f"{aid}_S{number:07d}",
        "speaker": "N/A",
        "begin_time": begin,
        "end_time": end,
        "text_raw": "",
        "text_tn": text,
        "subsets": [f"{{{subset}}}" for subset in subsets],
    }


def entry(source, aid, title, *segments):
    return {
        "title": title,
        "url": f"https://example.org/{aid}",
        "path": f"audio/{source}/P0001/{aid}.opus",
        "aid": aid,
        "source": source,
        "format": "opus",
        "sample_rate": RATE,
        "codec": "s16le",
        "channels": 1,
        "md5": "a1eb19f5bc68d4af71f65a3e8d700343",
        "duration": float(SECONDS),
        "size": 2555888,
        "speaker": "N/A",
        "category": "Arts",
        "subsets": sorted({subset for each in segments for subset in each["subsets"]}),
        "segments": list(segments),
    }


LISTING = {
    "dataset": "GigaSpeech",
    "description": "GigaSpeech is a large English dataset",
    "language": "EN",
    "version": "v1.0.0",
    "audios": [
        entry(
            "podcast",
            "POD0000000001",
            'Über "audios": [',
            segment("POD0000000001", 8, 0.5, 1.0, "YOU SEE IT <COMMA> DON'T YOU <QUESTIONMARK>", "XL"),
            segment("POD0000000001", 9, 1.25, 1.5, "YES <PERIOD>", "XS", "S", "M", "L", "XL"),
        ),
        entry(
            "youtube",
            "YOU0000000002",
            "DEV",
            segment("YOU0000000002", 0, 0.0, 0.5, "<MUSIC>", "DEV"),
            segment("YOU0000000002", 1, 0.5, 1.0, "OH <EXCLAMATIONPOINT>", "DEV"),
            segment("YOU0000000002", 2, 1.0, 1.5, "<PERIOD>", "DEV"),
        ),
        entry("audiobook", "AUD0000000003", "T", segment("AUD0000000003", 1, 3.5, 4.0, "THE END <PERIOD>", "TEST")),
        entry("audiobook", "AUD0000000004", "M", segment("AUD0000000004", 1, 3.0, 3.5, "MORE", "M", "L", "XL")),
    ],
}


def noise(seed):
    """Not a tone, of which Opus takes longer than speech to decode the same from any place on."""
    return (0.1 * np.random.default_rng(seed).normal(size=SECONDS * RATE)).astype(np.float32)


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "GigaSpeech"
    for seed, audio in enumerate(LISTING["audios"]):
        path = folder / audio["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(seed), RATE, "OPUS", format="OGG")
    write(folder, json.dumps(LISTING, indent=4, ensure_ascii=False))
    return folder


def write(folder, text):
    (folder / "GigaSpeech.json").write_text(text, encoding="utf-8")


def test_splits_are_the_subsets_the_larger_with_all_of_the_smaller(published):
    splits = GigaSpeech(str(published), ("XS", "M", "XL", "DEV", "TEST")).splits()
    assert {split: [each.id for each in segments] for split, segments in splits.items()} == {
        "xs": ["POD0000000001_S0000009"],
        "m": ["POD0000000001_S0000009", "AUD0000000004_S0000001"],
        "xl": ["POD0000000001_S0000008", "POD0000000001_S0000009", "AUD0000000004_S0000001"],
        "dev": ["YOU0000000002_S0000000", "YOU0000000002_S0000001", "YOU0000000002_S0000002"],
        "test": ["AUD0000000003_S0000001"],
    }
    assert list(GigaSpeech(str(published)).splits()) == ["xl", "dev", "test"]


def test_texts_are_words_and_nobody_knows_the_speakers(published):
    segments = GigaSpeech(str(published)).splits()["xl"]
    assert [each.text for each in segments] == ["YOU SEE IT DON'T YOU", "YES", "MORE"]
    assert {(each.speaker, each.language) for each in segments} == {("", "en")}


@pytest.mark.parametrize("text", [json.dumps(LISTING), json.dumps(LISTING, indent=1, ensure_ascii=False)])
@pytest.mark.parametrize("chunk", [60, 1000])
def test_the_list_is_read_by_pieces_of_any_size_however_it_is_written(published, monkeypatch, text, chunk):
    write(published, text)
    whole = [each.id for each in GigaSpeech(str(published)).splits()["xl"]]
    monkeypatch.setattr(gigaspeech, "CHUNK", max(chunk, text.index('"audios": [') + 11))
    gigaspeech._entry.cache_clear()
    pieces = GigaSpeech(str(published)).splits()["xl"]
    assert [each.id for each in pieces] == whole
    assert pieces[2].text == "MORE"


def test_a_segment_is_the_part_of_the_recording_between_its_times(published):
    decoded, _ = soundfile.read(published / "audio/podcast/P0001/POD0000000001.opus", dtype="float32")
    first, second, _ = GigaSpeech(str(published)).splits()["xl"]
    np.testing.assert_allclose(first.read(30.0).waveform, decoded[8_000:16_000], atol=3e-3)
    np.testing.assert_allclose(second.read(30.0).waveform, decoded[20_000:24_000], atol=3e-3)


def test_recordings_may_have_been_converted_to_wav(published):
    for path in published.rglob("*.opus"):
        soundfile.write(path.with_suffix(".wav"), noise(0), RATE, "FLOAT")
        path.unlink()
    segment = GigaSpeech(str(published)).splits()["test"][0]
    np.testing.assert_array_equal(segment.read(30.0).waveform, noise(0)[-8_000:])


def test_an_utterance_can_be_read_in_another_process(published):
    segment = GigaSpeech(str(published)).splits()["test"][0]
    assert len(pickle.loads(pickle.dumps(segment)).read(30.0).waveform) == 8_000


def test_a_published_copy_is_prepared_and_segments_without_speech_are_rejected(published, tmp_path):
    report = prepare(GigaSpeech(str(published)), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"xl": 3, "dev": 1, "test": 1}
    assert [(reject.id[-1], reject.reason) for reject in report.rejects] == [
        ("0", "garbage: <MUSIC>, not speech"),
        ("2", "no transcript: text_tn has no words"),
    ]
    record = open_split("gigaspeech", "xl", tmp_path / "data")[0]
    assert (record["text"], record["num_samples"]) == ("YOU SEE IT DON'T YOU", 8_000)


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ((3.5, 4.5), "cut short: the segment is of 3.5 to 4.5 s, the recording has 4 s"),
        ((2.0, 1.0), "cut short: the segment is of 2 to 1 s"),
        ((0.0, 2.0), "too long: 2.0 s is over 1.5 s"),
    ],
)
def test_a_segment_that_is_not_in_the_recording_or_too_long_is_rejected(published, times, reason):
    path = published / "audio/podcast/P0001/POD0000000001.opus"
    with pytest.raises(AudioError, match=reason):
        gigaspeech.read_segment(path, *times, 1.5)


def test_a_recording_that_is_not_there_is_rejected_with_its_reason(published, tmp_path):
    (published / "audio/audiobook/P0001/AUD0000000004.opus").unlink()
    report = prepare(GigaSpeech(str(published), ("M",)), tmp_path / "data", progress=False)
    [reject] = report.rejects
    assert reject.path.endswith("AUD0000000004.opus") and reject.reason.startswith("missing: there is no file")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (json.dumps(LISTING)[:-40], r"GigaSpeech\.json: no recording begins at byte \d+; fetch the file again"),
        ('{"audio": []}', "is not the list of GigaSpeech"),
        ('{"audios": [{"aid": "A"}]}', "a recording should have a path and segments"),
        ('{"audios": []}', "has no segment of XL"),
        (json.dumps(LISTING).replace("text_tn", "text"), "segment 0 of recording POD0000000001 has no 'text_tn'"),
    ],
)
def test_a_list_that_is_not_whole_or_of_something_else_is_an_error(published, text, error):
    write(published, text)
    with pytest.raises(CorpusError, match=error):
        GigaSpeech(str(published)).splits()


def test_a_subset_that_there_is_not_and_a_folder_of_something_else_are_errors(tmp_path):
    with pytest.raises(CorpusError, match="no subset 'XXL'; its subsets are XS, S, M, L, XL, DEV, TEST"):
        GigaSpeech(str(tmp_path), ("XXL",)).splits()
    with pytest.raises(CorpusError, match=r"there is no .*GigaSpeech\.json"):
        GigaSpeech(str(tmp_path)).splits()
