import math

import numpy as np
import pytest

from w2v2_jax.decoding.comparison import compare, paired
from w2v2_jax.decoding.scoring import Counts, Utterance, by_speaker, score


def words(*errors, length=1):
    return [Counts(each, 0, 0, length) for each in errors]


def test_the_difference_is_that_of_the_corpus_rates():
    baseline, candidate = [Counts(3, 0, 0, 10), Counts(1, 1, 0, 30)], [Counts(1, 0, 0, 10), Counts(0, 1, 1, 30)]
    result = compare(baseline, candidate)
    assert (result.baseline, result.candidate) == (5 / 40, 3 / 40) == (score(baseline).rate, score(candidate).rate)
    assert result.difference == pytest.approx(-2 / 40)


def test_interval_and_probability_are_those_of_the_normal_approximation_for_one_word_utterances():
    # 120 of 2000 words get right, 80 get wrong: the other errors are the same, whatever their number.
    baseline = words(*[1] * 120, *[0] * 80, *[1] * 800, *[0] * 1000)
    candidate = words(*[0] * 120, *[1] * 80, *[1] * 800, *[0] * 1000)
    result = compare(baseline, candidate)
    mean, deviation = -40 / 2000, math.sqrt((200 / 2000 - 0.02**2) / 2000)
    assert result.difference == pytest.approx(mean)
    assert (result.low, result.high) == pytest.approx((mean - 1.96 * deviation, mean + 1.96 * deviation), abs=6e-4)
    improvement = math.erf(-mean / deviation / math.sqrt(2)) / 2 + 0.5
    assert result.probability_of_improvement == pytest.approx(improvement, abs=0.002)


def test_what_is_hard_for_both_systems_cancels():
    difficulty = np.random.default_rng(0).integers(0, 50, 200)
    baseline = words(*difficulty.tolist(), length=50)
    candidate = words(*(difficulty + 1).tolist(), length=50)
    result = compare(baseline, candidate)
    assert (result.difference, result.low, result.high) == pytest.approx((1 / 50, 1 / 50, 1 / 50))
    assert result.probability_of_improvement == 0
    assert score(baseline).high - score(baseline).low > 0.05


def test_a_system_is_as_good_as_itself():
    counts = words(*range(10), length=20)
    assert compare(counts, counts) == (9 / 40, 9 / 40, 0, 0, 0, 0.5)


def test_swapping_the_systems_mirrors_the_result():
    rng = np.random.default_rng(0)
    one, other = (words(*rng.integers(0, 3, 50).tolist(), length=4) for _ in range(2))
    there, back = compare(one, other), compare(other, one)
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there.probability_of_improvement == pytest.approx(1 - back.probability_of_improvement)


def test_equal_seeds_give_equal_results():
    one, other = words(*[0, 1] * 30), words(*[1, 0, 0] * 20)
    assert compare(one, other, seed=3) == compare(one, other, seed=3)
    assert compare(one, other, seed=3) != compare(one, other, seed=4)


def test_speakers_are_compared_like_utterances():
    # Over utterances the gain of 30 to 10 is sure; it is one speaker's, and the other two lose.
    utterances = [
        Utterance(f"{number}", "A", "A", speaker) for number, speaker in enumerate("x" * 30 + "y" * 5 + "z" * 5)
    ]
    baseline, candidate = words(*[1] * 30, *[0] * 10), words(*[0] * 30, *[1] * 10)
    over_utterances = compare(baseline, candidate)
    over_speakers = compare(*([*by_speaker(utterances, each).values()] for each in (baseline, candidate)))
    assert over_speakers.difference == over_utterances.difference
    assert over_utterances.probability_of_improvement > 0.99
    # Speaker x is in none of three draws with probability (2/3)^3; in one, 30 gains outweigh the losses of 10.
    assert over_speakers.probability_of_improvement == pytest.approx(1 - (2 / 3) ** 3, abs=0.02)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (words(0, 1), "3 with 3 words and 2 with 2"),
        ([*words(0, 1), Counts(0, 0, 0, 2)], "3 with 3 words and 3 with 4"),
    ],
)
def test_other_references_are_refused(candidate, message):
    with pytest.raises(ValueError, match=message):
        compare(words(0, 1, 0), candidate)


@pytest.mark.parametrize("counts", [[], [Counts(0, 0, 1, 0)]])
def test_references_without_text_are_refused(counts):
    with pytest.raises(ValueError, match="needs some text"):
        compare(counts, counts)


def test_utterances_are_paired_by_their_ids():
    baseline = [Utterance("a", "ONE", "ONE"), Utterance("b", "TWO", "TO")]
    candidate = [Utterance("b", "TWO ", "TWO"), Utterance("a", "ONE", "WON")]
    assert [each.hypothesis for each in paired(baseline, candidate)] == ["WON", "TWO"]


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ([Utterance("a", "ONE", "")], "1 utterances were recognised by one system only, such as 'b'"),
        (
            [Utterance("a", "ONE", ""), Utterance("b", "TOO", "")],
            "transcripts of utterance 'b' differ: 'TWO' and 'TOO'",
        ),
        (
            [Utterance("a", "ONE", ""), Utterance("b", "TWO", ""), Utterance("b", "TWO", "")],
            "'b' occurs more than once",
        ),
    ],
)
def test_utterances_without_their_counterpart_are_refused(candidate, message):
    with pytest.raises(ValueError, match=message):
        paired([Utterance("a", "ONE", ""), Utterance("b", "TWO", "")], candidate)
