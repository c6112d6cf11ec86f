import itertools
import math

import kenlm
import numpy as np
import pytest
from exhaustive import ARPA, LABELS, best_hypotheses, log10_prob, paths, random_log_probs

from w2v2_jax.data.text import LETTERS, Vocabulary
from w2v2_jax.decoding.beam import BeamSearch, LexiconFreeSearch
from w2v2_jax.decoding.hypotheses import Weights
from w2v2_jax.decoding.language_models import HotWords, NGramFile, NoModel
from w2v2_jax.decoding.lexicon import Lexicon, lexicon_of_words

WORDS = ("A", "AB", "BB", "BA")  # the model lacks the last one
LEXICON = lexicon_of_words(WORDS, LABELS)
EVERYTHING = {"beam": 2000, "beam_threshold": 1e6, "n_best": 2000}


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "toy.arpa"
    path.write_text(ARPA)
    return path


def assert_equal_hypotheses(found, expected):
    assert [each.words for each in found] == [each.words for each in expected]
    for field in ("acoustic", "language"):
        actual = [getattr(each, field) for each in found]
        np.testing.assert_allclose(actual, [getattr(each, field) for each in expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [Weights(), Weights(0.7, 1.5), Weights(0.0, 0.0)])
@pytest.mark.parametrize("sil_weight", [0.0, -0.8])
def test_an_endless_beam_finds_the_best_path_of_every_sequence_of_words(arpa, seed, weights, sil_weight):
    log_probs = random_log_probs(seed)
    search = BeamSearch(LABELS, NGramFile(arpa), LEXICON, weights=weights, sil_weight=sil_weight, **EVERYTHING)
    expected = best_hypotheses(log_probs, WORDS, weights, sil_weight)
    assert len(expected) > 8
    assert_equal_hypotheses(search.decode(log_probs), expected)


def test_without_a_model_the_frames_and_the_word_score_decide():
    log_probs, weights = random_log_probs(7), Weights(word_score=-0.5)
    search = BeamSearch(LABELS, NoModel(), LEXICON, weights=weights, **EVERYTHING)
    expected = best_hypotheses(log_probs, WORDS, weights, language=lambda words: 0.0)
    assert_equal_hypotheses(search.decode(log_probs), expected)


def test_the_log_probability_of_the_words_is_that_of_kenlm(arpa):
    model = kenlm.Model(str(arpa))
    for found in BeamSearch(LABELS, NGramFile(arpa), LEXICON, **EVERYTHING).decode(random_log_probs(3)):
        assert found.language == pytest.approx(model.score(found.text), abs=1e-5)
        assert found.language == pytest.approx(log10_prob(found.words), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_hot_words_are_searched_as_if_they_were_likelier(arpa, seed):
    log_probs, weights = random_log_probs(seed), Weights(1.5, -0.2)
    model = HotWords(NGramFile(arpa), ("BA", "BB"), score=2.0)
    expected = best_hypotheses(
        log_probs, WORDS, weights,
        language=lambda words: log10_prob(words) + 2.0 * sum(word in ("BA", "BB") for word in words),
    )  # fmt: skip
    found = BeamSearch(LABELS, model, LEXICON, weights=weights, **EVERYTHING).decode(log_probs)
    assert_equal_hypotheses(found, expected)


def spoken(text, vocabulary, sure=0.9):
    """Log probabilities of clear speech, two frames a label and a blank between labels."""
    labels = [vocabulary.blank_id, *itertools.chain(*((each, each, vocabulary.blank_id) for each in text))]
    probs = np.full((len(labels), len(vocabulary)), (1 - sure) / (len(vocabulary) - 1))
    probs[range(len(labels)), labels] = sure
    return np.log(probs).astype(np.float32)


def test_a_hot_word_that_the_lexicon_lacked_is_recognised():
    ordinary = lexicon_of_words(["CALL", "ASTERIX"], LETTERS)
    lexicon = ordinary.with_words(["ASTERISK"], LETTERS)
    log_probs = spoken(LETTERS.encode("CALL ASTERIX"), LETTERS, sure=0.5)

    def text(lexicon, model):
        return BeamSearch(LETTERS, model, lexicon, weights=Weights(1.0, 0.0)).decode(log_probs)[0].text

    assert text(ordinary, NoModel()) == text(lexicon, NoModel()) == "CALL ASTERIX"
    assert text(lexicon, HotWords(NoModel(), ("ASTERISK",), score=10.0)) == "CALL ASTERISK"


def test_clear_speech_is_recognised_with_a_narrow_beam(arpa):
    log_probs = spoken(LABELS.encode("BB AB A AB"), LABELS)
    assert BeamSearch(LABELS, NGramFile(arpa), LEXICON, beam=10).decode(log_probs)[0].text == "BB AB A AB"


def test_the_language_model_decides_where_frames_do_not(arpa):
    probs = np.full((4, 5), 1e-4)
    probs[0, LABELS.ids["A"]] = probs[2, LABELS.ids["|"]] = probs[3, LABELS.blank_id] = 1
    probs[1, [LABELS.blank_id, LABELS.ids["B"]]] = 0.5  # A or AB
    log_probs = np.log(probs).astype(np.float32)
    assert log10_prob(("AB",)) > log10_prob(("A",))
    assert BeamSearch(LABELS, NGramFile(arpa), LEXICON).decode(log_probs)[0].text == "AB"


def test_hypotheses_differ_and_come_best_first(arpa):
    search = BeamSearch(LABELS, NGramFile(arpa), LEXICON, n_best=7)
    found = search.decode(random_log_probs(1, num_frames=12))
    scores = [search.weights.score(each) for each in found]
    assert len({each.words for each in found}) == len(found) == 7
    assert scores == sorted(scores, reverse=True)


def test_a_word_with_two_spellings_is_one_hypothesis():
    lexicon = Lexicon({"AB": (("A", "B", "|"), ("B", "A", "|"))})
    found = BeamSearch(LABELS, NoModel(), lexicon, **EVERYTHING).decode(random_log_probs(0, num_frames=3))
    assert sorted(each.words for each in found) == [(), ("AB",)]


def test_no_frames_have_no_words(arpa):
    [found] = BeamSearch(LABELS, NGramFile(arpa), LEXICON, n_best=5).decode(np.zeros((0, 5), np.float32))
    assert found.words == ()
    assert (found.acoustic, found.language) == pytest.approx((0.0, log10_prob(())))


def test_a_word_that_the_frames_leave_unfinished_is_dropped(arpa):
    log_probs = spoken(LABELS.encode("AB A")[:-1], LABELS, sure=1 - 1e-12)
    search = BeamSearch(LABELS, NGramFile(arpa), LEXICON, beam_threshold=20.0)
    found = search.decode(log_probs)[0]
    assert found.words == ("AB",)
    assert found.language == pytest.approx(log10_prob(("AB",)))


def test_what_was_never_decoded_leaves_no_trace(arpa):
    search = BeamSearch(LABELS, NGramFile(arpa), LEXICON, n_best=20)
    first, second = random_log_probs(0, 40), random_log_probs(1, 15)
    alone = search.decode(second)
    search.decode(first)
    assert search.decode(second) == alone
    assert search.decode(np.asfortranarray(second)) == alone
    padded = np.concatenate([second, first])
    assert search.decode(padded[:15]) == alone


def test_reweighting_equals_a_new_search_and_loads_nothing(arpa):
    search = BeamSearch(LABELS, NGramFile(arpa), LEXICON, **EVERYTHING)
    other = search.reweighted(Weights(0.3, 2.0))
    fresh = BeamSearch(LABELS, NGramFile(arpa), LEXICON, weights=Weights(0.3, 2.0), **EVERYTHING)
    log_probs = random_log_probs(5)
    assert other.loaded is search.loaded
    assert other.decode(log_probs) == fresh.decode(log_probs) != search.decode(log_probs)


LETTER_ARPA = r"""\data\
ngram 1=6
ngram 2=2

\1-grams:
-2.0	<unk>
-99	<s>	-0.1
-0.8	</s>
-0.6	A	-0.3
-0.7	B	-0.2
-0.4	|	-0.5

\2-grams:
-0.1	A B
-0.2	| </s>

\end\
"""


@pytest.mark.parametrize("seed", range(4))
def test_letters_without_a_lexicon_equal_a_search_through_all_paths(tmp_path, seed):
    path = tmp_path / "letters.arpa"
    path.write_text(LETTER_ARPA)
    model, log_probs = kenlm.Model(str(path)), random_log_probs(seed)
    best = {}
    for labels, collapsed, acoustic in paths(log_probs):
        # Marks with which a clip begins have no log probability.
        spelled = collapsed[1:] if labels[0] == LABELS.ids["|"] else collapsed
        language = model.score(" ".join(LABELS.symbols[label] for label in spelled))
        words = tuple(LABELS.decode(collapsed).split())
        score = acoustic + 1.2 * language
        best[words] = max(best.get(words, (-math.inf, 0.0, 0.0)), (score, acoustic, language))
    expected = sorted(best.items(), key=lambda each: each[1], reverse=True)
    search = LexiconFreeSearch(LABELS, NGramFile(path), weights=Weights(1.2, 0.0), **EVERYTHING)
    found = search.decode(log_probs)
    assert [each.words for each in found] == [words for words, _ in expected]
    actual = [(search.weights.score(each), each.acoustic, each.language) for each in found]
    np.testing.assert_allclose(actual, [parts for _, parts in expected], rtol=1e-5)


def test_a_vocabulary_of_phones_is_searched_without_a_lexicon():
    phones = Vocabulary(("<s>", "aa", "b", "sh"), specials=("<s>",), blank="<s>", separator=" ")
    log_probs = spoken([2, 1, 3, 3], phones)
    assert LexiconFreeSearch(phones, NoModel()).decode(log_probs)[0].words == ("b", "aa", "sh", "sh")


def test_labels_of_another_vocabulary_are_refused(arpa):
    with pytest.raises(ValueError, match="7 labels in a frame are not the 5 of the vocabulary"):
        BeamSearch(LABELS, NGramFile(arpa), LEXICON).decode(np.zeros((3, 7), np.float32))


def test_nan_is_refused_naming_its_frame():
    log_probs = random_log_probs(0)
    log_probs[4, 1] = np.nan
    with pytest.raises(ValueError, match="frame 4 are NaN"):
        LexiconFreeSearch(LABELS, NoModel()).decode(log_probs)


def test_columns_of_specials_are_never_read():
    log_probs = random_log_probs(0)
    dirty = log_probs.copy()
    dirty[:, LABELS.symbols.index("<s>")] = 1e6
    search = LexiconFreeSearch(LABELS, NoModel(), n_best=5)
    assert search.decode(dirty) == search.decode(log_probs)


def test_more_hypotheses_than_the_beam_holds_are_refused():
    with pytest.raises(ValueError, match="a beam of 5 cannot give the 10 best"):
        BeamSearch(LABELS, NoModel(), LEXICON, beam=5, n_best=10)


def test_a_word_score_without_words_is_refused():
    with pytest.raises(ValueError, match="no use without a lexicon"):
        LexiconFreeSearch(LABELS, NoModel(), weights=Weights())
