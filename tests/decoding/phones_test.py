import pytest

from w2v2_jax.decoding.phones import (
    SILENCE,
    TO_39,
    TO_48,
    count_phones,
    count_spoken_phones,
    fold_to_39,
    fold_to_48,
    folded,
    without_silence,
)
from w2v2_jax.decoding.scoring import Counts, Utterance

# By manner of articulation, as TIMIT's documentation lists them.
STOPS = "b d g p t k dx q bcl dcl gcl pcl tcl kcl"
CONSONANTS = "jh ch s sh z zh f th v dh m n ng em en eng nx l r w y hh hv el"
VOWELS = "iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h"
TRANSCRIBED = f"{STOPS} {CONSONANTS} {VOWELS} pau epi h#".split()

SCORED_AS_ONE = [
    "aa ao",
    "ah ax ax-h",
    "er axr",
    "hh hv",
    "ih ix",
    "l el",
    "m em",
    "n en nx",
    "ng eng",
    "sh zh",
    "uw ux",
    "pcl tcl kcl bcl dcl gcl h# pau epi",
]


def test_61_phones_become_48_become_39():
    assert len(set(TRANSCRIBED)) == 61
    models = {fold_to_48(phone) for phone in TRANSCRIBED} - {""}
    assert len(models) == 48 == len(set(TO_48.values()) - {""})
    scored = {fold_to_39(phone) for phone in models}
    assert len(scored) == 39 == len(set(TO_39.values()))


@pytest.mark.parametrize("fold", [fold_to_48, fold_to_39])
def test_what_is_folded_stays_as_it_is(fold):
    for phone in TRANSCRIBED:
        assert fold(fold(phone)) == fold(phone)
        assert fold_to_39(fold(phone)) == fold_to_39(phone)


def test_phones_are_scored_as_one_as_lee_and_hon_have_it_and_no_others():
    groups = {}
    for phone in TRANSCRIBED:
        groups.setdefault(fold_to_39(phone), set()).add(phone)
    assert groups.pop("") == {"q"}
    assert sorted(map(sorted, (each for each in groups.values() if len(each) > 1))) == sorted(
        sorted(each.split()) for each in SCORED_AS_ONE
    )
    assert all(name in members for name, members in groups.items() if name != SILENCE)


def test_a_transcript_is_folded_phone_by_phone():
    assert fold_to_48("h# q ao l axr pcl p epi zh h#") == "sil ao l er cl p epi zh sil"
    assert fold_to_39("h# q ao l axr pcl p epi zh h#") == "sil aa l er sil p sil sh sil"
    assert without_silence("sil aa l er sil p sil sh sil") == "aa l er p sh"
    assert fold_to_39("") == ""


def test_reference_and_hypothesis_may_be_in_different_sets():
    assert count_phones("h# dcl d ix zh kcl h#", "sil vcl d ix zh cl sil").errors == 0
    assert count_phones("h# dcl d ix zh kcl h#", "sil sil d ih sh sil sil").errors == 0


def test_errors_in_silences_count_only_where_silence_does():
    reference, hypothesis = "h# kcl k ae tcl t h#", "h# k ae dcl d"
    assert count_phones(reference, hypothesis) == Counts(1, 2, 0, 7)
    assert count_spoken_phones(reference, hypothesis) == Counts(1, 0, 0, 3)


def test_utterances_are_folded_on_both_sides():
    utterance = folded(Utterance("a", "h# ao", "pau aa", "speaker", 1.0))
    assert utterance == Utterance("a", "sil aa", "sil aa", "speaker", 1.0)


def test_a_symbol_that_is_no_phone_of_timit_is_named_with_its_place():
    with pytest.raises(ValueError, match="'AA', phone 1 of 'sil AA', is not one of TIMIT's"):
        fold_to_39("sil AA")
