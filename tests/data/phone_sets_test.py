import pytest

from w2v2_jax.data.phone_sets import FOLDS, SILENCE, TO_39, TO_48, fold_to_39, fold_to_48, phone_vocabulary
from w2v2_jax.data.text import SPECIALS, TextError

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
    assert fold_to_39("") == ""


def test_a_symbol_that_is_no_phone_of_timit_is_named_with_its_place():
    with pytest.raises(ValueError, match="'AA', phone 1 of 'sil AA', is not one of TIMIT's"):
        fold_to_39("sil AA")


@pytest.mark.parametrize("num_phones", [61, 48, 39])
def test_a_vocabulary_writes_every_transcript_of_its_set(num_phones):
    vocabulary = phone_vocabulary(num_phones)
    assert len(vocabulary) == num_phones + 4 and vocabulary.symbols[:4] == SPECIALS
    transcript = FOLDS[num_phones](" ".join(TRANSCRIBED))
    assert vocabulary.decode(vocabulary.encode(transcript)) == transcript
    assert set(vocabulary.encode(transcript)) == set(range(4, len(vocabulary)))


def test_a_vocabulary_of_39_cannot_write_what_is_not_folded():
    with pytest.raises(TextError, match=r"'h#' in 'h# aa' is not in the vocabulary .*aa ae"):
        phone_vocabulary(39).encode("h# aa")
