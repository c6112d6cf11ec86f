from w2v2_jax.decoding.hypotheses import Hypothesis, Weights


def test_the_score_is_the_weighted_sum_of_the_three_parts():
    found = Hypothesis(("THE", "CAT"), acoustic=-4.0, language=-1.5)
    assert Weights(lm_weight=2.0, word_score=0.25).score(found) == -4.0 + 2.0 * -1.5 + 0.25 * 2


def test_the_text_has_single_spaces():
    assert Hypothesis(("THE", "CAT"), 0.0, 0.0).text == "THE CAT"
    assert Hypothesis((), 0.0, 0.0).text == ""
