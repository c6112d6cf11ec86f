import json

import numpy as np
import pytest
import soundfile

from w2v2_jax.data.corpora import CorpusError
from w2v2_jax.data.sources.manifests import Manifests, read_manifest


@pytest.fixture
def audio(tmp_path):
    (tmp_path / "audio").mkdir()
    for name, length in {"a.wav": 1000, "b.wav": 2000}.items():
        soundfile.write(tmp_path / "audio" / name, 0.1 * np.random.default_rng(0).normal(size=length), 16_000)
    return tmp_path / "audio"


def lengths(utterances):
    return [len(utterance.read(30.0).waveform) for utterance in utterances]


def fairseq(audio, transcripts):
    path = audio.parent / "train.tsv"
    path.write_text(f"{audio}\na.wav\t1000\nb.wav\t2000\n")
    for suffix, text in transcripts.items():
        path.with_suffix(suffix).write_text(text)
    return path


def test_a_fairseq_manifest_lists_files_under_its_root(audio):
    utterances = read_manifest(fairseq(audio, {}))
    assert lengths(utterances) == [1000, 2000]
    assert [(utterance.id, utterance.text) for utterance in utterances] == [("a.wav", ""), ("b.wav", "")]


@pytest.mark.parametrize(
    "transcripts",
    [
        {".wrd": "HELLO WORLD\nIT'S ME\n"},
        {".ltr": "H E L L O | W O R L D |\nI T ' S | M E |\n"},
        {".wrd": "HELLO WORLD\nIT'S ME\n", ".ltr": "H E L L O | W O R L D |\nI T ' S | M E |\n"},
    ],
)
def test_words_and_letters_of_fairseq_are_the_same_texts(audio, transcripts):
    assert [utterance.text for utterance in read_manifest(fairseq(audio, transcripts))] == ["HELLO WORLD", "IT'S ME"]


def test_transcripts_that_do_not_match_the_list_are_an_error(audio):
    with pytest.raises(CorpusError, match="lists 2 files but its transcripts have 1 lines"):
        read_manifest(fairseq(audio, {".ltr": "H I |\n"}))


def test_a_line_without_a_tab_is_named(audio):
    path = audio.parent / "train.tsv"
    path.write_text(f"{audio}\na.wav 1000\n")
    with pytest.raises(CorpusError, match=r"train.tsv:2: 'a.wav 1000' should be a path, a tab"):
        read_manifest(path)


def test_json_lines_are_read_with_the_usual_keys(audio):
    path = audio.parent / "train.jsonl"
    rows = [
        {"audio_filepath": str(audio / "a.wav"), "text": "hello", "duration": 99.0, "lang": "en"},
        {"audio": "audio/b.wav", "text": "", "speaker": 7, "id": "second"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_manifest(path)
    assert lengths([first, second]) == [1000, 2000]
    assert (first.text, first.language, second.speaker, second.id) == ("hello", "en", "7", "second")


def test_a_line_that_is_not_json_is_named(audio):
    path = audio.parent / "train.jsonl"
    path.write_text('{"audio": "a.wav"}\n{"audio": "b.w')
    with pytest.raises(CorpusError, match=r"train.jsonl:2: not a line of JSON"):
        read_manifest(path)


@pytest.mark.parametrize("line", ["3", '"a.wav"', '["a.wav"]', "null"])
def test_a_line_that_is_no_object_is_named(audio, line):
    path = audio.parent / "train.jsonl"
    path.write_text(f'{{"audio": "a.wav"}}\n{line}\n')
    with pytest.raises(CorpusError, match=r"train.jsonl:2: .* should be an object such as"):
        read_manifest(path)


@pytest.mark.parametrize("offset", ["soon", [1], {"seconds": 1}])
def test_an_offset_that_is_no_number_is_named(audio, offset):
    path = audio.parent / "train.jsonl"
    path.write_text(json.dumps({"audio": "a.wav", "offset": offset}) + "\n")
    with pytest.raises(CorpusError, match=r"train.jsonl:1: offset .* should be a number of seconds"):
        read_manifest(path)


def test_a_segment_of_a_longer_file_is_refused_rather_than_read_whole(audio):
    path = audio.parent / "train.jsonl"
    path.write_text('{"audio": "a.wav", "offset": 3.5, "duration": 2}\n')
    with pytest.raises(CorpusError, match=r"train.jsonl:1: offset"):
        read_manifest(path)


def test_csv_is_read_by_its_header(audio):
    path = audio.parent / "train.csv"
    path.write_text('text,path,speaker\n"hello, you",audio/a.wav,anna\nbye,audio/b.wav,ben\n')
    first, second = read_manifest(path)
    assert lengths([first, second]) == [1000, 2000]
    assert (first.text, first.speaker, second.text) == ("hello, you", "anna", "bye")


def test_a_row_whose_text_is_cut_at_a_comma_is_named(audio):
    path = audio.parent / "train.csv"
    path.write_text("path,text\naudio/b.wav,bye\naudio/a.wav,hello, you\n")
    with pytest.raises(CorpusError, match=r"train.csv:3: more values than the header has names"):
        read_manifest(path)


def test_a_row_without_a_path_is_named(audio):
    path = audio.parent / "train.csv"
    path.write_text("wav_file,text\na.wav,hello\n")
    with pytest.raises(CorpusError, match=r"train.csv:2: no path; one of audio, .* among wav_file, text"):
        read_manifest(path)


@pytest.mark.parametrize("name, reason", [("train.txt", "is not a manifest"), ("none.tsv", "there is no manifest")])
def test_what_is_no_manifest_is_an_error(tmp_path, name, reason):
    (tmp_path / "train.txt").write_text("")
    with pytest.raises(CorpusError, match=reason):
        read_manifest(tmp_path / name)


def test_every_split_has_its_own_manifest_of_any_format(audio):
    (audio.parent / "dev.csv").write_text("path\naudio/b.wav\n")
    splits = Manifests("mine", (("train", str(fairseq(audio, {}))), ("dev", str(audio.parent / "dev.csv")))).splits()
    assert {split: lengths(utterances) for split, utterances in splits.items()} == {
        "train": [1000, 2000],
        "dev": [2000],
    }
