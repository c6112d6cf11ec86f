import numpy as np
import pytest
from planted import noise, record, scanned, sound_corpus, wrong

from w2v2_jax.data.text import LETTERS, SPECIALS, Vocabulary
from w2v2_jax.preflight.text_checks import PAPER, Labels, length_check, transcript_checks, vocabulary_check

PHONES = Vocabulary((*SPECIALS, "aa", "b", "sil"), word_end="", separator=" ")


def spoken(*texts, num_samples=8_000):
    return scanned(
        {"train": [record(f"u{i}", text, waveform=noise(str(i), num_samples)) for i, text in enumerate(texts)]}
    )


def test_a_sound_corpus_has_nothing_wrong():
    found = scanned(sound_corpus())
    assert wrong([*transcript_checks(found), vocabulary_check(found, LETTERS), length_check(found, PAPER)]) == {}


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_transcript_is_found(text):
    corpus = sound_corpus()
    corpus["dev"][1]["text"] = text
    assert wrong(transcript_checks(scanned(corpus))) == {"empty transcripts": ["dev/dev1"]}


def test_a_split_without_any_transcripts_is_no_error_but_told():
    corpus = sound_corpus()
    for each in corpus["train"]:
        each["text"] = ""
    checks = transcript_checks(scanned(corpus))
    assert wrong(checks) == {}
    assert next(check for check in checks if check.name == "no transcripts").cases == ("train",)


def test_the_alphabet_is_all_characters_but_spaces_the_rarest_first():
    check = transcript_checks(spoken("ABBA CAB", "\u00c9"))[-1]
    assert check.number == 4
    assert check.cases == (
        "'C' (U+0043) 1 times, first in train/u0",
        "'\u00c9' (U+00C9) 1 times, first in train/u1",
        "'A' (U+0041) 3 times, first in train/u0",
        "'B' (U+0042) 3 times, first in train/u0",
    )


def test_every_character_outside_the_vocabulary_is_counted_and_found_the_most_frequent_first():
    check = vocabulary_check(spoken("FINE", "C\u00c9L\u00c8BRE \u00c9T\u00c9", "A|B", "\u00c9"), LETTERS)
    assert check.verdict == "error" and check.number == 3
    assert check.cases == (
        "'\u00c9' (U+00C9) 4 times, first in train/u1",
        "'|' (U+007C) 1 times, first in train/u2",
        "'\u00c8' (U+00C8) 1 times, first in train/u1",
    )


def test_small_letters_are_not_those_of_the_vocabulary():
    assert vocabulary_check(spoken("ok"), LETTERS).number == 2


def test_phones_are_looked_up_as_a_whole():
    check = vocabulary_check(spoken("sil aa b sil", "sil ab b"), PHONES)
    assert (check.unit, check.cases) == ("phones", ("'ab' 1 times, first in train/u1",))


def frames_of(num_samples):
    """As the paper's network: 400 samples are the first frame, 320 more another one."""
    return (num_samples - 400) // 320 + 1


# Each letter and the mark behind the word takes a frame; a repeated letter takes one more, for the blank between.
NEEDED = {"ABC": 4, "AABC": 6, "A B C": 6, "AAA": 6, "": 0}


@pytest.mark.parametrize("text", NEEDED)
@pytest.mark.parametrize("labels", [PAPER, Labels(LETTERS, frames_of)])
def test_a_transcript_is_too_long_from_the_first_frame_that_lacks(text, labels):
    just_enough = 400 + 320 * (NEEDED[text] - 1) if text else 400
    assert length_check(spoken(text, num_samples=just_enough), labels).verdict == "sound"
    if text:
        check = length_check(spoken(text, num_samples=just_enough - 1), labels)
        told = f"train/u0: {NEEDED[text]} frames needed, {NEEDED[text] - 1} there"
        assert (check.verdict, check.cases) == ("error", (told,))


def test_the_frames_are_those_of_the_network_that_is_trained():
    coarse = Labels(LETTERS, lambda num_samples: num_samples // 4_000)
    assert length_check(spoken("AB"), coarse).cases == ("train/u0: 3 frames needed, 2 there",)


def test_what_cannot_be_spelled_is_not_judged_by_its_length():
    assert length_check(spoken("\u00c9" * 500), Labels(LETTERS, frames_of)).verdict == "sound"


def test_any_characters_are_spelled_with_a_mark_behind_each_word():
    np.testing.assert_array_equal(PAPER.encoder.encode(" \u00c9 b"), [0xC9, ord("|"), ord("b"), ord("|")])
