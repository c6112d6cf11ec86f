from w2v2_jax.decoding.phones import count_phones, count_spoken_phones, folded, without_silence
from w2v2_jax.decoding.scoring import Counts, Utterance


def test_silences_are_left_out():
    assert without_silence("sil aa l er sil p sil sh sil") == "aa l er p sh"


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
