import jiwer
import numpy as np
import pytest
from rapidfuzz.distance import Indel

from w2v2_jax.decoding.scoring import Counts, count_words
from w2v2_jax.decoding.word_alignment import Pair, align_words, confusions, count_pairs


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("THE CAT", "THE CAT", [("THE", "THE"), ("CAT", "CAT")]),
        ("THE CAT SAT", "THE SAT", [("THE", "THE"), ("CAT", ""), ("SAT", "SAT")]),
        ("THE CATS", "CAT", [("THE", ""), ("CATS", "CAT")]),
        ("B B D", "BE B D D", [("B", "BE"), ("B", "B"), ("", "D"), ("D", "D")]),
        ("MAT CATS", "CATS ON", [("MAT", ""), ("CATS", "CATS"), ("", "ON")]),
        ("HE SANG", "SHE SANG TOO", [("HE", "SHE"), ("SANG", "SANG"), ("", "TOO")]),
        ("", "A B", [("", "A"), ("", "B")]),
        (" A  B ", "", [("A", ""), ("B", "")]),
        ("", "", []),
    ],
)
def test_words_stand_beside_those_they_were_taken_for(reference, hypothesis, expected):
    assert list(align_words(reference, hypothesis)) == [Pair(*pair) for pair in expected]


def random_words(rng, longest):
    return ["".join(rng.choice(list("ABC"), rng.integers(1, 4))) for _ in range(rng.integers(0, longest))]


def cheapest(said, heard):
    """Fewest edits, then fewest letters not in common, over all alignments there are."""
    if not said or not heard:
        return len(said) + len(heard), 0
    edits, unlike = cheapest(said[1:], heard[1:])
    diagonal = edits + (said[0] != heard[0]), unlike + Indel.distance(said[0], heard[0])
    gaps = [cheapest(said[1:], heard), cheapest(said, heard[1:])]
    return min(diagonal, *((edits + 1, unlike) for edits, unlike in gaps))


def test_no_alignment_has_fewer_edits_nor_as_few_between_words_more_alike():
    rng = np.random.default_rng(0)
    for _ in range(60):
        said, heard = random_words(rng, 6), random_words(rng, 6)
        pairs = align_words(" ".join(said), " ".join(heard))
        unlike = sum(Indel.distance(*pair) for pair in pairs if all(pair))
        assert (count_pairs(pairs).errors, unlike) == cheapest(said, heard)


def test_every_word_is_in_its_place_once_and_there_are_as_many_edits_as_jiwer_finds():
    rng = np.random.default_rng(1)
    for _ in range(100):
        said, heard = random_words(rng, 25), random_words(rng, 25)
        pairs = align_words(" ".join(said), " ".join(heard))
        assert [pair.reference for pair in pairs if pair.reference] == said
        assert [pair.hypothesis for pair in pairs if pair.hypothesis] == heard
        expected = jiwer.process_words(" ".join(said), " ".join(heard))
        counts = count_pairs(pairs)
        assert counts.errors == expected.substitutions + expected.deletions + expected.insertions
        assert counts.reference_length == len(said)


def test_edits_are_counted_by_kind():
    pairs = align_words("THE CAT SAT DOWN", "A THE BAT SAT")
    assert count_pairs(pairs) == Counts(1, 1, 1, 4)
    assert count_pairs(pairs).errors == count_words("THE CAT SAT DOWN", "A THE BAT SAT").errors


def test_confusions_are_counted_over_all_utterances():
    pairs = [("THE CAT STOOD", "THE BAT"), ("A CAT", "A BAT UP"), ("CAT", "RAT")]
    found = confusions(align_words(*pair) for pair in pairs)
    assert found.substitutions.most_common() == [(Pair("CAT", "BAT"), 2), (Pair("CAT", "RAT"), 1)]
    assert dict(found.deletions) == {"STOOD": 1}
    assert dict(found.insertions) == {"UP": 1}
    assert dict(found.said) == {"THE": 1, "CAT": 3, "STOOD": 1, "A": 1}


def test_nothing_heard_wrong_is_no_confusion():
    found = confusions([align_words("A B", "A B")])
    assert not (found.substitutions or found.deletions or found.insertions)
