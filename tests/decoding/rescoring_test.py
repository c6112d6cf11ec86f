import itertools

import numpy as np
import pytest

from w2v2_jax.decoding.hypotheses import Hypothesis, Weights
from w2v2_jax.decoding.rescoring import ranked, rescored, tune_rescoring
from w2v2_jax.decoding.scoring import count_words, total

GOOD, BAD = Hypothesis(("A", "CAT"), -12.0, -9.0), Hypothesis(("AK", "AT"), -10.0, -4.0)


def prefers_cats(texts):
    return np.array([-1.0 if "CAT" in text else -6.0 for text in texts])


def test_the_search_model_gives_way_to_the_other():
    assert rescored([[BAD, GOOD], [BAD]], prefers_cats) == [
        [BAD._replace(language=-6.0), GOOD._replace(language=-1.0)],
        [BAD._replace(language=-6.0)],
    ]


def test_each_text_is_scored_once():
    asked = []

    def model(texts):
        asked.extend(texts)
        return np.zeros(len(texts))

    rescored([[BAD, GOOD], [GOOD]], model)
    assert asked == ["AK AT", "A CAT"]


@pytest.mark.parametrize(("lm_weight", "first"), [(0.3, BAD), (0.5, GOOD)])
def test_the_best_hypothesis_depends_on_the_weight(lm_weight, first):
    """The good one is worse by 2 for its frames and better by 5 for its words: even at a weight of 0.4."""
    [found] = ranked(rescored([[BAD, GOOD]], prefers_cats), Weights(lm_weight, word_score=-1.0))
    assert found[0].words == first.words and {each.words for each in found} == {BAD.words, GOOD.words}


def random_lists(num_clips):
    rng = np.random.default_rng(0)
    words = ("A", "B", "C")
    lists = [
        [
            Hypothesis(tuple(rng.choice(words, rng.integers(0, 5)).tolist()), *rng.normal(-10, 4, 2).tolist())
            for _ in range(rng.integers(1, 9))
        ]
        for _ in range(num_clips)
    ]
    return lists, [" ".join(rng.choice(words, 3)) for _ in range(num_clips)]


def test_tuning_tries_every_weight_of_the_papers_ranges():
    lists, references = random_lists(30)
    tuned = tune_rescoring(lists, references, steps=3)
    assert [trial.weights for trial in tuned.trials] == list(itertools.product((0.0, 2.5, 5.0), (-5.0, 0.0, 5.0)))
    for weights, rate in tuned.trials:
        pairs = zip(references, (found for found, *_ in ranked(lists, weights)), strict=True)
        assert rate == total([count_words(reference, found.text) for reference, found in pairs]).errors / 90
    assert tuned.word_error_rate == min(rate for _, rate in tuned.trials)
    assert (tuned.weights, tuned.word_error_rate) in tuned.trials


def test_tuning_needs_a_word_and_a_reference_for_each_clip():
    with pytest.raises(ValueError, match="1 references cannot be those of 2 clips"):
        tune_rescoring([[GOOD], [BAD]], ["A"])
    with pytest.raises(ValueError, match="the 1 references have no words"):
        tune_rescoring([[GOOD]], [""])
