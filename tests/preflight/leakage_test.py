import pytest
from planted import record, scanned, sound_corpus, wrong

from w2v2_jax.preflight.leakage import SAME_SPEAKERS, Role, leakage_checks, normalised, role_of

SPEAKERS, SENTENCES, RECORDINGS = "speakers", "sentences", "recordings"


def found_in(corpus, *arguments):
    return wrong(leakage_checks(scanned(corpus), *arguments))


def verdicts(corpus, *arguments):
    return {check.name: check.verdict for check in leakage_checks(scanned(corpus), *arguments)}


def test_a_sound_corpus_has_nothing_wrong():
    checks = leakage_checks(scanned(sound_corpus()))
    assert {check.verdict for check in checks} == {"sound"} and len(checks) == 8


@pytest.mark.parametrize(
    ("split", "role"),
    [
        *dict.fromkeys(
            ["test", "test_clean", "test_other", "fr_test", "test1", "test_eval92", "eval"], Role.TEST
        ).items(),
        *dict.fromkeys(["dev", "dev_clean", "validation", "valid", "dev93", "de_dev"], Role.DEV).items(),
        *dict.fromkeys(
            ["train", "train_clean100", "labelled", "validated", "contest", "devices"], Role.TRAINING
        ).items(),
    ],
)
def test_what_a_split_is_for_is_in_its_name(split, role):
    assert role_of(split) == role


@pytest.mark.parametrize(("split", "verdict"), [("test", "error"), ("dev", "warning")])
def test_a_voice_of_training_is_an_error_in_test_and_a_warning_in_dev(split, verdict):
    corpus = sound_corpus()
    corpus[split][1]["speaker"] = "train speaker 1"
    name = f"speakers of {split} in training"
    assert found_in(corpus) == {name: [f"{split}/{split}1 and train/train1: speaker train speaker 1"]}
    assert verdicts(corpus)[name] == verdict


def test_a_voice_of_training_is_a_warning_where_the_same_speakers_are_allowed():
    corpus = sound_corpus()
    corpus["test"][1]["speaker"] = "train speaker 1"
    assert verdicts(corpus, SAME_SPEAKERS)["speakers of test in training"] == "warning"


def test_speakers_are_counted_not_their_utterances():
    corpus = sound_corpus()
    for each in corpus["test"]:
        each["speaker"] = "train speaker 0"
    check = leakage_checks(scanned(corpus))[0]
    assert (check.number, check.unit) == (1, "speakers")


def test_speakers_without_a_name_are_nobody_and_told_where_there_are_no_others():
    corpus = sound_corpus()
    corpus["test"][0]["speaker"] = corpus["train"][0]["speaker"] = ""
    assert found_in(corpus) == {}
    for each in corpus["test"]:
        each["speaker"] = ""
    assert verdicts(corpus)["speakers of test in training"] == "info"


@pytest.mark.parametrize("split", ["test", "dev"])
def test_a_sentence_of_training_is_found_whatever_its_marks_and_cases(split):
    corpus = sound_corpus()
    corpus[split][0]["text"] = "Three... SISTERS!"
    told = f"{split}/{split}0 and train/train2: 'Three... SISTERS!'"
    assert found_in(corpus) == {f"sentences of {split} in training": [told]}


def test_the_longest_sentence_comes_first():
    corpus = sound_corpus()
    corpus["test"][0]["text"], corpus["test"][1]["text"] = "TWO OF US", "FIVE EASY PIECES"
    [cases] = found_in(corpus).values()
    assert ["test/test1" in cases[0], "test/test0" in cases[1]] == [True, True]


@pytest.mark.parametrize("split", ["test", "dev"])
def test_a_recording_of_training_is_an_error(split):
    corpus = sound_corpus()
    corpus[split][1]["audio"] = corpus["train"][4]["audio"]
    name = f"recordings of {split} in training"
    assert found_in(corpus) == {name: [f"{split}/{split}1 and train/train4"]}
    assert verdicts(corpus)[name] == "error"


def test_copies_in_a_split_are_a_warning_that_names_both():
    corpus = sound_corpus()
    corpus["train"][5]["audio"] = corpus["train"][4]["audio"] = corpus["train"][1]["audio"]
    assert found_in(corpus) == {
        "copies in a split": ["train/train4 is train/train1", "train/train5 is train/train1"],
    }


def test_a_part_of_training_that_is_a_split_of_its_own_is_only_told():
    corpus = sound_corpus()
    corpus["labelled"] = [each | {"id": f"again {each['id']}"} for each in corpus["train"][:2]]
    checks = leakage_checks(scanned(corpus))
    assert wrong(checks) == {}
    assert checks[-1].verdict == "info"
    assert checks[-1].cases == ("labelled/again train0 is train/train0", "labelled/again train1 is train/train1")


def test_recordings_that_cannot_be_decoded_are_no_copies():
    corpus = {"train": [record(f"u{i}") | {"audio": b""} for i in range(3)]}
    assert found_in(corpus) == {}


@pytest.mark.parametrize("splits", [["train"], ["test", "dev"]])
def test_where_there_is_nothing_to_compare_it_is_said(splits):
    corpus = {split: sound_corpus()[split] for split in splits}
    assert verdicts(corpus)["leakage"] == "info" and len(verdicts(corpus)) == 3


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Don\u2019t  STOP, now!", "dont stop now"),
        ("well-known", "well known"),
        ("Stra\u00dfe", "strasse"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940\u0964", "\u0939\u093f\u0928\u094d\u0926\u0940"),  # vowel signs stay
        ("...", ""),
    ],
)
def test_sentences_are_compared_without_marks_and_cases(text, plain):
    assert normalised(text) == plain
