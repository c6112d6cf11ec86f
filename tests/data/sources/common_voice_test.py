import numpy as np
import pytest
import soundfile

from w2v2_jax.data.audio import AudioError
from w2v2_jax.data.corpora import CorpusError, open_split
from w2v2_jax.data.prepare import prepare
from w2v2_jax.data.sources.common_voice import CommonVoice

RELEASE = "cv-corpus-17.0-2024-03-15"
COLUMNS = {  # as of release 17.0 and of 6.1
    "en": "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale "
    "segment",
    "sv-SE": "client_id path sentence up_votes down_votes age gender accent locale segment",
}
PARTS = {
    "en": {
        "train": [("ada", 1, "Bees hum."), ("ada", 2, '"Why?" she said, and left.')],
        "dev": [("ben", 3, r"A path such as C:\\temp.")],
        "test": [("cleo", 4, "Ünder.")],
        "validated": [("ada", 1, "Bees hum."), ("dora", 9, "Bees hum.")],
        "invalidated": [("emil", 5, "Not what was read")],
        "other": [("fay", 6, "Nobody listened yet.")],
    },
    "sv-SE": {"train": [("olle", 7, "Hej då!")], "dev": [], "test": [("pia", 8, "Tack.")]},
}


def row(columns, language, client, number, sentence):
    values = {"client_id": client, "path": f"common_voice_{language}_{number}.mp3", "sentence": sentence}
    values |= {"up_votes": "2", "down_votes": "0", "locale": language}
    return "\t".join(values.get(column, "") for column in columns)


@pytest.fixture
def published(tmp_path):
    """A release with a language in the columns of today and one in those of before."""
    for language, parts in PARTS.items():
        folder = tmp_path / RELEASE / language
        (folder / "clips").mkdir(parents=True)
        columns = COLUMNS[language].split()
        for part, clips in parts.items():
            lines = ["\t".join(columns), *(row(columns, language, *clip) for clip in clips)]
            (folder / f"{part}.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            for _, number, _ in clips:
                waveform = 0.1 * np.random.default_rng(number).normal(size=9600)
                soundfile.write(folder / f"clips/common_voice_{language}_{number}.mp3", waveform, 32_000, format="MP3")
        (folder / "reported.tsv").write_text("sentence_id\tsentence\tlocale\treason\n")
    return tmp_path / RELEASE


def test_splits_are_the_tables_of_the_release(published):
    splits = CommonVoice(str(published), ("en",)).splits()
    assert {split: [each.id for each in utterances] for split, utterances in splits.items()} == {
        "train": ["en/common_voice_en_1", "en/common_voice_en_2"],
        "dev": ["en/common_voice_en_3"],
        "test": ["en/common_voice_en_4"],
    }
    others = CommonVoice(str(published), ("en",), parts=("validated", "invalidated", "other")).splits()
    assert [each.speaker for part in others.values() for each in part] == ["ada", "dora", "emil", "fay"]


def test_texts_are_as_published_with_their_quotes_and_one_backslash_for_two(published):
    splits = CommonVoice(str(published), ("en",)).splits()
    assert [each.text for each in splits["train"]] == ["Bees hum.", '"Why?" she said, and left.']
    assert splits["dev"][0].text == r"A path such as C:\temp."
    assert splits["test"][0].text == "Ünder."


def test_all_languages_follow_each_other_whatever_columns_their_tables_have(published):
    splits = CommonVoice(str(published)).splits()
    assert [(each.language, each.speaker) for each in splits["train"]] == [
        ("en", "ada"),
        ("en", "ada"),
        ("sv-SE", "olle"),
    ]
    assert [each.id for each in splits["dev"]] == ["en/common_voice_en_3"]
    assert splits["test"][1].text == "Tack."


def test_a_published_release_is_prepared_and_read_back(published, tmp_path):
    report = prepare(CommonVoice(str(published)), tmp_path / "data", progress=False)
    assert {split: size.kept for split, size in report.splits.items()} == {"train": 3, "dev": 1, "test": 2}
    record = open_split("common_voice", "train", tmp_path / "data")[2]
    assert (record["text"], record["speaker"], record["language"]) == ("Hej då!", "olle", "sv-SE")
    assert record["num_samples"] == pytest.approx(4800, abs=800)  # MP3 is coded in frames of 576


def test_a_clip_that_is_not_there_is_rejected_with_its_reason(published, tmp_path):
    (published / "en/clips/common_voice_en_2.mp3").unlink()
    [reject] = prepare(CommonVoice(str(published), ("en",)), tmp_path / "data", progress=False).rejects
    assert reject.id == "en/common_voice_en_2" and reject.reason.startswith("missing: there is no file")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ada\tcommon_voice_en_1.mp3\tBees hum.", "malformed: the line has 3 values, the header 13 names"),
        (row(COLUMNS["en"].split(), "en", "ada", 1, ""), "no transcript: sentence is empty"),
    ],
)
def test_a_row_without_all_values_or_a_sentence_is_rejected(published, line, reason):
    with (published / "en/train.tsv").open("a") as table:
        table.write(f"{line}\n")
    [*_, last] = CommonVoice(str(published), ("en",)).splits()["train"]
    with pytest.raises(AudioError, match=reason):
        last.read(30.0)


def test_the_clips_of_the_first_release_are_named_without_a_suffix(published):
    table = published / "en/train.tsv"
    table.write_text(table.read_text().replace(".mp3", ""))
    first = CommonVoice(str(published), ("en",)).splits()["train"][0]
    assert first.path.endswith("clips/common_voice_en_1.mp3") and len(first.read(30.0).waveform)


def test_a_table_without_a_column_is_an_error_that_names_it(published):
    table = published / "en/train.tsv"
    table.write_text(table.read_text().replace("client_id", "client"))
    with pytest.raises(CorpusError, match=r"en/train\.tsv:1: no column client_id among client, path, sentence_id"):
        CommonVoice(str(published), ("en",)).splits()


def test_an_empty_table_is_an_error(published):
    (published / "en/train.tsv").write_text("")
    with pytest.raises(CorpusError, match=r"en/train\.tsv:1: no column client_id, path, sentence among none"):
        CommonVoice(str(published), ("en",)).splits()


def test_the_tables_that_a_delta_release_lacks_are_an_error_that_lists_those_it_has(published):
    for part in ("train", "dev", "test"):
        (published / f"en/{part}.tsv").unlink()
    with pytest.raises(CorpusError, match=r"no table .*train\.tsv; of the tables there are: validated, invalidated, o"):
        CommonVoice(str(published), ("en",)).splits()
    assert len(CommonVoice(str(published), ("en",), ("validated",)).splits()["validated"]) == 2


def test_a_folder_of_something_else_and_a_part_that_there_is_not_are_errors(tmp_path):
    with pytest.raises(CorpusError, match="holds no LANGUAGE/clips"):
        CommonVoice(str(tmp_path)).splits()
    with pytest.raises(CorpusError, match="has no part 'valid'; give some of train, dev, test, validated"):
        CommonVoice(str(tmp_path), parts=("train", "valid")).splits()
