import numpy as np
import pytest

from w2v2_jax.data.text import Vocabulary
from w2v2_jax.decoding.beam import BeamSearch
from w2v2_jax.decoding.greedy import best_path
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import NoModel
from w2v2_jax.decoding.lexicon import lexicon_of_words
from w2v2_jax.decoding.searched import Searched, place

VOCABULARY = Vocabulary(("<b>", "A", "B", "|"), specials=("<b>",), blank="<b>")


def log_probs_of(symbols, certainty=0.97):
    """Frames that say one symbol each, almost certainly."""
    ids = [VOCABULARY.symbols.index(symbol) for symbol in symbols.split()]
    others = (1 - certainty) / (len(VOCABULARY) - 1)
    return np.log(np.where(np.eye(len(VOCABULARY))[ids] == 1, certainty, others)).astype(np.float32)


SAID = "<b> A A <b> B | <b> B | |"


def test_labels_are_placed_where_they_are_said():
    log_probs = log_probs_of(SAID)
    placed, heard = place(log_probs, VOCABULARY.encode("AB B"), blank=0), best_path(log_probs, blank=0)
    for ours, theirs in zip(placed, heard, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_labels_that_do_not_fit_have_a_log_probability_of_minus_infinity():
    assert place(log_probs_of("A A"), VOCABULARY.encode("AB B"), blank=0).score == -np.inf


def test_recordings_are_decoded_in_their_order_with_times_and_the_score_of_the_search():
    lexicon = lexicon_of_words(["AB", "B", "BA"], VOCABULARY)
    search = BeamSearch(VOCABULARY, NoModel(), lexicon, weights=Weights(0.0, -2.0), beam=20)
    emissions = [log_probs_of(SAID), log_probs_of("<b> <b>"), log_probs_of("B A | <b>")]
    first, silent, last = Searched(search)(emissions, VOCABULARY)
    assert [VOCABULARY.decode(each.labels) for each in (first, silent, last)] == ["AB B", "", "BA"]
    assert first.starts.tolist() == [1, 4, 5, 7, 8] and first.stops.tolist() == [3, 5, 6, 8, 10]
    assert first.score == pytest.approx(10 * np.log(0.97) + 2 * -2.0, rel=1e-4)
