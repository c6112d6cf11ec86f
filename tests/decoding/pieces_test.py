import itertools

import numpy as np
import pytest

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.greedy import Candidate, Decoded, greedy
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import NoModel
from w2v2_jax.decoding.lexicon import lexicon_of_words
from w2v2_jax.decoding.pieces import InPieces, cuts, joined
from w2v2_jax.decoding.searched import Searched

VOCABULARY = Vocabulary(("<b>", "A", "B", "|"), specials=("<b>",), blank="<b>")


def frames(symbols):
    """Frames that say one symbol each, `.` being the blank, almost certainly."""
    ids = [["<b>", "A", "B", "|"].index("<b>" if symbol == "." else symbol) for symbol in symbols]
    return np.log(np.where(np.eye(4)[ids] == 1, 0.97, 0.01)).astype(np.float32)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("AB.AB.AB", []),
        ("AB.AB.AB.A...BAB", [11]),  # of 12 frames, in the middle of the longest pause of the last six
        ("AB.AB.AB.A.|.BAB", [12]),  # behind the mark
        ("...AB.ABBA|AABA", [11]),  # not in the pause of the first half
        ("ABABABABABABABABABABABABAB", [12, 24]),
        ("ABABABABAB|.ABABABAB|.ABABABABAB|.ABAB", [11, 21, 33]),
    ],
)
def test_recordings_are_cut_in_the_longest_pause_of_the_second_half_of_each_piece(said, expected):
    assert cuts(frames(said), VOCABULARY, max_frames=12) == expected


def test_pieces_are_never_longer_than_may_be_and_nothing_is_lost():
    log_probs = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    pieces = np.split(log_probs, cuts(log_probs, VOCABULARY, max_frames=30))
    assert {15 <= len(piece) <= 30 for piece in pieces[:-1]} == {True} and len(pieces[-1]) <= 30
    np.testing.assert_array_equal(np.concatenate(pieces), log_probs)


def test_in_pieces_clear_words_are_found_where_they_are_said_and_short_recordings_left_as_they_are():
    """The best path of labels has no memory, so cutting it at pauses changes nothing."""
    recordings = [frames(said) for said in ("AB.|.BA|" * 9, "A|", "A.B|" * 8, ".")]
    for whole, cut in zip(greedy(recordings, VOCABULARY), InPieces(greedy, 12)(recordings, VOCABULARY), strict=True):
        for ours, theirs in zip(cut[:4], whole[:4], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert cut.score == pytest.approx(whole.score, rel=1e-6)


def test_a_search_in_pieces_finds_the_words_of_the_whole():
    lexicon = lexicon_of_words(["AB", "B", "BA"], VOCABULARY)
    search = Searched(BeamSearch(VOCABULARY, NoModel(), lexicon, weights=Weights(0.0, -1.0), beam=50))
    recordings = [frames("AB.|.BA|..B|.A" * 6), frames("B|")]
    whole, short = search(recordings, VOCABULARY)
    cut, same = InPieces(search, 20)(recordings, VOCABULARY)
    assert VOCABULARY.decode(cut.labels) == VOCABULARY.decode(whole.labels) != ""
    assert cut.starts.tolist() == whole.starts.tolist() and cut.stops.tolist() == whole.stops.tolist()
    assert same.score == short.score and same.candidates == short.candidates
    assert VOCABULARY.decode(cut.labels) == cut.candidates[0].text


def test_a_text_that_pieces_share_out_in_two_ways_is_one_candidate():
    nothing = np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    pieces = [Decoded(*nothing, -1.0, (Candidate("A", -1.0), Candidate("", -2.0)))] * 2
    assert joined(pieces, [0, 5]).candidates == (Candidate("A A", -2.0), Candidate("A", -3.0))


def test_candidates_of_the_whole_are_the_best_combinations_of_those_of_the_pieces():
    rng = np.random.default_rng(0)
    nothing = np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    lists = [
        sorted((Candidate(f"{piece}{n}" * (n > 0), rng.normal()) for n in range(3)), key=lambda each: -each.score)
        for piece in "ABC"
    ]
    pieces = [Decoded(*nothing, found[0].score, tuple(found)) for found in lists]
    every = {
        " ".join(filter(None, (each.text for each in chosen))): sum(each.score for each in chosen)
        for chosen in itertools.product(*lists)
    }
    expected = sorted(every.items(), key=lambda each: -each[1])[:3]
    found = joined(pieces, [0, 10, 20])
    assert [each.text for each in found.candidates] == [text for text, _ in expected]
    np.testing.assert_allclose([each.score for each in found.candidates], [score for _, score in expected])
    assert found.score == pytest.approx(expected[0][1])
